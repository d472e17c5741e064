"""How the service is: `/healthz`, `/readyz`, `/metrics`, `/v1/policy` and `/v1/stats`."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import orjson
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from router_ml.router import Router
from router_ml_serving.api import raw_route
from router_ml_serving.api.openapi import answers, object_with
from router_ml_serving.locality import is_loopback
from router_ml_serving.problems import NoPermission
from router_ml_serving.service import Service

__all__ = ["routes"]


def routes(service: Service) -> list[APIRoute]:
    """Return the routes of this resource."""

    async def healthz(_: Request) -> Response:
        """Say that the process is alive."""
        return _json({"status": "ok"})

    async def readyz(_: Request) -> Response:
        """Say whether requests are welcome, and which policy would decide them."""
        facts = {"ready": service.ready, "policy_version": service.holder.current.bundle.version}
        return _json(facts, 200 if service.ready else 503)

    open_metrics = service.settings.open_metrics or is_loopback(service.settings.host)

    async def metrics(request: Request) -> Response:
        """Return the counters in Prometheus' text format; any key opens it where it is not open anyway."""
        if not (open_metrics or service.authorizer.is_admin(request.scope["headers"])):
            service.authorize(request)
        return Response(service.telemetry.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def policy(request: Request) -> Response:
        """Describe the policy in service: its bundle, its knobs, and those of its tiers that the caller may use."""
        caller = service.authorize(request)
        router = service.holder.current
        return _json(_policy(router, service.limits.allowed(caller, router.ladder.names)))

    async def stats(request: Request) -> Response:
        """Return the counters since the start as JSON; they are those of all tenants, so no tenant sees them."""
        if not service.authorizer.is_admin(request.scope["headers"]) and service.authorize(request).tenant is not None:
            raise NoPermission("these counters are of all tenants; ask with the admin key, or a key without a tenant")
        uptime_s = (service.clock() - service.started).total_seconds()
        version = service.holder.current.bundle.version
        return _json({"uptime_s": uptime_s, "policy_version": version, **service.telemetry.stats()})

    ready = answers(reply=object_with("ready", "policy_version"))
    ready[503] = {**ready[200], "description": "Not yet, or no longer"}
    return [
        raw_route("GET", "/healthz", healthz, responses=answers(reply=object_with("status"))),
        raw_route("GET", "/readyz", readyz, responses=ready),
        raw_route("GET", "/metrics", metrics, responses=answers(401, 403, kind="text/plain")),
        raw_route("GET", "/v1/policy", policy, responses=answers(401, 403, reply=object_with("version", "tiers"))),
        raw_route(
            "GET", "/v1/stats", stats, responses=answers(401, 403, reply=object_with("uptime_s", "policy_version"))
        ),
    ]


def _policy(router: Router, allowed: Container[str] | None) -> dict[str, Any]:
    manifest = router.bundle.manifest.model_dump(mode="json")
    shown = ("version", "created", "learner", "simulated", "trained_on", "metrics", "certificate")
    seen = [tier for tier in router.ladder if allowed is None or tier.name in allowed]
    tiers = [tier.model_dump(mode="json", exclude={"api_key_env", "base_url"}) for tier in seen]
    names = {tier.name for tier in seen}
    safe, best = (name if name in names else None for name in (router.knobs.safe_tier, router.knobs.best_tier))
    return {
        **{name: manifest[name] for name in shown},
        "tiers": tiers,
        "quality": router.knobs.quality,
        "threshold": router.knobs.shadow_price,
        "explore_up": router.knobs.explore_up,
        "max_attempts": router.knobs.max_attempts,
        "safe_tier": safe,
        "best_tier": best,
    }


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), status, media_type="application/json")
