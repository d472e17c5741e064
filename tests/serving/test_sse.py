"""Streams put together again, at whatever point they stop."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml_serving.sse import event, facts_in_first_event, first_payload, read_stream, says_error


def chunk(delta=None, finish=None, **more):
    return event({"id": "1", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more})


WHOLE = b"".join(
    [
        b": a comment\n\n",
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Gr\u00fc\u00dfe "}),
        chunk({"content": "42"}),
        chunk(finish="stop"),
        event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
        b"data: [DONE]\n\n",
    ]
)


def test_a_whole_stream_is_put_together():
    said = read_stream(WHOLE)
    assert (said.answer.text, said.answer.finish_reason, said.complete) == ("Gr\u00fc\u00dfe 42", "stop", True)
    assert said.answer.output_tokens == 2
    assert said.error is None


@given(st.integers(0, len(WHOLE)))
def test_a_stream_cut_anywhere_gives_the_beginning_of_the_answer(cut):
    said = read_stream(WHOLE[:cut])
    assert "Gr\u00fc\u00dfe 42".startswith(said.answer.text)
    if cut < WHOLE.index(b'"stop"'):
        assert not said.complete


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_harm(raw):
    read_stream(raw)
    read_stream(b"data: " + raw + b"\n\n")
    facts_in_first_event(raw, {})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "delta", "tool_calls", "index", "function", "name", "content", "usage", "error"]
                ),
                x,
            )
        ),
        max_leaves=15,
    )
)
def test_any_json_in_a_chunk_is_read_without_harm(value):
    read_stream(b"data: " + json.dumps(value).encode() + b"\n\n")
    read_stream(event({"choices": [{"delta": value}]}))


def test_windows_line_ends_are_read():
    assert read_stream(WHOLE.replace(b"\n", b"\r\n")).answer.text == "Gr\u00fc\u00dfe 42"


def test_an_error_in_the_stream_is_not_an_answer():
    said = read_stream(chunk({"content": "Half"}) + event({"error": {"message": "overloaded"}}) + b"data: [DONE]\n\n")
    assert said.error is not None
    assert not said.complete


def test_parallel_tool_calls_are_kept_apart():
    pieces = [
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}, {"index": 1, "function": {"arguments": "}"}}]},
    ]
    said = read_stream(b"".join(chunk(piece) for piece in pieces) + chunk(finish="tool_calls"))
    assert [
        (call["id"], call["function"]["name"], call["function"]["arguments"]) for call in said.answer.tool_calls
    ] == [
        ("a", "f", "{}"),
        ("b", "g", "{}"),
    ]


def test_only_the_first_choice_is_the_answer():
    other = event({"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "stop"}]})
    said = read_stream(chunk({"content": "one"}) + other)
    assert (said.answer.text, said.complete) == ("one", False)


def other(content=None, finish=None):
    return event({"choices": [{"index": 1, "delta": {"content": content}, "finish_reason": finish}]})


def test_a_stream_of_two_answers_is_complete_when_both_are():
    said = read_stream(chunk({"content": "one"}) + other("other") + chunk(finish="stop"))
    assert (said.complete, said.further_bytes) == (False, 5)
    said = read_stream(chunk({"content": "one"}) + other("other") + chunk(finish="stop") + other(finish="stop"))
    assert (said.complete, said.answer.text) == (True, "one")
    assert read_stream(chunk({"content": "one"}) + other("other") + b"data: [DONE]\n\n").complete


def test_calls_of_further_answers_count_too():
    call = {"index": 0, "function": {"name": "look", "arguments": "{}"}}
    assert read_stream(event({"choices": [{"index": 1, "delta": {"tool_calls": [call]}}]})).further_bytes == 6


def test_comments_and_blank_data_are_no_event():
    assert first_payload(b": working\n\ndata:\n\nevent: x\ndata: {") is None
    assert first_payload(b': working\n\ndata: {"a": 1}\r\n') == b'{"a": 1}'


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b'{"error": {"message": "no"}}', True),
        (b'{"error": "no"}', True),
        (b'{"error": null, "choices": []}', False),
        (b'{"choices": [{"delta": {"content": "\\"error\\""}}]}', False),
        (b'["error"]', False),
        (b'{"error": {', False),
        (b"[DONE]", False),
    ],
)
def test_an_error_is_told_from_a_piece_of_an_answer(payload, error):
    assert says_error(payload) is error


def test_facts_go_into_the_first_chunk_only():
    changed = facts_in_first_event(WHOLE, {"tier": "small"})
    assert changed is not None
    lines = [orjson.loads(line[6:]) for line in changed.split(b"\n") if line.startswith(b"data: {")]
    assert lines[0]["router"] == {"tier": "small"}
    assert all("router" not in line for line in lines[1:])
    assert changed.replace(b',"router":{"tier":"small"}', b"") == WHOLE


def test_comments_alone_hold_no_chunk():
    assert facts_in_first_event(b": working\n\n", {}) is None
    assert facts_in_first_event(b"data: [DONE]\n\n", {}) is None
