"""`POST /v1/route`: decide, and say why; no upstream call."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request

from router_ml.errors import RequestError, RouterError
from router_ml.ladder import Ladder
from router_ml.schema import Decision
from router_ml_serving.api import json_body, raw_route
from router_ml_serving.api.openapi import answers, object_with
from router_ml_serving.auth import Caller
from router_ml_serving.front import JsonReply
from router_ml_serving.problems import ModelNotFound
from router_ml_serving.service import Admitted, Decided, Service, now_s
from router_ml_serving.wire import Chat, Target, parse_json, read_chat, resolve

__all__ = ["BODY", "decision_json", "routes"]

Headers = list[tuple[bytes, bytes]]
Asked = tuple[Admitted, Target]
PATH = "/v1/route"
_MAX_BATCH = 256
# Decisions of a batch between two looks at other requests: about a millisecond.
_UNINTERRUPTED = 8
_PARTS = {"type": "array", "items": {"type": "object"}}
_MESSAGE = object_with("role", role={"type": "string"}, content={"anyOf": [{"type": ["string", "null"]}, _PARTS]})
BODY = json_body(
    ["messages"],
    model={"type": "string", "default": "auto", "examples": ["auto", "router-0.95"]},
    messages={"type": "array", "minItems": 1, "items": _MESSAGE},
    tools={"type": "array", "items": {"type": "object"}},
    response_format={"type": "object"},
    max_tokens={"type": "integer", "minimum": 0},
    router={"type": "object", "description": "tenant, feature, use_case, session_id, quality"},
    metadata={"type": "object"},
)
_BODY_OR_BATCH: dict[str, Any] = {
    "anyOf": [
        BODY,
        json_body(["requests"], requests={"type": "array", "minItems": 1, "maxItems": _MAX_BATCH, "items": BODY}),
    ]
}
_DECISION = object_with("decision_id", "tier", "model", "models", "plan", "policy_version", "propensity", "reason")
_ANSWERS = answers(
    *(400, 401, 403, 404, 413, 429),
    reply={"anyOf": [_DECISION, object_with("decisions", decisions={"type": "array", "items": _DECISION})]},
)


def routes(service: Service) -> list[APIRoute]:
    """Return the routes of this resource."""

    async def decide(request: Request) -> JsonReply:
        """Decide which tier should answer a chat body, or each of several (`requests`), without calling any."""
        started_s = now_s()
        headers = request.scope["headers"]
        try:
            caller = service.authorize(request)
            body = parse_json(await service.read_body(request))
            batch = "requests" in body
            asked = (_let_in_all if batch else _let_in)(service, body, headers, caller)
        except RouterError as error:
            service.refused(error, PATH, headers)
            raise
        standing = _standing(service, asked[0][0].caller)
        if not batch:
            admitted, target = asked[0]
            waited_s = await _others_too()
            decided = _decided(service, admitted, target)
            waited_s += await _others_too()
            told = _told(service, admitted, decided, headers, started_s + waited_s)
            await _others_too()
            return JsonReply(orjson.dumps(told), standing)
        decisions = []
        for i, (one, target) in enumerate(asked):
            if i % _UNINTERRUPTED == 0:  # other requests come in between
                await asyncio.sleep(0)
            started_s = now_s()
            decisions.append(_told(service, one, _decided(service, one, target), headers, started_s))
        return JsonReply(orjson.dumps({"decisions": decisions}), standing)

    return [raw_route("POST", PATH, decide, body=_BODY_OR_BATCH, responses=_ANSWERS)]


async def _others_too() -> float:
    """Let all requests that are ready come this far, and return how long that took, in seconds.

    While its code is in the processor's caches, the same step for the next request takes half the time.
    """
    paused_s = now_s()
    await asyncio.sleep(0)
    return now_s() - paused_s


def _decided(service: Service, admitted: Admitted, target: Target) -> Decided:
    decided = service.decide(admitted, target=target)
    # At once: the next decision may be made before this one is recorded.
    service.limits.note(admitted.caller, (decided.decision.tier,), decided.router.ladder.names)
    return decided


def _told(
    service: Service, admitted: Admitted, decided: Decided, headers: Headers, started_s: float
) -> dict[str, object]:
    chat = admitted.chat
    decision, ladder = decided.decision, decided.router.ladder
    service.record(chat, decided, [])
    service.recall.decided(chat.request, decision, decided.input_tokens)
    overhead_s = now_s() - started_s
    service.telemetry.decision(decision, PATH, overhead_s)
    if service.tracing is not None:
        service.tracing.route(PATH, headers, chat, decision, started_s)
    return decision_json(decision, ladder, overhead_ms=overhead_s * 1e3)


def _let_in(service: Service, body: dict[str, Any], headers: Headers, caller: Caller) -> list[Asked]:
    chat = read_chat(body, headers, tenant=caller.tenant)
    target = resolve(chat.model, service.holder.current.ladder)
    return [(service.admit([chat], caller)[0], target)]


def _let_in_all(service: Service, body: dict[str, Any], headers: Headers, caller: Caller) -> list[Asked]:
    # All of them are read before the first one is decided: a batch is recorded as a whole or not at all.
    requests = body["requests"]
    if not isinstance(requests, list) or not 1 <= len(requests) <= _MAX_BATCH:
        raise RequestError(f"requests must be a list of 1 to {_MAX_BATCH} chat bodies", param="requests")
    chats = [_read(one, headers, caller, f"requests[{i}]") for i, one in enumerate(requests)]
    # Before anything is counted, too.
    ladder = service.holder.current.ladder
    targets = [_target(chat.model, ladder, f"requests[{i}]") for i, chat in enumerate(chats)]
    return list(zip(service.admit(chats, caller), targets, strict=True))


def _read(one: object, headers: Headers, caller: Caller, where: str) -> Chat:
    if not isinstance(one, dict):
        raise RequestError(f"{where} must be an object, a chat body", param=where)
    try:
        return read_chat(one, headers, tenant=caller.tenant)
    except RequestError as error:
        param = f"{where}.{error.param}" if error.param else where
        raise RequestError(f"{where}: {error}", param=param) from error


def _target(model: str, ladder: Ladder, where: str) -> Target:
    try:
        return resolve(model, ladder)
    except ModelNotFound as error:
        raise ModelNotFound(f"{where}: {error}", param=f"{where}.{error.param}") from error


def _standing(service: Service, caller: Caller) -> tuple[tuple[bytes, bytes], ...]:
    said = service.limits.headers(caller)
    return tuple([(name.encode(), value.encode()) for name, value in said.items()]) if said else ()


def decision_json(decision: Decision, ladder: Ladder, *, overhead_ms: float) -> dict[str, object]:
    """Return a decision as clients see it; `models` are the upstream models to try, in this order."""
    first, then = decision.plan.first, decision.plan.escalate_to
    return {
        "decision_id": decision.decision_id,
        "tier": decision.tier,
        "model": decision.model,
        "models": [ladder.tier(name).model for name in (first, then) if name is not None],
        "plan": {"first": first, "escalate_to": then, "judged": decision.judged},
        "policy_version": decision.policy_version,
        "adequacy": decision.adequacy,
        "expected_cost_usd": decision.expected_cost_usd,
        "utility": decision.utility,
        "propensity": decision.propensity,
        "quality": decision.quality,
        "threshold": decision.threshold,
        "explored": decision.explored,
        "reason": decision.reason,
        "constraints_applied": decision.constraints_applied,
        "overhead_ms": round(overhead_ms, 3),
    }
