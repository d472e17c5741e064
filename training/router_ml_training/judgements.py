"""The verifier at work: which answers a policy keeps and which it sends on, against what they turned out to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import PolicySpec
from router_ml_training.evaluation.confusion import Confusion
from router_ml_training.scored import Scored

__all__ = ["Judgements", "judgements_of"]

Rows: TypeAlias = NDArray[np.bool_]

# An answer is good enough from here on, and where no policy says otherwise a verifier accepts it from here on.
_GOOD = 0.5


@dataclass(frozen=True, slots=True)
class Judgements:
    """What was accepted and rejected per tier that was judged, and under which rule."""

    tiers: tuple[Confusion, ...]
    rule: str


def judgements_of(scored: Scored, policy: PolicySpec, *, quality: float) -> Judgements | None:
    """Compare the verifier's decisions with the truth, where both the answer and its outcome are known.

    Where the policy judges answers at that quality, its own decisions count: an answer is rejected when a dearer tier
    is worth its price. Where it does not, every known answer counts, accepted from a chance of one half.

    Args:
        scored: Rows with what the verifier says of their answers.
        policy: The bundle's policy.
        quality: Share of the best tier's quality that the policy is to keep.

    Returns:
        None where there is no verifier, or nothing of what it judged is known.
    """
    if scored.posterior is None:
        return None
    judges = policy.plans is not None and policy.operating(quality)[1]
    if judges and policy.plans is not None and scored.judged(policy.price_unit, policy.plans) is not None:
        taken = scored.taken(policy, quality)
        seen = ~scored.unjudged(policy, quality)
        sides = {s: (seen & (taken.first == s), ~taken.escalated) for s in range(len(scored.dataset.tiers) - 1)}
        rule = f"as the policy judges at quality {quality:g}"
    else:
        said = {s: scored.posterior[:, s, s] for s in range(len(scored.dataset.tiers) - 1)}
        sides = {s: (~np.isnan(chance), np.nan_to_num(chance) >= _GOOD) for s, chance in said.items()}
        rule = f"not used at quality {quality:g}; here an answer is accepted from a chance of {_GOOD:g}"
    found = [_counted(scored, s, rows, accepted) for s, (rows, accepted) in sides.items()]
    kept = tuple(one for one in found if one.n)
    return Judgements(kept, rule) if kept else None


def _counted(scored: Scored, tier: int, rows: Rows, accepted: Rows) -> Confusion:
    # An outcome that is known only because a cheaper tier failed is that of a hard request.
    truth = scored.dataset.free_quality[:, tier]
    known = rows & ~np.isnan(truth)
    return Confusion.of(scored.dataset.tiers[tier], accepted[known], truth[known] >= _GOOD)
