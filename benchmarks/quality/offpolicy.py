"""J. Off-policy evaluation: how often its intervals cover the truth, and how far its estimates are from it.

The challenger is the router of A (learner `linear`, 10,000 train rows of seed 0) at 50 % large. The test rows of
that seed are the population: its mean under the challenger is the truth. A replication draws 2,000 of them with
replacement and logs them by one policy: `uniform`; `skewed` (large if the prompt is longer than the median with
probability 1 - 0.05 / 2, else small); `cascade` with exploration (small first, large first with probability 0.05; what
comes after the first tier is no part of the draw). Estimates are what `router-ml evaluate --offpolicy` would print.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.protocols import PROTOCOLS, ladder_of, read, splits
from benchmarks.quality.result import Result
from benchmarks.results_file import Row
from router_ml.cli.output import table
from router_ml.features import DENSE_NAMES
from router_ml_training.encoder import fit_encoder
from router_ml_training.evaluation.offpolicy import ESTIMATORS, Logged, evaluate_offpolicy, recalibrated
from router_ml_training.learners import LEARNERS
from router_ml_training.scored import Scored, score_with_models
from router_ml_training.splits import group_folds
from router_ml_training.tasks import fit_adequacy
from router_ml_training.tokens import fit_tokens

__all__ = ["World", "measured", "run"]

F64: TypeAlias = NDArray[np.float64]

REPLICATIONS = 200
_N = 2000
_EPSILON = 0.05
_LEARNER = "linear"
_QUOTED = "dr_shrunk"
_LENGTH = DENSE_NAMES.index("text.log_chars")
_TUNE_PARTS = 10


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A population: rewards of both tiers and a model of them, (n, 2) each, by name; the challenger's choice, (n,).

    `propensity` holds the probability of each tier to be tried first under each logging policy, (n, 2).
    """

    rewards: Mapping[str, F64]
    models: Mapping[str, F64]
    bounds: Mapping[str, tuple[float, float]]
    chosen: NDArray[np.intp]
    propensity: Mapping[str, F64]


@dataclass(frozen=True, slots=True)
class Found:
    """What the replications of one log say about one reward."""

    coverage: float
    rmse: Mapping[str, float]
    refused: float


def run(folder: Path, *, draws: int = 1000) -> Result:
    """Run protocol J; `draws` is not used, its intervals are over replications.

    Raises:
        DataError: When the table is missing.
    """
    world = _world(folder)
    found = {
        (log, reward): measured(world, log, reward, replications=REPLICATIONS)
        for log in world.propensity
        for reward in world.rewards
    }
    rows: list[Row] = []
    lines = []
    for (log, reward), one in found.items():
        name = f"{log}, {reward}"
        rows += _rows(name, one)
        ratios = [one.rmse[_QUOTED] / one.rmse[other] for other in ("ips", "dm")]
        plain = [one.rmse["dr"] / one.rmse[other] for other in ("ips", "dm")]
        lines.append(
            (name, f"{one.coverage:.3f}", *(f"{x:.2f}" for x in (*ratios, *plain)), f"{100 * one.refused:.1f} %")
        )
    header = ("log, reward", "coverage", "RMSE / IPS's", "RMSE / DM's", "plain DR / IPS", "plain DR / DM", "refused")
    text = "\n".join(
        (
            f"J. Off-policy DR, 95 % intervals, {REPLICATIONS} replications of {_N:,} rows",
            table(header, lines),
            "Quoted is DR shrunk: DR's interval, its point shrunk towards the model as far as the log does not object.",
        )
    )
    return Result(("J",), text, tuple(rows))


def measured(world: World, log: str, reward: str, *, replications: int) -> Found:
    """Replicate one log and compare the estimates of one reward with the population's mean."""
    rng = np.random.default_rng(0)
    values, model, chance = world.rewards[reward], world.models[reward], world.propensity[log]
    n = len(values)
    truth = float(values[np.arange(n), world.chosen].mean())
    errors: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    covered = []
    for _ in range(replications):
        rows = rng.integers(0, n, _N)
        action = (rng.random(_N) < chance[rows, 1]).astype(np.intp)
        logged = Logged(action, chance[rows], values[rows, action])
        fitted = recalibrated(model[rows], logged, rng, bounds=world.bounds[reward])
        estimates = evaluate_offpolicy(logged, np.eye(2)[world.chosen[rows]], fitted)
        if estimates.overlap.reason is not None:
            continue
        for name, figure in estimates.figures.items():
            errors[name].append((figure.value or 0.0) - truth)
        quoted = estimates.figures[_QUOTED]
        covered.append((quoted.low or 0.0) <= truth <= (quoted.high or 0.0))
    rmse = {name: float(np.sqrt(np.mean(np.square(found)))) for name, found in errors.items()}
    return Found(float(np.mean(covered)), rmse, 1.0 - len(covered) / replications)


def _rows(name: str, one: Found) -> list[Row]:
    spread = 1.96 * float(np.sqrt(one.coverage * (1 - one.coverage) / REPLICATIONS))
    low, high = one.coverage - spread, min(one.coverage + spread, 1.0)
    quoted = one.rmse[_QUOTED]

    def ratio(other: str, must: float, aim: float) -> Row:
        label = f"{name}: RMSE / {ESTIMATORS[other]}'s"
        return Row("J", label, quoted / one.rmse[other], None, None, REPLICATIONS, must, aim, "lower")

    return [
        Row("J", f"{name}: coverage", one.coverage, low, high, REPLICATIONS, 0.92, 0.94),
        ratio("ips", 1.0, 0.8),
        ratio("dm", 1.1, 1.0),
        Row("J", f"{name}: plain DR, RMSE / IPS's", one.rmse["dr"] / one.rmse["ips"], None, None, REPLICATIONS),
        Row("J", f"{name}: plain DR, RMSE / DM's", one.rmse["dr"] / one.rmse["dm"], None, None, REPLICATIONS),
        Row("J", f"{name}: refused", one.refused, None, None, REPLICATIONS, better="lower"),
    ]


def _world(folder: Path) -> World:
    protocol = PROTOCOLS["A"]
    rows = read(protocol, folder)
    split = next(splits(protocol, rows))
    learned = rows.dataset.rows(split.train)
    tunes = group_folds(learned.group, _TUNE_PARTS, np.random.default_rng(split.seed)) == 0
    train, tune = learned.rows(~tunes), learned.rows(tunes)
    encoder = fit_encoder(train)
    model = fit_adequacy(train, tune, encoder, LEARNERS.load(_LEARNER), seed=split.seed)
    ladder = ladder_of(protocol, folder)
    scored = score_with_models(rows.dataset.rows(split.test), model, fit_tokens(train, encoder), ladder)
    return _population(scored)


def _population(scored: Scored) -> World:
    data = scored.dataset
    need = scored.adequacy[:, 1] - scored.adequacy[:, 0]
    length = data.dense[:, _LENGTH]
    preferred = np.eye(2)[(length > np.median(length)).astype(np.intp)]
    n = len(data)
    return World(
        rewards={"quality": data.quality, "cost": data.cost_usd},
        models={"quality": scored.adequacy, "cost": scored.cost_usd},
        bounds={"quality": (0.0, 1.0), "cost": (0.0, np.inf)},
        chosen=(need > np.median(need)).astype(np.intp),
        propensity={
            "uniform": np.full((n, 2), 0.5),
            "skewed": (1 - _EPSILON) * preferred + _EPSILON / 2,
            "cascade with exploration": np.tile([1 - _EPSILON, _EPSILON], (n, 1)),
        },
    )
