"""Certificates: how seldom they are wrong, that clear cases get one, and that the walk stops where it should."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from router_ml.errors import DataError
from router_ml_training.evaluation.bounds import TESTS, betting_e_value
from router_ml_training.evaluation.certificate import Candidate, Certificate, certify
from router_ml_training.evaluation.outcomes import Outcomes

NOW = datetime(2026, 3, 1, tzinfo=UTC)
COST = (1.0, 10.0)


def outcomes(n: int, rng: np.random.Generator, *, harm: float, gain: float = 0.0) -> Outcomes:
    """Large is right on 80 %; small fails on `harm` of all requests where it is, and is right on `gain` where not."""
    u = rng.random(n)
    large = (u < 0.8).astype(float)
    small = np.where(u < harm, 0.0, np.where(u > 1 - gain, 1.0, large))
    return Outcomes(np.column_stack((small, large)), np.tile(COST, (n, 1)), best=1)


Columns = list[tuple[float, float, np.ndarray]]


def shares(n: int, *share: float) -> Columns:
    """Policies that send the first so many of the requests to small."""
    rows = np.arange(n)
    return [(1 - 0.01 * i, float(i), np.where(rows < part * n, 0, 1)) for i, part in enumerate(share, 1)]


def walk(known: Outcomes, columns: Columns, seed: int = 0, **options: Any) -> Certificate:
    rng = np.random.default_rng(seed)
    rows = np.arange(known.n)
    candidates = [
        Candidate(quality, price, known.quality[rows, at], known.cost[rows, at]) for quality, price, at in columns
    ]
    return certify(known, candidates, tiers=("small", "large"), date=NOW, rng=rng, **{"draws": 50, **options})


@pytest.mark.parametrize("test", TESTS)
def test_what_loses_a_hair_too_much_is_seldom_certified(test: Any) -> None:
    # Always small loses 3.02 %: any certificate beyond the harmless first half is wrong only if the last step passes.
    wrong = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        known = outcomes(400, rng, harm=0.02416)
        wrong += walk(known, shares(400, 0.1, 1.0), seed, test=test, draws=0).index == 2
    assert wrong <= binom.ppf(0.99, 300, 0.05)


def test_many_policies_that_all_lose_too_much_are_together_seldom_certified() -> None:
    wrong = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        known = outcomes(400, rng, harm=0.05, gain=0.025)
        noisy = [(0.9 - 0.01 * i, 1.0 + i, (rng.random(400) > 0.98).astype(np.intp)) for i in range(10)]
        wrong += walk(known, noisy, seed, draws=0).index > 0
    assert wrong <= binom.ppf(0.99, 300, 0.05)


@pytest.mark.parametrize("test", TESTS)
def test_a_clear_case_is_certified(test: Any) -> None:
    known = outcomes(1500, np.random.default_rng(0), harm=0.004)
    found = walk(known, shares(1500, 0.5, 1.0), test=test)
    assert found.index == 2
    assert found.beyond_constant
    assert found.saving.value == pytest.approx(0.9)
    assert found.saving.low == pytest.approx(0.9)
    assert found.point.p_value is not None
    assert found.point.p_value <= 0.05
    assert found.verdict.startswith("Certified with 95 % confidence: at quality 0.98 the router loses at most 3 %")
    assert (found.point.e_value is None) == (test == "clopper-pearson")


def test_a_clearly_worse_policy_leaves_the_constant_model() -> None:
    known = outcomes(1000, np.random.default_rng(0), harm=0.2)
    found = walk(known, shares(1000, 1.0))
    assert (found.index, found.beyond_constant, found.saving.value) == (0, False, 0.0)
    assert found.verdict.startswith("Keep the constant model (always large): no other policy is proven")
    assert found.least_kept == pytest.approx((0.25 - 0.03) / 0.97, abs=0.03)


def test_the_walk_stops_at_the_first_failure_and_tests_nothing_after_it() -> None:
    known = outcomes(1000, np.random.default_rng(0), harm=0.2)
    found = walk(known, shares(1000, 0.02, 1.0, 0.02))
    assert [step.certified for step in found.steps] == [True, True, False, False]
    assert found.steps[3].p_value is None
    assert found.index == 1


def test_what_is_certified_but_saves_nothing_is_the_constant_model() -> None:
    known = outcomes(1000, np.random.default_rng(0), harm=0.2)
    found = walk(known, shares(1000, 0.0))
    assert found.index == 1
    assert not found.beyond_constant
    assert "no cheaper policy" in found.verdict


def test_more_requests_certify_no_less() -> None:
    reached = []
    for n in (150, 600, 2400):
        runs = [
            walk(outcomes(n, np.random.default_rng(s), harm=0.03, gain=0.02), shares(n, 0.3, 0.6, 1.0), draws=0)
            for s in range(30)
        ]
        reached.append(sum(run.index for run in runs))
    assert reached == sorted(reached)
    assert reached[-1] > reached[0]


@pytest.mark.parametrize("test", TESTS)
def test_rows_of_one_session_count_once(test: Any) -> None:
    # Every row four times over: the same evidence, so the same result as without the copies.
    once = outcomes(300, np.random.default_rng(0), harm=0.004)
    often = Outcomes(np.repeat(once.quality, 4, axis=0), np.repeat(once.cost, 4, axis=0), best=1)
    single = walk(once, shares(300, 1.0), test=test)
    copied = walk(often, shares(1200, 1.0), test=test, groups=np.repeat(np.arange(300), 4))
    assert (copied.n_rows, copied.n_units) == (1200, 300)
    assert copied.steps[1].loss == pytest.approx(single.steps[1].loss)
    if test == "clopper-pearson":
        assert copied.steps[1].p_value == pytest.approx(single.steps[1].p_value)
    assert copied.steps[1].p_value > betting_p(often.quality)


def betting_p(quality: np.ndarray) -> float:
    """The p-value of always small if every row were independent."""
    shortfall = np.random.default_rng(0).permutation(0.97 * quality[:, 1] - quality[:, 0])
    return 1 / betting_e_value(shortfall, allowed_loss=0.03, confidence=0.95)


def test_sorted_requests_are_certified_no_more_often_than_shuffled_ones() -> None:
    # Easy ones first: a gambler who follows the log would be rich before the hard ones come.
    known = outcomes(600, np.random.default_rng(0), harm=0.1)
    order = np.argsort(known.quality[:, 1] - known.quality[:, 0], kind="stable")
    ordered = Outcomes(known.quality[order], known.cost[order], best=1)
    assert walk(ordered, shares(600, 1.0)).index == 0


def test_too_few_are_refused_with_the_number_that_is_needed() -> None:
    with pytest.raises(DataError, match=r"109 sessions or prompts .* needs at least 110"):
        walk(outcomes(109, np.random.default_rng(0), harm=0.0), shares(109, 1.0))
    with pytest.raises(DataError, match=r"that the best tier answers well .* at least 99"):
        walk(outcomes(110, np.random.default_rng(0), harm=0.0), shares(110, 1.0), test="clopper-pearson")


def test_quality_without_bounds_and_graded_harm_are_refused() -> None:
    graded = Outcomes(np.full((200, 2), 0.5), np.ones((200, 2)), best=1)
    with pytest.raises(DataError, match="graded"):
        walk(graded, shares(200, 1.0), test="clopper-pearson")
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        walk(Outcomes(np.full((200, 2), 5.0), np.ones((200, 2)), best=1), shares(200, 1.0))
    assert walk(graded, shares(200, 1.0), allowed_loss=0.05).index == 1  # bets take grades


def test_the_record_is_plain_json() -> None:
    found = walk(outcomes(500, np.random.default_rng(0), harm=0.0), shares(500, 1.0))
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["date"] == "2026-03-01T00:00:00+00:00"
    assert (record["quality"], record["test"], record["confidence"], record["index"]) == (0.99, "betting", 0.95, 1)
    assert record["saving"]["low"] == pytest.approx(0.9)
    assert [step["certified"] for step in record["steps"]] == [True, True]


def test_a_plan_is_certified_by_what_it_was_worth_and_cost_all_attempts_included() -> None:
    known = outcomes(1500, np.random.default_rng(0), harm=0.1)
    small, large = known.quality.T
    plan = Candidate(0.97, 2.0, np.maximum(small, large), np.where(small > 0, 1.0, 11.0))  # small, then large
    rng = np.random.default_rng(1)
    found = certify(known, [plan], tiers=("small", "large"), date=NOW, rng=rng, draws=50)
    assert found.index == 1
    assert found.saving.value == pytest.approx(1 - plan.cost.mean() / 10.0)
