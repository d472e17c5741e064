"""The chain: posteriors are those of listing every case, and certain evidence settles what it is about."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_ml_training.chain import smooth


def by_listing(rise: np.ndarray, slip: np.ndarray, likelihood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(ok) and P(ok given that the tier before failed) of one row, from all 2^K outcomes."""
    k = len(rise)
    total, ok = 0.0, np.zeros(k)
    failed, failed_ok = np.zeros(k), np.zeros(k)
    for case in itertools.product((0, 1), repeat=k):
        p = 1.0
        for t, state in enumerate(case):
            up = rise[t] if t == 0 or case[t - 1] == 0 else 1 - slip[t]
            p *= (up if state else 1 - up) * (likelihood[t] if state else 1 - likelihood[t])
        total += p
        for t, state in enumerate(case):
            ok[t] += p * state
            if t == 0 or case[t - 1] == 0:
                failed[t] += p
                failed_ok[t] += p * state
    return ok / total, failed_ok / failed


inside = st.floats(0.02, 0.98)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5).flatmap(lambda k: st.lists(st.tuples(inside, inside, inside), min_size=k, max_size=k)))
def test_posteriors_are_those_of_listing_every_case(cells: list[tuple[float, float, float]]) -> None:
    rise, slip, likelihood = np.array(cells).T
    found = smooth(rise[None], slip[None], likelihood[None])
    ok, if_failed = by_listing(rise, slip, likelihood)
    np.testing.assert_allclose(found.ok[0], ok, rtol=1e-9)
    np.testing.assert_allclose(found.if_failed[0], if_failed, rtol=1e-9)


def test_silence_leaves_the_prior() -> None:
    found = smooth(np.array([[0.7, 0.4]]), np.array([[0.3, 0.1]]), np.full((1, 2), 0.5))
    np.testing.assert_allclose(found.ok, [[0.7, 0.7 * 0.9 + 0.3 * 0.4]])


def test_a_skipped_tier_is_told_from_what_surrounds_it() -> None:
    rise, slip = np.array([[0.5, 0.6, 0.3]]), np.array([[0.5, 0.1, 0.1]])
    found = smooth(rise, slip, np.array([[0.0, 0.5, 1.0]]))
    # The first failed, so the second is good with 0.6; the third was good: 0.6 * 0.9 against 0.4 * 0.3.
    assert found.ok[0, 1] == pytest.approx(0.54 / (0.54 + 0.12))


def test_graded_outcomes_stay_what_they_are() -> None:
    known = np.array([[0.8, np.nan]])
    found = smooth(np.array([[0.2, 0.5]]), np.array([[0.8, 0.1]]), np.array([[0.8, 0.5]]), known)
    assert found.ok[0, 0] == 0.8
    assert found.ok[0, 1] == pytest.approx(0.2 * 0.5 + 0.8 * 0.9)
    # What a dearer tier did after a failure is its grade, not the grade times what was believed of it before.
    after = smooth(np.array([[0.6, 0.9]]), np.array([[0.0, 0.05]]), np.array([[0.0, 0.7]]), np.array([[0.0, 0.7]]))
    assert after.if_failed.tolist() == after.if_ok.tolist() == [[0.0, 0.7]]


def test_evidence_that_the_model_calls_impossible_is_survived() -> None:
    found = smooth(np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]]), np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(found.ok, [[0.0, 1.0]], atol=1e-9)


def test_em_finds_the_rates() -> None:
    rng = np.random.default_rng(0)
    n, rates, slips = 4000, np.array([0.6, 0.5, 0.4]), np.array([0.0, 0.1, 0.1])
    state = np.zeros((n, 3))
    for t in range(3):
        p = np.full(n, rates[t]) if t == 0 else np.where(state[:, t - 1] == 1, 1 - slips[t], rates[t])
        state[:, t] = rng.random(n) < p
    # The second tier is skipped half of the time, and the last one was judged by someone who errs.
    likelihood = np.where(rng.random((n, 3)) < [0.0, 0.5, 0.0], 0.5, state)
    said = np.where(rng.random(n) < 0.8, state[:, 2], 1 - state[:, 2])
    likelihood[:, 2] = np.where(said == 1, 0.8, 0.2)
    rise = np.array([0.5, 0.5, 0.5])
    for _ in range(60):
        found = smooth(np.tile(rise, (n, 1)), np.tile(slips, (n, 1)), likelihood)
        failed = np.column_stack([np.ones(n), 1 - found.ok[:, :-1]])
        rise = (failed * found.if_failed).sum(axis=0) / failed.sum(axis=0)
    np.testing.assert_allclose(rise, rates, atol=0.05)
