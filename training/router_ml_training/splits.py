"""Split interactions by time or by group, so that no future row and no sibling leaks into training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.errors import DataError

__all__ = ["Split", "group_folds", "split_rows"]

I64: TypeAlias = NDArray[np.int64]

_SMALLEST = 10
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers of the parts: models learn on `train`, knobs are set on `tune`, figures come from `test`.

    `certify` is for the certificate alone; it is empty where none was asked for, or where it could not be given.
    """

    train: I64
    tune: I64
    test: I64
    certify: I64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def without_certify(self) -> Split:
        """Return the split with the rows of the certificate among those that tune."""
        return Split(self.train, np.sort(np.concatenate((self.tune, self.certify))), self.test)

    def at_most(self, n_train: int, n_other: int, rng: np.random.Generator) -> Split:
        """Return the split with rows left out at random, so that no part is larger than that; small ones stay."""
        sizes = (n_train, n_other, n_other, n_other)
        parts = (self.train, self.tune, self.test, self.certify)
        return Split(*(_at_most(part, size, rng) for part, size in zip(parts, sizes, strict=True)))


def _at_most(rows: I64, n: int, rng: np.random.Generator) -> I64:
    return rows if len(rows) <= n else np.sort(rng.choice(rows, n, replace=False))


def split_rows(
    group: I64,
    ts: NDArray[np.float64],
    *,
    by: Literal["time", "group"],
    tune_share: float,
    test_share: float,
    certify_share: float = 0.0,
) -> Split:
    """Split n rows into train, tune, certify and test, in this order.

    A group lies in one part only. By time, it goes where its first row is, so that a session or a repeated prompt that
    began in training stays there. By group, its number alone decides: whatever is added to a log, a row that once was
    a test row is one for ever, and no champion has been trained on it.

    Args:
        group: (n,) group numbers, spread evenly over all of int64 (as `Dataset.group` is).
        ts: (n,) seconds; used by `by="time"`.
        by: "time" takes the latest groups for testing, "group" takes them by their number.
        tune_share: Share of the groups for tuning, in (0, 1).
        test_share: Share of the groups for testing, in (0, 1).
        certify_share: Share of the groups for the certificate, in [0, 1).

    Raises:
        DataError: When a part other than `certify` would hold fewer than 10 rows.
    """
    position = _by_time(group, ts) if by == "time" else group / 2.0**64 + 0.5
    part = np.zeros(len(group), np.int64)
    part[position >= 1.0 - test_share - certify_share - tune_share - _ROUNDING] = 1
    part[position >= 1.0 - test_share - certify_share - _ROUNDING] = 3
    part[position >= 1.0 - test_share - _ROUNDING] = 2
    train, tune, test = rows = tuple(np.flatnonzero(part == i) for i in range(3))
    if min(len(row) for row in rows) < _SMALLEST:
        sizes = ", ".join(f"{len(row)} {name}" for row, name in zip(rows, ("train", "tune", "test"), strict=True))
        raise DataError(
            f"{len(group)} interactions in {len(np.unique(group))} groups are too few to split ({sizes} rows; at least "
            f"{_SMALLEST} are needed in each part): collect more, or keep the constant model"
        )
    return Split(train, tune, test, np.flatnonzero(part == 3))


def _by_time(group: I64, ts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the place of each row's group in the order of first rows, in [0, 1)."""
    names, member = np.unique(group, return_inverse=True)
    first = np.full(len(names), np.inf)
    np.minimum.at(first, member, ts)
    rank = np.empty(len(names))
    rank[np.argsort(first, kind="stable")] = np.arange(len(names))
    place: NDArray[np.float64] = rank[member] / max(len(names), 1)
    return place


def group_folds(group: I64, n_folds: int, rng: np.random.Generator) -> I64:
    """Return a fold number in [0, n_folds) per row, shape (n,); rows of one group share a fold."""
    names, member = np.unique(group, return_inverse=True)
    fold_of_group = rng.permutation(np.arange(len(names)) % n_folds)
    folds: I64 = fold_of_group[member]
    return folds
