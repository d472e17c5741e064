"""The solved policy: the boldest price that keeps its share with a margin, found by brute force; and the bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_ml.bundle import FrontierPoint
from router_ml_training.evaluation.curves import choose
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.frontier import (
    QUALITIES,
    _price_range,
    expected_cost,
    feature_bounds,
    filled_outcomes,
    price_grid,
    solve_frontier,
)
from router_ml_training.plans import Judged, act, act_alone, fit_spread


def problem(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray, Outcomes]:
    rng = np.random.default_rng(seed)
    adequacy = np.clip(np.sort(rng.random((n, k)), axis=1) + rng.normal(0, 0.1, (n, k)), 0.01, 0.99)
    cost = np.geomspace(1e-4, 3e-3, k) * rng.lognormal(0, 0.5, (n, 1))
    quality = (rng.random((n, k)) < adequacy).astype(float)
    return adequacy, cost, Outcomes(quality, cost * rng.lognormal(0, 0.2, (n, k)))


@settings(max_examples=15, deadline=None)
@given(st.integers(30, 200), st.integers(2, 4), st.integers(0, 999))
def test_the_price_is_the_boldest_before_the_first_that_fails(n: int, k: int, seed: int) -> None:
    adequacy, cost, outcomes = problem(n, k, seed)
    points = {point.quality: point for point in solve_frontier(adequacy, cost, outcomes)}
    best = outcomes.quality[:, outcomes.best_tier]
    prices = [0.0, *np.geomspace(*_price_range(adequacy, cost), 241)]
    for share in QUALITIES:
        boldest = None
        for price in prices:
            kept = [outcomes.quality[i, t] for i, t in enumerate(choose(adequacy, cost, price))]
            short = share * best - np.array(kept)
            if short.mean() + short.std() / np.sqrt(n) > 1e-12:
                break
            boldest = price
        assert (share in points) == (boldest is not None)
        if boldest is not None:
            assert points[share].shadow_price == pytest.approx(boldest)


@settings(max_examples=15, deadline=None)
@given(st.integers(30, 300), st.integers(2, 4), st.integers(0, 999))
def test_less_quality_never_asks_for_a_lower_price_or_saves_less_by_much(n: int, k: int, seed: int) -> None:
    points = solve_frontier(*problem(n, k, seed))
    qualities, prices = [point.quality for point in points], [point.shadow_price for point in points]
    assert qualities == sorted(qualities, reverse=True)
    assert prices == sorted(prices)


def test_every_point_keeps_what_it_promises_with_a_standard_error_to_spare() -> None:
    adequacy, cost, outcomes = problem(500, 2, 1)
    best = outcomes.quality[:, outcomes.best_tier]
    everyone = np.arange(500)
    for point in solve_frontier(adequacy, cost, outcomes):
        kept = outcomes.quality[everyone, choose(adequacy, cost, point.shadow_price)]
        short = point.quality * best - kept
        assert short.mean() <= -short.std() / np.sqrt(500) + 1e-12
        usd = outcomes.cost[everyone, choose(adequacy, cost, point.shadow_price)].mean()
        assert point.saving == pytest.approx(1 - usd / outcomes.cost[:, outcomes.best_tier].mean())


def test_a_perfect_model_saves_at_full_quality() -> None:
    rng = np.random.default_rng(0)
    quality = np.stack([rng.random(400) < 0.6, np.ones(400)], axis=1).astype(float)
    cost = np.tile([0.001, 0.01], (400, 1))
    points = solve_frontier(np.where(quality > 0, 0.99, 0.01), cost, Outcomes(quality, cost))
    assert points[0].quality == 1.0
    assert points[0].saving == pytest.approx(0.9 * quality[:, 0].mean(), abs=0.01)


def test_a_model_that_knows_nothing_promises_little() -> None:
    rng = np.random.default_rng(0)
    quality = np.stack([rng.random(400) < 0.5, rng.random(400) < 0.9], axis=1).astype(float)
    cost = np.tile([0.001, 0.01], (400, 1))
    points = solve_frontier(np.tile([0.5, 0.9], (400, 1)), cost, Outcomes(quality, cost))
    assert len(points) == len(QUALITIES)
    assert all(point.saving == 0.0 for point in points)


def test_one_standard_error_is_spared() -> None:
    # 97.5 % of the best tier's quality on 100 rows is within its error of 97 %: not enough to promise 97 %.
    quality = np.ones((100, 2))
    quality[:2, 0] = 0.0
    cost = np.tile([0.001, 0.01], (100, 1))
    adequacy = np.tile([0.9, 0.95], (100, 1))
    saving = {point.quality: point.saving for point in solve_frontier(adequacy, cost, Outcomes(quality, cost))}
    assert saving[0.97] == 0.0
    assert saving[0.96] == pytest.approx(0.9)


def test_tiers_that_cost_the_same_or_nothing_are_no_division_by_zero() -> None:
    adequacy, _, outcomes = problem(100, 2, 3)
    for usd in (0.0, 0.01):
        cost = np.full((100, 2), usd)
        points = solve_frontier(adequacy, cost, Outcomes(outcomes.quality, cost))
        assert all(np.isfinite([point.shadow_price, point.saving]).all() for point in points)


def test_where_enough_rows_are_complete_they_alone_speak(world: Any) -> None:
    data = world.dataset(300)
    quality = data.quality.copy()
    quality[:150, 1] = np.nan
    outcomes, rows = filled_outcomes(replace(data, quality=quality), np.full((300, 2), 0.5), np.full((300, 2), 0.1))
    assert rows.tolist() == list(range(150, 300))
    np.testing.assert_array_equal(outcomes.quality, data.quality[150:])
    np.testing.assert_array_equal(outcomes.cost, data.cost_usd[150:])


def test_where_they_are_few_the_model_stands_in_for_what_is_unknown(world: Any) -> None:
    data = world.dataset(120, policy="chain")
    adequacy, cost = np.full((120, 2), 0.7), np.full((120, 2), 0.1)
    outcomes, rows = filled_outcomes(data, adequacy, cost)
    assert len(rows) == 120
    unknown = np.isnan(data.quality)
    assert (outcomes.quality[unknown] == 0.7).all()
    assert (outcomes.cost[np.isnan(data.cost_usd)] == 0.1).all()
    np.testing.assert_array_equal(outcomes.quality[~unknown], data.quality[~unknown])


def test_expected_costs_are_those_of_the_ladder(world: Any) -> None:
    data = world.dataset(5)
    tokens = np.array([[100.0, 200.0]] * 5)
    found = expected_cost(data, tokens, world.ladder)
    for i in range(5):
        np.testing.assert_allclose(found[i], world.ladder.costs_usd(data.input_tokens[i], tokens[i]))


def test_the_usual_range_holds_nearly_all_training_rows_and_not_what_is_far_out(world: Any) -> None:
    data = world.dataset(1000)
    bounds = feature_bounds(data)
    low, high = np.array(bounds.low), np.array(bounds.high)

    def outside(dense: np.ndarray) -> np.ndarray:
        return np.asarray(((dense < low) | (dense > high)).sum(axis=1))

    assert (outside(data.dense) <= bounds.max_outside).mean() >= 0.995
    assert bounds.max_outside >= 2
    assert (outside(data.dense + 50 * data.dense.std(axis=0)) > bounds.max_outside).all()
    constant = data.dense.std(axis=0) <= 1e-6
    assert (low[constant] < -1e20).all()
    assert (high[constant] > 1e20).all()


def judged_problem(n: int, tells: float, seed: int) -> tuple[Judged, Outcomes]:
    """Two tiers, and a verifier that moves its opinion of the cheap answer towards the truth by a share `tells`."""
    rng = np.random.default_rng(seed)
    adequacy = np.stack([rng.uniform(0.4, 0.9, n), np.full(n, 0.9)], axis=1)
    cost = np.tile([1e-4, 2e-3], (n, 1))
    quality = (rng.random((n, 2)) < adequacy).astype(float)
    after = adequacy.copy()
    after[:, 0] += tells * (quality[:, 0] - adequacy[:, 0])
    posterior = np.stack([after, adequacy], axis=1)
    return Judged(adequacy, cost, posterior, fit_spread(adequacy, posterior, quality)), Outcomes(quality, cost, best=1)


def solve_judged(judged: Judged, outcomes: Outcomes) -> dict[float, FrontierPoint]:
    return {point.quality: point for point in solve_frontier(judged.adequacy, judged.cost, outcomes, judged=judged)}


def test_a_verifier_that_knows_makes_every_point_judged_and_far_cheaper() -> None:
    judged, outcomes = judged_problem(2000, 0.9, 0)
    alone = {point.quality: point for point in solve_frontier(judged.adequacy, judged.cost, outcomes)}
    plans = solve_judged(judged, outcomes)
    assert plans[1.0].judged
    assert plans[0.97].judged
    assert plans[0.97].saving > alone[0.97].saving + 0.2
    assert plans[0.97].alone_price == alone[0.97].shadow_price


@settings(max_examples=10, deadline=None)
@given(st.integers(200, 600), st.floats(0, 1), st.integers(0, 999))
def test_with_a_verifier_no_point_saves_less_than_without(n: int, tells: float, seed: int) -> None:
    judged, outcomes = judged_problem(n, tells, seed)
    plans = solve_judged(judged, outcomes)
    for point in solve_frontier(judged.adequacy, judged.cost, outcomes):
        assert plans[point.quality].saving >= point.saving
        if not plans[point.quality].judged:
            assert plans[point.quality] == point


@pytest.mark.parametrize("seed", range(3))
def test_a_verifier_that_is_noise_and_sure_of_itself_loses_nothing_on_new_rows(seed: int) -> None:
    def noisy(n: int, seed: int, spread: Any) -> tuple[Judged, Outcomes]:
        judged, outcomes = judged_problem(n, 0.0, seed)
        rng = np.random.default_rng(seed + 100)
        posterior = judged.posterior.copy()
        posterior[:, 0, 0] = rng.random(n)
        found = fit_spread(judged.adequacy, posterior, outcomes.quality) if spread is None else spread
        return Judged(judged.adequacy, judged.cost, posterior, found), outcomes

    judged, outcomes = noisy(3000, seed, None)
    point = solve_judged(judged, outcomes)[0.97]
    new, truth = noisy(3000, seed + 50, judged.spread)
    plain = {one.quality: one for one in solve_frontier(judged.adequacy, judged.cost, outcomes)}[0.97]
    alone = act_alone(new.adequacy, new.cost, plain.shadow_price)
    taken = act(new, point.shadow_price) if point.judged else alone
    best = truth.cost[:, 1].mean()
    assert taken.quality(truth).mean() >= alone.quality(truth).mean() - 0.01
    assert taken.cost(truth).mean() <= alone.cost(truth).mean() + 0.01 * best


def test_the_prices_of_a_grid_span_every_change_and_begin_at_nothing() -> None:
    scores, costs = np.array([[0.2, 0.9], [0.5, 0.6]]), np.array([[1.0, 2.0], [1.0, 3.0]])
    prices = price_grid(scores, costs, 7)
    assert prices[0] == 0
    assert prices.size == 8
    assert (np.diff(prices) > 0).all()
    assert prices[1] < 0.05
    assert prices[-1] > 0.7
