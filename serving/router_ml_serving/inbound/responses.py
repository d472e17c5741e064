"""OpenAI's Responses API as an inbound shape."""

from __future__ import annotations

import orjson

from router_ml_serving.inbound import Json, Turn
from router_ml_serving.inbound.responses_reply import response
from router_ml_serving.inbound.responses_request import chat_body, ignored
from router_ml_serving.inbound.responses_stream import ResponsesVoice
from router_ml_serving.sse import KEEP_ALIVE
from router_ml_serving.wire import Usage

__all__ = ["ResponsesShape"]


class ResponsesShape:
    """`POST /v1/responses`, without state: nothing is stored, and nothing can be continued by its id."""

    keep_alive = KEEP_ALIVE

    def chat_body(self, asked: Json) -> Json:
        """Return the chat body of a Responses request."""
        return chat_body(asked)

    def ignored(self, asked: Json) -> list[str]:
        """Return the fields of a request that were not looked at."""
        return ignored(asked)

    def reply(self, raw: bytes, completion: Json, turn: Turn, usage: Usage | None) -> bytes:
        """Return the response that a chat completion is."""
        return orjson.dumps(response(completion, turn, usage))

    def stream(self, turn: Turn) -> ResponsesVoice:
        """Return what says a stream as events of the Responses API."""
        return ResponsesVoice(turn)

    def error(self, raw: bytes, status: int, request_id: str) -> bytes:
        """Return the error as it is: the body is OpenAI's here too."""
        return raw

    def headers(self, request_id: str) -> dict[str, str]:
        """Return nothing: an upstream's own `x-request-id` is handed on."""
        return {}
