"""The policies every router is compared with: constants, the random mix, prompt length, the oracle, shuffled labels."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from router_ml_training.evaluation.curves import Sweep, choose, price_sweep, share_sweep
from router_ml_training.evaluation.outcomes import Ints, Outcomes

__all__ = ["always", "baseline_sweeps", "length_sweep", "oracle_choice", "oracle_sweep", "random_sweep", "shuffled"]

Scalar = TypeVar("Scalar", bound=np.generic)


def always(column: int, outcomes: Outcomes) -> Ints:
    """Every request to one column, (n,)."""
    return np.full(outcomes.n, column, dtype=np.intp)


def random_sweep(outcomes: Outcomes, *, rng: Generator) -> Sweep:
    """A coin between the cheapest and the best tier. Its expectation is the chord between them, its APGR 0.5."""
    return share_sweep(rng.random(outcomes.n), rng=rng, small=0, large=outcomes.best_tier)


def length_sweep(prompt_length: ArrayLike, outcomes: Outcomes, *, rng: Generator) -> Sweep:
    """Longer prompts to the best tier: a router without learning, and a strong one.

    Args:
        prompt_length: Tokens or characters, shape (n,).
        outcomes: Names the best tier.
        rng: Breaks ties.
    """
    return share_sweep(prompt_length, rng=rng, small=0, large=outcomes.best_tier)


def oracle_sweep(outcomes: Outcomes, *, rng: Generator) -> Sweep:
    """The shadow price swept over true tier outcomes: no policy over single tiers can be above it."""
    tiers = outcomes.n_tiers
    return price_sweep(outcomes.quality[:, :tiers], outcomes.cost[:, :tiers], rng=rng, floor=-np.inf)


def oracle_choice(outcomes: Outcomes) -> Ints:
    """The tier of the best true outcome of each request, the cheapest on ties, (n,). Source: RouterBench 2403.12031."""
    tiers = outcomes.n_tiers
    return choose(outcomes.quality[:, :tiers], outcomes.cost[:, :tiers], 0.0)


def baseline_sweeps(outcomes: Outcomes, prompt_length: ArrayLike, *, rng: Generator) -> dict[str, Sweep]:
    """`random`, `prompt_length` and `oracle`, each swept all the way."""
    return {
        "random": random_sweep(outcomes, rng=rng),
        "prompt_length": length_sweep(prompt_length, outcomes, rng=rng),
        "oracle": oracle_sweep(outcomes, rng=rng),
    }


def shuffled(labels: NDArray[Scalar], *, rng: Generator) -> NDArray[Scalar]:
    """Rows of labels in random order: a learner fitted on them must fall to the random mix, or something leaks.

    Args:
        labels: Labels, the first axis being requests; whole rows move together, so tiers keep their dependence.
        rng: Source of the order.
    """
    return labels[rng.permutation(len(labels))]
