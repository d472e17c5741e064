"""Protocols A and A2: a pair of tiers, all outcomes known, the router sees the prompt (A2: and the task)."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.quality.contenders import CHOSEN, LENGTH, RANDOM, Scores, score
from benchmarks.quality.figures import APGR, CS97, figure, figures, gain, panels, random_saving, reference
from benchmarks.quality.protocols import PROTOCOLS, Protocol, read, splits
from benchmarks.quality.result import Result
from benchmarks.quality.tables import Measured, rows_of, text_of
from router_ml_training.evaluation.metrics import Figure

__all__ = ["measure", "run_a", "run_a2"]


def run_a(folder: Path, *, draws: int = 1000) -> Result:
    """Measure on prompt text only."""
    return _run("A", folder, draws)


def run_a2(folder: Path, *, draws: int = 1000) -> Result:
    """Measure with the task as metadata."""
    return _run("A2", folder, draws)


def measure(protocol: Protocol, folder: Path, *, draws: int) -> Measured:
    """Run a protocol of two tiers.

    Raises:
        RouterError: When its table cannot be used.
    """
    started = time.monotonic()
    table = read(protocol, folder)
    scores: list[Scores] = []
    sizes = []
    for number, split in enumerate(splits(protocol, table), start=1):
        scores.append(score(table.dataset, split))
        sizes.append(len(split.train))
        print(f"{protocol.name}: split {number}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    tests = panels(table.dataset, scores, protocol.by)
    drawn = figures(table.dataset, tests, draws=draws)
    routers = dict.fromkeys(router for router, _ in drawn)
    by_router = {router: {metric: figure(drawn[router, metric]) for metric in (APGR, CS97)} for router in routers}
    # A coin's curve is the chord in expectation, so its figures need no draw.
    by_router[RANDOM] = {APGR: Figure(0.5), CS97: Figure(random_saving(tests))}
    return Measured(
        protocol=protocol,
        metrics=(APGR, CS97),
        n_train=round(np.mean(sizes)),
        n_test=round(np.mean([panel.outcomes.n for panel in tests])),
        facts=reference(tests),
        by_router=by_router,
        gain_over=LENGTH,
        gain=gain(drawn[CHOSEN, APGR], drawn[LENGTH, APGR]),
        choices=[one.chosen for one in scores],
    )


def _run(name: str, folder: Path, draws: int) -> Result:
    measured = measure(PROTOCOLS[name], folder, draws=draws)
    return Result((name,), text_of(measured), tuple(rows_of(measured)))
