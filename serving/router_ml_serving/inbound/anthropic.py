"""Anthropic's Messages API as an inbound shape."""

from __future__ import annotations

import orjson

from router_ml_serving.inbound import Json, Turn
from router_ml_serving.inbound.anthropic_reply import error_object, message
from router_ml_serving.inbound.anthropic_request import chat_body, ignored
from router_ml_serving.inbound.anthropic_stream import AnthropicVoice
from router_ml_serving.inbound.chunks import named_event
from router_ml_serving.wire import Usage

__all__ = ["AnthropicShape"]


class AnthropicShape:
    """`POST /v1/messages`."""

    keep_alive = named_event({"type": "ping"})

    def chat_body(self, asked: Json) -> Json:
        """Return the chat body of a Messages request."""
        return chat_body(asked)

    def ignored(self, asked: Json) -> list[str]:
        """Return the fields of a request that were not looked at."""
        return ignored(asked)

    def reply(self, raw: bytes, completion: Json, turn: Turn, usage: Usage | None) -> bytes:
        """Return the message that a chat completion is."""
        return orjson.dumps(message(completion, turn, usage))

    def stream(self, turn: Turn) -> AnthropicVoice:
        """Return what says a stream as Anthropic's events."""
        return AnthropicVoice(turn)

    def error(self, raw: bytes, status: int, request_id: str) -> bytes:
        """Return Anthropic's error body."""
        error = orjson.loads(raw)["error"]
        return orjson.dumps({**error_object(error, status), "request_id": request_id})

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the request's name where Anthropic's clients look for it."""
        return {"request-id": request_id}
