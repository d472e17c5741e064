"""The chat body as routing sees it, and the bytes that go on."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.errors import RequestError, UpstreamError
from router_ml.ladder import Ladder, Tier
from router_ml.schema import Attempt
from router_ml_serving.problems import ModelNotFound
from router_ml_serving.wire import (
    Target,
    Usage,
    answer_of,
    outgoing,
    parse_json,
    read_chat,
    resolve,
    token_logprobs,
    usage_of,
    with_facts,
)

SMALL = Tier(name="small", model="mini", input_usd_per_mtok=0.1, output_usd_per_mtok=0.1)
LARGE = Tier(name="large", model="maxi", input_usd_per_mtok=9.0, output_usd_per_mtok=9.0)
LADDER = Ladder.of([SMALL, LARGE])
MESSAGES = [{"role": "user", "content": "Hello"}]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("auto", Target()),
        ("router", Target()),
        ("router-0.97", Target(quality=0.97)),
        ("router-1", Target(quality=1.0)),
        ("small", Target(pinned=SMALL)),
        ("maxi", Target(pinned=LARGE)),
    ],
)
def test_every_model_name_has_one_meaning(name, target):
    assert resolve(name, LADDER) == target


def test_an_unknown_name_is_told_of_the_tiers_that_may_answer_alone():
    with pytest.raises(ModelNotFound, match="known: auto, router, small, large, mini, maxi"):
        resolve("nothing", LADDER)
    with pytest.raises(ModelNotFound) as caught:
        resolve("maxj", LADDER, allowed=frozenset({"small"}))
    assert str(caught.value).endswith("known: auto, router, small, mini")
    assert "maxi" not in str(caught.value)


@given(st.text())
def test_any_model_name_is_resolved_or_not_found(name):
    try:
        target = resolve(name, LADDER)
    except ModelNotFound:
        return
    assert target.quality is None or 0 < target.quality <= 1


@given(st.dictionaries(st.sampled_from(["messages", "model", "tools", "stream", "router", "metadata", "x"]), JSON))
def test_any_json_object_is_read_or_refused_with_a_reason(body):
    try:
        chat = read_chat(body)
    except RequestError:
        return
    assert chat.request.messages


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(raw):
    try:
        body = parse_json(raw)
    except RequestError:
        return
    assert isinstance(body, dict)


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_what_goes_upstream_is_what_came_but_for_model_and_router(extra):
    body = {**extra, "messages": MESSAGES, "model": "auto", "router": {"tenant": "t"}}
    sent = json.loads(outgoing(body, SMALL))
    assert sent.pop("model") == "mini"
    assert sent == {key: value for key, value in body.items() if key not in ("model", "router")}
    assert body["router"] == {"tenant": "t"}


@given(
    st.dictionaries(st.text().filter(lambda key: key != "router"), JSON, max_size=6),
    st.sampled_from([b"", b" ", b"\n", b"\r\n"]),
)
def test_facts_are_added_and_nothing_else_changes(body, tail):
    raw = orjson.dumps(body, option=orjson.OPT_INDENT_2) + tail
    changed = with_facts(raw, {"tier": "small"})
    assert orjson.loads(changed) == {**body, "router": {"tier": "small"}}
    assert changed.endswith(tail)


def test_what_is_no_object_gets_no_facts():
    assert with_facts(b"[1]", {}) == b"[1]"


def test_headers_win_over_the_router_key_and_that_over_metadata():
    body = {
        "messages": MESSAGES,
        "metadata": {"tenant": "c", "feature": "c", "use_case": "c", "left": "over"},
        "router": {"tenant": "b", "feature": "b", "quality": 0.5, "own": 1},
    }
    headers = [(b"x-router-tenant", b"a"), (b"x-session-id", b"s"), (b"accept", b"*/*")]
    chat = read_chat(body, headers)
    request = chat.request
    assert (request.tenant, request.feature, request.use_case, request.session_id) == ("a", "b", "c", "s")
    assert chat.quality == 0.5
    assert chat.tags == {"left": "over", "own": 1}


def test_the_newer_token_limit_wins():
    body = {"messages": MESSAGES, "max_tokens": 5, "max_completion_tokens": 7}
    assert read_chat(body).request.max_tokens == 7


def test_an_answer_is_read_from_the_first_choice():
    message = {"role": "assistant", "content": [{"type": "text", "text": "Hi"}], "tool_calls": [{"id": "1"}]}
    answer = answer_of({"choices": [{"message": message, "finish_reason": "stop"}], "usage": None})
    assert (answer.text, answer.finish_reason, answer.tool_calls) == ("Hi", "stop", ({"id": "1"},))
    refusal = {"role": "assistant", "content": None, "refusal": "No."}
    assert answer_of({"choices": [{"message": refusal, "finish_reason": "stop"}]}).text == "No."


@given(JSON)
def test_any_reply_of_an_upstream_is_an_answer_or_a_protocol_error(choices):
    try:
        answer = answer_of({"choices": choices, "usage": choices})
    except UpstreamError:
        return
    assert Attempt(tier="small", finish_reason=answer.finish_reason, response=answer.text).response == answer.text


def test_cached_tokens_are_read():
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    assert usage_of({"usage": usage}) == Usage(9, 2, 4)
    assert usage_of({"usage": {"prompt_tokens": "9", "completion_tokens": 2}}) is None
    assert usage_of({}) is None


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"logprobs": {"content": [{"logprob": -0.5}, {"logprob": -2}]}}, [-0.5, -2.0]),
        ({"logprobs": {"content": [{"logprob": True}, {"logprob": "x"}, 3, {}]}}, []),
        ({"logprobs": {"content": None}}, []),
        ({"logprobs": None}, []),
        ({}, []),
    ],
)
def test_token_log_probabilities_are_read_where_there_are_some(choice, expected):
    assert token_logprobs(choice) == expected
    answer = answer_of({"choices": [{"message": {"content": "Hi"}, **choice}]})
    assert (answer.logprobs is not None) == bool(expected)
