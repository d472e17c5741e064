"""`POST /v1/chat/completions`: OpenAI's endpoint; the router picks the tier, judges the answer, and escalates."""

from __future__ import annotations

from fastapi.routing import APIRoute
from starlette.requests import Request

from router_ml_serving.api import json_body, raw_route
from router_ml_serving.api.answering import answer
from router_ml_serving.api.openapi import ERRORS, answers, object_with
from router_ml_serving.api.route import BODY
from router_ml_serving.front import Answer
from router_ml_serving.inbound.chat import ChatShape
from router_ml_serving.service import Service

__all__ = ["routes"]

PATH = "/v1/chat/completions"


def routes(service: Service) -> list[APIRoute]:
    """Return the routes of this resource."""
    shape = ChatShape()

    async def complete(request: Request) -> Answer:
        """Answer a chat body by the cheapest adequate tier, streamed or whole."""
        return await answer(service, request, shape)

    schema = {**BODY, "properties": {**BODY["properties"], **json_body([], stream={"type": "boolean"})["properties"]}}
    said = answers(*ERRORS, reply=object_with("choices", "router"), streamed=True)
    return [raw_route("POST", PATH, complete, body=schema, responses=said)]
