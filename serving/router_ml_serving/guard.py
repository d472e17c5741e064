"""The way in below HTTP: requests that arrive too slowly, and headers without end, hold no connection."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from router_ml_serving.problems import error_body

__all__ = ["GuardedProtocol"]

# Beyond the first packet (256 KB at most). Headers of real clients have 1 to 2 KB; the parser itself knows no limit,
# and joining a header of 50 MB took it seconds during which nobody else was served.
_MAX_HEAD_BYTES = 64 * 1024
_LINES = {408: b"HTTP/1.1 408 Request Timeout", 431: b"HTTP/1.1 431 Request Header Fields Too Large"}


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with an end to what a client may take: time for a request to arrive, and room for its head.

    Args:
        receive_s: How long a request may take from its first byte to its last, while nothing waits for the service.
        options: What uvicorn gives every protocol.
    """

    def __init__(self, *, receive_s: float, **options: Any) -> None:  # uvicorn's own
        super().__init__(**options)
        self._receive_s = receive_s
        self._arriving = False
        self._head_open = False
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection; one on which nothing is ever said ends like one that is no longer used."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._disarm()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a packet in; usually it is a whole request, and nothing is left to watch."""
        if self._head_open:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._refuse(431, f"the headers are longer than {_MAX_HEAD_BYTES} bytes", "headers_too_large")
                return
        super().data_received(data)
        if self._arriving:
            if self._deadline is None:
                self._arm()
        elif self._deadline is not None:
            self._disarm()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._arriving = self._head_open = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hand the head over; fields behind a chunked body come too late to count, so they go elsewhere."""
        self._head_open = False
        super().on_headers_complete()
        self.headers = []

    def on_message_complete(self) -> None:
        """End a request."""
        self._arriving = False
        super().on_message_complete()

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._is_answering_another():  # it is we who do not read on
            self._arm()
        else:
            message = f"the request did not arrive within {self._receive_s:g} s (serving.receive_s)"
            self._refuse(408, message, "request_timeout")

    def _is_answering_another(self) -> bool:
        # A client may send its next request before it has the answer to this one.
        unfinished = self.cycle is not None and not self.cycle.response_complete
        return bool(self.pipeline) or (self._head_open and unfinished)

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self._receive_s, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: int, message: str, code: str) -> None:
        self._disarm()
        begun = self.cycle is not None and self.cycle.response_started
        if self._is_answering_another() or (begun and not self._head_open):
            self.transport.close()  # whatever is written now would be read as part of that answer
            return
        body = orjson.dumps(error_body(message, status=status, code=code))
        head = b"\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(_LINES[status] + head + body)
        self.transport.close()
