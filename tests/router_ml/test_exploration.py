"""Exploration: exact propensities, upwards only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.exploration import explore


@st.composite
def situations(draw: st.DrawFn) -> tuple[int, list[bool]]:
    eligible = draw(st.lists(st.booleans(), min_size=2, max_size=10).filter(any))
    return draw(st.sampled_from([i for i, is_in in enumerate(eligible) if is_in])), eligible


@given(situations(), st.floats(0, 1), st.integers(0, 2**32))
def test_propensities_are_a_distribution_over_the_planned_tier_and_dearer_eligible_ones(
    situation: tuple[int, list[bool]], up: float, seed: int
) -> None:
    choice, eligible = situation
    index, propensity = explore(choice, np.array(eligible), up, np.random.default_rng(seed))
    assert propensity.sum() == pytest.approx(1.0, abs=1e-12)
    assert (propensity >= 0).all()
    assert not propensity[:choice].any()
    assert not propensity[~np.array(eligible)].any()
    assert index >= choice
    assert propensity[index] > 0


@given(situations(), st.floats(0, 1))
def test_the_propensity_is_known_before_the_draw(situation: tuple[int, list[bool]], up: float) -> None:
    choice, eligible = situation
    drawn = [explore(choice, np.array(eligible), up, np.random.default_rng(seed))[1] for seed in range(3)]
    assert all(np.array_equal(one, drawn[0]) for one in drawn)


def test_draws_follow_the_propensities() -> None:
    rng = np.random.default_rng(7)
    eligible = np.array([True, True, False, True, True])
    draws = [explore(1, eligible, 0.3, rng) for _ in range(20_000)]
    shares = np.bincount([index for index, _ in draws], minlength=5) / len(draws)
    assert shares == pytest.approx([0, 0.7, 0, 0.15, 0.15], abs=0.015)
    assert draws[0][1] == pytest.approx([0, 0.7, 0, 0.15, 0.15])


def test_without_a_dearer_tier_the_planned_one_answers_for_certain() -> None:
    index, propensity = explore(1, np.array([True, True, False]), 0.5, np.random.default_rng(0))
    assert (index, propensity.tolist()) == (1, [0.0, 1.0, 0.0])


def test_exactly_one_number_is_drawn_whatever_happens() -> None:
    for up, eligible in [(0.0, [True, True]), (0.5, [True, True]), (0.5, [True, False]), (1.0, [True, True])]:
        rng, other = np.random.default_rng(3), np.random.default_rng(3)
        explore(0, np.array(eligible), up, rng)
        other.random()
        assert rng.random() == other.random()
