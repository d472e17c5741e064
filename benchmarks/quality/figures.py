"""From scores to figures: exact curves, and one paired bootstrap over prompts for all routers of a protocol.

With seeds a figure is the mean over the seeds' test sets, with folds it is that of the pooled test rows. A draw weighs
the prompts of the table; every router and every seed sees the same draw, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.contenders import ORACLE, Scores
from benchmarks.quality.protocols import Rows
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.baselines import oracle_sweep
from router_ml_training.evaluation.bootstrap import interval, resamples
from router_ml_training.evaluation.curves import Sweep, share_sweep
from router_ml_training.evaluation.metrics import METRICS, CurveMetric, Figure
from router_ml_training.evaluation.outcomes import Outcomes

__all__ = [
    "AIQ",
    "APGR",
    "CS97",
    "DRAWS",
    "Drawn",
    "Panel",
    "Swept",
    "drawn_at",
    "figure",
    "figures",
    "gain",
    "panels",
    "random_saving",
    "reference",
]

F64: TypeAlias = NDArray[np.float64]

AIQ, APGR, CS97 = "AIQ", "APGR", "CS(0.97)"
_OF: Mapping[str, CurveMetric] = {APGR: METRICS["apgr"], CS97: METRICS["cs_97"], AIQ: METRICS["aiq"]}
_RANDOM_CS97 = METRICS["random_cs_97"]
DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Swept:
    """One router's knob turned all the way, and the metrics that are read from that curve."""

    router: str
    metrics: tuple[str, ...]
    sweep: Sweep


@dataclass(frozen=True, slots=True)
class Panel:
    """One test set: its rows in the table, what the tiers did on them, and every router's sweep."""

    rows: Rows
    outcomes: Outcomes
    swept: tuple[Swept, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A metric on the test sets themselves, and in every bootstrap draw, (draws,)."""

    value: float
    draws: F64


def panels(dataset: Dataset, scores: Sequence[Scores], by: Literal["seeds", "folds"]) -> list[Panel]:
    """Return a test set per seed, or the pooled one of all folds."""
    if by == "seeds":
        return [_panel(dataset, one.test, one.by_router, seed) for seed, one in enumerate(scores)]
    pooled = {name: np.concatenate([one.by_router[name] for one in scores]) for name in scores[0].by_router}
    return [_panel(dataset, np.concatenate([one.test for one in scores]), pooled, 0)]


def figures(dataset: Dataset, tests: Sequence[Panel], *, draws: int = DRAWS) -> dict[tuple[str, str], Drawn]:
    """Return value and bootstrap draws by (router, metric)."""
    values = _of_draws(tests, np.ones((1, len(dataset))))
    width = max(panel.outcomes.n for panel in tests)
    batches = [
        _of_draws(tests, weights)
        for weights in resamples(len(dataset), rng=np.random.default_rng(0), draws=draws, width=width)
    ]
    return {key: Drawn(float(one[0]), np.concatenate([batch[key] for batch in batches])) for key, one in values.items()}


def figure(drawn: Drawn) -> Figure:
    """Return a value with its 95 % percentile interval."""
    if np.isnan(drawn.value):
        return Figure(None, reason="undefined on these rows")
    return Figure(drawn.value, *interval(drawn.draws))


def gain(ours: Drawn, theirs: Drawn) -> Figure:
    """Return the paired difference of two routers, with its 95 % percentile interval."""
    return figure(Drawn(ours.value - theirs.value, ours.draws - theirs.draws))


def reference(tests: Sequence[Panel]) -> dict[str, float]:
    """Return what every claim is read beside: g, r, and quality of always one tier, means over the test sets."""
    quality = np.mean([panel.outcomes.quality.mean(axis=0) for panel in tests], axis=0)
    cost = np.mean([panel.outcomes.cost.mean(axis=0) for panel in tests], axis=0)
    return {
        "always small": float(quality[0]),
        "always large": float(quality[-1]),
        "g": float(1 - quality[0] / quality[-1]),
        "r": float(cost[0] / cost[-1]),
    }


def random_saving(tests: Sequence[Panel]) -> float:
    """Return CS(0.97) of the best random mix of the tiers, in expectation."""
    savings = []
    for panel in tests:
        points = panel.swept[0].sweep.trace(panel.outcomes, np.ones((1, panel.outcomes.n)))
        savings.append(float(_RANDOM_CS97.values(points)[0]))
    return float(np.mean(savings))


def drawn_at(metric: CurveMetric, panel: Panel, n: int, *, draws: int = DRAWS) -> Drawn:
    """Return a metric of the single tiers of one test set, which no router has a part in, with the usual draws.

    Args:
        metric: Such as the zero router's AIQ.
        panel: The test set.
        n: Rows of the table, which the draws are made of.
        draws: Bootstrap draws.
    """
    nothing = np.zeros(0, np.intp)
    standing = Sweep(np.zeros(panel.outcomes.n, np.intp), nothing, nothing, nothing, np.zeros(0), 0.0)

    def values(weights: F64) -> F64:
        return metric.values(standing.trace(panel.outcomes, weights[:, panel.rows]))

    batches = [values(weights) for weights in resamples(n, rng=np.random.default_rng(0), draws=draws)]
    return Drawn(float(values(np.ones((1, n)))[0]), np.concatenate(batches))


def _panel(dataset: Dataset, rows: Rows, by_router: Mapping[str, F64], seed: int) -> Panel:
    outcomes = Outcomes(dataset.quality[rows], dataset.cost_usd[rows], best=1)
    # Who knows the outcomes gains most per request in one order, and saves most per USD in another.
    swept = [
        Swept(router, (APGR,) if router == ORACLE else (APGR, CS97), share_sweep(need, rng=np.random.default_rng(seed)))
        for router, need in by_router.items()
    ]
    swept.append(Swept(ORACLE, (CS97,), oracle_sweep(outcomes, rng=np.random.default_rng(seed))))
    return Panel(rows, outcomes, tuple(swept))


def _of_draws(tests: Sequence[Panel], weights: F64) -> dict[tuple[str, str], F64]:
    sums: dict[tuple[str, str], F64] = {}
    for panel in tests:
        here = weights[:, panel.rows]
        for one in panel.swept:
            points = one.sweep.trace(panel.outcomes, here)
            for metric in one.metrics:
                key = one.router, metric
                sums[key] = sums.get(key, 0.0) + _OF[metric].values(points)
    return {key: total / len(tests) for key, total in sums.items()}
