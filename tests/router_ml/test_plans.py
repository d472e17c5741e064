"""Plans: their worth against brute force, the stopping rule by hand, ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.plans import best_plans, cost_factor, jump, plan_values

units = st.floats(0, 1)
costs = st.floats(0, 2)


@pytest.mark.parametrize(
    ("small", "large", "priced", "spread"),
    [(0.6, 0.8, (0.01, 0.2), 0.3), (0.9, 0.95, (0.05, 0.1), 0.1), (0.2, 0.9, (0.0, 0.5), 0.6), (0.5, 0.5, (0, 0), 0.5)],
)
def test_a_plan_is_worth_what_a_simulation_of_its_answers_gives(
    small: float, large: float, priced: tuple[float, float], spread: float
) -> None:
    rng = np.random.default_rng(0)
    scale = spread * np.sqrt(small * (1 - small))
    # Whatever the answer says of the dearer tier, only the difference decides: v = p + difference.
    difference = small - large + rng.logistic(0.0, scale, 400_000)
    posterior = np.stack([large + difference, np.full_like(difference, large)], axis=1)
    paid = np.array(priced)
    last = jump(posterior, np.broadcast_to(paid, posterior.shape), 0)
    worth = np.where(last == 0, posterior[:, 0], posterior[:, 1] - paid[1]) - paid[0]
    found = plan_values(np.array([small, large]), paid, np.full((2, 2), spread))[0, 1]
    assert found == pytest.approx(worth.mean(), abs=4 * worth.std() / np.sqrt(worth.size) + 1e-6)


@given(st.lists(st.tuples(units, costs), min_size=2, max_size=10), st.floats(0, 1))
def test_judging_is_free_so_a_plan_is_never_worth_less_than_its_first_tier(
    tiers: list[tuple[float, float]], spread: float
) -> None:
    adequacy, priced = (np.array(column) for column in zip(*tiers, strict=True))
    k = len(tiers)
    values = plan_values(adequacy, priced, np.full((k, k), spread))
    assert np.diag(values) == pytest.approx(adequacy - priced)
    for s in range(k):
        assert (values[s, s + 1 :] >= values[s, s] - 2e-6).all()
        assert np.isneginf(values[s, :s]).all()
    assert np.isfinite(values[np.triu_indices(k)]).all()


@given(units, units, costs, costs)
def test_without_spread_a_plan_is_worth_the_better_tier_less_the_first_ones_cost(
    small: float, large: float, cheap: float, dear: float
) -> None:
    value = plan_values(np.array([small, large]), np.array([cheap, dear]), np.zeros((2, 2)))[0, 1]
    assert value == pytest.approx(max(small, large - dear) - cheap, abs=2e-6)
    assert value < max(small - cheap, large - dear)


@given(units, units, costs, st.floats(0, 1), st.floats(0, 1))
def test_a_verifier_that_tells_more_makes_a_plan_worth_more(
    small: float, large: float, dear: float, one: float, other: float
) -> None:
    low, high = (
        plan_values(np.array([small, large]), np.array([0.0, dear]), np.full((2, 2), spread))[0, 1]
        for spread in sorted((one, other))
    )
    assert low <= high + 1e-12


def test_rows_together_are_worth_what_each_is_worth_alone() -> None:
    rng = np.random.default_rng(1)
    adequacy, priced, spread = rng.random((7, 4)), rng.random((7, 4)), rng.random((4, 4))
    together = plan_values(adequacy, priced, spread)
    for i in range(7):
        np.testing.assert_allclose(together[i], plan_values(adequacy[i], priced[i], spread), rtol=1e-12)


@pytest.mark.parametrize(
    ("posterior", "priced", "answered", "last"),
    [
        ([0.5, 0.9], [0.3, 0.3], 0, 1),  # 0.9 - 0.3 beats 0.5; the 0.3 of the answer at hand is sunk
        ([0.7, 0.9], [0.3, 0.3], 0, 0),
        ([0.5, 0.75], [0.0, 0.25], 0, 0),  # of equals the answer at hand
        ([0.1, 0.5, 0.75], [0.0, 0.25, 0.5], 0, 1),  # of equals the cheaper
        ([0.1, 0.6, 0.9], [0.0, 0.1, 0.2], 0, 2),  # not the next, the best
        ([0.99, 0.2, 0.3], [0.0, 0.0, 0.2], 1, 1),  # never back to a cheaper one
        ([0.1, 0.9], [0.0, 0.1], 1, 1),  # nobody is dearer
    ],
)
def test_the_stopping_rule_by_hand(posterior: list[float], priced: list[float], answered: int, last: int) -> None:
    assert int(jump(np.array(posterior), np.array(priced), answered)) == last


def test_the_stopping_rule_jumps_only_to_who_may_answer_and_keeps_the_answer_of_who_no_longer_may() -> None:
    posterior, priced = np.array([0.1, 0.6, 0.9]), np.array([0.0, 0.1, 0.2])
    assert int(jump(posterior, priced, 0, np.array([True, True, False]))) == 1
    assert int(jump(posterior, priced, 0, np.array([False, False, False]))) == 0


def test_the_stopping_rule_leaves_its_arguments_as_they_are() -> None:
    posterior = np.array([[0.1, 0.9], [0.8, 0.9]])
    before = posterior.copy()
    assert jump(posterior, np.array([[0.5, 0.2], [0.5, 0.2]]), 0).tolist() == [1, 0]
    assert (posterior == before).all()


def test_what_an_answer_cost_moves_what_the_next_is_expected_to_cost() -> None:
    spent, expected = np.array([2.0, 1.0, np.nan, 0.0, 1e9]), np.ones(5)
    factor = cost_factor(spent, expected, 0.5, np.log(1.1))
    assert factor[:4] == pytest.approx([1.1 * np.sqrt(2.0), 1.1, 1.0, 1.0])
    assert factor[4] == pytest.approx(1.1 * np.exp(1.5))


def test_the_next_cost_may_bend_with_the_first_but_goes_no_further_than_an_answer_can_say() -> None:
    spent, expected = np.exp(np.array([1.0, -1.0, 50.0, -50.0])), np.ones(4)
    factor = cost_factor(spent, expected, 0.5, 0.0, 0.25)
    assert factor == pytest.approx(np.exp([0.75, -0.25, 3.0, 0.75]))


@given(
    st.lists(st.tuples(units, costs, st.booleans()), min_size=2, max_size=10),
    st.floats(0, 1),
    st.none() | st.integers(0, 2**32),
)
def test_one_request_is_worth_the_same_number_by_number(
    tiers: list[tuple[float, float, bool]], spread: float, seed: int | None
) -> None:
    adequacy, priced, eligible = (list(column) for column in zip(*tiers, strict=True))
    k = len(tiers)
    in_time = None if seed is None else np.random.default_rng(seed).random((k, k)) < 0.5
    values = plan_values(np.array(adequacy), np.array(priced), np.full((k, k), spread))
    forbidden = np.repeat(~np.array(eligible)[None], k, axis=0) | (False if in_time is None else ~in_time)
    np.fill_diagonal(forbidden, False)
    values[forbidden] = -np.inf
    rows = None if in_time is None else in_time.tolist()
    worth, partner = best_plans(adequacy, priced, [[spread] * k] * k, eligible, rows)
    np.testing.assert_allclose(worth, values.max(axis=1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(values[range(k), partner], worth, rtol=0, atol=1e-12)
