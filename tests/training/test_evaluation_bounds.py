"""Tests of a mean: closed forms, and how often they are wrong where the truth is just too bad."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from router_ml.errors import DataError, UsageError
from router_ml_training.evaluation.bounds import (
    TESTS,
    betting_e_value,
    check_shares,
    clopper_pearson_p,
    least_share_kept,
    units_needed,
)

LOSS, SURE = 0.03, 0.95


def evidence(values: np.ndarray) -> float:
    return betting_e_value(values, allowed_loss=LOSS, confidence=SURE)


@pytest.mark.parametrize(
    ("n", "harms"), [(98, None), (99, 0), (100, 0), (200, 1), (300, 3), (500, 8), (1000, 20), (2000, 47), (5000, 129)]
)
def test_the_harms_that_prove_little_harm_are_those_of_the_exact_interval(n: int, harms: int | None) -> None:
    most = -1 if harms is None else harms
    assert most < 0 or clopper_pearson_p(most, n, LOSS) <= 1 - SURE
    assert clopper_pearson_p(most + 1, n, LOSS) > 1 - SURE


def test_no_harm_at_all_has_a_closed_form() -> None:
    assert clopper_pearson_p(0, 50, 0.03) == pytest.approx(0.97**50)


def test_the_first_bet_is_known_and_a_loser_is_left_with_his_stake() -> None:
    # The largest bet, as one unit can tell nothing: 0.9 / 0.97 on a shortfall of -0.5.
    assert evidence(np.array([-0.5])) == pytest.approx(1 + 0.9 / 0.97 * 0.5)
    assert evidence(np.array([])) == evidence(np.array([0.97])) == 1.0


def test_a_shortfall_beyond_its_bound_is_refused_not_bet_on() -> None:
    for worst in (1.5, np.nan):
        with pytest.raises(DataError, match=r"unit 1: a shortfall of .* exceeds the 0\.97"):
            evidence(np.array([0.0, worst, 0.0]))


def test_the_units_needed_are_the_fewest_that_can_succeed() -> None:
    assert units_needed(LOSS, SURE, test="clopper-pearson") == 99
    n = units_needed(LOSS, SURE, test="betting")
    assert n == 110
    assert evidence(np.full(n, -LOSS)) >= 20 > evidence(np.full(n - 1, -LOSS))
    for test in TESTS:
        assert units_needed(0.01, SURE, test=test) > units_needed(0.03, SURE, test=test)
        assert units_needed(0.03, 0.99, test=test) > units_needed(0.03, SURE, test=test)


def shortfalls(n: int, rng: np.random.Generator, *, harm: float, gain: float) -> np.ndarray:
    """0.97 * best - routed, where best is right on 80 %; routed fails on `harm` of all, and gains on `gain`."""
    u = rng.random(n)
    best = (u < 0.8).astype(float)
    return 0.97 * best - np.where(u < harm, 0.0, np.where(u > 1 - gain, 1.0, best))


def test_betting_is_wrong_as_seldom_as_it_says() -> None:
    # True loss (0.0492 - 0.025) / 0.8 = 3.02 %: a hair too much.
    rng = np.random.default_rng(1)
    wrong = sum(evidence(shortfalls(600, rng, harm=0.0492, gain=0.025)) >= 20 for _ in range(1000))
    assert wrong <= binom.ppf(0.999, 1000, 0.05)


def test_betting_on_skewed_losses_is_wrong_as_seldom_as_it_says() -> None:
    # No gains, rare total failures: the case that a normal approximation gets wrong.
    rng = np.random.default_rng(2)
    wrong = sum(evidence(shortfalls(150, rng, harm=0.0242, gain=0.0)) >= 20 for _ in range(1000))
    assert wrong <= binom.ppf(0.999, 1000, 0.05)


def test_more_units_find_more() -> None:
    rng = np.random.default_rng(3)
    found = [
        sum(evidence(shortfalls(n, rng, harm=0.033, gain=0.025)) >= 20 for _ in range(100)) for n in (300, 1200, 4000)
    ]
    assert found == sorted(found)
    assert found[-1] >= 90


def test_what_must_stay_is_what_an_all_knowing_router_keeps() -> None:
    # 30 of 100 fail elsewhere: it sends the other 70 away, and as many failures as 3 % of all it sends, 70 / 0.97.
    assert least_share_kept(0.30, 0.03) == pytest.approx(1 - 0.70 / 0.97)
    assert least_share_kept(0.02, 0.03) == 0.0


@pytest.mark.parametrize(
    ("loss", "sure", "said"), [(0.0, 0.95, "allowed loss"), (3.0, 0.95, "loss"), (0.03, 95, "con")]
)
def test_shares_out_of_range_are_refused(loss: float, sure: float, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_shares(loss, sure)
