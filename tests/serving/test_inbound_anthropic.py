"""Chat completions, whole and streamed, become Anthropic's answers: put together by the official client's own code."""

import itertools
import json

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from router_ml_serving.inbound import Turn
from router_ml_serving.inbound.anthropic import AnthropicShape
from router_ml_serving.inbound.anthropic_reply import message
from router_ml_serving.inbound.anthropic_stream import AnthropicVoice
from router_ml_serving.wire import Usage
from tests.serving.chunks import call_chunk, chunk, events, sse

FACTS = {"decision_id": "D", "tier": "small", "model": "mini"}
EVENT = TypeAdapter(RawMessageStreamEvent)
HELLO = {"model": "auto", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}


def said(*chunks, request=HELLO, error=None, usage=None):
    voice = AnthropicVoice(Turn(request, FACTS))
    return events(voice.feed(sse(*chunks)) + voice.end(error, usage))


def collected(found):
    """Put a message together as the official client does."""
    snapshot, buffers = None, {}
    for one in found:
        event = EVENT.validate_python(one)
        snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    return snapshot


def completion(content="Hi", finish="stop", usage=True, **message_fields):
    counts = {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 30}}
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content, **message_fields},
    }
    return {"id": "c", "model": "mini-1", "choices": [choice], **({"usage": counts} if usage else {})}


def test_a_reply_is_a_message_of_the_official_client():
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]
    found = message(completion(finish="tool_calls", tool_calls=calls), Turn(HELLO, FACTS), None)
    parsed = Message.model_validate(found, strict=True)
    assert [block.type for block in parsed.content] == ["text", "tool_use"]
    assert parsed.content[1].input == {"x": 1}
    assert (parsed.id, parsed.model, parsed.stop_reason) == ("msg_D", "mini-1", "tool_use")
    assert (parsed.usage.input_tokens, parsed.usage.cache_read_input_tokens, parsed.usage.output_tokens) == (70, 30, 20)
    assert parsed.router["tier"] == "small"


def test_a_reply_without_counts_has_those_of_the_bill():
    found = message(completion(usage=False), Turn(HELLO, FACTS), Usage(11, 5))
    assert (found["usage"]["input_tokens"], found["usage"]["output_tokens"]) == (11, 5)


@pytest.mark.parametrize(
    ("fields", "reason", "sequence"),
    [
        ({"finish": "stop"}, "end_turn", None),
        ({"finish": None}, "end_turn", None),
        ({"finish": "length"}, "max_tokens", None),
        ({"finish": "content_filter"}, "refusal", None),
        ({"content": None, "refusal": "I will not."}, "refusal", None),
        ({"finish": "stop", "tool_calls": [{"function": {"name": "f"}}]}, "tool_use", None),
        ({"finish": "length", "tool_calls": [{"function": {"arguments": '{"x'}}]}, "max_tokens", None),
    ],
)
def test_why_an_answer_ended_is_said_in_anthropics_words(fields, reason, sequence):
    found = message(completion(**fields), Turn(HELLO, FACTS), None)
    assert (found["stop_reason"], found["stop_sequence"]) == (reason, sequence)
    assert Message.model_validate(found)


def test_a_stop_sequence_is_told_where_the_server_tells_it():
    done = completion()
    done["choices"][0]["stop_reason"] = "END"
    found = message(done, Turn({**HELLO, "stop_sequences": ["END"]}, FACTS), None)
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", "END")


COUNTED = chunk(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 4})


def test_a_stream_of_text_is_one_block():
    found = said(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
        COUNTED,
    )
    assert [one["type"] for one in found] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    whole = collected(found)
    assert whole.content[0].text == "Hello"
    assert (whole.stop_reason, whole.usage.input_tokens, whole.usage.output_tokens) == ("end_turn", 9, 4)
    assert whole.router["tier"] == "small"
    assert whole.model == "mini-1"


def test_parallel_calls_are_blocks_one_after_the_other_even_when_they_grow_side_by_side():
    found = said(
        chunk({"content": "Look."}),
        call_chunk(0, "a", "f", '{"x"'),
        call_chunk(1, "b", "g", '{"y"'),
        call_chunk(0, arguments=": 1}"),
        call_chunk(1, arguments=": 2}"),
        chunk({"content": " Done."}),
        chunk({}, "tool_calls"),
    )
    open_ = [
        one["type"].split("_")[-1] for one in found if one["type"] in ("content_block_start", "content_block_stop")
    ]
    assert open_ == ["start", "stop"] * 4
    whole = collected(found)
    assert [block.type for block in whole.content] == ["text", "tool_use", "tool_use", "text"]
    assert [block.input for block in whole.content[1:3]] == [{"x": 1}, {"y": 2}]
    assert whole.content[3].text == " Done."
    assert whole.stop_reason == "tool_use"


def test_the_first_call_is_said_as_it_grows():
    voice = AnthropicVoice(Turn(HELLO, FACTS))
    voice.feed(sse(call_chunk(0, "a", "f")))
    (event,) = events(voice.feed(sse(call_chunk(0, arguments='{"x"'))))
    assert event["delta"] == {"type": "input_json_delta", "partial_json": '{"x"'}


def test_a_call_whose_name_comes_late_waits_for_it():
    found = said(call_chunk(0, "a", None, "{"), call_chunk(0, None, "f", "}"), chunk({}, "tool_calls"))
    assert collected(found).content[0].name == "f"


def test_an_empty_list_of_calls_is_no_call():
    found = said(chunk({"content": "Hi", "tool_calls": []}), chunk({}, "stop"))
    assert [block.type for block in collected(found).content] == ["text"]


def test_a_refusal_is_text_and_the_reason():
    whole = collected(said(chunk({"refusal": "No."}), chunk({}, "stop")))
    assert (whole.content[0].text, whole.stop_reason) == ("No.", "refusal")


def test_a_stream_without_counts_has_those_of_the_bill():
    whole = collected(said(chunk({"content": "Hi"}), chunk({}, "stop"), usage=Usage(11, 5, 1)))
    assert (whole.usage.input_tokens, whole.usage.cache_read_input_tokens, whole.usage.output_tokens) == (10, 1, 5)


def test_a_broken_stream_ends_in_an_error_event():
    found = said(chunk({"content": "Hi"}), error={"message": "broke off", "type": "server_error"})
    assert found[-1] == {"type": "error", "error": {"type": "api_error", "message": "broke off"}}
    assert "message_stop" not in [one["type"] for one in found]


def test_an_empty_stream_is_an_empty_message():
    assert collected(said()).content == []


DELTAS = st.one_of(
    st.builds(lambda text: chunk({"content": text}), st.text(max_size=5)),
    st.builds(
        lambda index, arguments: call_chunk(index, f"c{index}", f"f{index}", arguments),
        st.integers(0, 2),
        st.text(max_size=5),
    ),
)


@given(st.lists(DELTAS, max_size=12), st.lists(st.integers(0, 10_000), max_size=8))
def test_events_are_the_same_however_the_bytes_are_cut_and_lose_nothing(chunks, cuts):
    raw = sse(*chunks, chunk({}, "stop"), COUNTED)
    places = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    voice = AnthropicVoice(Turn(HELLO, FACTS))
    found = b"".join(voice.feed(raw[start:end]) for start, end in itertools.pairwise(places))
    found = events(found + voice.end(None, None))
    assert found == said(*chunks, chunk({}, "stop"), COUNTED)
    texts = [one["delta"]["text"] for one in found if one.get("delta", {}).get("type") == "text_delta"]
    assert "".join(texts) == "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)
    arguments = {}
    for one in found:
        if one["type"] == "content_block_start" and one["content_block"]["type"] == "tool_use":
            arguments[one["index"]] = ""
        elif one.get("delta", {}).get("type") == "input_json_delta":
            arguments[one["index"]] += one["delta"]["partial_json"]
    calls = [
        one["choices"][0]["delta"]["tool_calls"][0] for one in chunks if "tool_calls" in one["choices"][0]["delta"]
    ]
    expected = {}
    for call in calls:
        expected[call["index"]] = expected.get(call["index"], "") + call["function"]["arguments"]
    assert sorted(arguments.values()) == sorted(expected.values())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_errors_have_anthropics_shape_and_names(status, kind):
    found = json.loads(AnthropicShape().error(b'{"error": {"message": "no", "code": "x"}}', status, "req_1"))
    assert found == {"type": "error", "error": {"type": kind, "message": "no"}, "request_id": "req_1"}


def test_an_upstreams_odd_error_is_told_too():
    found = json.loads(AnthropicShape().error(b'{"error": "model not loaded"}', 404, "r"))
    assert found["error"]["message"] == "model not loaded"
