"""Requests to OpenAI's Responses API become chat bodies, or errors that name the field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.errors import RequestError
from router_ml_serving.inbound.responses_request import chat_body, ignored
from router_ml_serving.wire import read_chat

HELLO = {"model": "auto", "input": "Hello"}
TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}


def text(said):
    return {"type": "text", "text": said}


def messages(*items, **fields):
    return chat_body({**HELLO, "input": list(items), **fields})["messages"]


def test_the_plain_fields_of_a_request_are_renamed():
    body = chat_body(
        {
            **HELLO,
            "instructions": "Be brief.",
            "max_output_tokens": 50,
            "temperature": 0.3,
            "parallel_tool_calls": False,
            "reasoning": {"effort": "low", "summary": "auto"},
            "text": {"verbosity": "low", "format": {"type": "text"}},
            "metadata": {"tenant": "acme", "ticket": "7"},
            "router": {"quality": 0.9},
            "store": True,
            "stream": True,
        }
    )
    assert body == {
        "model": "auto",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "max_completion_tokens": 50,
        "temperature": 0.3,
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "verbosity": "low",
        "router": {"tenant": "acme", "ticket": "7", "quality": 0.9},
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert read_chat(body).request.tenant == "acme"


def test_what_is_not_looked_at_is_listed():
    fields = {"truncation": "auto", "max_tool_calls": 3, "brand_new": 1, "previous_response_id": None, "prompt": None}
    assert ignored({**HELLO, **fields}) == ["brand_new", "max_tool_calls", "truncation"]
    assert chat_body({**HELLO, **fields}) == chat_body(HELLO)


def test_messages_keep_their_parts():
    image = {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"}
    sound = {"data": "AAAA", "format": "wav"}
    file = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}
    parts = [
        {"type": "input_text", "text": "What?"},
        image,
        {"type": "input_file", **file},
        {"type": "input_audio", "input_audio": sound},
    ]
    assert messages(
        {
            "role": "developer",
            "content": [{"type": "input_text", "text": "Be"}, {"type": "input_text", "text": "kind."}],
        },
        {"type": "message", "role": "user", "content": parts},
        {
            "role": "assistant",
            "content": [{"type": "output_text", "text": "It"}, {"type": "refusal", "refusal": "No."}],
        },
        {"role": "user", "content": [{"type": "input_text", "text": "Why?"}]},
    ) == [
        {"role": "system", "content": "Be\nkind."},
        {
            "role": "user",
            "content": [
                text("What?"),
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
                {"type": "file", "file": file},
                {"type": "input_audio", "input_audio": sound},
            ],
        },
        {"role": "assistant", "content": "It\nNo."},
        {"role": "user", "content": "Why?"},
    ]


def test_calls_of_one_turn_become_one_message_and_pictures_follow_the_results():
    shown = [{"type": "input_text", "text": "sun"}, {"type": "input_image", "image_url": "https://example.com/a.png"}]
    found = messages(
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "message", "role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"x": 1}'},
        {"type": "function_call", "call_id": "b", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": shown},
        {"type": "function_call_output", "call_id": "b", "output": "rain"},
        {"type": "function_call", "call_id": "c", "name": "g", "arguments": "{}"},
    )
    assert [one["role"] for one in found] == ["user", "assistant", "tool", "tool", "user", "assistant"]
    assert found[1]["content"] == "Let me see."
    assert [call["id"] for call in found[1]["tool_calls"]] == ["a", "b"]
    assert found[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert [one["content"] for one in found[2:4]] == ["sun", "rain"]
    assert found[4]["content"] == [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    assert found[5]["tool_calls"][0]["id"] == "c"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", "required"),
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]}, "required"),
    ],
)
def test_tools_and_the_choice_among_them_are_translated(choice, expected):
    body = chat_body({**HELLO, "tools": [TOOL], "tool_choice": choice})
    assert body["tools"] == [{"type": "function", "function": {k: v for k, v in TOOL.items() if k != "type"}}]
    assert body["tool_choice"] == expected


def test_tools_that_are_not_allowed_are_left_out():
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}
    body = chat_body({**HELLO, "tools": [TOOL, {**TOOL, "name": "g"}], "tool_choice": allowed})
    assert [tool["function"]["name"] for tool in body["tools"]] == ["g"]
    assert "tools" not in chat_body({**HELLO, "tools": [TOOL], "tool_choice": allowed})


def test_a_choice_without_tools_is_left_out():
    assert "tool_choice" not in chat_body({**HELLO, "tools": [], "tool_choice": "auto"})


def test_the_format_of_the_text_becomes_a_response_format():
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    body = chat_body({**HELLO, "text": {"format": {"type": "json_schema", **schema}}})
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}
    body = chat_body({**HELLO, "text": {"format": {"type": "json_object"}}})
    assert body["response_format"] == {"type": "json_object"}


def test_logprobs_are_asked_for_where_the_answer_should_include_them():
    body = chat_body({**HELLO, "include": ["message.output_text.logprobs"], "top_logprobs": 2})
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert "logprobs" not in chat_body({**HELLO, "include": ["reasoning.encrypted_content"]})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": 7}, "input"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 7}]}, "input[0].content"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0]"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input[0].content[0]"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [TOOL], "tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format"),
        ({"max_output_tokens": "many"}, "max_output_tokens"),
    ],
)
def test_what_cannot_be_translated_is_named(fields, param):
    with pytest.raises(RequestError) as caught:
        chat_body({**HELLO, **fields})
    assert caught.value.param == param


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["user", "function", "function_call", "allowed_tools", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "call_id", "name", "output", "arguments", "tools", "mode"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({"input": JSON}, optional={"text": JSON, "tools": JSON, "tool_choice": JSON}))
def test_any_request_is_translated_or_refused(request_):
    try:
        body = chat_body(request_)
    except RequestError:
        return
    assert all(one["role"] in ("system", "user", "assistant", "tool") for one in body["messages"])


def test_a_name_that_is_no_string_allows_nothing():
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"name": ["f"]}]}
    assert "tools" not in chat_body({**HELLO, "tools": [TOOL], "tool_choice": allowed})
