"""Protocol K: what is learned from nothing must be worth nothing, and the product must say so.

Two controls on the splits of A: the outcomes belong to other requests (shuffled labels), or the features say nothing
(random features, same shape). The competition has to keep the constant model on every split. A constant model scores
0.5 by its ties alone, which would prove little, so the figure is that of a learner that would find whatever leaks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from benchmarks.quality.contenders import Parts, adequacy_of, competition_of, control_of, need_of, parts_of
from benchmarks.quality.figures import APGR, Drawn, Panel, Swept, figure, figures
from benchmarks.quality.protocols import PROTOCOLS, Rows, Table, read, splits
from benchmarks.quality.result import Result, row_of
from benchmarks.results_file import Row, goal_text
from router_ml.cli.output import table as plain_table
from router_ml.features import N_TEXT_BUCKETS
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.compare import Choice
from router_ml_training.evaluation.curves import share_sweep
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.outcomes import Outcomes

__all__ = ["run", "with_random_features"]

F64: TypeAlias = NDArray[np.float64]

_MUST = 0.02


@dataclass(frozen=True, slots=True)
class _Trial:
    """One split of one control: what the learner says of the test rows, (m,), and what the competition says."""

    test: Rows
    need: F64
    verdict: Choice


def run(folder: Path, *, draws: int = 1000) -> Result:
    """Measure both controls."""
    started = time.monotonic()
    table = read(PROTOCOLS["A"], folder)
    controls: Mapping[str, Callable[[Parts, np.random.Generator], Parts]] = {
        "shuffled labels": Parts.with_shuffled_labels,
        "random features": _with_random_features,
    }
    rows: list[Row] = []
    cells = []
    for name, spoil in controls.items():
        trials = []
        for split in splits(PROTOCOLS["A"], table):
            trials.append(_trial(split.test, parts_of(table.dataset, split), spoil))
            print(f"K: {name}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        apgr = _apgr(table, trials, draws)
        here = _rows(name, apgr, trials)
        rows += here
        cells.append(_cells(name, apgr, trials, here))
    headers = ("control", APGR, "95 %", "distance to 0.5", "must", "best candidate", "keeps the constant model")
    title = "K: A with nothing to learn: what the linear learner scores, and what the competition keeps"
    return Result(("K",), f"{title}\n\n{plain_table(headers, cells)}", tuple(rows))


def with_random_features(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    """Return a dataset whose columns and words say nothing, in the same shape and number."""
    indices = rng.integers(0, N_TEXT_BUCKETS, size=dataset.text.nnz).astype(dataset.text.indices.dtype)
    # A copy: adding up duplicates works in place.
    text = csr_array((dataset.text.data, indices, dataset.text.indptr), shape=dataset.text.shape, copy=True)
    text.sum_duplicates()
    return replace(dataset, dense=rng.normal(size=dataset.dense.shape).astype(np.float32), text=text)


def _with_random_features(parts: Parts, rng: np.random.Generator) -> Parts:
    train, tune, test = (with_random_features(one, rng) for one in (parts.train, parts.tune, parts.test))
    return replace(parts, train=train, tune=tune, test=test)


def _trial(test: Rows, parts: Parts, spoil: Callable[[Parts, np.random.Generator], Parts]) -> _Trial:
    spoiled = spoil(parts, np.random.default_rng(parts.seed))
    return _Trial(test, need_of(adequacy_of(control_of(spoiled), spoiled.test)), competition_of(spoiled).choice)


def _apgr(table: Table, trials: Sequence[_Trial], draws: int) -> Drawn:
    panels = []
    for seed, trial in enumerate(trials):
        outcomes = Outcomes(table.dataset.quality[trial.test], table.dataset.cost_usd[trial.test], best=1)
        sweep = share_sweep(trial.need, rng=np.random.default_rng(seed))
        panels.append(Panel(trial.test, outcomes, (Swept("control", (APGR,), sweep),)))
    return figures(table.dataset, panels, draws=draws)["control", APGR]


def _rows(name: str, apgr: Drawn, trials: Sequence[_Trial]) -> list[Row]:
    n = round(np.mean([len(trial.test) for trial in trials]))
    kept = float(all(trial.verdict.keep_constant for trial in trials))
    distance = Figure(abs(apgr.value - 0.5))
    return [
        row_of("K", f"abs(APGR - 0.5), {name}", distance, n, must=_MUST, better="lower"),
        row_of("K", f"keeps the constant model, {name}", Figure(kept), n, must=1.0),
        row_of("K", f"APGR, {name}", figure(apgr), n),
    ]


def _cells(name: str, apgr: Drawn, trials: Sequence[_Trial], rows: Sequence[Row]) -> tuple[str, ...]:
    whole = figure(apgr)
    candidates = ", ".join(dict.fromkeys(trial.verdict.best for trial in trials))
    kept = sum(trial.verdict.keep_constant for trial in trials)
    return (
        name,
        f"{apgr.value:.4f}",
        f"{whole.low:.4f} to {whole.high:.4f}",
        f"{abs(apgr.value - 0.5):.4f}",
        f"<= {_MUST:g}: {goal_text(rows[0])}",
        candidates,
        f"{kept} of {len(trials)} splits: {goal_text(rows[1])}",
    )
