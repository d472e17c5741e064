"""A policy slice by slice: what it keeps and saves on each part of the traffic, with intervals."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.outcomes import Floats, Outcomes
from router_ml_training.evaluation.report import Slice
from router_ml_training.evaluation.strategies import Strategy, measure
from router_ml_training.slices import slices_of

__all__ = ["ALL", "slice_figures"]

ALL = "all requests"
# An interval from fewer requests says nothing but that they are few.
_FEWEST = 10
# There are many slices; their intervals are wide, and need not be exact to the last digit.
_COARSER = 4


def slice_figures(
    dataset: Dataset,
    whole: Strategy,
    quality: Floats,
    cost: Floats,
    outcomes: Outcomes,
    *,
    rng: Generator,
    draws: int,
) -> tuple[Slice, ...]:
    """Measure what a policy did on every slice of some rows, against always the best tier there.

    Args:
        dataset: The rows.
        whole: The policy on all of them.
        quality: Quality of the answers that the policy gave, (n,).
        cost: USD of all its attempts, (n,).
        outcomes: What every tier did on them.
        rng: Draws bootstrap samples.
        draws: Bootstrap draws for the whole, a quarter of them for each slice; 0 leaves the intervals out.

    Returns:
        All requests, then every slice of at least ten, the largest first.
    """
    masks = {name: mask for name, mask in slices_of(dataset).items() if mask.sum() >= _FEWEST}
    best = outcomes.best_tier
    found = [Slice(ALL, len(dataset), whole.quality_kept, whole.saving)]
    for name, mask in sorted(masks.items(), key=lambda one: -int(one[1].sum())):
        # The best tier is that of the whole traffic, also where another is better on a slice.
        part = Outcomes(outcomes.quality[mask], outcomes.cost[mask], best=best)
        one = measure(
            name,
            quality=quality[mask],
            cost=cost[mask],
            column=np.zeros(int(mask.sum()), np.intp),
            outcomes=part,
            rng=rng,
            draws=draws // _COARSER,
            groups=dataset.group[mask],
        )
        found.append(Slice(name, int(mask.sum()), one.quality_kept, one.saving))
    return tuple(found)
