"""The way in: the busy paths go straight to their endpoint, everything else through FastAPI.

One walk through FastAPI's middleware, routing and dependency solving costs as much as a routing decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from router_ml_serving import problems
from router_ml_serving.whole_reply import written_whole

__all__ = ["Answer", "Endpoint", "Front", "JsonReply"]

_JSON = (b"content-type", b"application/json")


class Answer(Protocol):
    """What an endpoint returns: an ASGI application that sends itself; `status_code` is read when it has."""

    status_code: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send, /) -> None:
        """Send the answer."""
        ...


Endpoint = Callable[[Request], Awaitable[Answer]]


@dataclass(slots=True)
class JsonReply:
    """A JSON answer, encoded already; `headers` are raw ASGI pairs with lower-case names."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    status_code: int = 200

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send, /) -> None:
        """Send it; the request is a POST."""
        if written_whole(send, self.status_code, (_JSON, *self.headers), self.body):
            return
        length = (b"content-length", b"%d" % len(self.body))
        headers = [_JSON, length, *self.headers]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Front(FastAPI):
    """A FastAPI application with a short cut past itself for some paths.

    Args:
        shortcuts: Endpoints of POST requests by path; they are in the application's routes too, for its documentation.
        count: Told the path and the status of every request that took a short cut.
        options: FastAPI's own.
    """

    def __init__(
        self,
        *,
        shortcuts: Mapping[str, Endpoint],
        count: Callable[[str, int], None],
        **options: Any,  # FastAPI's many options
    ) -> None:
        super().__init__(**options)
        self._shortcuts = dict(shortcuts)
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        endpoint = self._shortcuts.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or scope["method"] != "POST":
            await super().__call__(scope, receive, send)
            return
        answer: Answer
        try:
            answer = await endpoint(Request(scope, receive, send))
        except Exception as error:  # noqa: BLE001  outermost: whatever it is, the client gets an answer
            answer = problems.answer_to(error, scope["path"])
        await answer(scope, receive, send)
        self._count(scope["path"], answer.status_code)
