"""Split interactions by time or by group, so that no future row and no sibling leaks into training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.errors import DataError

__all__ = ["Split", "group_folds", "split_rows"]

I64: TypeAlias = NDArray[np.int64]

_SMALLEST = 20


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers of the three parts: models learn on `train`, knobs are set on `tune`, figures come from `test`."""

    train: I64
    tune: I64
    test: I64


def split_rows(
    group: I64,
    ts: NDArray[np.float64],
    *,
    by: Literal["time", "group"],
    tune_share: float,
    test_share: float,
    rng: np.random.Generator,
) -> Split:
    """Split n rows into train, tune and test.

    A group lies in one part only: by time, it goes where its first row is, so that a session or a repeated prompt
    that began in training stays there.

    Args:
        group: (n,) group numbers.
        ts: (n,) seconds; used by `by="time"`.
        by: "time" takes the latest groups for testing, "group" takes groups at random.
        tune_share: Share of the groups for tuning, in (0, 1).
        test_share: Share of the groups for testing, in (0, 1).
        rng: Used by `by="group"` only.

    Raises:
        DataError: When a part would hold fewer than 20 rows.
    """
    names, member = np.unique(group, return_inverse=True)
    if by == "time":
        first = np.full(len(names), np.inf)
        np.minimum.at(first, member, ts)
        order = np.argsort(first, kind="stable")
    else:
        order = rng.permutation(len(names))
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    n_test = round(len(names) * test_share)
    n_tune = round(len(names) * tune_share)
    part = np.zeros(len(names), np.int64)
    part[rank >= len(names) - n_test - n_tune] = 1
    part[rank >= len(names) - n_test] = 2
    rows = [np.flatnonzero(part[member] == i) for i in range(3)]
    if min(len(row) for row in rows) < _SMALLEST:
        sizes = ", ".join(f"{len(row)} {name}" for row, name in zip(rows, ("train", "tune", "test"), strict=True))
        raise DataError(
            f"{len(group)} interactions in {len(names)} groups are too few to split ({sizes} rows; at least "
            f"{_SMALLEST} are needed in each part): collect more, or keep the constant model"
        )
    return Split(*rows)


def group_folds(group: I64, n_folds: int, rng: np.random.Generator) -> I64:
    """Return a fold number in [0, n_folds) per row, shape (n,); rows of one group share a fold."""
    names, member = np.unique(group, return_inverse=True)
    fold_of_group = rng.permutation(np.arange(len(names)) % n_folds)
    folds: I64 = fold_of_group[member]
    return folds
