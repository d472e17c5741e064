"""`POST /v1/chat/completions`: OpenAI's endpoint; the router picks the tier, judges the answer, and escalates."""

from __future__ import annotations

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from router_ml.schema import Decision
from router_ml_serving.api import json_body, raw_route
from router_ml_serving.api.route import BODY
from router_ml_serving.cascade import AttemptResult
from router_ml_serving.exchange import Exchange
from router_ml_serving.problems import reply_to
from router_ml_serving.service import Service, now_s
from router_ml_serving.streaming import ClientGone, StreamedReply, router_headers, unless_gone
from router_ml_serving.upstream import Reply
from router_ml_serving.wire import parse_json, read_chat, with_facts

__all__ = ["may_pass_through", "routes"]

# What nginx logs for a client that hung up; nobody receives it.
_CLIENT_CLOSED_REQUEST = 499


def routes(service: Service) -> list[APIRoute]:
    """Return the routes of this resource."""

    async def complete(request: Request) -> Response:
        """Answer a chat body by the cheapest adequate tier, streamed or whole."""
        started_s = now_s()
        service.authorize(request)
        chat = read_chat(parse_json(await service.read_body(request)), request.scope["headers"])
        exchange = service.begin(chat, started_s)
        if chat.stream:
            through = may_pass_through(exchange.decision, service.settings.stream_adequacy)
            return StreamedReply(exchange, through=through, keepalive_s=service.settings.keepalive_s)
        try:
            return _reply(exchange, await unless_gone(request.receive, exchange.whole()))
        except ClientGone:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
        finally:
            exchange.close()

    schema = {**BODY, "properties": {**BODY["properties"], **json_body([], stream={"type": "boolean"})["properties"]}}
    return [raw_route("POST", "/v1/chat/completions", complete, body=schema)]


def may_pass_through(decision: Decision, threshold: float) -> bool:
    """Say whether a stream may go to the client unjudged.

    Holding an answer back is worth its time only when there is somewhere to escalate to, and a need to. A plan that
    judges the answer was tuned and certified with that judgement, however sure the router is beforehand.

    Args:
        decision: The decision that the stream follows from.
        threshold: Adequacy from which on an answer that is no part of a judged plan may pass.
    """
    if decision.plan.escalate_to is None:
        return True
    return not decision.judged and decision.adequacy[decision.tier] >= threshold


def _reply(exchange: Exchange, result: AttemptResult) -> Response:
    if result.error is not None:
        return reply_to(result.error, router_headers(exchange.facts()))
    reply = result.reply
    assert isinstance(reply, Reply)  # noqa: S101  what Exchange.whole returns with an answer
    facts = exchange.facts(result.attempt)
    body = with_facts(reply.body, facts)
    return Response(body, headers={**reply.headers, **router_headers(facts)}, media_type="application/json")
