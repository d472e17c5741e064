"""Requests to Anthropic's Messages API become chat bodies, or errors that name the field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.errors import RequestError
from router_ml_serving.inbound.anthropic_request import chat_body, ignored
from router_ml_serving.wire import read_chat

HELLO = {"model": "auto", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
PNG = {"type": "base64", "media_type": "image/png", "data": "AAAA"}


def asked(*blocks, role="user", **fields):
    return {**HELLO, "messages": [{"role": role, "content": list(blocks)}], **fields}


def text(said):
    return {"type": "text", "text": said}


def test_the_plain_fields_of_a_request_are_renamed():
    body = chat_body(
        {
            **HELLO,
            "system": "Be brief.",
            "temperature": 0.3,
            "top_p": 0.9,
            "stop_sequences": ["END"],
            "stream": True,
            "seed": 7,
            "metadata": {"user_id": "u1", "tenant": "acme"},
            "router": {"quality": 0.9},
        }
    )
    assert body == {
        "model": "auto",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "max_completion_tokens": 50,
        "temperature": 0.3,
        "top_p": 0.9,
        "stop": ["END"],
        "seed": 7,
        "user": "u1",
        "router": {"tenant": "acme", "quality": 0.9},
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert read_chat(body).quality == 0.9


def test_what_is_not_looked_at_is_listed():
    fields = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "top_k": 5, "brand_new": 1}
    assert ignored({**HELLO, **fields}) == ["brand_new", "thinking", "top_k"]
    assert chat_body({**HELLO, **fields}) == chat_body(HELLO)


def test_cache_marks_are_left_out_and_system_blocks_become_one_message():
    mark = {"cache_control": {"type": "ephemeral"}}
    body = chat_body({**asked({**text("Hello"), **mark}), "system": [{**text("A"), **mark}, text("B")]})
    assert body["messages"] == [{"role": "system", "content": "A\n\nB"}, {"role": "user", "content": "Hello"}]


def test_images_and_documents_become_parts():
    title = {"title": "Rules"}
    blocks = [
        text("What is it?"),
        {"type": "image", "source": PNG},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "document", "source": {**PNG, "media_type": "application/pdf"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Be kind."}, **title},
        {"type": "document", "source": {"type": "content", "content": [text("inner")]}},
        {"type": "search_result", "title": "T", "source": "S", "content": [text("found")]},
    ]
    assert chat_body(asked(*blocks))["messages"][0]["content"] == [
        text("What is it?"),
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
        text("Rules\n\nBe kind."),
        text("inner"),
        text("T\nS\n\nfound"),
    ]


def test_calls_and_their_results_become_chat_messages_in_the_order_that_chat_wants():
    messages = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                text("Let me see."),
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [text("sun"), {"type": "image", "source": PNG}]},
                {"type": "tool_result", "tool_use_id": "b", "content": "no such city", "is_error": True},
                text("And?"),
            ],
        },
    ]
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert chat_body({**HELLO, "messages": messages})["messages"] == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
        {"role": "tool", "tool_call_id": "b", "content": "Error: no such city"},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, text("And?")],
        },
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_tools_and_the_choice_among_them_are_translated(choice, expected):
    tool = {"name": "f", "description": "d", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
    body = chat_body({**HELLO, "tools": [tool], "tool_choice": {**choice, "disable_parallel_tool_use": True}})
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == expected
    assert body["parallel_tool_calls"] is False


def test_a_schema_for_the_answer_becomes_a_response_format():
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    body = chat_body({**HELLO, "output_config": {"format": wanted, "effort": "low"}})
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"max_tokens": 5}, "messages"),
        ({**HELLO, "messages": "Hello"}, "messages"),
        ({**HELLO, "messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({**HELLO, "messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        (asked(text(7)), "messages[0].content[0].text"),
        (asked({"type": "server_tool_use"}), "messages[0].content[0]"),
        (asked({"type": "tool_use", "name": "f"}, role="assistant"), "messages[0].content[0]"),
        (asked({"type": "tool_result"}), "messages[0].content[0].tool_use_id"),
        (asked({"type": "image"}), "messages[0].content[0].source"),
        (asked({"type": "image", "source": {"type": "file", "file_id": "f"}}), "messages[0].content[0].source"),
        (asked({"type": "image", "source": {"type": "base64"}}), "messages[0].content[0].source"),
        (asked({"type": "document", "source": {"type": "url", "url": "u"}}), "messages[0].content[0].source"),
        ({**HELLO, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
        ({**HELLO, "tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({**HELLO, "tool_choice": {"type": "tool"}}, "tool_choice"),
        ({**HELLO, "mcp_servers": [{"url": "u"}]}, "mcp_servers"),
        ({**HELLO, "max_tokens": "many"}, "max_tokens"),
        ({**HELLO, "system": [{"type": "image"}]}, "system[0]"),
    ],
)
def test_what_cannot_be_translated_is_named(request_, param):
    with pytest.raises(RequestError) as caught:
        chat_body(request_)
    assert caught.value.param == param


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["user", "assistant", "text", "tool_result", "image", "auto"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "source", "name", "id"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({"messages": JSON}, optional={"system": JSON, "tools": JSON, "tool_choice": JSON}))
def test_any_request_is_translated_or_refused(request_):
    try:
        body = chat_body(request_)
    except RequestError:
        return
    assert all(one["role"] in ("system", "user", "assistant", "tool") for one in body["messages"])


def test_a_type_that_is_no_string_is_refused_too():
    with pytest.raises(RequestError):
        chat_body(asked({"type": ["text"]}, role="assistant"))
