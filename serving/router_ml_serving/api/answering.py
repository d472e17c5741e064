"""What the chat endpoints share: read a request in the client's API, route it, answer in the same API."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request

from router_ml.errors import RouterError
from router_ml_serving.cascade import AttemptResult
from router_ml_serving.delivery import delivery_of
from router_ml_serving.disconnect import ClientGone, unless_gone
from router_ml_serving.exchange import Exchange
from router_ml_serving.exchanges import begin
from router_ml_serving.front import Answer, JsonReply
from router_ml_serving.inbound import Json, Shape
from router_ml_serving.problems import CLIENT_CLOSED_REQUEST
from router_ml_serving.service import Service, now_s
from router_ml_serving.streaming import StreamedReply, refusal, router_headers, turn_of, usage_on_bill
from router_ml_serving.upstream import Reply
from router_ml_serving.wire import parse_json, read_chat

__all__ = ["answer"]

# How many bytes of JSON a token of the prompt takes, for the tokens that are set aside.
_BYTES_PER_TOKEN = 4


async def answer(service: Service, request: Request, shape: Shape) -> Answer:
    """Answer one request by the cheapest adequate tier, streamed or whole, in the client's API.

    Args:
        service: What decides and calls.
        request: The request, its body not read yet.
        shape: The client's API.
    """
    started_s = now_s()
    headers, path = request.scope["headers"], request.scope["path"]
    try:
        caller = service.authorize(request)
        raw = await service.read_body(request)
        asked = parse_json(raw)
        chat = read_chat(shape.chat_body(asked), headers, tenant=caller.tenant)
        admitted = service.admit([chat], caller, tokens=len(raw) / _BYTES_PER_TOKEN)[0]
        exchange = begin(service, admitted, path=path, headers=headers, started_s=started_s)
    except RouterError as error:
        service.refused(error, path, headers)
        return refusal(error, None, shape)
    except ClientGone:
        return JsonReply(b"", status_code=CLIENT_CLOSED_REQUEST)
    standing = service.limits.headers(admitted.caller)
    if chat.stream:
        return StreamedReply(
            exchange,
            through=delivery_of(exchange.decision, chat, service.settings.stream_adequacy) == "through",
            keepalive_s=service.settings.keepalive_s,
            shape=shape,
            asked=asked,
            headers=standing,
        )
    try:
        return _reply(exchange, await unless_gone(request.receive, exchange.whole()), shape, asked, standing)
    except ClientGone:
        return JsonReply(b"", status_code=CLIENT_CLOSED_REQUEST)
    finally:
        exchange.close()


def _reply(exchange: Exchange, result: AttemptResult, shape: Shape, asked: Json, standing: Mapping[str, str]) -> Answer:
    if result.error is not None:
        return refusal(result.error, exchange, shape)
    reply = result.reply
    assert isinstance(reply, Reply)  # noqa: S101  what Exchange.whole returns with an answer
    turn = turn_of(exchange, result.attempt, shape, asked)
    body = shape.reply(reply.body, reply.parsed, turn, usage_on_bill(result.attempt))
    own = shape.headers(f"req_{exchange.decision.decision_id}")
    headers = {**reply.headers, **standing, **own, **router_headers(turn.facts)}
    raw = tuple((name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items())
    return JsonReply(body, raw)
