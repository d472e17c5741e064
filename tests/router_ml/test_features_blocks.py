"""The blocks one by one: text statistics, structure, metadata. What each column says, on requests made for it."""

from __future__ import annotations

from math import log1p
from typing import Any

import pytest

from router_ml.features import DENSE_NAMES, N_BUCKETS, N_TEXT_BUCKETS, featurize, metadata, ngrams, structure, text
from router_ml.features.view import view_of
from router_ml.schema import Request


def ask(content: Any, **fields: Any) -> Request:
    return Request(messages=[{"role": "user", "content": content}], **fields)


def texts(request: Request) -> dict[str, float]:
    return dict(zip(text.COLUMNS, text.compute(view_of(request)), strict=True))


def shape(request: Request) -> dict[str, float]:
    return dict(zip(structure.COLUMNS, structure.compute(view_of(request)), strict=True))


def facts(request: Request) -> set[int]:
    return set(metadata.compute(view_of(request)))


def test_the_columns_of_the_blocks_are_the_columns_of_the_vector() -> None:
    names = [f"text.{name}" for name in text.COLUMNS] + [f"structure.{name}" for name in structure.COLUMNS]
    assert tuple(names) == DENSE_NAMES


def test_lengths_of_text_and_words() -> None:
    found = texts(ask("one three one"))
    assert found["log_chars"] == log1p(13)
    assert found["log_words"] == log1p(3)
    assert found["mean_word_chars"] == pytest.approx(11 / 3)
    assert found["longest_word_chars"] == 5
    assert found["distinct_word_share"] == pytest.approx(2 / 3)


def test_shares_of_characters_sum_to_at_most_one() -> None:
    found = texts(ask("Ab 1+(x)!\n文"))
    shares = {name: value for name, value in found.items() if name.endswith("_share") and name != "distinct_word_share"}
    assert shares["digit_share"] == shares["ideograph_share"] == shares["newline_share"] == pytest.approx(1 / 11)
    assert shares["bracket_share"] == pytest.approx(2 / 11)
    assert sum(shares.values()) <= 1.0


def test_marks_are_counted() -> None:
    found = texts(ask('why?\n- "a"\n- b ?\n```py\\n```'))
    assert found["log_question_marks"] == log1p(2)
    assert found["log_bullets"] == log1p(2)
    assert found["log_code_fences"] == log1p(2)
    assert found["log_quotes"] == log1p(2)
    assert found["log_backslashes"] == log1p(1)


@pytest.mark.parametrize(
    ("asked", "cue"),
    [
        ("Prove this, and explain why", "reasoning"),
        ("WARUM? Beweise es", "reasoning"),
        ("must be exactly", "constraint"),
        ("Translate and summarize", "transform"),
        ("python def function", "code"),
        ("the contract clause", "formal"),
    ],
)
def test_cue_words_are_counted_whatever_their_case(asked: str, cue: str) -> None:
    found = texts(ask(asked))
    counts = {name: value for name, value in found.items() if name.endswith("_cues")}
    assert counts[f"log_{cue}_cues"] >= log1p(1)
    assert counts[f"log_{cue}_cues"] == max(counts.values())


def test_turns_tools_formats_and_limits_are_read() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": ("ab " * 34)[:100]},
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "42"},
        {"role": "user", "content": [{"type": "text", "text": "and?"}, {"type": "image_url"}, {"type": "file"}]},
    ]
    tools = [{"type": "function", "function": {"name": "f"}}]
    found = shape(
        Request(messages, tools=tools, response_format={"type": "json_schema", "json_schema": {}}, max_tokens=99)
    )
    assert found["log_user_turns"] == log1p(2)
    assert found["log_assistant_turns"] == found["log_tool_turns"] == log1p(1)
    assert found["log_system_chars"] == log1p(8)
    assert found["log_user_chars"] == log1p(104)
    assert found["log_last_turn_chars"] == log1p(4)
    assert found["is_follow_up"] == 1.0
    assert found["log_tools"] == log1p(1)
    assert found["log_tool_schema_chars"] > 0
    assert found["log_output_schema_chars"] > 0
    assert found["wants_json"] == 1.0
    assert found["log_images"] == found["log_other_attachments"] == log1p(1)
    assert found["has_max_tokens"] == 1.0
    assert found["log_max_tokens"] == log1p(99)


def test_what_is_absent_is_zero() -> None:
    found = shape(ask("a question", response_format={"type": "text"}))
    zeros = ["log_tools", "wants_json", "is_follow_up", "log_images", "has_max_tokens", "log_max_tokens"]
    assert [found[name] for name in zeros] == [0.0] * len(zeros)


@pytest.mark.parametrize("limit", [-5, 0, 10**9, 10**400])
def test_an_absurd_limit_is_a_number_still(limit: int) -> None:
    assert 0 <= shape(ask("hi", max_tokens=limit))["log_max_tokens"] < 20


def test_each_known_fact_has_one_bucket_beyond_those_of_the_text() -> None:
    plain = facts(ask("hi"))
    assert len(plain) == 1  # the turn
    known = facts(ask("hi", tenant="acme", feature="chat", use_case="batch", tools=[{"function": {"name": "f"}}]))
    assert len(known) == 6
    assert all(N_TEXT_BUCKETS <= bucket < N_BUCKETS for bucket in known)


def test_the_same_value_under_another_name_is_another_fact() -> None:
    assert facts(ask("hi", tenant="x")) != facts(ask("hi", feature="x"))
    assert facts(ask("hi", tenant="x")) != facts(ask("hi", tenant="y"))


def test_a_template_is_known_by_its_head_and_tools_by_their_names_in_any_order() -> None:
    def templated(system: str, *names: str) -> set[int]:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": "hi"}]
        return facts(Request(messages, tools=[{"function": {"name": name}} for name in names]))

    head = "You are a helpful assistant of the company. " * 4
    assert templated(head + "Today is Monday", "a", "b") == templated(head + "Today is Friday", "b", "a")
    assert templated(head) != templated("Other " + head)


def test_metadata_never_looks_like_a_word() -> None:
    features = featurize(ask("tenant acme", tenant="acme"))
    words = ngrams.compute(view_of(ask("tenant acme", tenant="acme")))
    assert set(words.tolist()) == set(features.ids[features.ids < N_TEXT_BUCKETS].tolist())
    assert len(words) == 3  # two words and their pair


def test_no_words_make_no_ngrams() -> None:
    assert len(ngrams.compute(view_of(ask("?!")))) == 0
