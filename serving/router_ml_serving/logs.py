"""Log lines of the service on standard error: time, level, event and fields, as text or JSON; never a prompt."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Any, Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router_ml.errors import RouterError

__all__ = ["FieldFormatter", "JsonFormatter", "LogRequests", "announce", "configure"]

log = logging.getLogger(__name__)

_MAX_PATH_CHARS = 200
_MAX_CAUSES = 10
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
# What an answer's headers tell of a request, and its name in the log.
_TOLD = {b"x-router-decision-id": "decision_id", b"x-router-tier": "tier", b"x-router-attempts": "attempts"}


class FieldFormatter(logging.Formatter):
    """Writes `time level event key=value …`; a record's `extra` fields are what follows the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and the stack below it if there is one."""
        fields = "".join(f" {key}={value!r}" for key, value in _fields(record).items())
        line = f"{_when(record)} {record.levelname.lower()} {_event(record)}{fields}"
        return f"{line}\n{_stack(record.exc_info[1])}" if record.exc_info and record.exc_info[1] else line


class JsonFormatter(logging.Formatter):
    """Writes one JSON object per line: `ts`, `level`, `event`, `logger`, the fields, and an exception's `stack`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        fixed = {"ts": _when(record), "level": record.levelname.lower(), "event": _event(record)}
        line: dict[str, Any] = {**fixed, "logger": record.name, **_fields(record), **fixed}
        if record.exc_info and record.exc_info[1]:
            line["stack"] = _stack(record.exc_info[1])
        return json.dumps(line, default=str)


def configure(level: str = "info", form: Literal["text", "json"] = "text") -> None:
    """Send the log of this process to standard error; the web server's own chatter stays out.

    Args:
        level: The lowest level that is written: `debug`, `info`, `warning` or `error`.
        form: How a line looks.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else FieldFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # A sentence for every request that is no HTTP: strangers would write our log. They are counted (guard.py).
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def announce(what: str) -> None:
    """Write a line that is to be seen at every level: plain as text, an event as JSON."""
    form = logging.root.handlers[0].formatter if logging.root.handlers else None
    record = logging.makeLogRecord({"msg": what, "levelname": "INFO", "name": __name__})
    sys.stderr.write(f"{form.format(record) if isinstance(form, JsonFormatter) else what}\n")
    sys.stderr.flush()


class LogRequests:
    """ASGI middleware: one line `request` for every HTTP request, when its answer has ended.

    It reads the answer's headers, so it knows the tier where a client is told one. It costs about a sixth of the rate.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and write its line."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_s = time.perf_counter()
        fields: dict[str, object] = {"method": scope["method"], "path": scope["path"][:_MAX_PATH_CHARS]}

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields["status"] = message["status"]
                told = {name: value.decode("latin-1") for name, value in message["headers"] if name in _TOLD}
                fields.update({_TOLD[name]: int(value) if value.isdecimal() else value for name, value in told.items()})
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            fields["ms"] = round((time.perf_counter() - started_s) * 1e3, 3)
            log.info("request", extra=fields)


def _when(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _event(record: logging.LogRecord) -> str:
    # Events are one line; where asyncio says more, it shows objects, and with them what they were working on.
    return record.getMessage().strip().partition("\n")[0]


def _stack(error: BaseException) -> str:
    """Return where an exception and its causes came from.

    Their messages are left out, for they may quote a prompt; but not those of the system, and of our own errors.
    """
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < _MAX_CAUSES:
        said = f": {cause}" if isinstance(cause, OSError | RouterError) else ""
        parts.append(f"{''.join(traceback.format_tb(cause.__traceback__))}{type(cause).__name__}{said}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\ncaused by:\n".join(parts)
