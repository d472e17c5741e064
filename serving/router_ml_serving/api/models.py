"""`GET /v1/models`: every name that `model` may have."""

from __future__ import annotations

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from router_ml_serving.api import raw_route
from router_ml_serving.api.openapi import answers, object_with
from router_ml_serving.service import Service
from router_ml_serving.wire import ROUTER_MODELS

__all__ = ["routes"]


def routes(service: Service) -> list[APIRoute]:
    """Return the routes of this resource."""

    async def models(request: Request) -> Response:
        """List the routers, the tiers and their upstream models; `router-<quality>` exists for every share too."""
        caller = service.authorize(request)
        ladder = service.holder.current.ladder
        allowed = service.limits.allowed(caller, ladder.names)
        tiers = [tier for tier in ladder if allowed is None or tier.name in allowed]
        names = dict.fromkeys((*ROUTER_MODELS, *(tier.name for tier in tiers), *(tier.model for tier in tiers)))
        created = int(service.started.timestamp())
        data = [{"id": name, "object": "model", "created": created, "owned_by": "router-ml"} for name in names]
        return Response(orjson.dumps({"object": "list", "data": data}), media_type="application/json")

    return [raw_route("GET", "/v1/models", models, responses=answers(401, 403, reply=object_with("object", "data")))]
