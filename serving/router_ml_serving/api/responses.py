"""`POST /v1/responses`: OpenAI's newer endpoint, without its state, answered by chat upstreams."""

from __future__ import annotations

from fastapi.routing import APIRoute
from starlette.requests import Request

from router_ml_serving.api import json_body, raw_route
from router_ml_serving.api.answering import answer
from router_ml_serving.api.openapi import ERRORS, answers, object_with
from router_ml_serving.front import Answer
from router_ml_serving.inbound import SHAPES
from router_ml_serving.service import Service

__all__ = ["routes"]


def routes(service: Service) -> list[APIRoute]:
    """Return the routes of this resource."""
    shape = SHAPES.load("responses")()

    async def create(request: Request) -> Answer:
        """Answer a request of OpenAI's Responses API by the cheapest adequate tier, streamed or whole."""
        return await answer(service, request, shape)

    body = json_body(
        ["input"],
        input={"type": ["string", "array"]},
        model={"type": "string", "default": "auto"},
        instructions={"type": "string"},
        tools={"type": "array", "items": {"type": "object"}},
        stream={"type": "boolean"},
    )
    said = answers(*ERRORS, reply=object_with("id", "object", "output", "router"), streamed=True)
    return [raw_route("POST", "/v1/responses", create, body=body, responses=said)]
