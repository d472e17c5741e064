"""Fingerprints and follow-ups: the same conversation has the same one, and any change in it another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.features import DENSE_NAMES, featurize
from router_ml.schema import Request
from router_ml_serving.turns import FOLLOW_UP_CHARS, fingerprint, is_follow_up, likeness, turn_of, words_of

Message = dict[str, Any]


def said(role: str, content: Any, **fields: Any) -> Message:
    return {"role": role, "content": content, **fields}


def picture(url: str) -> Message:
    return said("user", [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": url}}])


contents = st.one_of(
    st.none(), st.text(max_size=120), st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text()}))
)
conversations = st.lists(
    st.builds(said, st.sampled_from(["system", "user", "assistant", "tool", "developer", "critic"]), contents),
    max_size=6,
)


@given(conversations)
def test_a_follow_up_is_what_the_features_call_one(messages: list[Message]) -> None:
    features = featurize(Request(messages=messages))
    assert is_follow_up(messages) == bool(features.dense[DENSE_NAMES.index("structure.is_follow_up")])


def test_short_means_the_same_as_in_the_features() -> None:
    for n in (FOLLOW_UP_CHARS - 1, FOLLOW_UP_CHARS):
        messages = [said("user", "first"), said("user", "x" * n)]
        assert is_follow_up(messages) == (n < FOLLOW_UP_CHARS)


@given(conversations)
def test_any_conversation_has_a_fingerprint_and_a_copy_has_the_same(messages: list[Message]) -> None:
    copied = [dict(message) for message in messages]
    assert turn_of(messages) == turn_of(copied)


BEFORE = [
    said("system", "Be kind."),
    said("user", "Hello"),
    said("assistant", "Hi!"),
    said("user", "Where is my parcel?"),
]


@pytest.mark.parametrize(
    "after",
    [
        [said("system", "Be kinder."), *BEFORE[1:]],
        [*BEFORE[:3], said("user", "Where is my letter?")],
        [*BEFORE[:3], said("tool", "Where is my parcel?")],
        BEFORE[1:],
        [*BEFORE, said("assistant", "Here.")],
    ],
)
def test_another_head_tail_role_or_count_is_another_conversation(after: list[Message]) -> None:
    assert turn_of(after).whole != turn_of(BEFORE).whole


def test_a_longer_conversation_begins_with_the_fingerprint_of_the_shorter() -> None:
    after = [*BEFORE, said("assistant", "Here."), said("user", "Thanks")]
    assert fingerprint(after, len(BEFORE)) == turn_of(BEFORE).whole
    assert turn_of(after).earlier == fingerprint(after, len(after) - 1)
    assert fingerprint(BEFORE, 99) == fingerprint(BEFORE, 0) == 0


def test_the_same_words_about_another_picture_are_another_question() -> None:
    assert turn_of([picture("https://a/1.png")]).whole == turn_of([picture("https://a/1.png")]).whole
    assert turn_of([picture("https://a/1.png")]).whole != turn_of([picture("https://a/2.png")]).whole


def test_long_texts_are_compared_by_length_head_and_tail() -> None:
    long = "a" * 50_000
    assert turn_of([said("user", long)]).whole == turn_of([said("user", "a" * 50_000)]).whole
    for other in (long + "a", "b" + long[1:], long[:-1] + "b"):
        assert turn_of([said("user", long)]).whole != turn_of([said("user", other)]).whole


def test_calls_of_tools_are_told_apart_by_their_ids() -> None:
    calls = [[said("assistant", None, tool_calls=[{"id": name}])] for name in ("a", "b")]
    assert turn_of(calls[0]).whole != turn_of(calls[1]).whole


@pytest.mark.parametrize("odd", [{"role": "user", "content": 7}, {"role": "user"}, said("user", ["x", {"a": [1]}])])
def test_odd_content_has_a_fingerprint_too(odd: Message) -> None:
    assert turn_of([odd, said("assistant", None, tool_calls=["odd", {"id": 3}])]).n == 2


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("How do I cancel my order today?", "how do I cancel my order now", True),
        ("How do I cancel my order today?", "What do parcels to Norway cost?", False),
        ("订单什么时候可以到达北京", "订单什么时候能到达北京", True),
        ("yes please", "yes please", False),
    ],
)
def test_questions_are_alike_when_most_of_their_words_are_in_any_script(one: str, other: str, alike: bool) -> None:
    assert (likeness(words_of([said("user", one)]), words_of([said("user", other)])) >= 0.6) == alike


def test_long_texts_are_not_compared_word_by_word() -> None:
    template = "Sort this ticket into one of the queues. " * 20
    assert words_of([said("user", template)]) == b""
    assert likeness(b"", b"") == 0.0


def test_a_word_of_the_user_long_before_a_loop_of_tools_is_no_follow_up() -> None:
    start = [said("user", "Mend the build"), said("assistant", "Shall I?"), said("user", "yes")]
    steps = [said("assistant", None), said("tool", "ok")]
    assert is_follow_up([*start, *steps * 10])
    assert not is_follow_up([*start, *steps * 1000])
