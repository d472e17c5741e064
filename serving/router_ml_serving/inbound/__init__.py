"""The APIs that clients speak, each translated to and from chat completions; nothing else in the service knows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from router_ml.registry import Registry
from router_ml_serving.wire import Usage

__all__ = ["SHAPES", "Json", "Shape", "StreamVoice", "Turn"]

# Values of the wire are untyped JSON.
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """What an answer refers to: the body as the client sent it, and what it is told under `router`."""

    asked: Json
    facts: Json


class StreamVoice(Protocol):
    """Says one streamed answer in the client's API, as it arrives."""

    def feed(self, piece: bytes) -> bytes:
        """Take more bytes of the upstream's stream, cut anywhere, and return what can be said by now."""
        ...

    def end(self, error: Json | None, usage: Usage | None) -> bytes:
        """Return the last words.

        Args:
            error: OpenAI's error object when the answer broke off, else None.
            usage: Tokens on the bill, for when the upstream did not say.
        """
        ...


class Shape(Protocol):
    """One API: requests become chat bodies, chat completions become its answers. Without state."""

    keep_alive: bytes

    def chat_body(self, asked: Json) -> Json:
        """Return the chat body of a request.

        Raises:
            RequestError: When something in it cannot be said to a chat upstream.
        """
        ...

    def ignored(self, asked: Json) -> list[str]:
        """Return the fields of a request that have no meaning here; the client is told."""
        ...

    def reply(self, raw: bytes, completion: Json, turn: Turn, usage: Usage | None) -> bytes:
        """Return the answer to a request that was not streamed.

        Args:
            raw: The chat completion as it came.
            completion: The same, parsed.
            turn: What it answers.
            usage: Tokens on the bill, for when the upstream did not say.
        """
        ...

    def stream(self, turn: Turn) -> StreamVoice:
        """Return what says a streamed answer."""
        ...

    def error(self, raw: bytes, status: int, request_id: str) -> bytes:
        """Return the body of an error.

        Args:
            raw: OpenAI's error body.
            status: The HTTP status.
            request_id: Name of the request, for support.
        """
        ...

    def headers(self, request_id: str) -> dict[str, str]:
        """Return response headers that clients of this API look for."""
        ...


SHAPES: Registry[Callable[[], Shape]] = Registry(
    "shape",
    {
        "chat": "router_ml_serving.inbound.chat:ChatShape",
        "messages": "router_ml_serving.inbound.anthropic:AnthropicShape",
        "responses": "router_ml_serving.inbound.responses:ResponsesShape",
    },
    extra="serving",
)
