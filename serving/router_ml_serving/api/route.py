"""`POST /v1/route`: decide, and say why; no upstream call."""

from __future__ import annotations

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from router_ml.ladder import Ladder
from router_ml.schema import Decision
from router_ml_serving.api import json_body, raw_route
from router_ml_serving.service import Service, now_s
from router_ml_serving.wire import parse_json, read_chat

__all__ = ["BODY", "decision_json", "routes"]

PATH = "/v1/route"
BODY = json_body(
    ["messages"],
    model={"type": "string", "default": "auto"},
    messages={"type": "array", "minItems": 1, "items": {"type": "object"}},
    tools={"type": "array", "items": {"type": "object"}},
    response_format={"type": "object"},
    max_tokens={"type": "integer", "minimum": 0},
    router={"type": "object", "description": "tenant, feature, use_case, session_id, quality"},
    metadata={"type": "object"},
)


def routes(service: Service) -> list[APIRoute]:
    """Return the routes of this resource."""

    async def decide(request: Request) -> Response:
        """Decide which tier should answer a chat body, without calling it."""
        started_s = now_s()
        service.authorize(request)
        chat = read_chat(parse_json(await service.read_body(request)), request.scope["headers"])
        router = service.holder.current
        decision = service.decide(chat, router, pin=False)
        service.record(chat, decision, None, router, service.clock())
        overhead_s = now_s() - started_s
        service.telemetry.decision(decision, PATH, overhead_s)
        answer = decision_json(decision, router.ladder, overhead_ms=overhead_s * 1e3)
        return Response(orjson.dumps(answer), media_type="application/json")

    return [raw_route("POST", PATH, decide, body=BODY)]


def decision_json(decision: Decision, ladder: Ladder, *, overhead_ms: float) -> dict[str, object]:
    """Return a decision as clients see it; `models` are the upstream models to try, in this order."""
    first, then = decision.plan.first, decision.plan.escalate_to
    return {
        "decision_id": decision.decision_id,
        "tier": decision.tier,
        "model": decision.model,
        "models": [ladder.tier(name).model for name in (first, then) if name is not None],
        "plan": {"first": first, "escalate_to": then},
        "policy_version": decision.policy_version,
        "adequacy": decision.adequacy,
        "expected_cost_usd": decision.expected_cost_usd,
        "propensity": decision.propensity,
        "quality": decision.quality,
        "threshold": decision.threshold,
        "explored": decision.explored,
        "reason": decision.reason,
        "constraints_applied": decision.constraints_applied,
        "overhead_ms": round(overhead_ms, 3),
    }
