"""Tests that a mean is small, exact for finitely many rows: bets on a bounded mean, and Clopper-Pearson on a rate."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta, binom

from router_ml.errors import UsageError

__all__ = [
    "TESTS",
    "TestName",
    "betting_e_value",
    "check_shares",
    "clopper_pearson_p",
    "clopper_pearson_upper",
    "harms_allowed",
    "least_share_kept",
    "units_needed",
]

TestName: TypeAlias = Literal["betting", "clopper-pearson"]
TESTS: tuple[TestName, ...] = get_args(TestName)

_LARGEST_BET = 0.9  # of the wealth: no single loss ruins the gambler
_FIRST_VARIANCE = 0.0625  # believed before anything was seen
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


def betting_e_value(shortfall: ArrayLike, *, allowed_loss: float, confidence: float) -> float:
    """Return the evidence against a mean shortfall above 0: the most a gambler owned who bet on it being negative.

    He starts with 1 and chooses each bet from what he has seen before. While the mean is not negative, his wealth
    reaches 1 / (1 - confidence) with a probability of at most 1 - confidence, however far he plays.

    Args:
        shortfall: x * best quality - quality of independent units, in [-1, x] with x = 1 - allowed loss, shape (n,), in
            **random** order: on units that are sorted by task, easy ones first would make him rich for nothing.
        allowed_loss: Share of the best tier's quality that may be lost.
        confidence: The bets are the best ones for a loss that n units can just tell from the allowed one, this surely.

    Source: Waudby-Smith and Ramdas, arXiv 2010.09686, section 4 (predictable plug-in bets, one-sided).
    """
    values = np.asarray(shortfall, dtype=np.float64)
    if not values.size:
        return 1.0
    seen = np.arange(1, values.size + 1)
    mean = np.cumsum(values) / (seen + 1)
    variance = (_FIRST_VARIANCE + np.cumsum((values - mean) ** 2)) / (seen + 1)
    before = np.concatenate(([_FIRST_VARIANCE], variance[:-1]))
    bet = np.sqrt(-2.0 * np.log(1.0 - confidence) / (before * values.size))
    bet = np.minimum(bet, _LARGEST_BET / (1.0 - allowed_loss))
    wealth = np.cumsum(np.log1p(-bet * values))
    return float(np.exp(min(max(float(wealth.max()), 0.0), _MAX_LOG)))


def clopper_pearson_p(harms: int, n: int, rate: float) -> float:
    """Return the p-value of "harm is at least that frequent": how likely so few harms among n would be then."""
    return float(binom.cdf(harms, n, rate))


def clopper_pearson_upper(harms: int, n: int, confidence: float) -> float:
    """Return the exact upper confidence bound of the rate behind `harms` among `n`."""
    return 1.0 if harms >= n else float(beta.ppf(confidence, harms + 1, n - harms))


def harms_allowed(n: int, rate: float, confidence: float) -> int | None:
    """Return the largest number of harms among n that still proves a rate of at most `rate`; None when none does."""
    largest = int(binom.ppf(1.0 - confidence, n, rate))
    while largest >= 0 and clopper_pearson_p(largest, n, rate) > 1.0 - confidence:
        largest -= 1
    return largest if largest >= 0 else None


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
