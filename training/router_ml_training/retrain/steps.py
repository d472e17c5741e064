"""Steps that depend on each other: each runs when what it reads has changed, and its result is kept.

A step's key is a hash of its own version, of the settings it reads and of the keys of the steps it needs. A value is
loaded only when a later step has to run, so that a run with nothing to do reads nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from router_ml_training.retrain.results import Damaged, Results

__all__ = ["Get", "Step", "StepLine", "Steps", "hashed"]

# What a step gets its inputs with: the name of an earlier step -> its value.
Get: TypeAlias = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what it is called, what it reads, what it does.

    `version` is raised whenever what the step does changes; `reads` are the settings it looks at, as JSON values;
    `needs` are the steps whose values it asks for. A step that is not `kept` is only worth its key: it is quick, or
    keeps its own results, and runs when it is asked for.
    """

    name: str
    run: Callable[[Get], Any]
    reads: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    version: int = 1
    kept: bool = True


@dataclass(frozen=True, slots=True)
class StepLine:
    """What became of a step: it ran, or its result was there; and how long that took, in seconds."""

    name: str
    state: Literal["run", "cached"]
    seconds: float


class Steps:
    """The steps of one run, in order.

    Args:
        steps: In the order in which they run; each needs earlier ones only.
        results: Where their values are kept.
        everything: What every step depends on: library versions, the feature schema.
        started: Told the name of a step before it runs.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        results: Results,
        *,
        everything: Mapping[str, Any],
        started: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._steps = {step.name: step for step in steps}
        self._results = results
        self._started = started
        self._values: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self.keys: dict[str, str] = {}
        for step in steps:
            needed = {name: self.keys[name] for name in step.needs}
            self.keys[step.name] = hashed([step.name, step.version, everything, step.reads, needed])

    def run(self) -> tuple[StepLine, ...]:
        """Run every step whose result is not there."""
        return tuple(self._line(step) for step in self._steps.values())

    def to_run(self) -> tuple[str, ...]:
        """Return the names of the steps that would run; nothing is run."""
        return tuple(step.name for step in self._steps.values() if not (step.kept and self._has(step)))

    def get(self, name: str) -> Any:
        """Return the value of a step: as it was made, as it was kept, or made now."""
        if name not in self._values:
            step = self._steps[name]
            if step.kept:
                try:
                    self._values[name] = self._results.load(name, self.keys[name])
                except Damaged:
                    self._make(step)
            else:
                self._make(step)
        return self._values[name]

    @property
    def kept(self) -> set[tuple[str, str]]:
        """Step and key of every result that this run stands on."""
        return {(step.name, self.keys[step.name]) for step in self._steps.values() if step.kept}

    def _line(self, step: Step) -> StepLine:
        if step.kept and self._has(step):
            return StepLine(step.name, "cached", 0.0)
        if step.name not in self._values:
            self._make(step)
        return StepLine(step.name, "run", self._seconds[step.name])

    def _has(self, step: Step) -> bool:
        return self._results.has(step.name, self.keys[step.name])

    def _make(self, step: Step) -> None:
        self._started(step.name)
        began = time.perf_counter()
        value = step.run(self.get)
        if step.kept:
            self._results.save(step.name, self.keys[step.name], value)
        self._values[step.name] = value
        self._seconds[step.name] = round(time.perf_counter() - began, 3)


def hashed(value: Any) -> str:
    """Return a short sha256 of a JSON value; equal values, equal hashes."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]
