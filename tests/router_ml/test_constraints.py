"""Hard rules: what they take away, what they say, and what is left when nothing fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.constraints import CONSTRAINTS, Circumstances, Context, Mask, Needs, eligible, needs_of
from router_ml.features import featurize
from router_ml.ladder import Ladder, Tier
from router_ml.schema import Request

NAMES = ("small", "medium", "large")


def ladder(**changes: dict[str, Any]) -> Ladder:
    base = {"output_usd_per_mtok": 1.0, "context_window": 10_000, "latency_ms": 100}
    return Ladder.of(
        [
            Tier.model_validate({**base, "name": name, "model": name, "input_usd_per_mtok": i, **changes.get(name, {})})
            for i, name in enumerate(NAMES)
        ]
    )


ANY = Needs(input_tokens=100, output_tokens=100)


def now(**facts: Any) -> Context:
    return Context(now=Circumstances(**facts))


def left(mask: Mask) -> list[str]:
    return [name for name, is_in in zip(NAMES, mask, strict=True) if is_in]


def test_nothing_is_excluded_and_nothing_said_when_every_tier_fits() -> None:
    mask, applied = eligible(ANY, ladder(), Context())
    assert (left(mask), applied) == (list(NAMES), ())


@pytest.mark.parametrize(
    ("tiers", "needs", "context", "expected", "said"),
    [
        ({"small": {"context_window": 150}}, ANY, Context(), ["medium", "large"], "context_window excludes small"),
        (
            {"small": {"capabilities": []}, "medium": {"capabilities": ["json"]}},
            Needs(1, 1, frozenset({"tools"})),
            Context(),
            ["large"],
            "capabilities excludes small, medium",
        ),
        ({}, ANY, now(unhealthy=frozenset({"medium"})), ["small", "large"], "health excludes medium"),
        ({}, ANY, Context(allowed=frozenset({"small"})), ["small"], "allowed excludes medium, large"),
        ({}, ANY, now(allowed=frozenset({"small"})), ["small"], "allowed excludes medium, large"),
        ({}, ANY, now(floor="medium"), ["medium", "large"], "floor excludes small"),
        ({}, ANY, now(floor="large", floor_reason="session"), ["large"], "floor excludes small, medium (session)"),
        (
            {"large": {"latency_ms": 900}},
            ANY,
            Context(total_ms=500),
            ["small", "medium"],
            "latency_budget excludes large",
        ),
    ],
)
def test_a_rule_takes_tiers_away_and_says_which(
    tiers: dict[str, dict[str, Any]], needs: Needs, context: Context, expected: list[str], said: str
) -> None:
    mask, applied = eligible(needs, ladder(**tiers), context)
    assert (left(mask), applied) == (expected, (said,))


def test_a_prompt_that_only_just_fits_by_estimate_does_not_fit() -> None:
    mask, _ = eligible(Needs(9_500, 100), ladder(large={"context_window": 20_000}), Context())
    assert left(mask) == ["large"]


def test_the_fastest_tier_answers_when_none_is_fast_enough() -> None:
    mask, applied = eligible(ANY, ladder(small={"latency_ms": 80}), Context(total_ms=10))
    assert left(mask) == ["small"]
    assert applied == ("latency_budget excludes medium, large",)


def test_the_largest_context_window_answers_when_nothing_fits() -> None:
    mask, applied = eligible(Needs(1e6, 0), ladder(medium={"context_window": 50_000}), Context())
    assert left(mask) == ["medium"]
    assert applied[-1] == "no tier meets every rule: kept medium for the largest context window"


def test_padding_has_to_fit_the_context_window_although_no_feature_sees_it() -> None:
    padded = Request(messages=[{"role": "user", "content": f"Why?{' ' * 60_000}"}])
    features = featurize(padded)
    assert features.input_tokens < 10
    assert needs_of(padded, features).input_tokens == features.sent_tokens > 15_000


def test_a_forbidden_tier_does_not_answer_even_when_nothing_else_is_healthy() -> None:
    unhealthy, small = Circumstances(unhealthy=frozenset({"small"})), frozenset({"small"})
    for context in (
        Context(allowed=small, now=unhealthy),
        Context(now=replace(unhealthy, allowed=small)),
        Context(allowed=frozenset({"small", "large"}), now=replace(unhealthy, allowed=small)),
    ):
        mask, _ = eligible(ANY, ladder(large={"context_window": 50_000}), context)
        assert left(mask) == ["small"]


def test_a_tier_must_be_the_use_cases_and_the_tenants() -> None:
    context = Context(frozenset({"small", "medium"}), now=Circumstances(allowed=frozenset({"medium", "large"})))
    mask, applied = eligible(ANY, ladder(), context)
    assert (left(mask), applied) == (["medium"], ("allowed excludes small, large",))


def test_where_no_tier_is_both_the_tenants_rule_wins_and_is_named() -> None:
    context = Context(frozenset({"large"}), now=Circumstances(allowed=frozenset({"small", "elsewhere"})))
    mask, applied = eligible(ANY, ladder(), context)
    assert left(mask) == ["small"]
    assert applied == (
        "allowed excludes medium, large (the tenant may use none of the use case's tiers: the tenant's rule wins)",
    )


@pytest.mark.parametrize(
    ("floor", "facts"),
    [
        ("large", {"unhealthy": frozenset({"large"})}),
        ("medium", {"allowed": frozenset({"small"})}),
        ("gone", {}),
        ("small", {}),
    ],
)
def test_a_floor_that_leaves_nobody_or_is_none_is_ignored(floor: str, facts: dict[str, Any]) -> None:
    assert eligible(ANY, ladder(), now(floor=floor, **facts)) == eligible(ANY, ladder(), now(**facts))


def test_time_comes_before_a_floor() -> None:
    tiers = ladder(medium={"latency_ms": 900}, large={"latency_ms": 900})
    mask, _ = eligible(ANY, tiers, Context(total_ms=500, now=Circumstances(floor="large")))
    assert left(mask) == ["small"]


@given(
    st.floats(0, 1e7),
    st.frozensets(st.sampled_from(["tools", "vision", "json", "audio"])),
    st.frozensets(st.sampled_from(NAMES)),
    st.none() | st.frozensets(st.sampled_from([*NAMES, "other"])),
    st.none() | st.frozensets(st.sampled_from(NAMES), min_size=1),
    st.none() | st.sampled_from([*NAMES, "other"]),
    st.none() | st.floats(1, 1e4),
)
def test_somebody_always_answers(
    tokens: float,
    capabilities: frozenset[str],
    unhealthy: frozenset[str],
    allowed: frozenset[str] | None,
    tenants: frozenset[str] | None,
    floor: str | None,
    budget_ms: float | None,
) -> None:
    tiers = ladder(small={"context_window": 4_000, "capabilities": []}, large={"latency_ms": 2_000})
    context = Context(allowed, None, budget_ms, Circumstances(unhealthy, tenants, floor))
    mask, applied = eligible(Needs(tokens, 10, capabilities), tiers, context)
    assert any(mask)
    assert len(mask) == 3
    assert applied or all(mask)
    if tenants is not None:
        assert set(left(mask)) <= tenants
    if allowed is not None and allowed & (tenants or set(NAMES)):
        assert set(left(mask)) <= allowed


@pytest.mark.parametrize(
    ("fields", "capabilities"),
    [
        ({}, set()),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {"tools"}),
        ({"tools": []}, set()),
        ({"response_format": {"type": "json_object"}}, {"json"}),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"json"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, {"vision"}),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}, {"type": "text"}]}]}, {"audio"}),
        ({"messages": [{"role": "user", "content": ["odd", {"type": ["list"]}, {}]}]}, set()),
        ({"messages": [{"role": "tool", "content": "4"}]}, {"tools"}),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, {"tools"}),
    ],
)
def test_needs_are_read_from_the_request(fields: dict[str, Any], capabilities: set[str]) -> None:
    request = Request(**{"messages": [{"role": "user", "content": "hi"}], **fields})
    assert needs_of(request, featurize(request)).capabilities == capabilities


def test_the_answers_limit_counts_as_room_for_it() -> None:
    request = Request(messages=[], max_tokens=7)
    assert needs_of(request, featurize(request)).output_tokens == 7
    assert needs_of(Request(messages=[]), featurize(request)).output_tokens > 7


@pytest.mark.parametrize("name", list(CONSTRAINTS))
def test_every_constraint_only_takes_tiers_away(name: str) -> None:
    before = (True, False, True)
    context = Context(total_ms=50, now=Circumstances(frozenset({"small"}), frozenset({"large"}), "large"))
    after = CONSTRAINTS.load(name)(Needs(1e6, 1, frozenset({"audio"})), ladder(), context, before)
    assert all(had or not has for had, has in zip(before, after, strict=True))


@pytest.mark.parametrize("name", list(CONSTRAINTS))
def test_a_constraint_with_nothing_to_say_returns_the_very_mask(name: str) -> None:
    before = (True, False, True)
    assert CONSTRAINTS.load(name)(ANY, ladder(), Context(), before) is before
