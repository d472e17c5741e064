"""Curves against brute force: every point of a sweep is the policy it claims to be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_ml.errors import DataError
from router_ml_training.evaluation.curves import Grid, choose, curve_of, price_sweep, share_sweep
from router_ml_training.evaluation.outcomes import Outcomes


def table(seed: int, n: int = 40, tiers: int = 3) -> Outcomes:
    rng = np.random.default_rng(seed)
    cost = np.sort(rng.uniform(0.1, 10.0, size=(n, tiers)), axis=1)
    return Outcomes((rng.random((n, tiers)) < np.linspace(0.4, 0.9, tiers)).astype(float), cost)


def by_hand(outcomes: Outcomes, column: np.ndarray) -> tuple[float, float]:
    rows = np.arange(outcomes.n)
    return float(outcomes.cost[rows, column].mean()), float(outcomes.quality[rows, column].mean())


def test_a_share_sweep_visits_every_share_in_order_of_the_score():
    outcomes = Outcomes([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]], [[1.0, 5.0], [1.0, 6.0], [1.0, 7.0]])
    curve = curve_of(share_sweep([0.9, 0.1, 0.5], rng=np.random.default_rng(0)), outcomes)
    assert curve.share[:, 1] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert curve.cost == pytest.approx(np.array([3, 7, 13, 18]) / 3)
    assert curve.quality == pytest.approx(np.array([2, 3, 2, 2]) / 3)
    assert curve.knob == pytest.approx([np.inf, 0.7, 0.3, -np.inf])


@given(st.integers(0, 10_000), st.sampled_from([1.0, 0.5, 0.25]))
@settings(max_examples=30, deadline=None)
def test_only_the_order_of_a_score_matters(seed: int, power: float):
    outcomes, score = table(seed, tiers=2), np.random.default_rng(seed).random(40)
    plain = curve_of(share_sweep(score, rng=np.random.default_rng(1)), outcomes)
    bent = curve_of(share_sweep(7 * score**power - 3, rng=np.random.default_rng(1)), outcomes)
    assert plain.quality == pytest.approx(bent.quality)
    assert plain.cost == pytest.approx(bent.cost)


def test_ties_are_broken_at_random_and_reproducibly():
    outcomes = table(3, n=200, tiers=2)
    first, again, other = (
        curve_of(share_sweep(np.zeros(200), rng=np.random.default_rng(seed)), outcomes).quality for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("tiers", [2, 3, 6])
@pytest.mark.parametrize("seed", range(4))
def test_a_price_sweep_is_the_argmax_at_every_price(seed: int, tiers: int):
    outcomes = table(seed, tiers=tiers)
    adequacy = np.random.default_rng(seed + 100).random(outcomes.quality.shape)
    sweep = price_sweep(adequacy, outcomes.cost, rng=np.random.default_rng(0))
    curve = curve_of(sweep, outcomes)
    for point, price in enumerate(curve.knob):
        expected = choose(adequacy, outcomes.cost, price)
        assert (sweep.columns_at(point) == expected).all()
        assert (curve.cost[point], curve.quality[point]) == pytest.approx(by_hand(outcomes, expected))
        assert curve.share[point] == pytest.approx(np.bincount(expected, minlength=tiers) / outcomes.n)


@pytest.mark.parametrize("seed", range(4))
def test_a_price_sweep_misses_no_useful_price(seed: int):
    outcomes = table(seed)
    adequacy = np.random.default_rng(seed).random(outcomes.quality.shape)
    curve = curve_of(price_sweep(adequacy, outcomes.cost, rng=np.random.default_rng(0)), outcomes)
    points = set(zip(curve.cost.round(9), curve.quality.round(9), strict=True))
    for price in np.concatenate(([0.0, np.inf], np.geomspace(1e-4, 1e3, 500))):
        cost, quality = by_hand(outcomes, choose(adequacy, outcomes.cost, price))
        assert (round(cost, 9), round(quality, 9)) in points


def test_a_price_sweep_below_zero_ends_at_always_the_dearest_and_equals_a_share_sweep_at_one_cost():
    outcomes = Outcomes(table(5, n=60, tiers=2).quality, np.tile([1.0, 4.0], (60, 1)))
    adequacy = np.random.default_rng(5).random((60, 2))
    priced = curve_of(price_sweep(adequacy, outcomes.cost, rng=np.random.default_rng(0), floor=-np.inf), outcomes)
    shared = curve_of(share_sweep(adequacy[:, 1] - adequacy[:, 0], rng=np.random.default_rng(0)), outcomes)
    assert priced.quality == pytest.approx(shared.quality)
    assert priced.cost == pytest.approx(shared.cost)


def test_choose_breaks_ties_to_the_cheaper_and_an_infinite_price_ignores_adequacy():
    assert choose([[0.5, 0.5, 0.5]], [[3.0, 1.0, 2.0]], 0.0).tolist() == [1]
    assert choose([[0.1, 0.9]], [[1.0, 2.0]], np.inf).tolist() == [0]
    assert choose([[0.1, 0.9]], [[0.0, 2.0]], np.inf).tolist() == [0]
    assert choose([[0.9, 0.1]], [[1.0, 2.0]], -np.inf).tolist() == [1]


def test_equal_adequacy_and_equal_prices_leave_everyone_at_the_cheapest():
    outcomes = table(0)
    sweep = price_sweep(np.full((40, 3), 0.7), outcomes.cost, rng=np.random.default_rng(0))
    assert (sweep.row.size, sweep.knob.tolist()) == (0, [0.0])
    assert curve_of(sweep, outcomes).share.tolist() == [[1.0, 0.0, 0.0]]


def test_weights_mean_repeating_rows():
    outcomes = table(7)
    counts = np.random.default_rng(7).multinomial(40, np.full(40, 1 / 40))
    adequacy = np.random.default_rng(8).random((40, 3))
    repeated = np.repeat(np.arange(40), counts)
    weighted = price_sweep(adequacy, outcomes.cost, rng=np.random.default_rng(0)).trace(outcomes, counts[None] * 1.0)
    again = Outcomes(outcomes.quality[repeated], outcomes.cost[repeated], best=outcomes.best_tier)
    direct = curve_of(price_sweep(adequacy[repeated], again.cost, rng=np.random.default_rng(0)), again)
    # Copies of a row move one by one in `direct` and together in `weighted`, whose points are therefore a subset.
    points = set(zip(direct.cost.round(9), direct.quality.round(9), strict=True))
    assert set(zip(weighted.cost[0].round(9), weighted.quality[0].round(9), strict=True)) <= points
    assert weighted.tier_quality[0] == pytest.approx(direct.tier_quality)


def test_a_grid_measures_realised_outcomes_of_any_policy():
    outcomes = table(9, tiers=2)
    score = np.random.default_rng(9).random(40)
    sweep = share_sweep(score, rng=np.random.default_rng(0))
    columns = np.stack([sweep.columns_at(point) for point in range(41)])
    rows = np.arange(40)
    grid = Grid(sweep.knob, outcomes.quality[rows, columns], outcomes.cost[rows, columns], columns)
    swept, measured = curve_of(sweep, outcomes), curve_of(grid, outcomes)
    assert measured.quality == pytest.approx(swept.quality)
    assert measured.cost == pytest.approx(swept.cost)
    assert measured.share == pytest.approx(swept.share)


def test_plans_are_columns_beyond_the_tiers():
    quality, cost = np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[1.0, 10.0], [1.0, 10.0]])
    plans = Outcomes(np.column_stack((quality, quality[:, 1])), np.column_stack((cost, cost.sum(axis=1))), tiers=2)
    curve = curve_of(share_sweep([0.9, 0.1], rng=np.random.default_rng(0), large=2), plans)
    assert curve.cost == pytest.approx([1.0, 6.0, 11.0])
    assert (curve.tier_cost.tolist(), curve.best) == ([1.0, 10.0], 1)
    assert curve.share[1].tolist() == [0.5, 0.0, 0.5]


@pytest.mark.parametrize("quality", [[[np.nan, 1.0]], [], [[[1.0]]]])
def test_outcomes_refuse_what_no_curve_can_be_drawn_from(quality: list):
    with pytest.raises(DataError):
        Outcomes(quality, np.ones_like(np.asarray(quality, dtype=float)))


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(DataError, match="finite"):
        share_sweep([0.1, np.nan], rng=np.random.default_rng(0))
    with pytest.raises(DataError, match="finite"):
        price_sweep([[0.1, np.nan]], [[1.0, 2.0]], rng=np.random.default_rng(0))
