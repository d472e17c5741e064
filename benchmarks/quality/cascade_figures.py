"""Figures of policies that are swept over the same rows, with one paired bootstrap over prompts for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.quality.figures import Drawn
from router_ml_training.evaluation.bootstrap import resamples
from router_ml_training.evaluation.curves import Sweep
from router_ml_training.evaluation.metrics import METRICS
from router_ml_training.evaluation.outcomes import Outcomes

__all__ = ["AIQ", "CS97", "CS99", "CS100", "ZERO", "Figures", "drawn_figures"]

AIQ, CS97, CS99, CS100 = "AIQ", "CS(0.97)", "CS(0.99)", "CS(1.00)"
_OF = {AIQ: "aiq", CS97: "cs_97", CS99: "cs_99", CS100: "cs_100"}
# The same metrics of the single tiers and their random mixes: what needs no router.
_WITHOUT = {AIQ: "zero_aiq", CS97: "random_cs_97", CS99: "random_cs_99", CS100: "random_cs_100"}
ZERO = "random mix (zero router)"


@dataclass(frozen=True, slots=True)
class Figures:
    """Every metric of every policy, with its bootstrap draws, and the facts beside which they are read."""

    drawn: Mapping[tuple[str, str], Drawn]
    metrics: tuple[str, ...]
    n: int
    quality_gap: float
    cost_ratio: float

    @property
    def policies(self) -> list[str]:
        """Names of the policies, in order."""
        return list(dict.fromkeys(policy for policy, _ in self.drawn))


def drawn_figures(sweeps: Mapping[str, Sweep], outcomes: Outcomes, metrics: Sequence[str], *, draws: int) -> Figures:
    """Measure every sweep on the same rows and the same draws of them.

    Args:
        sweeps: By name; each is one over the columns of `outcomes`.
        outcomes: What tiers and plans would have done on the pooled test rows.
        metrics: Which metrics.
        draws: Bootstrap draws.
    """
    value = _measured(sweeps, outcomes, metrics, np.ones((1, outcomes.n)))
    width = max(sweep.row.size for sweep in sweeps.values())
    batches = [
        _measured(sweeps, outcomes, metrics, weights)
        for weights in resamples(outcomes.n, rng=np.random.default_rng(0), draws=draws, width=width)
    ]
    drawn = {key: Drawn(float(one[0]), np.concatenate([batch[key] for batch in batches])) for key, one in value.items()}
    quality, cost = outcomes.quality.mean(axis=0), outcomes.cost.mean(axis=0)
    best = outcomes.best_tier
    cheapest = int(cost[: outcomes.n_tiers].argmin())
    return Figures(
        drawn,
        tuple(metrics),
        outcomes.n,
        float(1.0 - quality[cheapest] / quality[best]),
        float(cost[cheapest] / cost[best]),
    )


def _measured(
    sweeps: Mapping[str, Sweep], outcomes: Outcomes, metrics: Sequence[str], weights: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    found: dict[tuple[str, str], np.ndarray] = {}
    for name, sweep in sweeps.items():
        points = sweep.trace(outcomes, weights)
        for metric in metrics:
            if not found.get((ZERO, metric), np.zeros(0)).size:
                found[ZERO, metric] = METRICS[_WITHOUT[metric]].values(points)
            found[name, metric] = METRICS[_OF[metric]].values(points)
    return found
