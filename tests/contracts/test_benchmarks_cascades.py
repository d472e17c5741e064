"""The cascade protocols on constructed rows: every attempt paid for, sweeps by hand, goals judged on their rows."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality.cascade_curves import (
    alone,
    always_judged,
    attempts,
    combined,
    embedded,
    pooled,
    states,
    sweep_of,
)
from benchmarks.quality.cascade_figures import CS97, ZERO, drawn_figures
from benchmarks.quality.cascade_scores import plan_tiers
from benchmarks.quality.cascade_tables import CASCADE, COMBINED, PROMPT, SHUFFLED, ladder_text, pair_rows
from benchmarks.quality.protocols import Protocol
from benchmarks.results_file import missed
from router_ml_training.evaluation.curves import curve_of, share_sweep
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.plans import Judged, Taken, act, fit_spread

PAIR = Protocol("X", "made up", "table", "small", "large", "folds", goals={CS97: (0.5, 0.9)})


def rows(n: int, tells: float, seed: int = 0) -> tuple[Judged, Outcomes]:
    rng = np.random.default_rng(seed)
    adequacy = np.stack([rng.uniform(0.4, 0.9, n), np.full(n, 0.9)], axis=1)
    cost = np.tile([1e-4, 2e-3], (n, 1))
    quality = (rng.random((n, 2)) < adequacy).astype(float)
    posterior = np.repeat(adequacy[:, None], 2, axis=1)
    posterior[:, 0, 0] += tells * (quality[:, 0] - adequacy[:, 0])
    return Judged(adequacy, cost, posterior, fit_spread(adequacy, posterior, quality)), Outcomes(quality, cost, best=1)


def test_plans_cost_both_attempts_and_are_worth_the_last() -> None:
    wide = attempts(Outcomes(np.array([[0.0, 1.0]]), np.array([[1.0, 10.0]])))
    assert wide.quality.tolist() == [[0, 1, 1, 0]]
    assert wide.cost.tolist() == [[1, 10, 11, 11]]
    assert wide.n_tiers == 2


def test_a_sweep_passes_through_what_the_policy_does_at_every_price_and_ends_at_the_best_tier() -> None:
    judged, outcomes = rows(60, 0.7)
    prices = np.geomspace(1e4, 1.0, 50)
    done = states(prices, lambda price: act(judged, price), 2)
    curve = curve_of(sweep_of(prices, done, 1, np.random.default_rng(0)), attempts(outcomes))
    points = set(zip(curve.cost.round(12).tolist(), curve.quality.round(12).tolist(), strict=True))
    for price in prices:
        taken = act(judged, price)
        point = taken.cost(outcomes).mean().round(12), taken.quality(outcomes).mean().round(12)
        assert tuple(map(float, point)) in points
    assert curve.cost[-1] == pytest.approx(2e-3)


def test_the_combined_policy_judges_with_a_good_verifier_and_never_loses_by_a_bad_one() -> None:
    good, outcomes = rows(2000, 0.9)
    assert (combined(good, outcomes, good)(100.0).last == act(good, 100.0).last).all()
    noise = good.posterior.copy()
    noise[:, 0, 0] = np.random.default_rng(1).random(2000)
    bad = Judged(good.adequacy, good.cost, noise, np.array([[0.0, 0.5], [0.0, 0.0]]))
    assert (combined(bad, outcomes, bad)(100.0).last == alone(bad)(100.0).last).all()


def test_folds_act_by_their_own_policies_on_their_own_rows() -> None:
    def always(tier: int, n: int) -> Taken:
        return Taken(np.full(n, tier), np.full(n, tier))

    taken = pooled([lambda _: always(0, 2), lambda _: always(1, 1)])(1.0)
    assert taken.last.tolist() == [0, 0, 1]


def test_a_pair_among_more_tiers_keeps_its_curve() -> None:
    judged, outcomes = rows(40, 0.7)
    sweep = share_sweep(always_judged(judged), rng=np.random.default_rng(0), large=2)
    wide = attempts(outcomes)
    other = np.zeros((40, 1))
    wider = Outcomes(np.column_stack([other, wide.quality[:, :3]]), np.column_stack([other, wide.cost[:, :3]]), tiers=3)
    curve, again = curve_of(sweep, wide), curve_of(embedded(sweep, np.array([1, 2, 3, 3])), wider)
    assert again.cost == pytest.approx(curve.cost)
    assert again.quality == pytest.approx(curve.quality)


def test_plans_are_made_of_hull_tiers_that_are_cheap_enough_to_be_tried() -> None:
    quality = np.tile([0.4, 0.38, 0.7, 0.9], (3, 1))
    cost = np.tile([1.5, 2.0, 2.5, 10.0], (3, 1))
    assert plan_tiers(quality, cost) == [2, 3]


def test_the_rows_of_a_pair_carry_its_goals_and_the_verdict_of_a_ladder_is_said() -> None:
    judged, outcomes = rows(400, 0.9)
    prices = np.geomspace(1e5, 1.0, 100)
    done = states(prices, lambda price: act(judged, price), 2)
    rng = np.random.default_rng(0)
    sweeps = {
        PROMPT: sweep_of(prices, states(prices, alone(judged), 2), 1, rng),
        CASCADE: share_sweep(always_judged(judged), rng=rng, large=2),
        COMBINED: sweep_of(prices, done, 1, rng),
        SHUFFLED: sweep_of(prices, done[:, rng.permutation(400)], 1, rng),
    }
    found = drawn_figures(sweeps, attempts(outcomes), (CS97,), draws=50)
    assert found.policies[0] == ZERO
    assert found.cost_ratio == pytest.approx(0.05)
    by_name = {row.metric: row for row in pair_rows(PAIR, found)}
    assert by_name[CS97].must == 0.5
    assert missed(by_name[CS97]) is False
    assert missed(by_name["CS(0.97) gain over the better of prompt only and cascade"]) is False
    assert ": route" in ladder_text(PAIR, found)
