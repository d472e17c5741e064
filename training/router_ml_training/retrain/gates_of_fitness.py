"""Gates about whether the challenger is fit for service: is it the model that was trained, is it quick, is it small."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from router_ml.bundle import Bundle
from router_ml.config import USE_CASES, ExplorationSettings, PolicySettings, UseCase
from router_ml.router import Router
from router_ml.schema import Request
from router_ml_training.drift import TRAFFIC_KINDS, drift_between
from router_ml_training.export import TOLERANCE
from router_ml_training.gates import GateLine
from router_ml_training.retrain.gating import GateCase

__all__ = ["drift", "latency", "parity", "size"]

# Turns in which challenger, champion and yardstick alternate, and decisions of each per turn: a second in all.
_TURNS, _CALLS = 15, 20
_TEXT = "My hedge trimmer, bought in March, stops after a few minutes of cutting; what can I do, what will it cost? "


def parity(case: GateCase) -> GateLine:
    """The graph decides as the trained model does."""
    found = case.run.trained.parity
    ok = found.n_flipped == 0 and found.max_difference <= TOLERANCE
    gap = f"largest difference {found.max_difference:.1e}"
    detail = f"{found.n_flipped} decisions flipped on {found.n_rows:,} rows, {gap}"
    return GateLine("parity", ok, detail, found.max_difference, TOLERANCE)


def latency(case: GateCase) -> GateLine:
    """A decision takes no longer than the limit, or than the champion's by the slowdown that is allowed."""
    limit = case.limits.max_decision_yardsticks
    theirs = case.champion
    comparable = theirs is not None and theirs.ladder.names == case.run.bundle.ladder.names
    routers = [_decide(one) for one in (case.run.bundle, theirs if comparable else None) if one is not None]
    yardsticks = _measured(routers)
    mine = yardsticks[0]
    detail = f"a decision takes {mine:.1f} times sum(range(1000))"
    if len(yardsticks) == 1:
        return GateLine("latency", mine <= limit, detail, mine, limit)
    limit = max(limit, case.limits.max_slowdown * yardsticks[1])
    return GateLine("latency", mine <= limit, f"{detail}, the champion's {yardsticks[1]:.1f}", mine, limit)


def drift(case: GateCase) -> GateLine:
    """The held-out window is like the one that was learned from."""
    found = drift_between(case.before, case.latest, kinds=TRAFFIC_KINDS)
    drifted = [line.name for line in found.ranked if line.drifted]
    limit = case.limits.max_drift
    if not drifted:
        detail = f"the latest {found.n_current:,} requests are like the {found.n_reference:,} learned from"
    else:
        shown = ", ".join(drifted[:5]) + (f" and {len(drifted) - 5} more" if len(drifted) > 5 else "")
        detail = f"the latest {found.n_current:,} requests differ from those learned from in {shown}"
    return GateLine("drift", len(drifted) <= limit, detail, float(len(drifted)), float(limit))


def size(case: GateCase) -> GateLine:
    """The bundle's files are no larger than the limit."""
    megabytes = sum(file.stat().st_size for file in case.run.bundle.path.iterdir()) / 1e6
    limit = case.limits.max_mb
    return GateLine("size", megabytes <= limit, f"{megabytes:.2f} MB", megabytes, limit)


def _decide(bundle: Bundle) -> Callable[[], object]:
    quiet = ExplorationSettings(up=0.0, audit=0.0, shadow=0.0)
    cases = {name: UseCase.model_validate(case) for name, case in USE_CASES.items()}
    router = Router(bundle, PolicySettings(), quiet, cases)
    request = Request(messages=[{"role": "user", "content": _TEXT * 10}], tenant="gate", feature="support")
    rng = np.random.default_rng(0)
    return lambda: router.route(request, decision_id="gate", rng=rng)


def _measured(works: list[Callable[[], object]]) -> list[float]:
    """Return the median time of each in units of a yardstick that ran in the same turns."""
    units: list[list[float]] = [[] for _ in works]
    for _ in range(_TURNS):
        yardstick = statistics.median(_seconds(lambda: sum(range(1000))) for _ in range(_CALLS))
        for work, of in zip(works, units, strict=True):
            of.append(statistics.median(_seconds(work) for _ in range(_CALLS)) / yardstick)
    return [statistics.median(of) for of in units]


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
