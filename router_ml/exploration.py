"""Exploration with exact propensities: a small share of requests goes to a dearer tier, never to a cheaper one."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["explore"]

Doubles: TypeAlias = NDArray[np.float64]


def explore(choice: int, eligible: NDArray[np.bool_], up: float, rng: np.random.Generator) -> tuple[int, Doubles]:
    """Draw the tier that answers, with the probability of every tier fixed before the draw.

    The planned tier keeps 1 - up; the eligible tiers dearer than it share `up` evenly. When there is none, the
    planned tier answers for certain.

    Args:
        choice: Position of the planned tier, which must be eligible.
        eligible: Which tiers may answer, shape (K,).
        up: Probability of a dearer tier, in [0, 1].
        rng: Exactly one number is drawn from it.

    Returns:
        The position drawn, and the propensity of every tier, shape (K,), which sums to 1.
    """
    draw = rng.random()
    propensity = np.zeros(len(eligible))
    dearer = [i for i in range(choice + 1, len(eligible)) if eligible[i]] if up > 0.0 else []
    if not dearer:
        propensity[choice] = 1.0
        return choice, propensity
    propensity[choice] = 1.0 - up
    propensity[dearer] = up / len(dearer)
    if draw < 1.0 - up:
        return choice, propensity
    # The rest of the draw, [1 - up, 1), is cut into equal parts; rounding must not reach past the last.
    part = int((draw - (1.0 - up)) / up * len(dearer))
    return dearer[min(part, len(dearer) - 1)], propensity
