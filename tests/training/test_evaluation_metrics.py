"""Metrics against closed forms and brute force, and the reasons given where they mean nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_ml_training.evaluation.baselines import oracle_sweep, random_sweep
from router_ml_training.evaluation.curves import curve_of, price_sweep, share_sweep
from router_ml_training.evaluation.hull import hull, mean_height
from router_ml_training.evaluation.metrics import (
    aiq,
    apgr,
    cost_ratio,
    cpt,
    cs,
    curve_metrics,
    qnc,
    quality_gap,
    random_cs,
    zero_aiq,
)
from router_ml_training.evaluation.outcomes import Curve, Outcomes


def pair(n: int = 400, seed: int = 0) -> Outcomes:
    rng = np.random.default_rng(seed)
    quality = (rng.random((n, 2)) < (0.6, 0.8)).astype(float)
    return Outcomes(quality, np.tile([1.0, 10.0], (n, 1)), best=1)


def drawn(cost: list[float], quality: list[float], share: list[float], tiers: list[tuple[float, float]]) -> Curve:
    usd, worth = (np.array(column) for column in zip(*tiers, strict=True))
    large = np.array(share)
    both = np.column_stack((1 - large, large))
    return Curve(large, np.array(cost), np.array(quality), both, usd, worth, int(worth.argmax()))


def test_a_curve_by_hand_has_the_values_of_the_definitions():
    curve = drawn([1, 4, 7, 10], [0.5, 0.8, 0.7, 0.9], [0, 1 / 3, 2 / 3, 1], [(1, 0.5), (10, 0.9)])
    assert apgr(curve).value == pytest.approx((0.375 + 0.625 + 0.75) / 3)
    assert cpt(curve, 0.5).value == pytest.approx(1 / 3)
    assert cpt(curve, 0.8).value == pytest.approx(1)
    assert cs(curve, 0.85).value == pytest.approx(1 - 4 / 10)  # 0.85 * 0.9 = 0.765: the second point, not the third
    assert cs(curve, 1.0).value == pytest.approx(0)
    assert qnc(curve).value == pytest.approx(1)
    assert quality_gap(curve).value == pytest.approx(4 / 9)
    assert cost_ratio(curve).value == pytest.approx(0.1)
    # Hull (1, .5), (4, .8), (10, .9); the third point lies under it.
    assert aiq(curve).value == pytest.approx((3 * 0.65 + 6 * 0.85) / 9)
    assert zero_aiq(curve).value == pytest.approx(0.7)
    assert random_cs(curve, 0.85).value == pytest.approx(1 - (1 + 9 * (0.765 - 0.5) / 0.4) / 10)


def test_a_random_router_has_apgr_one_half_in_expectation():
    outcomes = pair(300)
    values = [apgr(curve_of(random_sweep(outcomes, rng=np.random.default_rng(s)), outcomes)).value for s in range(300)]
    spread = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - 0.5) < 4 * spread
    assert spread < 0.01


def test_the_oracle_passes_one_where_the_small_tier_sometimes_wins_and_nothing_beats_it():
    outcomes = pair()
    oracle = curve_of(oracle_sweep(outcomes, rng=np.random.default_rng(0)), outcomes)
    assert apgr(oracle).value > 1
    for seed in range(20):
        score = np.random.default_rng(seed).random(outcomes.n)
        other = curve_of(share_sweep(score, rng=np.random.default_rng(0)), outcomes)
        assert aiq(other).value < aiq(oracle).value
        assert cs(other, 0.97).value < cs(oracle, 0.97).value


def test_reversing_a_score_mirrors_its_apgr():
    outcomes, score = pair(seed=4), np.random.default_rng(4).random(400)
    up, down = (curve_of(share_sweep(s, rng=np.random.default_rng(0)), outcomes) for s in (score, -score))
    assert apgr(up).value + apgr(down).value == pytest.approx(1)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_asking_for_more_never_saves_more(seed: int):
    rng = np.random.default_rng(seed)
    outcomes = Outcomes(rng.random((30, 3)), np.sort(rng.uniform(0.1, 5, (30, 3)), axis=1))
    curve = curve_of(price_sweep(rng.random((30, 3)), outcomes.cost, rng=rng, floor=-np.inf), outcomes)
    found = [cs(curve, x).value for x in (0.5, 0.8, 0.9, 0.95, 1.0)]
    known = [value for value in found if value is not None]
    assert known == sorted(known, reverse=True)
    assert found[: len(known)] == known
    random = [random_cs(curve, x).value for x in (0.5, 0.8, 0.9, 0.95, 1.0)]
    assert random == sorted(random, reverse=True)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_aiq_is_no_less_than_the_zero_routers_and_scales_with_quality(seed: int):
    rng = np.random.default_rng(seed)
    outcomes = Outcomes(rng.random((30, 3)), np.sort(rng.uniform(0.1, 5, (30, 3)), axis=1))
    sweep = price_sweep(rng.random((30, 3)), outcomes.cost, rng=rng)
    curve = curve_of(sweep, outcomes)
    assert aiq(curve).value >= zero_aiq(curve).value - 1e-12
    half = curve_of(sweep, Outcomes(outcomes.quality / 2, outcomes.cost * 3))
    assert aiq(half).value == pytest.approx(aiq(curve).value / 2)


@given(st.integers(0, 10_000), st.integers(2, 60))
@settings(max_examples=60, deadline=None)
def test_the_hull_is_the_highest_chord_of_the_running_best(seed: int, n: int):
    rng = np.random.default_rng(seed)
    cost, quality = rng.integers(0, 12, n) / 4, rng.integers(0, 12, n) / 8
    x, y = hull(cost, quality)
    grid = np.linspace(cost.min(), cost.max() + 1, 25)
    flat = np.append(cost, grid[-1]), np.append(quality, quality.max())
    brute = [
        max(
            yi + (yj - yi) * (at - xi) / (xj - xi) if xj > xi else max(yi, yj)
            for xi, yi in zip(*flat, strict=True)
            for xj, yj in zip(*flat, strict=True)
            if xi <= at <= xj
        )
        for at in grid
    ]
    # The hull may fall no lower than any chord, and a chord that falls is beaten by staying at its dearer-free end.
    assert np.interp(grid, x, y) == pytest.approx(np.maximum.accumulate(brute))
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()


def test_a_long_noisy_curve_has_the_hull_of_the_plain_chain():
    rng = np.random.default_rng(0)
    cost = np.sort(rng.random(5000))
    quality = np.sqrt(cost) + rng.normal(0, 0.02, 5000)
    x, y = hull(cost, quality)
    inside = np.interp(cost, x, y) >= np.maximum.accumulate(quality) - 1e-9
    assert inside.all()
    assert (np.diff(np.diff(y) / np.diff(x)) < 0).all()


def test_mean_height_is_flat_beyond_the_ends():
    assert mean_height(np.array([1.0, 2.0]), np.array([0.0, 1.0]), 0.0, 4.0) == pytest.approx((0 + 0.5 + 2) / 4)


@pytest.mark.parametrize(
    ("tiers", "metric", "said"),
    [
        ([(1, 0.9), (10, 0.9)], "apgr", "no gap to recover"),
        ([(1, 0.95), (10, 0.9)], "apgr", "not above the small"),
        ([(1, 0.95), (10, 0.9)], "cpt_80", "not above the small"),
        ([(0, 0.1), (0, 0.9)], "cs_97", "costs nothing"),
        ([(0, 0.1), (0, 0.9)], "random_cs_97", "costs nothing"),
        ([(1, 0.0), (10, 0.0)], "cs_97", "quality is 0"),
        ([(5, 0.2), (5, 0.9)], "aiq", "costs the same"),
        ([(1, 0.0), (10, 0.0)], "quality_gap", "quality is 0"),
    ],
)
def test_where_a_metric_means_nothing_it_says_why(tiers: list, metric: str, said: str):
    curve = drawn([t[0] for t in tiers], [t[1] for t in tiers], [0, 1], tiers)
    figure = {m.name: m for m in curve_metrics()}[metric].of(curve)
    assert figure.value is None
    assert said in figure.reason


def test_a_target_that_no_point_reaches_is_undefined_with_the_peak_in_the_reason():
    curve = drawn([1, 2], [0.5, 0.8], [0, 0.3], [(1, 0.5), (10, 0.9)])
    assert cs(curve, 0.97).value is None
    assert "0.8000 of 0.9000" in cs(curve, 0.97).reason
    assert "0.000 to 0.300" in apgr(curve).reason
    assert cpt(curve, 0.5).value == pytest.approx(0.3)
    assert cpt(curve, 0.9).reason == "the curve never recovers that share of the gap"


def test_three_tiers_have_no_apgr():
    curve = curve_of(
        price_sweep([[0.1, 0.2, 0.3]], [[1.0, 2.0, 3.0]], rng=np.random.default_rng(0)),
        Outcomes([[0.1, 0.2, 0.3]], [[1.0, 2.0, 3.0]]),
    )
    assert "this ladder has 3" in apgr(curve).reason


def test_the_best_tier_need_not_be_the_dearest():
    curve = drawn([1, 10], [0.9, 0.5], [0, 1], [(1, 0.9), (10, 0.5)])
    assert cs(curve, 1.0).value == pytest.approx(0)
    assert quality_gap(curve).value == pytest.approx(0)
    assert apgr(curve).value is None
