"""The log format: what is written is read back, unknown fields are kept, mistakes are named."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from router_ml.errors import RecordError
from router_ml.schema import (
    SCHEMA,
    Attempt,
    Feedback,
    Interaction,
    RequestBody,
    StoredFeatures,
    Verdict,
    parse_interaction,
)

text = st.text(max_size=20)
maybe_text = st.none() | text
unit = st.floats(0, 1)
count = st.integers(0, 10**9)
money = st.floats(0, 1e9)
names = st.sampled_from(["small", "medium", "large"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(text, json_values, max_size=3)
moments = st.datetimes(
    min_value=datetime(1990, 1, 1),
    max_value=datetime(2100, 1, 1),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8))]),
)
sources = st.sampled_from(["verifier", "rule", "retry", "user", "judge", "human", "check"])
verdicts = st.builds(
    Verdict, adequate=st.none() | st.booleans(), score=st.none() | unit, source=sources, reason=maybe_text
)
attempts = st.builds(
    Attempt,
    tier=names,
    model=text,
    input_tokens=st.none() | count,
    cached_tokens=count,
    output_tokens=st.none() | count,
    cost_usd=st.none() | money,
    ttft_ms=st.none() | money,
    latency_ms=st.none() | money,
    finish_reason=maybe_text,
    error=maybe_text,
    response=maybe_text,
    tool_calls=st.lists(objects, max_size=2).map(tuple),
    verdicts=st.lists(verdicts, max_size=2).map(tuple),
)
feedback = st.builds(
    Feedback, ts=moments, source=sources, tier=st.none() | names, adequate=st.none() | st.booleans(), key=maybe_text
)
bodies = st.builds(
    RequestBody,
    messages=st.lists(objects, max_size=3).map(tuple),
    tools=st.none() | st.lists(objects, max_size=2).map(tuple),
    response_format=st.none() | objects,
    max_tokens=st.none() | count,
)
stored = st.builds(
    StoredFeatures,
    schema_hash=text,
    dense=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=4).map(tuple),
    ids=st.lists(count, max_size=4).map(tuple),
    counts=st.lists(st.floats(0, 10, width=32), max_size=4).map(tuple),
)
interactions = st.builds(
    Interaction,
    id=st.text(min_size=1, max_size=10),
    ts=moments,
    session_id=maybe_text,
    tenant=maybe_text,
    feature=maybe_text,
    use_case=maybe_text,
    tags=objects,
    request=bodies,
    features=st.none() | stored,
    policy_version=maybe_text,
    candidates=st.lists(names, unique=True).map(tuple),
    propensity=st.sampled_from([{}, {"small": 1.0}, {"small": 0.97, "medium": 0.0, "large": 0.03}]),
    explored=st.booleans(),
    mode=st.sampled_from(["live", "shadow", "audit"]),
    attempts=st.lists(attempts, max_size=2).map(tuple),
    feedback=st.lists(feedback, max_size=2).map(tuple),
)


def row(**changes: Any) -> dict[str, Any]:
    return {"schema": SCHEMA, "id": "a", "ts": "2026-11-22T10:00:00Z", **changes}


@given(interactions)
@settings(max_examples=200)
def test_a_line_of_json_is_read_back_as_it_was_written(interaction: Interaction) -> None:
    line = interaction.to_json()
    assert "\n" not in line
    again = parse_interaction(line)
    assert again == interaction
    assert again.to_json() == line
    assert parse_interaction(json.loads(line)) == interaction


def test_the_documented_example_is_read() -> None:
    interaction = parse_interaction(
        row(
            session_id="s1",
            request={"messages": [{"role": "user", "content": "Why?"}], "tools": None, "max_tokens": 512},
            propensity={"small": 0.97, "medium": 0.0, "large": 0.03},
            attempts=[
                {
                    "tier": "small",
                    "model": "gpt-4o-mini",
                    "cost_usd": 0.000146,
                    "verdicts": [{"adequate": False, "score": 0.08, "source": "verifier"}],
                }
            ],
            feedback=[
                {"ts": "2026-11-22T11:00:00Z", "source": "user", "tier": "large", "adequate": True, "score": 1.0}
            ],
        )
    )
    request = interaction.to_request()
    assert (request.messages[0]["content"], request.max_tokens, request.session_id) == ("Why?", 512, "s1")
    assert interaction.attempts[0].verdicts[0].adequate is False
    assert interaction.attempts[0].input_tokens is None


def test_times_are_utc_and_a_time_without_zone_means_utc() -> None:
    assert parse_interaction(row(ts="2026-11-22T12:00:00+02:00")).ts == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert parse_interaction(row(ts="2026-11-22T10:00:00")).ts == datetime(2026, 11, 22, 10, tzinfo=UTC)


def test_unknown_fields_at_any_depth_are_kept_in_tags() -> None:
    interaction = parse_interaction(
        row(
            color="red",
            tags={"mine": 1},
            request={"messages": [], "seed": 3},
            attempts=[{"tier": "small", "region": "eu", "verdicts": [{"source": "judge", "model": "x"}]}],
        )
    )
    assert interaction.tags == {
        "mine": 1,
        "color": "red",
        "request.seed": 3,
        "attempts.0.region": "eu",
        "attempts.0.verdicts.0.model": "x",
    }


@given(st.dictionaries(st.text(min_size=1, max_size=8).map(lambda name: f"x-{name}"), json_values, max_size=4))
def test_no_unknown_field_is_lost(extra: dict[str, Any]) -> None:
    assert dict(parse_interaction(json.dumps(row(**extra))).tags) == extra


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        ("", "not valid JSON"),
        ("[]", "row: "),
        (row(schema="router_ml.interaction/9"), "schema: got 'router_ml.interaction/9', this release reads 'router_ml"),
        (row(id=""), "id: "),
        ({"id": "a"}, "ts: missing"),
        (row(ts="yesterday"), "ts: "),
        (row(mode="dream"), "mode: "),
        (row(propensity={"small": 0.4, "large": 0.4}), "sum to 0.8000, expected 1"),
        (row(propensity={"small": 1.5}), "propensity.small: "),
        (row(attempts=[{"tier": "small", "cost_usd": float("nan")}]), "attempts.0.cost_usd: "),
        (row(attempts=[{"tier": "small", "cost_usd": -1}]), "attempts.0.cost_usd: "),
        (row(attempts=[{"tier": "small", "verdicts": [{"source": "crowd"}]}]), "attempts.0.verdicts.0.source: "),
        (row(attempts=[{"model": "x"}]), "attempts.0.tier: missing"),
        (row(attempts="many"), "attempts: "),
        (row(feedback=[{"source": "user"}]), "feedback.0.ts: missing"),
    ],
)
def test_a_mistake_is_named_with_its_field(data: Any, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_interaction(data)
    assert message in str(caught.value)


def test_all_mistakes_of_a_row_are_named_at_once_and_long_values_cut() -> None:
    with pytest.raises(RecordError) as caught:
        parse_interaction(row(ts="x" * 500, mode="dream"))
    message = str(caught.value)
    assert "ts: " in message
    assert "mode: " in message
    assert len(message) < 400


@given(st.text() | st.binary())
def test_any_line_is_read_or_refused_and_nothing_else(line: str | bytes) -> None:
    with contextlib.suppress(RecordError):
        parse_interaction(line)


def test_records_cannot_be_changed() -> None:
    interaction = parse_interaction(row())
    with pytest.raises(ValidationError, match="frozen"):
        interaction.id = "b"  # type: ignore[misc]
