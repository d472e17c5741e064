"""Plans: what it is worth to try a tier, judge its answer and jump, and when to jump. Numbers only, no request.

A plan "s, then t" lets tier s answer, judges the answer, and pays for t as well where that is worth it. Costs are
*priced* here: multiplied by the shadow price, so that they are in units of quality. What has been paid is sunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import exp, log1p, sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["COST_REACH", "best_plans", "cost_factor", "jump", "plan_values"]

Doubles: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

# What judging has to be worth, in quality: of equals a single attempt is taken, even where calls are free.
_WORTH_JUDGING = 1e-6

_TINY = 1e-9
# An answer may be a stub or an endless loop; e^3 times more or less than expected says all that it can.
COST_REACH = 3.0


def plan_values(adequacy: Doubles, priced: Doubles, spread: Doubles) -> Doubles:
    """Return what every plan is worth before anything is called: expected quality less every attempt's priced cost.

    Entry (s, t) with t > s is the worth of "s, then t", `E_y[max(v, p_t(y) - priced_t)] - priced_s`; entry (t, t) that
    of answering by t alone; below the diagonal is -inf. Over answers y, the difference v - p_t(y) is taken for logistic
    around its mean q_s - q_t, which makes the expectation of the maximum a softplus. Without spread the verifier tells
    nothing, and a plan is worth less than the better of its tiers alone.

    Args:
        adequacy: Chance of each tier to be adequate, q(x), shape (..., K).
        priced: Shadow price times expected cost, shape (..., K), not negative.
        spread: How far answers of s move v - p_t: scale of the logistic over sqrt(q_s (1 - q_s)), shape (K, K).

    Returns:
        Quality, shape (..., K, K).

    Source: Dekoninck, Baader and Vechev 2025 (cascade routing, ICML), section 3, with one shadow price and two stages.
    """
    alone = adequacy - priced
    ahead = adequacy[..., :, None] - alone[..., None, :]
    # The floors keep the quotient finite where a chance is 0 or 1, or where there is no spread.
    scale = np.sqrt(np.maximum(adequacy * (1.0 - adequacy), 0.0))[..., :, None] * spread + _TINY
    values: Doubles = np.logaddexp(0.0, ahead / scale)
    values *= scale
    values += alone[..., None, :]
    values -= priced[..., :, None] + _WORTH_JUDGING
    below, diagonal = _places(adequacy.shape[-1])
    values[..., below] = -np.inf
    values[..., diagonal, diagonal] = alone
    return values


def best_plans(
    adequacy: Sequence[float],
    priced: Sequence[float],
    spread: Sequence[Sequence[float]],
    eligible: Sequence[bool],
    in_time: Sequence[Sequence[bool]] | None = None,
) -> tuple[list[float], list[int]]:
    """Return what the best plan that begins with each tier is worth, and its second tier, for one request.

    The same numbers as `plan_values`, one by one: for the few tiers of one request that is many times faster.

    Args:
        adequacy: Chance of each of the K tiers to be adequate, q(x).
        priced: Shadow price times expected cost of each, not negative.
        spread: K rows as in `plan_values`.
        eligible: Which tiers may answer second.
        in_time: Row s, column t: whether "s, then t" ends in time; None: every plan does.

    Returns:
        The worth of every tier's best plan, and the position of its second tier; the tier's own where it is to answer
        alone, as it is among equals.
    """
    k = len(adequacy)
    alone = [q - cost for q, cost in zip(adequacy, priced, strict=True)]
    worth, partner = list(alone), list(range(k))
    for s in range(k - 1):
        q, row, paid = adequacy[s], spread[s], priced[s] + _WORTH_JUDGING
        moves, fits = sqrt(max(q * (1.0 - q), 0.0)), None if in_time is None else in_time[s]
        for t in range(s + 1, k):
            if not eligible[t] or (fits is not None and not fits[t]):
                continue
            scale = moves * row[t] + _TINY
            ahead = (q - alone[t]) / scale
            value = ((ahead if ahead > 0.0 else 0.0) + log1p(exp(-abs(ahead)))) * scale + alone[t] - paid
            if value > worth[s]:
                worth[s], partner[s] = value, t
    return worth, partner


def jump(posterior: Doubles, priced: Doubles, answered: int, eligible: Mask | None = None) -> NDArray[np.intp]:
    """Return the tier whose answer to give once `answered` has answered: itself, or the dearer tier to jump to.

    The answer is kept unless a dearer tier is worth more although its cost is still to be paid; of equals the one at
    hand, then the cheaper one.

    Args:
        posterior: Chance of each tier to be adequate given request and answer, (..., K); column `answered` is the
            verifier's opinion of the answer itself.
        priced: Shadow price times expected cost, (..., K).
        answered: Position of the tier that answered; its cost is sunk.
        eligible: Which tiers may be jumped to, (..., K) or (K,); None: every dearer one.

    Returns:
        Positions, shape (...).
    """
    worth = posterior[..., answered:] - priced[..., answered:]
    if eligible is not None:
        worth = np.where(eligible[..., answered:], worth, -np.inf)
    worth[..., 0] = posterior[..., answered]
    return np.asarray(worth.argmax(axis=-1) + answered, np.intp)


def cost_factor(spent: Doubles, expected: Doubles, elasticity: float, shift: float, curvature: float = 0.0) -> Doubles:
    """Return by how much a dearer tier's cost is to be expected higher once a tier has answered.

    Answers to the same request are long or short together: who has seen one knows more of the next.

    Args:
        spent: What the answer cost, USD, (...); NaN where unknown, which changes nothing.
        expected: What it was expected to cost, USD, (...).
        elasticity: Of the dearer tier's cost in this tier's.
        shift: Logarithm of the factor where the answer cost what was expected.
        curvature: Weight of the square of the logarithm of spent over expected.

    Returns:
        Factors, (...).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(np.asarray(spent) / np.asarray(expected))
    known = np.isfinite(ratio)
    moved = np.clip(np.where(known, ratio, 0.0), -COST_REACH, COST_REACH)
    # Nor does what is learned at the edges foretell more than the answer itself can say.
    factor: Doubles = np.exp(shift + np.clip((elasticity + curvature * moved) * moved, -COST_REACH, COST_REACH))
    return np.where(known, factor, 1.0)


@cache
def _places(k: int) -> tuple[Mask, NDArray[np.intp]]:
    return np.tril(np.ones((k, k), np.bool_), -1), np.arange(k)
