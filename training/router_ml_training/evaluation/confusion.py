"""What a judge of answers let through and turned down, against the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from router_ml.registry import require
from router_ml_training.evaluation.metrics import Figure

__all__ = ["Confusion"]


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many answers of one tier were accepted and rejected, by whether they were good enough."""

    tier: str
    accepted_good: int
    accepted_poor: int
    rejected_good: int
    rejected_poor: int

    @classmethod
    def of(cls, tier: str, accepted: ArrayLike, good: ArrayLike) -> Confusion:
        """Count judgements (m,) and truths (m,)."""
        taken, fine = np.asarray(accepted, np.bool_), np.asarray(good, np.bool_)
        counts = (taken & fine, taken & ~fine, ~taken & fine, ~taken & ~fine)
        return cls(tier, *(int(one.sum()) for one in counts))

    @property
    def n(self) -> int:
        """How many answers were judged."""
        return self.accepted_good + self.accepted_poor + self.rejected_good + self.rejected_poor

    @property
    def needless(self) -> Figure:
        """Share of the good answers that were rejected: money spent for nothing."""
        return _share(self.rejected_good, self.rejected_good + self.accepted_good, "no answer was good")

    @property
    def missed(self) -> Figure:
        """Share of the poor answers that were accepted: quality lost."""
        return _share(self.accepted_poor, self.accepted_poor + self.rejected_poor, "no answer was poor")


def _share(part: int, whole: int, reason: str) -> Figure:
    """Return a share with its 95 % Wilson interval."""
    if whole == 0:
        return Figure(None, reason=reason)
    stats = require("scipy.stats", extra="training", why="for intervals of shares")
    ends = stats.binomtest(part, whole).proportion_ci(method="wilson")
    return Figure(part / whole, float(ends.low), float(ends.high))
