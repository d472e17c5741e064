"""Latency budgets: who answers in time, alone or after another answer was held, streaming or not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.budgets import latency_budget, plans_in_time
from router_ml.constraints import Circumstances, Context, Needs
from router_ml.ladder import Ladder, Tier

ANY = Needs(1, 1)
EVERYONE = (True, True, True)
TIERS = Ladder.of(
    [
        Tier(name=f"t{i}", model="m", input_usd_per_mtok=i, output_usd_per_mtok=1, latency_ms=1000.0 * (i + 1))
        for i in range(3)
    ]
)


def context(ttft: float | None = None, total: float | None = None, **now: Any) -> Context:
    return Context(ttft_ms=ttft, total_ms=total, now=Circumstances(**now))


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (context(total=2000), (True, True, False)),
        (context(ttft=2000), (True, True, False)),
        (context(ttft=1, total=2000), (True, True, False)),
        (context(ttft=1, total=2000, streaming=True), EVERYONE),  # the first token is all that a stream waits for
        (context(total=2000, streaming=True), (True, True, False)),
        (context(ttft=1, streaming=True), EVERYONE),
        (context(total=2000, latency_ms=(10.0, 3000.0, 20.0)), (True, False, True)),
        (context(ttft=50, ttft_ms=(10.0, 60.0, 20.0), streaming=True), (True, False, True)),
        (context(ttft=50, total=2500, ttft_ms=(60.0, 10.0, 10.0), streaming=True), (False, True, True)),
        (context(ttft=50, total=2500, ttft_ms=(60.0, 10.0, 10.0)), (True, True, False)),
        (context(ttft=1500, total=5000, ttft_ms=(2e3, 3e2, 4e2), latency_ms=(1e3, 5e3, 6e3)), (True, True, False)),
        (context(total=float("inf")), EVERYONE),
        (context(), EVERYONE),
    ],
)
def test_a_whole_answer_has_the_total_budget_and_a_streams_first_token_its_own(
    given_: Context, expected: tuple[bool, ...]
) -> None:
    assert latency_budget(ANY, TIERS, given_, EVERYONE) == expected


def test_when_nobody_is_fast_enough_the_one_that_exceeds_its_budgets_least_answers() -> None:
    assert latency_budget(ANY, TIERS, context(total=10), (False, True, True)) == (False, True, False)
    slow = context(ttft=50, total=1600, ttft_ms=(100.0, 60.0, 70.0), streaming=True)
    assert latency_budget(ANY, TIERS, slow, EVERYONE) == (False, True, False)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (context(total=3000), {(0, 0), (0, 1), (1, 0)}),
        (context(ttft=3000), {(0, 0), (0, 1), (1, 0)}),
        (context(ttft=1600, ttft_ms=(500.0, 600.0, 700.0), streaming=True), {(0, 0), (0, 1)}),
        (context(ttft=1600, total=2500, ttft_ms=(500.0, 600.0, 700.0), streaming=True), {(0, 0)}),
        (context(ttft=1600, total=9000, ttft_ms=(500.0, 600.0, 700.0)), {(s, t) for s in range(3) for t in range(3)}),
    ],
)
def test_a_held_answer_takes_its_whole_time_before_the_next_one_begins(
    given_: Context, expected: set[tuple[int, int]]
) -> None:
    fits = plans_in_time(TIERS, given_)
    assert fits is not None
    assert {(s, t) for s in range(3) for t in range(3) if fits[s][t]} == expected


def test_without_budgets_every_plan_is_in_time() -> None:
    assert plans_in_time(TIERS, context(streaming=True, latency_ms=(1e9, 1e9, 1e9))) is None


ms = st.floats(0, 1e5)


@given(st.tuples(ms, ms, ms), st.tuples(ms, ms, ms), st.none() | st.floats(1, 1e5), st.none() | st.floats(1, 1e5))
def test_a_plan_in_time_begins_with_a_tier_that_is_in_time_to_the_total(
    latency: tuple[float, ...], first: tuple[float, ...], ttft: float | None, total: float | None
) -> None:
    given_ = context(ttft, total, streaming=True, latency_ms=latency, ttft_ms=first)
    fits = plans_in_time(TIERS, given_)
    left = latency_budget(ANY, TIERS, given_, EVERYONE)
    assert any(left)
    for s, row in enumerate(fits or ()):
        if any(row):
            assert latency[s] <= (total or latency[s])
            assert latency[s] <= (ttft or latency[s])
