"""Tests that a mean is small, exact for finitely many rows: bets on a bounded mean, and Clopper-Pearson on a rate."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, log1p
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, norm

from router_ml.errors import DataError, UsageError
from router_ml_training.evaluation.outcomes import Floats, Ints

__all__ = [
    "TESTS",
    "TestName",
    "betting_e_value",
    "check_shares",
    "clopper_pearson_p",
    "least_share_kept",
    "units_needed",
]

TestName: TypeAlias = Literal["betting", "clopper-pearson"]
TESTS: tuple[TestName, ...] = get_args(TestName)

_LARGEST_BET = 0.9  # of the wealth: no single loss ruins the gambler
_FIRST_VARIANCE = 0.04  # believed before anything was seen
# How much a gambler bets, per standard error of what is left, whose fair chance to reach the goal is p: the hazard
# phi(z) / Phi(z) at z = the p-quantile. Real steps are no Brownian motion, so he aims a little beyond the goal.
_CHANCES = np.linspace(0.0, 1.0, 4001)
_EAGERNESS: list[float] = [*(norm.pdf(norm.ppf(_CHANCES[1:-1])) / _CHANCES[1:-1]).tolist(), 0.0]
_BEYOND = 0.95
_MAX_LOG = 690.0  # exp() of more is no float


def check_shares(allowed_loss: float, confidence: float) -> None:
    """Refuse a loss or a confidence that no test is defined for.

    Raises:
        UsageError: When one of them is out of range.
    """
    if not 0.0 < allowed_loss < 1.0:
        raise UsageError(f"allowed loss: expected a share of the best tier's quality in (0, 1), got {allowed_loss:g}")
    if not 0.5 <= confidence < 1.0:
        raise UsageError(f"confidence: expected a probability in [0.5, 1), got {confidence:g}")


def betting_e_value(
    shortfall: ArrayLike,
    *,
    allowed_loss: float,
    confidence: float,
    arm: ArrayLike | None = None,
    largest: Sequence[float] | None = None,
) -> float:
    """Return the evidence against a mean shortfall above 0: the most a gambler owned who bet on it being negative.

    He starts with 1 and chooses each bet from what he has seen before. While the mean is not negative, his wealth
    reaches 1 / (1 - confidence) with a probability of at most 1 - confidence, however far he plays.

    Args:
        shortfall: x * best quality - quality of independent units, in [-1, x] with x = 1 - allowed loss, shape (n,), in
            **random** order: on units that are sorted by task, easy ones first would make him rich for nothing.
        allowed_loss: Share of the best tier's quality that may be lost.
        confidence: What is aimed at: wealth 1 / (1 - confidence) by the last unit. Each bet is the one that would make
            this most likely if what is left were a Brownian motion; in the limit no test of n units is more powerful.
        arm: How each unit was measured, 0 to m - 1, (n,), fixed without looking at it: every arm has the same mean, and
            the narrower one deserves the larger bets. None: all in one way.
        largest: What no shortfall of each arm can exceed, (m,), known before any of them was; None: x. Nothing bounds
            them from below, so estimates that weigh rare audits are taken too.

    Raises:
        DataError: When a shortfall exceeds its bound: bets that rely on it could cost more than there is.

    Source: Waudby-Smith and Ramdas, arXiv 2010.09686, section 4 (bets chosen from the past are valid, one-sided);
    Browne 1999, "Reaching goals by a deadline" (which of them to choose).
    """
    values = np.asarray(shortfall, dtype=np.float64)
    if not values.size:
        return 1.0
    way = np.zeros(values.size, np.intp) if arm is None else np.asarray(arm)
    bounds = (1.0 - allowed_loss,) if largest is None else tuple(largest)
    _check_bounds(values, np.asarray(bounds)[way])
    variance = np.empty(values.size)
    for i, bound in enumerate(bounds):
        variance[way == i] = _variance_before(values[way == i], _FIRST_VARIANCE * max(bound, 1.0))
    cap = _LARGEST_BET / np.asarray(bounds)[way]
    unit = 1.0 / (variance * np.sqrt(_information_left(variance, way, len(bounds))))
    best = _play(values.tolist(), unit.tolist(), cap.tolist(), 1.0 - confidence)
    return float(np.exp(min(best, _MAX_LOG)))


def _check_bounds(values: Floats, bound: Floats) -> None:
    worst = int(np.argmax(values - bound))
    if not values[worst] <= bound[worst] + 1e-9:
        raise DataError(
            f"unit {worst}: a shortfall of {values[worst]:.4g} exceeds the {bound[worst]:.4g} that it is bounded by: "
            "nothing can be certified; qualities must lie in [0, 1], and propensities be those of the log"
        )


def _play(values: list[float], unit: list[float], cap: list[float], level: float) -> float:
    """Return the logarithm of the largest wealth on the way."""
    goal = -log(level)
    wealth, best, last = 0.0, 0.0, len(_EAGERNESS) - 1
    for value, one, most in zip(values, unit, cap, strict=True):
        # Beyond the goal there is no deadline: bet on as the goal itself would have had it.
        chance = exp(wealth - goal) * _BEYOND if best < goal else 0.0
        eager = _EAGERNESS[min(int(chance * last), last)] if best < goal else 1.0
        wealth += log1p(-min(eager * one, most) * value)
        best = max(best, wealth)
    return best


def _variance_before(values: Floats, first: float) -> Floats:
    """Return the variance believed before each value was seen, (n,)."""
    seen = np.arange(1, values.size + 1)
    mean = np.cumsum(values) / (seen + 1)
    variance = (first + np.cumsum((values - mean) ** 2)) / (seen + 1)
    return np.concatenate(([first], variance[:-1]))[: values.size]


def _information_left(variance: Floats, way: Ints, arms: int) -> Floats:
    """Return the sum of 1 / variance over a unit and those after it, by the variances believed at that unit, (n,)."""
    n = variance.size
    total = np.zeros(n)
    for i in range(arms):
        mine = np.flatnonzero(way == i)
        if mine.size:
            before = np.searchsorted(mine, np.arange(n))
            latest = np.minimum(before, mine.size - 1)
            total += (mine.size - before) / variance[mine[latest]]
    return total


def clopper_pearson_p(harms: int, n: int, rate: float) -> float:
    """Return the p-value of "harm is at least that frequent": how likely so few harms among n would be then."""
    return float(binom.cdf(harms, n, rate))


def units_needed(allowed_loss: float, confidence: float, *, test: TestName) -> int:
    """Return how many units a test needs for a policy that never loses, where the best tier is always right."""
    # Without a harm, Clopper-Pearson needs (1 - loss)^n <= 1 - confidence. Betting everything would need as many.
    least = int(np.ceil(np.log(1.0 - confidence) / np.log1p(-allowed_loss) - 1e-9))
    if test == "clopper-pearson":
        return least
    low, high = least - 1, least
    while not _bets_suffice(high, allowed_loss, confidence):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _bets_suffice(middle, allowed_loss, confidence) else (middle, high)
    return high


def least_share_kept(failure_rate: float, allowed_loss: float) -> float:
    """Return the share that even an all-knowing router leaves to the best tier, of what that tier answers well.

    It holds for routers that lose at most `allowed_loss` on what they send elsewhere. One that may lose as much on all
    requests together, as a certificate says, can send a little more away.

    Args:
        failure_rate: How often no other tier is good enough where the best one is.
        allowed_loss: Share of failures allowed among what is sent elsewhere.

    Source: arXiv 2606.29054.
    """
    return max(0.0, (failure_rate - allowed_loss) / (1.0 - allowed_loss))


def _bets_suffice(n: int, allowed_loss: float, confidence: float) -> bool:
    wealth = betting_e_value(np.full(n, -allowed_loss), allowed_loss=allowed_loss, confidence=confidence)
    return wealth >= 1.0 / (1.0 - confidence)
