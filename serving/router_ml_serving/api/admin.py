"""`POST /admin/reload` and `/admin/rollback`: for who holds the admin key."""

from __future__ import annotations

import asyncio
import logging

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from router_ml_serving.api import raw_route
from router_ml_serving.service import Service

__all__ = ["routes"]

log = logging.getLogger(__name__)


def routes(service: Service) -> list[APIRoute]:
    """Return the routes of this resource."""

    async def reload(request: Request) -> Response:
        """Load the champion again now; a bundle that cannot be used is refused and the one in service stays."""
        service.authorize_admin(request)
        changed = await asyncio.to_thread(service.holder.refresh, force=True)
        return _now_serving(service, changed=changed)

    async def rollback(request: Request) -> Response:
        """Make the version before the last promotion champion again, and serve it."""
        service.authorize_admin(request)
        version = await asyncio.to_thread(service.shelf.rollback, now=service.clock())
        log.warning("rolled_back", extra={"version": version})
        changed = await asyncio.to_thread(service.holder.refresh, force=True)
        return _now_serving(service, changed=changed)

    return [raw_route("POST", "/admin/reload", reload), raw_route("POST", "/admin/rollback", rollback)]


def _now_serving(service: Service, *, changed: bool) -> Response:
    facts = {"policy_version": service.holder.current.bundle.version, "changed": changed}
    return Response(orjson.dumps(facts), media_type="application/json")
