"""What all shapes share: reading chunks and fields, and chat completions passing through unchanged."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.errors import RequestError
from router_ml_serving.inbound import SHAPES, Turn
from router_ml_serving.inbound.chat import ChatShape
from router_ml_serving.inbound.chunks import CallDrafts, ChunkReader, argument_object, call_parts, delta_of, named_event
from router_ml_serving.inbound.fields import object_list, optional, router_key

FACTS = {"decision_id": "D", "tier": "small", "model": "mini"}
STREAM = b': hello\n\ndata: {"a": 1}\n\ndata: {"a": 2}\r\n\ndata: [DONE]\n\n'


def pieces(raw, cuts):
    places = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    return [raw[start:end] for start, end in itertools.pairwise(places)]


@given(st.lists(st.integers(0, 10_000)))
def test_chunks_are_the_same_however_the_bytes_are_cut(cuts):
    reader = ChunkReader()
    found = [chunk for piece in pieces(STREAM, cuts) for chunk in reader.feed(piece)]
    assert found + reader.rest() == [{"a": 1}, {"a": 2}]


def test_a_last_line_that_was_left_open_is_read_at_the_end():
    reader = ChunkReader()
    assert reader.feed(b'data: {"a": 1}') == []
    assert reader.rest() == [{"a": 1}]
    assert reader.rest() == []


def test_nothing_is_read_after_a_broken_chunk():
    reader = ChunkReader()
    assert reader.feed(b'data: {"a": 1}\n\ndata: {"a\n\ndata: {"a": 2}\n\n') == [{"a": 1}]
    assert reader.feed(b'data: {"a": 3}\n\n') == []


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_can_be_fed(raw, cuts):
    reader = ChunkReader()
    for piece in pieces(raw, cuts):
        assert all(isinstance(chunk, dict) for chunk in reader.feed(piece))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "index", "tool_calls", "content", "function", "id", "usage", "logprobs"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.just("choices"), JSON))
def test_any_chunk_can_be_looked_at(chunk):
    delta = delta_of(chunk)
    for piece in delta.calls if delta else ():
        CallDrafts().add(piece)


def call(**fields):
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return {**fields, "function": function}


@pytest.mark.parametrize("index", [{"index": 0}, {}])
def test_calls_that_a_server_does_not_number_are_told_apart_by_their_ids(index):
    drafts = CallDrafts()
    for identity in ("a", "b"):
        drafts.add(call(id=identity, name=f"f{identity}", arguments="{", **index))
        drafts.add(call(arguments="}", **index))
    assert [(one.id, one.name, one.arguments) for one in drafts.drafts] == [("a", "fa", "{}"), ("b", "fb", "{}")]


def test_calls_may_grow_side_by_side():
    drafts = CallDrafts()
    for index in (0, 1, 0, 1):
        drafts.add(call(index=index, id=f"c{index}", arguments=str(index)))
    assert [one.arguments for one in drafts.drafts] == ["00", "11"]


def test_arguments_that_are_an_object_already_are_taken():
    assert call_parts(call(id="a", name="f", arguments={"x": 1})) == ("a", "f", '{"x":1}')


@pytest.mark.parametrize(
    ("arguments", "found"),
    [("", {}), ('{"a": 1}', {"a": 1}), ('{"a": ', {"invalid_json": '{"a": '}), ("5", {"invalid_json": "5"})],
)
def test_arguments_that_are_no_object_are_kept_as_they_are(arguments, found):
    assert argument_object(arguments) == found


def test_an_event_is_named_after_its_type():
    assert named_event({"type": "ping"}) == b'event: ping\ndata: {"type":"ping"}\n\n'


@pytest.mark.parametrize(
    ("read", "param"),
    [
        (lambda: optional({"n": "7"}, "n", int, "a."), "a.n"),
        (lambda: optional({"n": True}, "n", int), "n"),
        (lambda: object_list({}, "tools"), "tools"),
        (lambda: object_list([{}, 1], "tools"), "tools[1]"),
        (lambda: router_key({"metadata": []}), "metadata"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(read, param):
    with pytest.raises(RequestError) as caught:
        read()
    assert caught.value.param == param


def test_metadata_is_for_the_router_unless_routing_could_not_read_it():
    metadata = {"tenant": 7, "feature": "f", "use_case": "", "quality": "high", "ticket": 3}
    assert router_key({"metadata": metadata, "router": {"feature": "mine"}}) == {"feature": "mine", "ticket": 3}


def test_the_chat_shape_changes_nothing():
    shape, asked = ChatShape(), {"messages": [], "odd": 1}
    assert shape.chat_body(asked) is asked
    assert shape.ignored(asked) == []
    assert shape.headers("r") == {}
    error = b'{"error": {"message": "no"}}'
    assert shape.error(error, 400, "r") is error
    assert shape.reply(b'{"a": 1}', {"a": 1}, Turn(asked, FACTS), None) == (
        b'{"a": 1,"router":' + json.dumps(FACTS, separators=(",", ":")).encode() + b"}"
    )


@given(st.lists(st.integers(0, 10_000)))
def test_a_chat_stream_passes_byte_for_byte_with_the_facts_in_its_first_chunk(cuts):
    voice = ChatShape().stream(Turn({}, {"tier": "small"}))
    said = b"".join(voice.feed(piece) for piece in pieces(STREAM, cuts)) + voice.end(None, None)
    assert said == STREAM.replace(b'{"a": 1}', b'{"a": 1,"router":{"tier":"small"}}')


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (b"data: [DONE]", b"data: [DONE]\n\n"),
        (b"data:[DONE]", b"data:[DONE]\n\n"),
        (b'data: {"a": 1}', b'data: {"a": 1,"router":{}}\n\n'),
        (b'data: {"a', b""),
        (b": comm", b""),
    ],
)
def test_a_last_line_that_was_left_open_is_passed_on_when_it_is_whole(left, said):
    voice = ChatShape().stream(Turn({}, {}))
    assert voice.feed(left) == b""
    assert voice.end(None, None) == said


def test_a_broken_chat_stream_ends_in_an_error_event():
    voice = ChatShape().stream(Turn({}, FACTS))
    voice.feed(b'data: {"a')
    assert voice.end({"message": "broke off"}, None) == b'\n\ndata: {"error":{"message":"broke off"}}\n\n'


@pytest.mark.parametrize("line_end", [b"\n\n", b""])
def test_an_error_of_the_upstream_is_not_said_twice(line_end):
    voice = ChatShape().stream(Turn({}, FACTS))
    own = b'data: {"error": {"message": "overloaded"}}'
    said = voice.feed(b'data: {"a": 1, "error": null}\n\n' + own + line_end) + voice.end({"message": "broke"}, None)
    assert said.count(b"overloaded") == 1
    assert b"broke" not in said


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_has_all_its_parts(name):
    shape = SHAPES.load(name)()
    asked = {"messages": [{"role": "user", "content": "Hello"}], "input": "Hello", "brand_new": 1}
    assert shape.chat_body(asked)["messages"] == [{"role": "user", "content": "Hello"}]
    assert shape.ignored(asked) == ([] if name == "chat" else sorted({"brand_new", *_foreign(name)}))
    assert shape.keep_alive.endswith(b"\n\n")


def _foreign(name):
    return {"messages": ["input"], "responses": ["messages"]}[name]
