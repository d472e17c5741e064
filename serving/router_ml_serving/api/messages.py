"""`POST /v1/messages`: Anthropic's endpoint, answered by chat upstreams; and its `count_tokens`."""

from __future__ import annotations

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request

from router_ml.errors import RouterError
from router_ml.features.view import estimate_input_tokens, view_of
from router_ml_serving.api import json_body, raw_route
from router_ml_serving.api.answering import answer
from router_ml_serving.api.openapi import ANTHROPIC_ERROR, ERRORS, answers, object_with
from router_ml_serving.front import Answer, JsonReply
from router_ml_serving.inbound import SHAPES, Json
from router_ml_serving.service import Service
from router_ml_serving.streaming import refusal
from router_ml_serving.wire import parse_json, read_chat

__all__ = ["routes"]

_BLOCKS: Json = {"type": "array", "items": object_with("type", type={"type": "string"})}
_MESSAGE = object_with(
    "role", "content", role={"enum": ["user", "assistant", "system"]}, content={"anyOf": [{"type": "string"}, _BLOCKS]}
)
_COUNTED: dict[str, Json] = {
    "messages": {"type": "array", "minItems": 1, "items": _MESSAGE},
    "model": {"type": "string", "default": "auto"},
    "system": {"type": ["string", "array"]},
    "tools": {"type": "array", "items": {"type": "object"}},
}


def routes(service: Service) -> list[APIRoute]:
    """Return the routes of this resource."""
    shape = SHAPES.load("messages")()

    async def create(request: Request) -> Answer:
        """Answer a request of Anthropic's Messages API by the cheapest adequate tier, streamed or whole."""
        return await answer(service, request, shape)

    async def count_tokens(request: Request) -> Answer:
        """Estimate the tokens of a request from its characters, without asking anybody."""
        try:
            service.authorize(request)
            asked = parse_json(await service.read_body(request))
            chat = read_chat(shape.chat_body(asked), request.scope["headers"])
        except RouterError as error:
            return refusal(error, None, shape)
        tokens = round(estimate_input_tokens(view_of(chat.request)))
        return JsonReply(orjson.dumps({"input_tokens": tokens, "router": {"estimated": True}}))

    options: dict[str, Json] = {"max_tokens": {"type": "integer"}, "stream": {"type": "boolean"}}
    body, counted = json_body(["messages"], **_COUNTED, **options), json_body(["messages"], **_COUNTED)
    said = answers(*ERRORS, reply=object_with("id", "type", "content", "router"), streamed=True, error=ANTHROPIC_ERROR)
    count = answers(400, 401, 413, 500, reply=object_with("input_tokens", "router"), error=ANTHROPIC_ERROR)
    return [
        raw_route("POST", "/v1/messages", create, body=body, responses=said),
        raw_route("POST", "/v1/messages/count_tokens", count_tokens, body=counted, responses=count),
    ]
