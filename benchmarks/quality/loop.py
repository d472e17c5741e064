"""Protocol N: from the default bundle to a good one on nothing but what the service itself has logged.

One simulated workload (g is about 0.11) of 25,000 requests. The first 20,000, in their order in time, are answered in
five rounds of 4,000; after each round a bundle is trained on all that was logged so far, as `router-ml retrain` would,
and answers the next round if it passes the gate. The last 5,000 are the test set, with every outcome known; what is
measured on it is CS(0.97) of the scores of the bundle in service after each round. The five seeds explore, audit and
judge anew; the workload is the same for all of them, and so is the training on full information that they are compared
with. The logs hold what a service knows: response checks on every answer, the thumbs of users who bother, and a judge
that errs on 5 % of what it is shown: every answer fetched in the background and a quarter of the others, drawn at
random. Learners are the constant and the linear one: with trees the loop would take half an hour.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.result import Result, lower_end, row_of
from benchmarks.results_file import Row
from router_ml.bundle import Bundle, default_bundle_path, load_bundle
from router_ml.cli.output import table
from router_ml.config import ExplorationSettings, PolicySettings
from router_ml.ladder import Ladder
from router_ml.router import Router
from router_ml.schema import Interaction
from router_ml.shelf import Shelf
from router_ml_training.dataset import Dataset, build_dataset, joined
from router_ml_training.default_bundle import ladder
from router_ml_training.evaluation.bootstrap import interval, resamples
from router_ml_training.evaluation.certificate_record import Certification
from router_ml_training.evaluation.curves import Sweep, share_sweep
from router_ml_training.evaluation.metrics import METRICS, Figure
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.learning import learn
from router_ml_training.pipeline import promote_if_not_worse, train_bundle
from router_ml_training.scored import score_with_bundle
from router_ml_training.settings import TrainingSettings
from router_ml_training.simulate.loop import Judging, Loop
from router_ml_training.simulate.outcomes import OutcomeTable, outcome_table
from router_ml_training.simulate.policies import LogOptions, simulate_log
from router_ml_training.simulate.workload import generate

__all__ = ["Lap", "Setting", "laps", "run", "setting"]

F64: TypeAlias = NDArray[np.float64]

_ROUNDS, _REQUESTS, _TEST, _SEEDS = 5, 4000, 5000, 5
_SETTINGS = TrainingSettings(learners=("constant", "linear"))
_EXPLORATION = ExplorationSettings()
_JUDGING = Judging(live=0.25, noise=0.05)
_CS, _RANDOM_CS = METRICS["cs_97"], METRICS["random_cs_97"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all seeds share: the requests that are answered, and the test set with every outcome known."""

    table: OutcomeTable
    rounds: int
    requests: int
    test: Dataset
    outcomes: Outcomes
    ladder: Ladder

    def sweep(self, adequacy: F64) -> Sweep:
        """Return the curve of scores (n, 2) on the test set."""
        return share_sweep(adequacy[:, 1] - adequacy[:, 0], rng=np.random.default_rng(0))


@dataclass(frozen=True, slots=True)
class Lap:
    """One round: the curve of the bundle in service after it, its certified saving, and what the round has cost.

    `background` and `explored` are shares of what the dear tier alone would have cost.
    """

    sweep: Sweep
    promoted: bool
    certified: float
    background: float
    spent: float


def run(folder: Path, *, draws: int = 1000) -> Result:
    """Run the loop for every seed. The workload is simulated: nothing is read from the folder."""
    started = time.monotonic()
    shared, everything = setting(_ROUNDS, _REQUESTS, _TEST, seed=0)
    full = learn(everything, shared.ladder, _SETTINGS).competition.winner
    best = shared.sweep(full.predict(full.encoder.encode(shared.test)))
    start = shared.sweep(score_with_bundle(shared.test, load_bundle(default_bundle_path()), shared.ladder).adequacy)
    runs = []
    for seed in range(_SEEDS):
        runs.append(laps(shared, seed=seed))
        print(f"N: seed {seed}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return _result(shared, start, best, runs, draws)


def setting(rounds: int, requests: int, n_test: int, *, seed: int) -> tuple[Setting, Dataset]:
    """Make up the workload; return what the seeds share, and all that could be known of the requests to answer."""
    prices = ladder()
    frame = generate(rounds * requests + n_test, rng=np.random.default_rng(seed))
    whole = outcome_table(frame, {tier.name: tier.model for tier in prices})
    asked = whole.take(range(rounds * requests))
    # Only prompts are scored here: without their texts, the answers need no memory.
    told = simulate_log(whole, "full", rng=np.random.default_rng(seed), options=LogOptions(store_text=False))
    known = build_dataset(told, prices.names)
    test = known.rows(np.arange(len(asked), len(whole)))
    outcomes = Outcomes(test.quality, test.cost_usd, best=1)
    return Setting(asked, rounds, requests, test, outcomes, prices), known.rows(np.arange(len(asked)))


def laps(shared: Setting, *, seed: int) -> list[Lap]:
    """Answer, log, retrain and promote, round by round."""
    loop = Loop(shared.table, _EXPLORATION, _JUDGING, np.random.default_rng(seed))
    found: list[Lap] = []
    log: Dataset | None = None
    with tempfile.TemporaryDirectory() as home:
        shelf = Shelf(Path(home))
        bundle = load_bundle(shelf.champion_path())
        for number in range(shared.rounds):
            rows = range(number * shared.requests, (number + 1) * shared.requests)
            router = Router(bundle, PolicySettings(), _EXPLORATION, {}, shared.ladder)
            logged = list(loop.serve(router, rows))
            # Sources are weighed round by round, which saves reading the whole log again every time.
            part = build_dataset(logged, shared.ladder.names)
            log = part if log is None else joined(log, part)
            now = shared.table.ts[rows[-1]] + timedelta(days=1)
            trained = train_bundle(
                log, shared.ladder, _SETTINGS, shelf, quality=0.97, now=now, description="simulated: the loop"
            )
            promoted = promote_if_not_worse(trained, shelf, now=now).passed
            bundle = load_bundle(shelf.champion_path())
            found.append(_lap(shared, bundle, logged, trained.certification, promoted=promoted))
    return found


def _lap(
    shared: Setting, bundle: Bundle, logged: Sequence[Interaction], certification: Certification, *, promoted: bool
) -> Lap:
    certificate = certification.certificate
    spent = {"live": 0.0, "shadow": 0.0, "audit": 0.0}
    for item in logged:
        spent[item.mode] += sum(attempt.cost_usd or 0.0 for attempt in item.attempts)
    dear = shared.requests * float(shared.table.cost_usd[:, 1].mean())
    return Lap(
        shared.sweep(score_with_bundle(shared.test, bundle, shared.ladder).adequacy),
        promoted,
        certified=(certificate.saving.value or 0.0) if certificate and certificate.beyond_constant else 0.0,
        spent=spent["live"] / dear,
        background=(spent["shadow"] + spent["audit"]) / dear,
    )


def _result(shared: Setting, start: Sweep, best: Sweep, runs: Sequence[Sequence[Lap]], draws: int) -> Result:
    n = shared.outcomes.n
    drawn = _drawn(shared, [start, best, *(lap.sweep for laps in runs for lap in laps)], draws)
    # (draws + 1, seeds, rounds); the first row is the test set itself.
    rounds = drawn[:, 2:].reshape(len(drawn), len(runs), shared.rounds).mean(axis=1)
    gain = _figure(rounds[:, -1] - rounds[:, 0])
    share = _figure(rounds[:, -1] / drawn[:, 1])
    rows: list[Row] = [
        row_of("N", "CS(0.97), last round less first", gain, n),
        lower_end("N", "CS(0.97), last round less first", gain, n, must=0.0),
        row_of("N", "share of full information's CS(0.97)", share, n, must=0.90, aim=0.97),
        row_of("N", "CS(0.97) of full information", _figure(drawn[:, 1]), n),
        row_of("N", "CS(0.97) of the default bundle", _figure(drawn[:, 0]), n),
    ]
    cells = []
    for number in range(shared.rounds):
        cs97, facts = _figure(rounds[:, number]), _means([laps[number] for laps in runs])
        rows.append(row_of("N", f"CS(0.97) after round {number + 1}", cs97, n))
        rows += [row_of("N", f"{name}, round {number + 1}", Figure(x), n) for name, x in facts.items()]
        cells.append((number + 1, _text(cs97), *(f"{x:.3f}" for x in facts.values())))
    facts = _facts(shared)
    rows += [row_of("N", name, Figure(value), n) for name, value in facts.items()]
    headers = ("round", "CS(0.97)", "certified", "promoted", "live cost", "background")
    lines = (
        f"N. The loop on the simulated workload: {shared.requests:,} requests a round, {len(runs)} seeds, {n:,} tested",
        table(headers, cells),
        f"last less first {_text(gain)}; share of full information {_text(share)}",
        f"full information {_text(_figure(drawn[:, 1]))}; default bundle {_text(_figure(drawn[:, 0]))}",
        "; ".join(f"{name} {value:.3f}" for name, value in facts.items()),
    )
    return Result(("N",), "\n".join(lines), tuple(rows))


def _means(laps: Sequence[Lap]) -> dict[str, float]:
    found = {
        "certified saving": [lap.certified for lap in laps],
        "promoted": [float(lap.promoted) for lap in laps],
        "cost of live calls, of always large": [lap.spent for lap in laps],
        "cost of background calls, of always large": [lap.background for lap in laps],
    }
    return {name: float(np.mean(values)) for name, values in found.items()}


def _drawn(shared: Setting, sweeps: Sequence[Sweep], draws: int) -> F64:
    """Return CS(0.97) of each sweep on the test set, and then in every draw of its prompts, (draws + 1, sweeps)."""
    n = shared.outcomes.n
    batches = [np.ones((1, n)), *resamples(n, rng=np.random.default_rng(0), draws=draws)]
    found = [
        np.stack([_CS.values(sweep.trace(shared.outcomes, batch)) for sweep in sweeps], axis=1) for batch in batches
    ]
    return np.concatenate(found)


def _facts(shared: Setting) -> dict[str, float]:
    quality, cost = shared.outcomes.quality.mean(axis=0), shared.outcomes.cost.mean(axis=0)
    oracle = shared.sweep(shared.outcomes.quality)
    points = oracle.trace(shared.outcomes, np.ones((1, shared.outcomes.n)))
    return {
        "quality gap g": float(1 - quality[0] / quality[1]),
        "cost ratio r": float(cost[0] / cost[1]),
        "CS(0.97) of a random mix": float(_RANDOM_CS.values(points)[0]),
        "CS(0.97) of the oracle": float(_CS.values(points)[0]),
    }


def _figure(values: F64) -> Figure:
    return Figure(float(values[0]), *interval(values[1:])) if len(values) > 1 else Figure(float(values[0]))


def _text(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
