"""Exploration: exact propensities; upwards live, downwards in the background; audits whatever the request is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from router_ml.exploration import Background, beside, draw_background, explore


@st.composite
def situations(draw: st.DrawFn) -> tuple[int, list[bool]]:
    eligible = draw(st.lists(st.booleans(), min_size=2, max_size=10).filter(any))
    return draw(st.sampled_from([i for i, is_in in enumerate(eligible) if is_in])), eligible


@given(situations(), st.floats(0, 1), st.integers(0, 2**32))
def test_propensities_are_a_distribution_over_the_planned_tier_and_dearer_eligible_ones(
    situation: tuple[int, list[bool]], up: float, seed: int
) -> None:
    choice, eligible = situation
    index, propensity = explore(choice, eligible, up, np.random.default_rng(seed))
    assert sum(propensity) == pytest.approx(1.0, abs=1e-12)
    assert min(propensity) >= 0
    assert not any(propensity[:choice])
    assert not any(p for p, may in zip(propensity, eligible, strict=True) if not may)
    assert index >= choice
    assert propensity[index] > 0


@given(situations(), st.floats(0, 1))
def test_the_propensity_is_known_before_the_draw(situation: tuple[int, list[bool]], up: float) -> None:
    choice, eligible = situation
    drawn = [explore(choice, eligible, up, np.random.default_rng(seed))[1] for seed in range(3)]
    assert all(one == drawn[0] for one in drawn)


def test_draws_follow_the_propensities() -> None:
    rng = np.random.default_rng(7)
    eligible = [True, True, False, True, True]
    draws = [explore(1, eligible, 0.3, rng) for _ in range(20_000)]
    shares = np.bincount([index for index, _ in draws], minlength=5) / len(draws)
    assert shares == pytest.approx([0, 0.7, 0, 0.15, 0.15], abs=0.015)
    assert draws[0][1] == pytest.approx([0, 0.7, 0, 0.15, 0.15])


def test_without_a_dearer_tier_the_planned_one_answers_for_certain() -> None:
    index, propensity = explore(1, [True, True, False], 0.5, np.random.default_rng(0))
    assert (index, propensity) == (1, [0.0, 1.0, 0.0])


def test_exactly_one_number_is_drawn_whatever_happens() -> None:
    for up, eligible in [(0.0, [True, True]), (0.5, [True, True]), (0.5, [True, False]), (1.0, [True, True])]:
        rng, other = np.random.default_rng(3), np.random.default_rng(3)
        explore(0, eligible, up, rng)
        other.random()
        assert rng.random() == other.random()


SHARES = st.floats(0, 1)


def test_background_draws_follow_their_stated_probabilities() -> None:
    rng = np.random.default_rng(11)
    n, audit, shadow = 50_000, 0.05, 0.2
    draws = [draw_background(audit, shadow, rng) for _ in range(n)]
    modes = [None if one is None else one.mode for one in draws]
    counts = [modes.count(mode) for mode in ("audit", "shadow", None)]
    expected = np.array([audit, (1 - audit) * shadow, (1 - audit) * (1 - shadow)]) * n
    assert chisquare(counts, expected).pvalue > 0.01
    assert {one.share for one in draws if one is not None} == {audit, (1 - audit) * shadow}


def test_the_shadow_tier_is_drawn_evenly_whatever_mode_was_drawn_before() -> None:
    rng = np.random.default_rng(5)
    eligible = [True, False, True, True, True]
    found = [beside(one, 3, eligible) for _ in range(20_000) if (one := draw_background(0.3, 0.9, rng)) is not None]
    shadows = [(tiers[0], propensity) for tiers, propensity in found if len(tiers) == 1]
    counts = np.bincount([tier for tier, _ in shadows], minlength=5)
    assert counts[[1, 3, 4]].tolist() == [0, 0, 0]
    assert chisquare(counts[[0, 2]]).pvalue > 0.01
    assert all(propensity == [0.5, 0, 0.5, 0, 0] for _, propensity in shadows)


def test_who_is_audited_does_not_depend_on_the_request() -> None:
    """The draw takes no request, and uses as many numbers for every one: a test of independence on a fixed seed."""
    rng, requests = np.random.default_rng(2), np.random.default_rng(3)
    hard = requests.random(40_000) < 0.3
    audited = np.empty(len(hard), np.bool_)
    for i, is_hard in enumerate(hard):
        drawn = draw_background(0.05, 0.5, rng)
        audited[i] = drawn is not None and drawn.mode == "audit"
        explore(0, [True, not is_hard], 0.5, rng)  # the live draw of a decision that looks at the request
    table = np.array(
        [[np.sum(hard & audited), np.sum(hard & ~audited)], [np.sum(~hard & audited), np.sum(~hard & ~audited)]]
    )
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    assert chisquare(table.ravel(), expected.ravel(), ddof=2).pvalue > 0.01


@given(SHARES, SHARES, st.integers(0, 2**32))
def test_exactly_two_numbers_are_drawn_for_the_background(audit: float, shadow: float, seed: int) -> None:
    rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
    draw_background(audit, shadow, rng)
    other.random(2)
    assert rng.random() == other.random()


@given(situations(), st.floats(0, 1, exclude_max=True))
def test_an_audit_runs_every_eligible_tier_and_a_shadow_one_cheaper_one(
    situation: tuple[int, list[bool]], point: float
) -> None:
    first, eligible = situation
    audited, nothing = beside(Background("audit", 0.02, point), first, eligible)
    assert audited == tuple(np.flatnonzero(eligible))
    assert not any(nothing)
    shadow, propensity = beside(Background("shadow", 0.1, point), first, eligible)
    assert len(shadow) == int(any(eligible[:first]))
    assert all(eligible[i] and i < first and propensity[i] > 0 for i in shadow)
    assert sum(propensity) == pytest.approx(len(shadow))


def test_shares_of_nothing_and_of_everything_mean_that() -> None:
    rng = np.random.default_rng(0)
    assert all(draw_background(0.0, 0.0, rng) is None for _ in range(1000))
    modes = [one.mode for _ in range(1000) if (one := draw_background(0.0, 1.0, rng)) is not None]
    assert modes == ["shadow"] * 1000
    modes = [one.mode for _ in range(1000) if (one := draw_background(1.0, 1.0, rng)) is not None]
    assert modes == ["audit"] * 1000
