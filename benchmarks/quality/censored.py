"""Protocols B and C: learning from what a service would have logged, beside learning from every outcome.

B: a cascade (the small tier always, the large one if and only if the small one failed), without and with 5 % of the
rows audited; what counts is the share kept of the lift over a coin that every outcome gives (A, by the same learner on
the same splits). C: one outcome per request, chosen by prompt length with 5 % exploration. All logs of a split hold the
same rows, all are learned from by the product's own code, which tells from the log alone what to do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.contenders import LENGTH, ORACLE, RANDOM, Scores
from benchmarks.quality.figures import APGR, Drawn, figure, figures, gain, panels, reference
from benchmarks.quality.protocols import PROTOCOLS, Split, Table, read, splits
from benchmarks.quality.result import Result, row_of
from benchmarks.results_file import Row, goal_text
from router_ml.cli.output import table as plain_table
from router_ml.features import DENSE_NAMES
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import Encoder, fit_encoder
from router_ml_training.evaluation.baselines import shuffled
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.learners import LEARNERS
from router_ml_training.splits import group_folds
from router_ml_training.tasks import cross_fit_adequacy

__all__ = ["cascade_log", "run", "skewed_log"]

F64: TypeAlias = NDArray[np.float64]

FULL, CASCADE, AUDITED, SKEWED = "every outcome (A)", "cascade log", "cascade log, 5 % audited", "skewed log"
SHUFFLED = "shuffled labels, cascade log"
_LEARNER = "linear"
_FOLDS = 3
_AUDIT, _EPSILON = 0.05, 0.05
_CHARS = DENSE_NAMES.index("text.log_chars")
# (must, aim)
_KEPT: Mapping[str, tuple[float, float]] = {CASCADE: (0.88, 0.93), AUDITED: (0.93, 0.98)}
_APGR_OF_C = (0.60, 0.64)


def run(folder: Path, *, draws: int = 1000) -> Result:
    """Measure both protocols on the same splits."""
    started = time.monotonic()
    table = read(PROTOCOLS["A"], folder)
    scores = []
    for split in splits(PROTOCOLS["A"], table):
        scores.append(_score(table, split))
        print(f"B, C: seed {split.seed}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    tests = panels(table.dataset, scores, "seeds")
    found = figures(table.dataset, tests, draws=draws)
    apgr = {router: drawn for (router, metric), drawn in found.items() if metric == APGR}
    n = round(np.mean([len(one.test) for one in scores]))
    rows = [*_rows_of_b(apgr, n), *_rows_of_c(apgr, n)]
    facts = ", ".join(f"{name} {value:.3f}" for name, value in reference(tests).items())
    return Result(("B", "C"), f"{_text(apgr, rows)}\n{facts}; {n} test rows per seed", tuple(rows))


def cascade_log(data: Dataset, audit: float, rng: np.random.Generator) -> Dataset:
    """Return what a cascade leaves of two tiers' outcomes.

    Args:
        data: Rows with both outcomes.
        audit: Share of the rows that keep both.
        rng: Draws the audited rows.
    """
    audited = np.zeros(len(data), np.bool_)
    audited[rng.permutation(len(data))[: round(audit * len(data))]] = True
    failed = data.quality[:, 0] < 1.0
    quality = data.quality.copy()
    quality[~failed & ~audited, 1] = np.nan
    escalated = np.zeros(quality.shape, np.bool_)
    escalated[:, 1] = failed & ~audited
    propensity = np.where(audited[:, None], np.nan, np.array([1.0, 0.0]))
    return replace(data, quality=quality, escalated=escalated, action=np.where(audited, -1, 0), propensity=propensity)


def skewed_log(data: Dataset, epsilon: float, rng: np.random.Generator) -> Dataset:
    """Return one outcome per row: the large tier's for prompts longer than the median, the other one by exploration.

    Args:
        data: Rows with both outcomes.
        epsilon: Twice the probability of the other tier.
        rng: Draws the tier.
    """
    n_chars = data.dense[:, _CHARS]
    favourite = (n_chars > np.median(n_chars)).astype(np.int64)
    everyone = np.arange(len(data))
    propensity = np.full(data.quality.shape, epsilon / 2)
    propensity[everyone, favourite] = 1.0 - epsilon / 2
    action = np.where(rng.random(len(data)) < epsilon / 2, 1 - favourite, favourite)
    quality = np.full_like(data.quality, np.nan)
    quality[everyone, action] = data.quality[everyone, action]
    return replace(data, quality=quality, action=action, propensity=propensity)


def _score(table: Table, split: Split) -> Scores:
    train, test = table.dataset.rows(split.train), table.dataset.rows(split.test)
    rng = np.random.default_rng(split.seed)
    nothing = replace(train, quality=shuffled(train.quality, rng=rng))
    logs = {
        FULL: train,
        CASCADE: cascade_log(train, 0.0, rng),
        AUDITED: cascade_log(train, _AUDIT, rng),
        SKEWED: skewed_log(train, _EPSILON, rng),
        SHUFFLED: cascade_log(nothing, 0.0, rng),
    }
    encoder = fit_encoder(train, latent=False)
    need = {name: _need(log, test, encoder, split.seed) for name, log in logs.items()}
    need[LENGTH] = test.dense[:, _CHARS].astype(np.float64)
    need[ORACLE] = test.quality[:, 1] - test.quality[:, 0]
    return Scores(split.test, need, _LEARNER)


def _need(log: Dataset, test: Dataset, encoder: Encoder, seed: int) -> F64:
    fold = group_folds(log.group, _FOLDS, np.random.default_rng(seed))
    model, _ = cross_fit_adequacy(log, fold, encoder, LEARNERS.load(_LEARNER), seed=seed)
    adequacy = model.predict(encoder.encode(test))
    need: F64 = adequacy[:, 1] - adequacy[:, 0]
    return need


def _kept(part: Drawn, whole: Drawn) -> Figure:
    """Return the share of the lift over a coin that is kept, with its interval."""
    return figure(Drawn((part.value - 0.5) / (whole.value - 0.5), (part.draws - 0.5) / (whole.draws - 0.5)))


def _rows_of_b(apgr: Mapping[str, Drawn], n: int) -> list[Row]:
    rows = [
        row_of("B", f"share of A's lift kept, {name}", _kept(apgr[name], apgr[FULL]), n, must=must, aim=aim)
        for name, (must, aim) in _KEPT.items()
    ]
    names = (CASCADE, AUDITED, FULL, LENGTH, SHUFFLED, ORACLE)
    return [*rows, *_apgr_rows("B", names, apgr, n)]


def _rows_of_c(apgr: Mapping[str, Drawn], n: int) -> list[Row]:
    must, aim = _APGR_OF_C
    return [
        row_of("C", APGR, figure(apgr[SKEWED]), n, must=must, aim=aim),
        row_of("C", f"{APGR} gain over {LENGTH}", gain(apgr[SKEWED], apgr[LENGTH]), n),
        *_apgr_rows("C", (FULL, LENGTH, SHUFFLED, ORACLE), apgr, n),
    ]


def _apgr_rows(protocol: str, names: Sequence[str], apgr: Mapping[str, Drawn], n: int) -> list[Row]:
    return [row_of(protocol, f"{APGR} of {name}", figure(apgr[name]), n) for name in names]


def _text(apgr: Mapping[str, Drawn], rows: Sequence[Row]) -> str:
    goals = {row.metric.rpartition("kept, ")[2]: row for row in rows if row.must is not None and row.protocol == "B"}
    goals[SKEWED] = next(row for row in rows if row.protocol == "C")
    cells = [(RANDOM, "0.5000", "", "0.00", "")]
    for name in (LENGTH, SHUFFLED, SKEWED, CASCADE, AUDITED, FULL, ORACLE):
        whole, kept, row = figure(apgr[name]), _kept(apgr[name], apgr[FULL]), goals.get(name)
        goal = "" if row is None else f"{row.value:.3f}, must {row.must:g}, aim {row.aim:g}: {goal_text(row)}"
        cells.append((name, f"{whole.value:.4f}", f"{whole.low:.4f} to {whole.high:.4f}", f"{kept.value:.2f}", goal))
    title = f"B, C: MMLU learned from partial logs by the learner '{_LEARNER}'"
    return f"{title}\n\n{plain_table(('learned from', APGR, '95 %', 'share of lift', 'goal'), cells)}"
