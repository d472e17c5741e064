"""Protocols G and G2: three tiers, all outcomes known; a shadow price decides, so each router says adequacy and cost.

Every router decides with the same expected costs, from the product's own estimate of answer lengths. Its curve is swept
over every price at which some request changes its tier; AIQ is the mean height of the hull of that curve and the
single tiers, between the mean costs of the cheapest and the dearest tier.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.quality.baselines import KEYWORDS, keyword_count
from benchmarks.quality.contenders import CHOSEN, LENGTH, ORACLE, Parts, competition_of, parts_of, rivals
from benchmarks.quality.figures import (
    AIQ,
    CS97,
    Panel,
    Swept,
    drawn_at,
    figure,
    figures,
    gain,
    random_saving,
    reference,
)
from benchmarks.quality.protocols import PROTOCOLS, Rows, Split, Table, ladder_of, read, splits
from benchmarks.quality.result import Result
from benchmarks.quality.tables import Measured, rows_of, text_of
from router_ml.features import DENSE_NAMES
from router_ml.ladder import Ladder
from router_ml_training.dataset import Dataset, joined
from router_ml_training.evaluation.baselines import oracle_sweep
from router_ml_training.evaluation.curves import price_sweep
from router_ml_training.evaluation.metrics import METRICS, Figure
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.frontier import expected_cost
from router_ml_training.tokens import fit_tokens

__all__ = ["ZERO", "run_g", "run_g2"]

F64: TypeAlias = NDArray[np.float64]

# A coin between the single tiers.
ZERO = "zero router"
SHUFFLED_SCORES = "shuffled scores"
_LENGTH_COLUMN = DENSE_NAMES.index("text.log_chars")


@dataclass(frozen=True, slots=True)
class _Fold:
    """Adequacy (m, K) by router and expected cost (m, K) of the test rows of one fold."""

    test: Rows
    adequacy: Mapping[str, F64]
    cost: F64
    chosen: str
    n_train: int


def run_g(folder: Path, *, draws: int = 1000) -> Result:
    """Measure on prompt text only."""
    return _run("G", folder, draws)


def run_g2(folder: Path, *, draws: int = 1000) -> Result:
    """Measure with the task as metadata."""
    return _run("G2", folder, draws)


def _run(name: str, folder: Path, draws: int) -> Result:
    protocol, started = PROTOCOLS[name], time.monotonic()
    ladder, table = ladder_of(protocol, folder), read(protocol, folder)
    folds = []
    for number, split in enumerate(splits(protocol, table), start=1):
        folds.append(_fold(table, split, ladder))
        print(f"{name}: fold {number}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    panel = _panel(table.dataset, folds)
    drawn = figures(table.dataset, [panel], draws=draws)
    zero = drawn_at(METRICS["zero_aiq"], panel, len(table), draws=draws)
    by_router = {ZERO: {AIQ: figure(zero), CS97: Figure(random_saving([panel]))}}
    for router in dict.fromkeys(router for router, _ in drawn):
        by_router[router] = {metric: figure(drawn[router, metric]) for metric in (AIQ, CS97)}
    measured = Measured(
        protocol=protocol,
        metrics=(AIQ, CS97),
        n_train=round(np.mean([fold.n_train for fold in folds])),
        n_test=panel.outcomes.n,
        facts=reference([panel]),
        by_router=by_router,
        gain_over=ZERO,
        gain=gain(drawn[CHOSEN, AIQ], zero),
        choices=[fold.chosen for fold in folds],
    )
    return Result((name,), text_of(measured), tuple(rows_of(measured)))


def _fold(table: Table, split: Split, ladder: Ladder) -> _Fold:
    parts = parts_of(table.dataset, split)
    competition = competition_of(parts)
    tokens = fit_tokens(competition.fitted, competition.winner.encoder)
    lengths = tokens.predict(competition.winner.encoder.encode(parts.test))
    adequacy = {
        LENGTH: _of_one_number(parts, lambda rows: rows.dense[:, _LENGTH_COLUMN].astype(np.float64)),
        KEYWORDS: _of_one_number(parts, keyword_count),
        **rivals(parts, competition),
    }
    cost = expected_cost(parts.test, lengths, ladder)
    return _Fold(split.test, adequacy, cost, competition.choice.name, len(split.train))


def _of_one_number(parts: Parts, number: Callable[[Dataset], F64]) -> F64:
    """Return adequacy (m, K) from one number per request: with three tiers a rule needs to know what it stands for."""
    learned = joined(parts.train, parts.tune)
    x, asked = number(learned)[:, None], number(parts.test)[:, None]
    columns = []
    for outcome in learned.quality.T:
        model = LogisticRegression().fit(x, outcome >= 0.5)
        columns.append(model.predict_proba(asked)[:, 1])
    return np.stack(columns, axis=1)


def _panel(dataset: Dataset, folds: list[_Fold]) -> Panel:
    rows = np.concatenate([fold.test for fold in folds])
    outcomes = Outcomes(dataset.quality[rows], dataset.cost_usd[rows])
    cost = np.concatenate([fold.cost for fold in folds])
    pooled = {name: np.concatenate([fold.adequacy[name] for fold in folds]) for name in folds[0].adequacy}
    # The router's own scores on other requests: what a hull gains from noise alone.
    pooled[SHUFFLED_SCORES] = np.random.default_rng(0).permutation(pooled[CHOSEN])
    swept = [
        Swept(name, (AIQ, CS97), price_sweep(adequacy, cost, rng=np.random.default_rng(0)))
        for name, adequacy in pooled.items()
    ]
    swept.append(Swept(ORACLE, (AIQ, CS97), oracle_sweep(outcomes, rng=np.random.default_rng(0))))
    return Panel(rows, outcomes, tuple(swept))
