"""The way in below HTTP: who sends or reads too slowly, or asks for too much at once, holds no connection."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import orjson
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from router_ml_serving.descriptors import Room
from router_ml_serving.problems import error_body

__all__ = ["GuardedProtocol"]

# Headers of real clients have 1 to 2 KB; the parser itself knows no limit, and joining a header of 50 MB took it
# seconds during which nobody else was served.
_MAX_HEAD_BYTES = 64 * 1024
# ": " and the line's end, which the parser takes away.
_FIELD_BYTES = 4
# Requests on one connection that wait for their turn: 256 KB of small ones came in one packet.
_MAX_WAITING = 16
_LINES = {
    400: b"HTTP/1.1 400 Bad Request",
    408: b"HTTP/1.1 408 Request Timeout",
    431: b"HTTP/1.1 431 Request Header Fields Too Large",
    503: b"HTTP/1.1 503 Service Unavailable",
}
_LONG_HEAD = (431, f"the headers are longer than {_MAX_HEAD_BYTES} bytes", "headers_too_large")
_NO_HTTP = (400, "this is no valid HTTP/1.1 request", "invalid_http")
_CROWDED = (503, "the service has as many connections as it can hold; try again later", "too_many_connections")


class _Refused(Exception):
    """Stops the parser in the middle of a packet; what to say is on the connection."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with an end to what a client may take.

    Args:
        receive_s: How long a request may take from its first byte to its last, while nothing waits for the service.
        send_s: How long a client may read nothing of what there is for it.
        room: How many connections there may be; None: any number.
        options: What uvicorn gives every protocol.
    """

    def __init__(
        self, *, receive_s: float, send_s: float, room: Room | None = None, **options: Any
    ) -> None:  # uvicorn's
        super().__init__(**options)
        self._receive_s = receive_s
        self._send_s = send_s
        self._room = room
        self._arriving = False
        self._head_open = False
        self._head_may_be_long = False
        self._unused_bytes = 0
        self._refusal = _NO_HTTP
        self._running: RequestResponseCycle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0
        self._reading_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection; one on which nothing is ever said ends like one that is no longer used."""
        super().connection_made(transport)
        if self._room is not None and not self._room.has_place(len(self.connections)):
            self._refuse(*_CROWDED)
        else:
            self._end_when_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._disarm()
        self._forget_reading()
        self._unset_keepalive_if_required()
        # uvicorn tells the request that came last. With others behind it, the one that is being answered is another.
        if self._running is not None and self._running is not self.cycle and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a packet in; usually it is a whole request, and nothing is left to watch."""
        self._head_may_be_long = self._head_open or len(data) > _MAX_HEAD_BYTES
        # Taken back by whatever comes to its end in this packet: a head, a piece of a body.
        self._unused_bytes += len(data)
        super().data_received(data)
        if self._arriving:
            if self._unused_bytes > _MAX_HEAD_BYTES:
                self._refuse(*_LONG_HEAD)
            elif self._deadline is None:
                self._arm()
        elif self._deadline is not None:
            self._disarm()
        elif self.timeout_keep_alive_task is None and not self._is_answering():
            self._end_when_idle()  # empty lines between requests

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._arriving = self._head_open = True
        self._unused_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hand the head over; fields behind a chunked body come too late to count, so they go elsewhere."""
        if self._head_may_be_long:
            size = len(self.url) + sum(len(name) + len(value) + _FIELD_BYTES for name, value in self.headers)
            if size > _MAX_HEAD_BYTES:
                self._refusal = _LONG_HEAD
                raise _Refused
        self._unused_bytes = 0
        super().on_headers_complete()
        self._head_open = False
        self.headers = []
        if len(self.pipeline) > _MAX_WAITING:
            raise _Refused

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._unused_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._arriving = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser, or this class, did not take."""
        self._refuse(*self._refusal)

    def pause_writing(self) -> None:
        """Stop writing: the client has not read what it was sent."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """Write again."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._forget_reading()

    def on_response_complete(self) -> None:
        """End an answer."""
        if self._running is not None:
            cast("_InOnePiece", self._running.transport).flush()
            # The two would hold each other, and all of the request, until the garbage collector looked for them.
            self._running.transport = self.transport
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect_reading()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that is not used."""
        self._close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        cycle.transport = cast("asyncio.Transport", _InOnePiece(cycle, self.transport))
        super()._start_asgi_task(cycle, app)

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._is_answering_another():  # it is we who do not read on
            self._arm()
        else:
            message = f"the request did not arrive within {self._receive_s:g} s (serving.receive_s)"
            self._refuse(408, message, "request_timeout")

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_answering_another(self) -> bool:
        # A client may send its next request before it has the answer to this one.
        return bool(self.pipeline) or ((self._head_open or not self._arriving) and self._is_answering())

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self._receive_s, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end_when_idle(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _expect_reading(self) -> None:
        if self._reading_deadline is None:
            self._unsent_bytes = _unsent_bytes(self.transport)
            self._reading_deadline = self.loop.call_later(self._send_s, self._reads_nothing)

    def _forget_reading(self) -> None:
        if self._reading_deadline is not None:
            self._reading_deadline.cancel()
            self._reading_deadline = None

    def _reads_nothing(self) -> None:
        self._reading_deadline = None
        # Nothing is written meanwhile, so what is left only becomes less if somebody reads.
        if _unsent_bytes(self.transport) < self._unsent_bytes:
            self._expect_reading()
        else:
            self.transport.abort()

    def _close(self) -> None:
        # What is written already still goes out, to a client that reads.
        if not self.transport.is_closing():
            self.transport.close()
            self._expect_reading()

    def _refuse(self, status: int, message: str, code: str) -> None:
        self._disarm()
        if self.transport.is_closing():
            return
        begun = self.cycle is not None and self.cycle.response_started
        if self._is_answering_another() or (begun and not self._head_open):
            self._close()  # whatever is written now would be read as part of that answer
            return
        count: Callable[[str, int], None] | None = self.app_state.get("count")
        if count is not None:
            count("other", status)
        body = orjson.dumps(error_body(message, status=status, code=code))
        head = b"\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(_LINES[status] + head + body)
        self._close()


class _InOnePiece:
    """What an answer is written to: its head waits for the first piece of its body, so that both are one packet.

    A packet more costs the sender as much as a tenth of a routing decision, and the client a wake-up. The head of an
    answer without a body goes out when the answer is over.
    """

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, cycle: RequestResponseCycle, transport: asyncio.Transport) -> None:
        self._cycle = cycle
        self._transport = transport
        self._head: bytes | None = None  # b"" once it is out

    def write(self, data: bytes) -> None:
        if self._head is None:
            if self._cycle.response_started:
                self._head = data
                return
        elif self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def flush(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = b""


def _unsent_bytes(transport: asyncio.Transport) -> int:
    """Return what the client has not got yet: ours, and the megabytes that the system takes at once (on Linux)."""
    ours = transport.get_write_buffer_size()
    with suppress(OSError, AttributeError):
        number = transport.get_extra_info("socket").fileno()
        ours += int.from_bytes(fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return ours
