"""Chat completions, whole and streamed, become answers of OpenAI's Responses API: read by its own client."""

import itertools

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from router_ml_serving.inbound import Turn
from router_ml_serving.inbound.responses import ResponsesShape
from router_ml_serving.inbound.responses_reply import response
from router_ml_serving.inbound.responses_stream import ResponsesVoice
from router_ml_serving.wire import Usage
from tests.serving.chunks import call_chunk, chunk, events, sse

FACTS = {"decision_id": "D", "tier": "small", "model": "mini"}
HELLO = {"model": "auto", "input": "Hello"}
EVENT = TypeAdapter(ResponseStreamEvent)
COUNTS = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 30},
    "completion_tokens_details": {"reasoning_tokens": 6},
}


def said(*chunks, request=HELLO, error=None, usage=None):
    voice = ResponsesVoice(Turn(request, FACTS))
    return events(voice.feed(sse(*chunks)) + voice.end(error, usage))


def collected(found):
    """Put a response together as the official client does, checking its order and its types."""
    state = ResponseStreamState(input_tools=openai.omit, text_format=openai.omit)
    for one in found:
        state.handle_event(EVENT.validate_python(one))
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    return state._completed_response


def completion(content="Hi", finish="stop", usage=True, **message_fields):
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content, **message_fields},
    }
    return {"id": "c", "created": 5, "model": "mini-1", "choices": [choice], **({"usage": COUNTS} if usage else {})}


def test_a_reply_is_a_response_of_the_official_client():
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]
    tools = [{"type": "function", "name": "f", "parameters": {}, "strict": False}]
    request = {**HELLO, "tools": tools, "metadata": {"ticket": "7"}, "store": True, "reasoning": {"effort": "low"}}
    found = response(completion(finish="tool_calls", tool_calls=calls), Turn(request, FACTS), None)
    parsed = Response.model_validate(found)
    assert [item.type for item in parsed.output] == ["message", "function_call"]
    assert parsed.output_text == "Hi"
    assert (parsed.output[1].call_id, parsed.output[1].arguments) == ("a", '{"x": 1}')
    assert (parsed.id, parsed.model, parsed.status, parsed.created_at) == ("resp_D", "mini-1", "completed", 5)
    assert (parsed.usage.input_tokens, parsed.usage.output_tokens, parsed.usage.total_tokens) == (100, 20, 120)
    assert parsed.usage.input_tokens_details.cached_tokens == 30
    assert parsed.usage.output_tokens_details.reasoning_tokens == 6
    assert (parsed.store, parsed.metadata, parsed.tools[0].name) == (False, {"ticket": "7"}, "f")
    assert parsed.reasoning.effort == "low"
    assert parsed.router["tier"] == "small"


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("stop", "completed", None),
        (None, "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
    ],
)
def test_why_an_answer_ended_is_its_status(finish, status, reason):
    for found in (
        response(completion(finish=finish), Turn(HELLO, FACTS), None),
        said(chunk({"content": "Hi"}), chunk({}, finish))[-1]["response"],
    ):
        parsed = Response.model_validate(found)
        assert parsed.status == parsed.output[0].status == status
        assert (parsed.incomplete_details and parsed.incomplete_details.reason) == reason


def test_a_reply_without_counts_has_those_of_the_bill():
    found = response(completion(usage=False), Turn(HELLO, FACTS), Usage(11, 5))
    assert (found["usage"]["input_tokens"], found["usage"]["output_tokens"]) == (11, 5)


def test_a_refusal_is_a_part_of_its_own():
    found = response(completion(content=None, refusal="No."), Turn(HELLO, FACTS), None)
    assert found["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]
    streamed = collected(said(chunk({"refusal": "N"}), chunk({"refusal": "o."}), chunk({}, "stop")))
    assert streamed.output[0].content[0].refusal == "No."


def test_a_stream_of_text_has_the_events_of_the_official_api():
    found = said(chunk({"role": "assistant"}), chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk({}, "stop"))
    assert [one["type"].removeprefix("response.") for one in found] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    whole = collected(found)
    assert whole.output_text == "Hello"
    assert whole.router["tier"] == "small"


def test_the_last_event_has_the_counts_of_the_upstream_or_of_the_bill():
    counted = collected(said(chunk({"content": "Hi"}, "stop"), chunk(choices=[], usage=COUNTS)))
    assert (counted.usage.input_tokens, counted.usage.output_tokens_details.reasoning_tokens) == (100, 6)
    billed = collected(said(chunk({"content": "Hi"}, "stop"), usage=Usage(11, 5, 2)))
    assert (billed.usage.input_tokens, billed.usage.input_tokens_details.cached_tokens) == (11, 2)


def test_parallel_calls_are_said_as_they_grow():
    found = said(
        chunk({"content": "Look."}),
        call_chunk(0, "a", "f", '{"x"'),
        call_chunk(1, "b", "g", '{"y"'),
        call_chunk(0, arguments=": 1}"),
        call_chunk(1, arguments=": 2}"),
        chunk({}, "tool_calls"),
    )
    deltas = [(one["output_index"], one["delta"]) for one in found if one["type"].endswith("arguments.delta")]
    assert deltas == [(1, '{"x"'), (2, '{"y"'), (1, ": 1}"), (2, ": 2}")]
    whole = collected(found)
    assert [item.type for item in whole.output] == ["message", "function_call", "function_call"]
    assert [item.arguments for item in whole.output[1:]] == ['{"x": 1}', '{"y": 2}']
    assert [item.call_id for item in whole.output[1:]] == ["a", "b"]


def test_a_call_whose_name_comes_late_waits_for_it():
    whole = collected(said(call_chunk(0, "a", None, "{"), call_chunk(0, None, "f", "}"), chunk({}, "tool_calls")))
    assert (whole.output[0].name, whole.output[0].arguments) == ("f", "{}")


def test_a_call_without_an_id_gets_one():
    whole = collected(said(call_chunk(0, None, "f", "{}"), chunk({}, "tool_calls")))
    assert whole.output[0].call_id == "call_0"


def test_logprobs_are_handed_on():
    token = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}
    logged = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop", "logprobs": {"content": [token]}}
    assert collected(said(chunk(choices=[logged]))).output[0].content[0].logprobs[0].logprob == -0.1
    done = completion()
    done["choices"][0]["logprobs"] = {"content": [token]}
    assert response(done, Turn(HELLO, FACTS), None)["output"][0]["content"][0]["logprobs"] == [token]


def test_a_broken_stream_ends_in_a_failed_response_and_an_error_event():
    found = said(chunk({"content": "Hi"}), error={"message": "broke off", "code": "upstream_error"})
    assert [one["type"] for one in found[-2:]] == ["response.failed", "error"]
    assert found[-2]["response"]["error"] == {"code": "server_error", "message": "broke off"}
    assert (found[-1]["message"], found[-1]["error"]["code"]) == ("broke off", "upstream_error")
    assert all(EVENT.validate_python(one) for one in found)


def test_an_error_before_the_first_chunk_is_an_error_event_alone():
    assert [one["type"] for one in said(error={"message": "broke off"})] == ["error"]


def test_an_empty_stream_is_an_empty_response():
    assert collected(said()).output == []


def test_an_error_body_is_openais_already():
    raw = b'{"error": {"message": "no"}}'
    assert ResponsesShape().error(raw, 400, "r") is raw


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
    raw = sse(*chunks, chunk({}, "stop"))
    places = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    voice = ResponsesVoice(Turn(HELLO, FACTS))
    found = b"".join(voice.feed(raw[start:end]) for start, end in itertools.pairwise(places))
    found = events(found + voice.end(None, None))
    assert found == said(*chunks, chunk({}, "stop"))
    whole = collected(found)
    deltas = [one["choices"][0]["delta"] for one in chunks]
    assert whole.output_text == "".join(delta.get("content") or "" for delta in deltas)
    expected = {}
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            expected[call["index"]] = expected.get(call["index"], "") + call["function"]["arguments"]
    assert [one.arguments for one in whole.output if one.type == "function_call"] == list(expected.values())
