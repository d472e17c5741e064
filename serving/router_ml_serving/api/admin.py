"""`/admin`: reload, roll back, set the canary's share, and see how the roll-out goes; for who holds the admin key."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Annotated, Any

import orjson
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from router_ml.errors import RequestError
from router_ml.pointers import LARGEST_SHARE
from router_ml_serving.api import raw_route
from router_ml_serving.api.openapi import answers, object_with
from router_ml_serving.service import Service
from router_ml_serving.wire import parse_json

__all__ = ["routes"]

log = logging.getLogger(__name__)

# The record grows by a line per switch; who wants all of it has `router-ml models --history`.
_SHOWN = 100


class _Canary(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    share: Annotated[float, Field(ge=0.0, le=LARGEST_SHARE)]
    reason: Annotated[str, Field(min_length=1, max_length=500)] = "POST /admin/canary"


def routes(service: Service) -> list[APIRoute]:
    """Return the routes of this resource."""

    async def reload(request: Request) -> Response:
        """Load the champion again now; a bundle that cannot be used is refused and the one in service stays."""
        service.authorize_admin(request)
        return _now_serving(service, changed=await service.rollout.refresh(force=True))

    async def rollback(request: Request) -> Response:
        """Make the version before the last promotion champion again, and serve it."""
        service.authorize_admin(request)
        version = await asyncio.to_thread(service.shelf.rollback, now=service.clock(), reason="POST /admin/rollback")
        log.warning("rolled_back", extra={"version": version})
        return _now_serving(service, changed=await service.rollout.refresh(force=True))

    async def canary(request: Request) -> Response:
        """Set the challenger's share of the requests, for all workers and for after a restart; 0 ends the canary."""
        service.authorize_admin(request)
        body = _read(await service.read_body(request))
        challenger = await asyncio.to_thread(service.shelf.canary, body.share, reason=body.reason, now=service.clock())
        log.warning("canary_changed", extra={"version": challenger.version, "share": body.share})
        await service.rollout.refresh()
        return _json(service.rollout.state())

    async def state(request: Request) -> Response:
        """Return who is in service, and counts and e-values of both, as this worker process sees them."""
        service.authorize_admin(request)
        return _json({"pid": os.getpid(), **service.rollout.state()})

    async def switches(request: Request) -> Response:
        """Return the last switches, oldest first."""
        service.authorize_admin(request)
        found = await asyncio.to_thread(service.shelf.switches)
        return _json({"switches": [switch.to_dict() for switch in found[-_SHOWN:]]})

    shown = answers(401, 403, reply=object_with("champion"))
    changed = answers(400, 401, 403, 413, 503, reply=object_with("champion"))
    serving = answers(400, 401, 403, 503, reply=object_with("policy_version", "changed"))
    return [
        raw_route("POST", "/admin/reload", reload, responses=serving),
        raw_route("POST", "/admin/rollback", rollback, responses=serving),
        raw_route("POST", "/admin/canary", canary, body=_Canary.model_json_schema(), responses=changed),
        raw_route("GET", "/admin/rollout", state, responses=shown),
        raw_route("GET", "/admin/switches", switches, responses=answers(401, 403, 503, reply=object_with("switches"))),
    ]


def _read(raw: bytes) -> _Canary:
    try:
        return _Canary.model_validate(parse_json(raw))
    except ValidationError as error:
        found = error.errors()
    where = ".".join(str(part) for part in found[0]["loc"]) or None
    raise RequestError(f"{where or 'body'}: {found[0]['msg']}", param=where)


def _now_serving(service: Service, *, changed: bool) -> Response:
    return _json({"policy_version": service.holder.current.bundle.version, "changed": changed})


def _json(value: dict[str, Any]) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
