"""What nobody foresaw, in the middle of an answer: one clear error, no word of the prompt in the log, and a record."""

import asyncio
import json
import time

import pytest

from router_ml.ladder import Ladder, Tier
from router_ml.schema import Decision, Plan
from router_ml_serving.cascade import Limits
from router_ml_serving.exchange import Exchange
from router_ml_serving.logs import FieldFormatter
from router_ml_serving.streaming import StreamedReply
from router_ml_serving.wire import read_chat

SMALL = Tier(name="small", model="mini", input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
LARGE = Tier(name="large", model="maxi", input_usd_per_mtok=2.0, output_usd_per_mtok=2.0)
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


class Upstream:
    async def stream(self, tier, body):
        yield EVENT


class Router:
    def judge(self, request, answer, **_):
        message = f"no idea what to do with {request.messages}"
        raise ValueError(message)


@pytest.mark.parametrize("through", [False, True])
def test_a_judge_that_fails_is_a_clear_error_or_breaks_the_stream_off(caplog, through):
    chat = read_chat({"stream": True, "messages": [{"role": "user", "content": "my secret"}]})
    decision = Decision("d", "small", "mini", Plan("small"), "v", {}, {}, {"small": 1.0}, 1.0, 0.0, False, "asked for")
    recorded, sent = [], []
    limits = Limits(1, None, time.perf_counter)
    exchange = Exchange(
        chat, decision, Router(), Ladder.of([SMALL, LARGE]), Upstream(), limits, time.perf_counter(), recorded.append
    )

    async def send(message):
        sent.append(message)

    reply = StreamedReply(exchange, through=through, keepalive_s=1.0)
    asyncio.run(reply({"type": "http", "path": "/v1/chat/completions"}, asyncio.Event().wait, send))
    if through:  # it is judged when all of it has gone out
        assert not any(message.get("more_body") is False for message in sent)
    else:
        assert sent[0]["status"] == 500
        assert json.loads(sent[1]["body"])["error"]["code"] == "internal_error"
    assert [attempt.tier for attempt in recorded[0].attempts] == ["small"]
    said = "\n".join(map(FieldFormatter().format, caplog.records))
    assert "test_surprises.py" in said
    assert "secret" not in said
