"""Answers that are whole already, written to the connection at once.

uvicorn takes an answer as two messages, looks at every header with two patterns, and writes head and body apart. For an
answer of a kilobyte that takes as long as reading the request does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

__all__ = ["written_whole"]

# What would end a header, or is none; uvicorn refuses the same.
_NO_VALUE = bytes({*range(0x20), 0x7F} - {ord("\t")})
_END = b"\r\n"
_SEND = RequestResponseCycle.send


def written_whole(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
    """Write an answer to a POST request, if this is a connection of uvicorn that takes it now.

    Args:
        send: What the server gave to the application.
        status: HTTP status.
        headers: Raw pairs with lower-case names, without the length.
        body: All of it.

    Returns:
        Whether that is done; where something stands between the application and the server, or the client does not
        read, nothing is, and the answer goes the usual way.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or getattr(send, "__func__", None) is not _SEND:
        return False
    if cycle.response_started or cycle.disconnected or cycle.flow.write_paused:
        return False
    if cycle.access_log and cycle.access_logger.isEnabledFor(logging.INFO):
        return False
    lines = [name + b": " + value + _END for name, value in (*cycle.default_headers, *headers)]
    if not cycle.keep_alive:
        lines.append(b"connection: close" + _END)
    head = b"".join(lines)
    # Nothing of the kind is in it but the ends of the lines.
    if len(head) - len(head.translate(None, _NO_VALUE)) != len(_END) * len(lines) or status not in STATUS_LINE:
        return False
    # In the order in which uvicorn does it.
    cycle.response_started = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"%scontent-length: %d\r\n%s\r\n%s" % (STATUS_LINE[status], len(body), head, body))
    cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
