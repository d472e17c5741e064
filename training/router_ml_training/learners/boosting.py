"""Who grows boosted trees: LightGBM in this process, or whatever is passed in its place, such as a cluster's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.registry import require

__all__ = ["PATIENCE", "BoostingRows", "Grow", "Growth", "grow_here"]

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]

# Trees without a gain on the held-out rows after which growing stops.
PATIENCE = 25


@dataclass(frozen=True, slots=True)
class BoostingRows:
    """m rows to boost on: `dense` (m, D) float32, `target` in [0, 1], `weight` and starting score `start` (m,)."""

    dense: F32
    target: F64
    weight: F64
    start: F64

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True, slots=True)
class Growth:
    """A lightgbm.Booster, and with how many of its trees it did best on the held-out rows (without any: all)."""

    booster: Any
    n_best: int


class Grow(Protocol):
    """Grows trees. Same rows, same parameters: same trees."""

    def __call__(
        self, parameters: Mapping[str, Any], rows: BoostingRows, n_trees: int, held_out: BoostingRows | None = None
    ) -> Growth:
        """Boost trees from a starting score.

        Args:
            parameters: LightGBM's.
            rows: What to learn from.
            n_trees: How many trees; with held-out rows at most.
            held_out: Rows that tell how many trees are best.
        """
        ...


def grow_here(
    parameters: Mapping[str, Any], rows: BoostingRows, n_trees: int, held_out: BoostingRows | None = None
) -> Growth:
    """Grow trees in this process; see `Grow`. With held-out rows growing stops when they no longer gain."""
    lightgbm = require("lightgbm", extra="training", why="train the learner 'gbdt'")

    def data(part: BoostingRows) -> Any:
        return lightgbm.Dataset(part.dense, part.target, weight=part.weight, init_score=part.start)

    if held_out is None:
        return Growth(lightgbm.train(dict(parameters), data(rows), n_trees), n_trees)
    stop = [lightgbm.early_stopping(PATIENCE, verbose=False)]
    booster = lightgbm.train(dict(parameters), data(rows), n_trees, valid_sets=[data(held_out)], callbacks=stop)
    return Growth(booster, int(booster.best_iteration))
