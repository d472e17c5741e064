"""What a learner gets and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml_training.encoder import Design
from router_ml_training.learners.boosting import Grow, grow_here
from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["Fit", "Head", "Learner"]

F64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    """One learning problem: m rows, a target in [0, 1] (graded quality allowed), a positive weight, a group.

    `ts` (m,) are seconds where the log is dated: target encoding then looks at earlier rows only. `grow` boosts trees,
    with `num_threads` where it has a choice.
    """

    design: Design
    target: F64
    weight: F64
    group: NDArray[np.int64]
    seed: int
    num_threads: int = 1
    ts: F64 | None = None
    grow: Grow = grow_here

    def __len__(self) -> int:
        return len(self.target)

    def rows(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Fit:
        """Return the problem on some of its rows."""
        ts = None if self.ts is None else self.ts[index]
        taken = {name: getattr(self, name)[index] for name in ("target", "weight", "group")}
        return replace(self, design=self.design.rows(index), ts=ts, **taken)


class Head(Protocol):
    """A fitted function from features to a logit."""

    def logit(self, design: Design) -> F64:
        """Return one logit per row, shape (n,), float64."""
        ...

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add the nodes that compute the logit and return its tensor, shape (n, 1), float32."""
        ...


class Learner(Protocol):
    """Fits a head. Same problem, same seed: same head."""

    def __call__(self, fit: Fit) -> Head:
        """Return the fitted head; with one class only it is a constant."""
        ...
