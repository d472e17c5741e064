"""Which candidate to keep: the simplest within one standard error of the best, constants included.

"Keep the constant model" is a normal result: where nothing beats it by more than its noise, nothing has been learned.
That something has been learned at all is the larger claim, made by the best of several candidates: it takes two
standard errors, or every sixth log with nothing in it would have a learner.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from router_ml.errors import DataError
from router_ml_training.evaluation.outcomes import Floats, Ints

__all__ = ["Candidate", "Choice", "one_standard_error", "standard_error"]

_CONSTANT_ERRORS = 2.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate against the best one.

    Args:
        name: Learner.
        loss: Mean held-out loss.
        excess: Mean paired difference to the best candidate's loss; 0 for the best.
        standard_error: Standard error of that difference.
        within: Whether the difference is at most one standard error, two for a constant.
    """

    name: str
    loss: float
    excess: float
    standard_error: float
    within: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate to keep, the table that led to it, and the verdict in one sentence."""

    name: str
    best: str
    keep_constant: bool
    candidates: tuple[Candidate, ...]
    verdict: str


def one_standard_error(
    losses: Mapping[str, ArrayLike],
    *,
    simplicity: Sequence[str],
    constants: Collection[str] = ("constant",),
    groups: ArrayLike | None = None,
) -> Choice:
    """Choose the simplest candidate whose loss is within one standard error of the best one's, a constant within two.

    The standard error is that of the paired difference on the same rows, which is far smaller than that of either loss.

    Args:
        losses: Held-out loss of each candidate on the same rows, lower is better, each shape (n,).
        simplicity: Names from the simplest to the most complex; every candidate must be among them.
        constants: Candidates that ignore the request.
        groups: Session or template of each row, (n,); rows of one group count as one.

    Raises:
        DataError: When there is no candidate, or losses are not finite vectors of one length.

    Source: Breiman et al. 1984, section 3.4.3, with paired differences.
    """
    table = _checked(losses, simplicity)
    # Ties in the mean go to the simpler one: `min` keeps the first.
    order = [name for name in simplicity if name in table]
    best = min(order, key=lambda name: float(table[name].mean()))
    rows = []
    for name in order:
        difference = table[name] - table[best]
        error = standard_error(difference, groups)
        excess = float(difference.mean())
        allowed = _CONSTANT_ERRORS if name in constants else 1.0
        rows.append(Candidate(name, float(table[name].mean()), excess, error, excess <= allowed * error))
    chosen = next(row.name for row in rows if row.within)
    constant = chosen in constants
    return Choice(chosen, best, constant, tuple(rows), _verdict(chosen, best, constant, len(order)))


def _verdict(chosen: str, best: str, constant: bool, n: int) -> str:
    if constant and chosen == best:
        return f"Keep the constant model: none of the {n} candidates has a lower held-out loss than '{chosen}'."
    if constant:
        return (
            f"Keep the constant model: the best candidate, '{best}', is within two standard errors of '{chosen}' "
            "on held-out requests."
        )
    if chosen == best:
        return f"Use '{chosen}': it has the lowest held-out loss, and nothing simpler is within one standard error."
    return f"Use '{chosen}': the simplest within one standard error of the best, '{best}'."


def _checked(losses: Mapping[str, ArrayLike], simplicity: Sequence[str]) -> dict[str, Floats]:
    if not losses:
        raise DataError("no candidates to choose from")
    unknown = sorted(set(losses) - set(simplicity))
    if unknown:
        raise DataError(f"candidates without a place in the order of simplicity: {', '.join(unknown)}")
    table = {name: np.asarray(loss, dtype=np.float64) for name, loss in losses.items()}
    shapes = {name: loss.shape for name, loss in table.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 1 or shape[0] < 2 for shape in shapes.values()):
        raise DataError(f"losses must be vectors of one length, at least 2, got {shapes}")
    broken = sorted(name for name, loss in table.items() if not np.isfinite(loss).all())
    if broken:
        raise DataError(f"losses are not finite for: {', '.join(broken)}")
    return table


def _members(groups: ArrayLike | None, n: int) -> Ints:
    if groups is None:
        return np.arange(n)
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise DataError(f"groups must have shape ({n},), got {labels.shape}")
    return np.unique(labels, return_inverse=True)[1].reshape(n)


def standard_error(values: Floats, groups: ArrayLike | None = None) -> float:
    """Return the cluster-robust standard error of a mean; with one row per group, the ordinary one.

    Args:
        values: One number per row, shape (n,).
        groups: Session or template of each row, (n,); None: every row stands for itself.
    """
    members = _members(groups, values.size)
    sums = np.bincount(members, values - values.mean())
    groups = sums.size
    return float(np.sqrt(groups / max(groups - 1, 1) * np.sum(sums**2)) / values.size)
