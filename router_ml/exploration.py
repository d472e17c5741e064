"""Exploration with exact propensities: upwards in front of the client, downwards only behind its back.

A dearer tier than planned costs money, never quality, so it may answer (`explore`). A cheaper one might be worse, so it
is asked in the background and its answer is never shown (`shadow`). For a few requests, whatever they are, every tier
is run in the background (`audit`): a simple random sample of the traffic on which everything is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["Background", "beside", "draw_background", "explore"]


@dataclass(frozen=True, slots=True)
class Background:
    """A draw for background calls, made before the request was looked at.

    `mode` is what was drawn, `share` the probability of that draw; `point`, uniform in [0, 1), picks the tier of a
    shadow.
    """

    mode: Literal["audit", "shadow"]
    share: float
    point: float


def explore(choice: int, eligible: Sequence[bool], up: float, rng: np.random.Generator) -> tuple[int, list[float]]:
    """Draw the tier that answers, with the probability of every tier fixed before the draw.

    The planned tier keeps 1 - up; the eligible tiers dearer than it share `up` evenly. When there is none, the
    planned tier answers for certain.

    Args:
        choice: Position of the planned tier, which must be eligible.
        eligible: Which tiers may answer, K flags.
        up: Probability of a dearer tier, in [0, 1].
        rng: Exactly one number is drawn from it.

    Returns:
        The position drawn, and the propensities of the K tiers, which sum to 1.
    """
    draw = rng.random()
    propensity = [0.0] * len(eligible)
    dearer = [i for i in range(choice + 1, len(eligible)) if eligible[i]] if up > 0.0 else ()
    if not dearer:
        propensity[choice] = 1.0
        return choice, propensity
    propensity[choice] = 1.0 - up
    for i in dearer:
        propensity[i] = up / len(dearer)
    if draw < 1.0 - up:
        return choice, propensity
    # The rest of the draw, [1 - up, 1), is cut into equal parts; rounding must not reach past the last.
    part = int((draw - (1.0 - up)) / up * len(dearer))
    return dearer[min(part, len(dearer) - 1)], propensity


def draw_background(audit: float, shadow: float, rng: np.random.Generator) -> Background | None:
    """Draw what runs beside the answer to the next request, whatever that request is.

    The audit arm comes first, so that it is a simple random sample; shadows are drawn outside of it.

    Args:
        audit: Probability that every tier is run, in [0, 1].
        shadow: Probability, outside the audit arm, of asking a cheaper tier too, in [0, 1].
        rng: Exactly two numbers are drawn from it.

    Returns:
        The draw; None: nothing runs beside the answer.
    """
    draw, point = rng.random(), rng.random()
    if draw < audit:
        return Background("audit", audit, point)
    share = (1.0 - audit) * shadow
    return Background("shadow", share, point) if draw < audit + share else None


def beside(background: Background, first: int, eligible: Sequence[bool]) -> tuple[tuple[int, ...], list[float]]:
    """Return the tiers to run beside an answer, and how the one of a shadow was drawn among them.

    An audit runs every eligible tier, the one that answers included: what the client was shown may have been cut off,
    or be the second attempt. A shadow runs one eligible tier cheaper than the first one, each with equal probability.

    Args:
        background: The draw.
        first: Position of the tier that was drawn to answer first.
        eligible: Which tiers may run, K flags.

    Returns:
        Positions, none when no tier is cheaper; and the probability of each of the K tiers to be the shadow, all zero
        for an audit, which draws none.
    """
    propensity = [0.0] * len(eligible)
    able = [i for i, may in enumerate(eligible) if may]
    if background.mode == "audit":
        return tuple(able), propensity
    cheaper = [i for i in able if i < first]
    if not cheaper:
        return (), propensity
    for i in cheaper:
        propensity[i] = 1.0 / len(cheaper)
    return (cheaper[int(background.point * len(cheaper))],), propensity
