"""Newton's method for ridge logistic regression on very many sparse columns and a few dense ones.

scipy solves the Newton steps by conjugate gradients: nothing but products with the matrix is needed, never the matrix
of second derivatives. A row with a graded target is one row, where a solver for classes needs it twice.

Source: Lin, Weng and Keerthi 2008 (truncated Newton in a trust region, for logistic regression).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import expit

__all__ = ["ROUGHLY", "TOLERANCE", "Blocks", "Columns", "Loss", "minimise"]

F64: TypeAlias = NDArray[np.float64]

# Relative to the gradient at zero: the tolerance liblinear stops at where one outcome in five is of the rarer kind.
TOLERANCE = 2e-5
# Where another fit follows that starts from this one.
ROUGHLY = 1e-3
_MAX_STEPS = 200
# Coefficients of a fit are rarely longer: the region holds back only steps that are wild.
_RADIUS, _WIDEST = 1e3, 1e6


class Columns(Protocol):
    """Columns of a design: all that is asked of them are products."""

    @property
    def width(self) -> int:
        """How many there are."""

    def forward(self, coefficients: F64) -> F64:
        """Return the scores of coefficients (p,), (m,)."""

    def back(self, rows: F64) -> F64:
        """Return the sum of each column weighted by row, (p,), from weights (m,)."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Columns that are kept as one sparse block without its empty columns, and one dense block; see `of`."""

    words: csr_array
    dense: F64
    seen: NDArray[np.int64]
    place: tuple[NDArray[np.int64], ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, blocks: Sequence[NDArray[Any] | csr_array]) -> Blocks:
        """Put blocks (m, p_b) together, at most one of them sparse."""
        sizes = tuple(block.shape[1] for block in blocks)
        dense = [np.asarray(block, np.float64) for block in blocks if not isinstance(block, csr_array)]
        sparse = [block for block in blocks if isinstance(block, csr_array)]
        m = blocks[0].shape[0]
        words, seen = _compressed(sparse[0]) if sparse else (csr_array((m, 0)), np.zeros(0, np.int64))
        taken, place = len(seen), []
        for block in blocks:
            if isinstance(block, csr_array):
                place.append(np.arange(len(seen)))
            else:
                place.append(np.arange(taken, taken + block.shape[1]))
                taken += block.shape[1]
        return cls(words, np.hstack(dense) if dense else np.zeros((m, 0)), seen, tuple(place), sizes)

    @property
    def width(self) -> int:
        """How many columns are not empty."""
        return len(self.seen) + int(self.dense.shape[1])

    @property
    def height(self) -> int:
        """How many rows there are."""
        return int(self.dense.shape[0])

    def rows(self, index: NDArray[np.bool_]) -> Blocks:
        """Return the same columns on some of the rows."""
        return replace(self, words=self.words[index], dense=self.dense[index])

    def forward(self, coefficients: F64) -> F64:
        """Return the scores of coefficients (p,), (m,)."""
        k = len(self.seen)
        scores: F64 = self.words @ coefficients[:k] + self.dense @ coefficients[k:]
        return scores

    def back(self, rows: F64) -> F64:
        """Return the sum of each column weighted by row, (p,), from weights (m,)."""
        return np.concatenate((self.words.T @ rows, rows @ self.dense))

    def apart(self, coefficients: F64) -> list[F64]:
        """Return the coefficients (p,) block by block, (p_b,) each, 0 for empty columns."""
        found = []
        for size, place in zip(self.sizes, self.place, strict=True):
            own = coefficients[place]
            if len(own) != size:
                own = np.zeros(size)
                own[self.seen] = coefficients[place]
            found.append(own)
        return found

    def joined(self, coefficients: Sequence[F64]) -> F64:
        """Return coefficients that are given block by block, (p_b,) each, without those of empty columns, (p,)."""
        found = np.empty(self.width)
        for one, place in zip(coefficients, self.place, strict=True):
            found[place] = one if len(one) == len(place) else one[self.seen]
        return found


@dataclass(frozen=True, slots=True)
class Loss:
    """What is fitted: `target` in [0, 1] and `weight` of each row, (m,), the weights with the inverse penalty in them.

    The penalty is half the squared length of all coefficients.
    """

    columns: Columns
    target: F64
    weight: F64

    def value(self, scores: F64) -> float:
        """Return the loss of scores (m,), without the penalty."""
        return float(self.weight @ (np.logaddexp(0.0, scores) - self.target * scores))

    def slope(self, coefficients: F64, chance: F64) -> F64:
        """Return the gradient (p,), where the rows succeed with `chance` (m,)."""
        return coefficients + self.columns.back(self.weight * (chance - self.target))


def minimise(loss: Loss, start: F64 | None = None, *, tolerance: float = TOLERANCE) -> F64:
    """Return the coefficients (p,) of the smallest loss and penalty together; there is one minimum.

    Args:
        loss: Rows, targets and weights.
        start: Coefficients near the minimum, such as those of a similar problem; None: all 0.
        tolerance: How small the gradient has to be, relative to the one at 0.
    """
    from scipy.optimize import minimize

    nothing = np.zeros(loss.columns.width)
    first = float(np.linalg.norm(loss.slope(nothing, np.full(len(loss.target), 0.5))))
    begin, bends = nothing if start is None else start, _Bends(loss)
    if first == 0.0:  # no gradient is small next to this one: nothing moves, as where outcomes cancel out
        return nothing
    # scipy takes a first step without looking, and divides by the gradient.
    if np.linalg.norm(bends.value_and_slope(begin)[1]) <= tolerance * first:
        return begin
    found = minimize(
        bends.value_and_slope,
        begin,
        jac=True,
        hessp=bends.product,
        method="trust-ncg",
        options={
            "gtol": tolerance * first,
            "maxiter": _MAX_STEPS,
            "initial_trust_radius": _RADIUS,
            "max_trust_radius": _WIDEST,
        },
    )
    coefficients: F64 = found.x
    return coefficients


class _Bends:
    # The curvature of every row at the place looked at last: every product of a step is asked for at the same place.
    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._at = np.empty(0)
        self._curvature = np.empty(0)

    def value_and_slope(self, at: F64) -> tuple[float, F64]:
        scores = self._loss.columns.forward(at)
        chance = expit(scores)
        self._remember(at, chance)
        return self._loss.value(scores) + 0.5 * float(at @ at), self._loss.slope(at, chance)

    def product(self, at: F64, direction: F64) -> F64:
        if not np.array_equal(at, self._at):
            self._remember(at, expit(self._loss.columns.forward(at)))
        columns = self._loss.columns
        bent: F64 = direction + columns.back(self._curvature * columns.forward(direction))
        return bent

    def _remember(self, at: F64, chance: F64) -> None:
        self._at, self._curvature = at.copy(), self._loss.weight * chance * (1.0 - chance)


def _compressed(block: csr_array) -> tuple[csr_array, NDArray[np.int64]]:
    used = np.zeros(block.shape[1], np.bool_)
    used[block.indices] = True
    seen = np.flatnonzero(used)
    new = np.cumsum(used) - 1
    indices = new[block.indices].astype(block.indices.dtype)
    return csr_array((block.data.astype(np.float64), indices, block.indptr), shape=(block.shape[0], len(seen))), seen
