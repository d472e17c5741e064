"""The endpoints: one thin file per resource, each with `routes(service)`; `ROUTERS` lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from router_ml.registry import Registry
from router_ml_serving.api.openapi import answers
from router_ml_serving.front import Endpoint
from router_ml_serving.service import Service

__all__ = ["ROUTERS", "RawRoute", "json_body", "raw_route"]

ROUTERS: Registry[Callable[[Service], list[APIRoute]]] = Registry(
    "endpoint",
    {
        "route": "router_ml_serving.api.route:routes",
        "chat": "router_ml_serving.api.chat:routes",
        "messages": "router_ml_serving.api.messages:routes",
        "responses": "router_ml_serving.api.responses:routes",
        "feedback": "router_ml_serving.api.feedback:routes",
        "models": "router_ml_serving.api.models:routes",
        "health": "router_ml_serving.api.health:routes",
        "admin": "router_ml_serving.api.admin:routes",
    },
    extra="serving",
)


class RawRoute(APIRoute):
    """A route that is in the OpenAPI document but costs no more than a call: no dependencies, no response model."""

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:  # FastAPI's many options
        super().__init__(path, endpoint, **options)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = app


def raw_route(
    method: str,
    path: str,
    endpoint: Endpoint,
    *,
    body: dict[str, Any] | None = None,
    responses: dict[int | str, dict[str, Any]] | None = None,
) -> RawRoute:
    """Return one route.

    Args:
        method: HTTP method.
        path: URL path.
        endpoint: What answers; its docstring is the description.
        body: JSON schema of the request body for the OpenAPI document, if it takes one.
        responses: What it answers, for the OpenAPI document (`openapi.answers`).
    """
    extra = {"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}} if body else None
    said = responses or answers()
    return RawRoute(path, endpoint, methods=[method], openapi_extra=extra, response_model=None, responses=said)


def json_body(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a body with these properties; further ones are welcome."""
    return {"type": "object", "required": required, "properties": properties}
