"""The gates before promotion: what each looks at, which there are, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from router_ml.bundle import Bundle
from router_ml.registry import Registry
from router_ml_training.gate import GateReport
from router_ml_training.gates import GateLine
from router_ml_training.pipeline import Run
from router_ml_training.profile import Profile
from router_ml_training.settings import GatesSettings

__all__ = ["GATES", "Gate", "GateCase", "notes_of", "passed", "run_gates", "why_not"]


@dataclass(frozen=True, slots=True)
class GateCase:
    """What a gate looks at.

    `champion` is the bundle in service, None where there is none or this release cannot serve it; `comparison` is what
    the held-out rows say of the two; `before` sums up the window that was learned from, `latest` the held-out one.
    """

    run: Run
    limits: GatesSettings
    champion: Bundle | None
    comparison: GateReport
    before: Profile
    latest: Profile


Gate: TypeAlias = Callable[[GateCase], GateLine]

_WORTH, _FITNESS = "router_ml_training.retrain.gates_of_worth", "router_ml_training.retrain.gates_of_fitness"
# A new gate is one function and one line here; `[gates] required` says which of them decide.
GATES: Registry[Gate] = Registry(
    "gate",
    {
        "certificate": f"{_WORTH}:certificate",
        "saving": f"{_WORTH}:saving",
        "off_policy": f"{_WORTH}:off_policy",
        "calibration": f"{_WORTH}:calibration",
        "slices": f"{_WORTH}:slices",
        "parity": f"{_FITNESS}:parity",
        "latency": f"{_FITNESS}:latency",
        "drift": f"{_FITNESS}:drift",
        "size": f"{_FITNESS}:size",
    },
)


def run_gates(case: GateCase) -> tuple[GateLine, ...]:
    """Return what every gate says, in their order."""
    return tuple(replace(GATES.load(name)(case), required=name in case.limits.required) for name in GATES)


def notes_of(lines: Sequence[GateLine]) -> tuple[str, ...]:
    """Return the gates for people, one sentence each."""
    words = {(True, True): "passed", (True, False): "passed", (False, True): "FAILED", (False, False): "warns"}
    return tuple(f"gate {one.name} {words[one.passed, one.required]}: {one.detail}" for one in lines)


def passed(lines: Sequence[GateLine]) -> bool:
    """Return whether every gate that is required was passed."""
    return all(line.passed for line in lines if line.required)


def why_not(lines: Sequence[GateLine]) -> str:
    """Return what the required gates that were not passed say, in one sentence; empty when all were."""
    return "; ".join(line.detail for line in lines if line.required and not line.passed)
