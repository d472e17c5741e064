"""Streamed answers through real processes: passed through, held and judged, broken off, given up."""

import asyncio
import http.client
import json
import time
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import openai
import pytest

from router_ml.ladder import Ladder, Tier
from router_ml.schema import Decision, Plan, Verdict
from router_ml_serving.cascade import Limits
from router_ml_serving.exchange import Exchange
from router_ml_serving.streaming import StreamedReply
from router_ml_serving.upstream import Reply
from router_ml_serving.wire import read_chat


@pytest.fixture(scope="module")
def through(start_service):
    return start_service(stream_adequacy=0.5)


@pytest.fixture(scope="module")
def held(service):
    return service


@pytest.fixture(params=["through", "held"])
def either(request):
    return request.getfixturevalue(request.param)


def stream(service, prompt, model="auto", **fields):
    return service.client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], stream=True, **fields
    )


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@contextmanager
def raw_stream(service, prompt, **fields):
    body = json.dumps({"model": "auto", "stream": True, "messages": [{"role": "user", "content": prompt}], **fields})
    with closing(http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=20)) as connection:
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        yield connection.getresponse()


def events(raw):
    return [line.removeprefix(b"data: ") for line in raw.split(b"\n") if line.startswith(b"data: ")]


def test_a_stream_arrives_whole_with_the_facts_in_the_first_chunk(either):
    chunks = list(stream(either, "Hello"))
    assert text_of(chunks) == "The answer of mini is 42."
    assert chunks[0].router["tier"] == "small"
    assert chunks[0].router["attempts"] == 1
    assert not hasattr(chunks[1], "router")
    assert chunks[-1].choices[0].finish_reason == "stop"
    record = either.recorded(chunks[0].router["decision_id"])
    attempt = record.attempts[0]
    assert attempt.response == "The answer of mini is 42."
    assert (attempt.error, attempt.finish_reason) == (None, "stop")
    assert attempt.ttft_ms is not None
    assert attempt.latency_ms >= attempt.ttft_ms
    assert attempt.cost_usd > 0


def test_headers_of_a_stream_name_the_choice(either):
    with raw_stream(either, "Hello") as response:
        first = json.loads(events(response.read())[0])
    assert response.getheader("content-type").startswith("text/event-stream")
    assert response.getheader("x-router-tier") == "small"
    assert response.getheader("x-router-decision-id") == first["router"]["decision_id"]


def test_all_but_the_facts_is_byte_for_byte_the_upstreams(either, upstream, call):
    messages = [{"role": "user", "content": "Hello [mini=comment]"}]
    direct = call(f"{upstream.url}/v1/chat/completions", {"model": "mini", "stream": True, "messages": messages}).body
    with raw_stream(either, "Hello [mini=comment]") as response:
        got = response.read()
    facts = json.loads(events(got)[0])["router"]
    at = got.index(b',"router":')
    end = got.index(b"}", at) + 1
    assert got[:at] + got[end:] == direct
    assert facts["tier"] == "small"


def test_usage_that_was_asked_for_is_forwarded_and_billed(either):
    chunks = list(stream(either, "Hello", stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens == 20
    attempt = either.recorded(chunks[0].router["decision_id"]).attempts[0]
    assert (attempt.input_tokens, attempt.output_tokens) == (100, 20)
    assert attempt.cost_usd == pytest.approx((100 * 0.15 + 20 * 0.60) / 1e6)


def test_streamed_tool_calls_come_through_and_are_put_together_in_the_record(either):
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
    chunks = list(stream(either, "Weather? [mini=tool]", tools=tools))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert "".join(call.function.arguments for call in calls) == '{"city": "Oslo"}'
    record = either.recorded(chunks[0].router["decision_id"])
    assert record.attempts[0].tool_calls[0]["function"] == {"name": "get_weather", "arguments": '{"city": "Oslo"}'}
    assert record.attempts[0].verdicts == ()


def test_streamed_parallel_calls_come_through_by_their_index(either):
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
    chunks = list(stream(either, "Weather? [mini=tools]", tools=tools))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert [call.id for call in calls if call.id] == ["call_1", "call_2"]
    for index in (0, 1):
        arguments = "".join(call.function.arguments for call in calls if call.index == index)
        assert arguments == '{"city": "Oslo"}'
    assert text_of(chunks) == "Let me see."
    record = either.recorded(chunks[0].router["decision_id"])
    assert [call["id"] for call in record.attempts[0].tool_calls] == ["call_1", "call_2"]


def test_a_held_poor_answer_is_replaced_and_never_mixed(held):
    chunks = list(stream(held, "Hello [mini=idk]"))
    assert text_of(chunks) == "The answer of maxi is 42."
    assert {chunk.model for chunk in chunks} == {"maxi"}
    assert chunks[0].router["attempts"] == 2
    small, large = held.recorded(chunks[0].router["decision_id"]).attempts
    assert small.verdicts[0].adequate is False
    assert large.verdicts == ()


@pytest.mark.parametrize("fault", ["reset", "half", "json", "500"])
def test_a_held_stream_that_breaks_is_replaced(held, fault):
    chunks = list(stream(held, f"Hello [mini={fault}]"))
    assert text_of(chunks) == "The answer of maxi is 42."
    first = held.recorded(chunks[0].router["decision_id"]).attempts[0]
    assert first.error is not None
    assert first.verdicts == ()


@pytest.mark.parametrize("fault", ["json", "500", "429"])
def test_a_fault_before_the_first_byte_is_replaced_in_a_passed_stream_too(through, fault):
    chunks = list(stream(through, f"Hello [mini={fault}]"))
    assert text_of(chunks) == "The answer of maxi is 42."
    assert chunks[0].router["tier"] == "large"


@pytest.mark.parametrize("fault", ["reset", "half"])
def test_a_passed_stream_that_breaks_ends_in_a_clear_error(through, fault):
    received = []
    with pytest.raises(openai.APIError, match="small") as caught:
        received.extend(stream(through, f"Hello [mini={fault}]"))
    assert not isinstance(caught.value, openai.APIConnectionError)
    with raw_stream(through, f"Hello [mini={fault}]") as response:
        got = events(response.read())
    assert json.loads(got[-1])["error"]["code"] == "upstream_error"
    assert all(json.loads(one) for one in got)


def test_an_error_in_place_of_the_first_event_leads_to_the_next_tier(either):
    chunks = list(stream(either, "Hello [mini=says-error]"))
    assert text_of(chunks) == "The answer of maxi is 42."
    first, second = either.recorded(chunks[0].router["decision_id"]).attempts
    assert (first.error, first.cost_usd, second.error) == ("status 503", 0.0, None)


def test_where_nobody_stands_by_it_is_the_upstreams_error(either):
    with pytest.raises(openai.InternalServerError, match="overloaded") as caught:
        list(stream(either, "Hello [mini=says-error]", model="small"))
    assert caught.value.status_code == 503


def test_a_client_that_hangs_up_on_the_end_mark_has_got_its_answer(either):
    started = time.monotonic()
    with raw_stream(either, "Hello [mini=linger]") as response:
        got = b""
        while b"[DONE]" not in got:
            got += response.read1()
        response.close()
    assert time.monotonic() - started < 1.5, "nobody waits for the upstream to close"
    (attempt,) = either.recorded(json.loads(events(got)[0])["router"]["decision_id"]).attempts
    assert (attempt.error, attempt.finish_reason, attempt.response) == (None, "stop", "The answer of mini is 42.")


def test_an_end_mark_whose_line_is_left_open_is_passed_on(either):
    with raw_stream(either, "Hello [mini=open-line]") as response:
        assert response.read().endswith(b"data: [DONE]\n\n")


def test_a_poor_answer_that_was_passed_through_is_recorded_as_poor(through):
    chunks = list(stream(through, "Hello [mini=idk]"))
    assert text_of(chunks) == "I don't know."
    record = through.recorded(chunks[0].router["decision_id"])
    assert record.attempts[0].verdicts[0].adequate is False


def test_when_all_fail_a_stream_gets_a_plain_error(either):
    with pytest.raises(openai.RateLimitError, match="scripted 429"):
        list(stream(either, "Hello [mini=500] [maxi=429]"))


def test_a_named_tier_is_not_held(held):
    with raw_stream(held, "Hello [mini=paced]", model="small") as response:
        started = time.monotonic()
        response.read(1)
        first_s = time.monotonic() - started
        response.read()
        whole_s = time.monotonic() - started
    assert first_s < whole_s / 2


def test_comments_keep_a_held_stream_open(start_service):
    service = start_service(keepalive_s=0.1)
    with raw_stream(service, "Hello [mini=paced]") as response:
        got = response.read()
    assert response.getheader("x-router-decision-id")
    assert got.startswith(b": keep-alive\n\n")
    assert json.loads(events(got)[0])["router"]["attempts"] == 1
    chunks = list(stream(service, "Hello [mini=paced]"))
    assert text_of(chunks) == "The answer of mini is 42."


def test_an_error_after_the_first_comment_is_an_error_event(start_service):
    service = start_service(keepalive_s=0.1, idle_s=0.6)
    with pytest.raises(openai.APIError, match="in time") as caught:
        list(stream(service, "Hello [mini=stall] [maxi=stall]"))
    assert not isinstance(caught.value, openai.APIStatusError)


@pytest.mark.parametrize("behaviour", ["stall", "hang"])
def test_a_client_that_hangs_up_cancels_the_upstream_and_is_recorded(either, upstream, behaviour):
    upstream.calls()
    before = either.metric('router_ml_attempts_total{outcome="cancelled",tier="small"}')
    connection = http.client.HTTPConnection(urlsplit(either.url).netloc, timeout=20)
    messages = [{"role": "user", "content": f"Hello [mini={behaviour}]"}]
    body = json.dumps({"model": "auto", "stream": True, "messages": messages})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    time.sleep(0.5)
    connection.close()
    deadline = time.monotonic() + 5
    after, cancelled = before, []
    while time.monotonic() < deadline and not (after > before and cancelled):
        time.sleep(0.05)
        after = either.metric('router_ml_attempts_total{outcome="cancelled",tier="small"}')
        cancelled += [sent for sent in upstream.calls() if sent["cancelled"]]
    assert after == before + 1
    assert cancelled


def test_a_client_that_is_gone_before_the_headers_leaves_a_closed_call_with_its_bill():
    tier = Tier(name="small", model="mini", input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
    dear = tier.model_copy(update={"name": "large", "output_usd_per_mtok": 2.0})
    chat = read_chat({"stream": True, "messages": [{"role": "user", "content": "Hello"}]})
    decision = Decision("d", "small", "mini", Plan("small"), "v", {}, {}, {"small": 1.0}, 1.0, 0.0, False, "asked for")
    closed, recorded = [], []

    class Upstream:
        async def stream(self, tier, body):
            try:
                while True:
                    yield b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n'
            finally:
                closed.append(tier.name)

    async def serve():
        limits = Limits(1, None, time.perf_counter)
        exchange = Exchange(
            chat, decision, None, Ladder.of([tier, dear]), Upstream(), limits, time.perf_counter(), recorded.append
        )
        await StreamedReply(exchange, through=True, keepalive_s=1.0)({"type": "http"}, asyncio.Event().wait, refuse)

    asyncio.run(serve())
    (attempt,) = recorded[0].attempts
    assert closed == ["small"]
    assert (attempt.finish_reason, attempt.error) == ("cancelled", "cancelled")
    assert attempt.cost_usd > 0


async def refuse(message):
    raise ConnectionResetError


class Counting:
    """A router that notes the answers it is asked about."""

    def __init__(self):
        self.seen = []

    def judge(self, request, answer, **_):
        self.seen.append(answer)


@pytest.mark.parametrize("way", ["whole", "held", "beside"])
def test_without_a_count_the_judge_sees_the_length_that_is_logged(way):
    tier = Tier(name="small", model="mini", input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
    dear = tier.model_copy(update={"name": "large", "output_usd_per_mtok": 2.0})
    chat = read_chat({"messages": [{"role": "user", "content": "Hello"}]})
    decision = Decision("d", "small", "mini", Plan("small"), "v", {}, {}, {"small": 1.0}, 1.0, 0.0, False, "asked for")
    body = {"choices": [{"index": 0, "message": {"content": "x" * 41}, "finish_reason": "stop"}]}
    chunk = {"choices": [{"index": 0, "delta": {"content": "x" * 41}, "finish_reason": "stop"}]}

    class Upstream:
        async def complete(self, tier, sent):
            return Reply(200, {}, json.dumps(body).encode(), body)

        async def stream(self, tier, sent):
            yield f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()

    router, trail = Counting(), []
    limits = Limits(1, None, time.perf_counter)
    exchange = Exchange(chat, decision, router, Ladder.of([tier, dear]), Upstream(), limits, 0.0, lambda _: None)
    asyncio.run(exchange.beside("small", trail) if way == "beside" else getattr(exchange, way)())
    (logged,) = [one.attempt for one in trail or exchange.trail]
    assert [one.output_tokens for one in router.seen] == [logged.output_tokens] == [11]


@pytest.mark.parametrize("way", ["whole", "held"])
def test_without_a_count_all_choices_are_on_the_bill(way):
    choices = [{"index": i, "message": {"content": "x" * 40}, "finish_reason": "stop"} for i in range(3)]
    chunk = {"choices": [{"index": i, "delta": {"content": "x" * 40}, "finish_reason": "stop"} for i in range(3)]}
    body = {"choices": choices}

    class Upstream:
        async def complete(self, tier, sent):
            return Reply(200, {}, json.dumps(body).encode(), body)

        async def stream(self, tier, sent):
            yield f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()

    exchange = exchange_with(Upstream())
    asyncio.run(getattr(exchange, way)())
    assert exchange.attempts[0].output_tokens == 30


def exchange_with(upstream, plan=Plan("small"), router=None, **fields):  # noqa: B008  frozen
    tier = Tier(name="small", model="mini", input_usd_per_mtok=1.0, output_usd_per_mtok=1.0, latency_ms=100.0)
    dear = tier.model_copy(update={"name": "large", "output_usd_per_mtok": 2.0})
    chat = read_chat({"messages": [{"role": "user", "content": "Hello"}]})
    decision = Decision("d", "small", "mini", plan, "v", {}, {}, {"small": 1.0}, 1.0, 0.0, False, "asked for")
    limits = fields.pop("limits", Limits(2, None, time.perf_counter))
    ladder = Ladder.of([tier, dear])
    return Exchange(
        chat, decision, router or Counting(), ladder, upstream, limits, time.perf_counter(), lambda _: None, **fields
    )


class Doubting(Counting):
    """A router that takes no answer of the small tier."""

    def judge(self, request, answer, *, tier, **_):
        return Verdict(adequate=False, source="rule", reason="no") if tier == "small" else None


@pytest.mark.parametrize(("usual_s", "asked"), [(None, ["small", "large"]), (9.0, ["small"])])
def test_what_a_tier_usually_takes_is_what_was_measured(usual_s, asked):
    seen = {}

    class Upstream:
        async def complete(self, tier, sent, **extra):
            seen[tier.name] = extra
            body = {"choices": [{"message": {"content": "42"}, "finish_reason": "stop"}]}
            return Reply(200, {}, b"", body)

    deadline_s = time.perf_counter() + 5.0
    limits = Limits(2, deadline_s, time.perf_counter)
    expected_s = None if usual_s is None else lambda _: usual_s
    exchange = exchange_with(Upstream(), Plan("small", "large"), Doubting(), limits=limits, expected_s=expected_s)
    asyncio.run(exchange.whole())
    assert list(seen) == asked
    assert seen["small"] == {"deadline_s": deadline_s}, "a first answer is not cut off"
    assert seen.get("large", {"cut_s": deadline_s})["cut_s"] == deadline_s
