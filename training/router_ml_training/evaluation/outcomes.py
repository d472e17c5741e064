"""What every tier would have cost and been worth on every request, and the curve of a policy measured on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.errors import DataError

__all__ = ["Curve", "Floats", "Ints", "Outcomes", "Points"]

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What every column would have cost and been worth on every request.

    Args:
        quality: Quality in [0, 1] or any bounded score, shape (n, C).
        cost: USD, every attempt included, shape (n, C).
        tiers: The first `tiers` columns are the tiers in ladder order; further columns are plans ("small, then large").
            None: every column is a tier.
        best: Column of the reference tier. None: the tier of the highest mean quality, the cheaper on ties.
    """

    quality: Floats
    cost: Floats
    tiers: int | None = None
    best: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no curve can be drawn from."""
        for name in ("quality", "cost"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.float64))
        if self.quality.ndim != 2 or self.quality.shape != self.cost.shape or self.quality.size == 0:
            raise DataError(
                f"quality {self.quality.shape} and cost {self.cost.shape} must be one non-empty (n, C) shape"
            )
        if not (np.isfinite(self.quality).all() and np.isfinite(self.cost).all()):
            raise DataError("quality and cost must be finite for every request and column: leave unknown outcomes out")
        tiers = self.quality.shape[1] if self.tiers is None else self.tiers
        if not 1 <= tiers <= self.quality.shape[1]:
            raise DataError(f"{tiers} tiers in a table of {self.quality.shape[1]} columns")
        object.__setattr__(self, "tiers", tiers)
        if self.best is None:
            quality, cost = self.quality.mean(axis=0), self.cost.mean(axis=0)
            object.__setattr__(self, "best", int(np.lexsort((cost[:tiers], -quality[:tiers]))[0]))

    @property
    def n(self) -> int:
        """How many requests."""
        return len(self.quality)

    @property
    def n_tiers(self) -> int:
        """How many columns are single tiers."""
        assert self.tiers is not None  # noqa: S101  set by __post_init__
        return self.tiers

    @property
    def best_tier(self) -> int:
        """Column of the tier that quality is measured against."""
        assert self.best is not None  # noqa: S101  set by __post_init__
        return self.best


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """A curve and its single tiers under b weightings of the requests; what metrics are computed from.

    `share` is the share of requests that have left the first column, (b, m); `cost` (USD per request) and `quality` are
    (b, m); `tier_cost` and `tier_quality` are (b, K); `best` is the reference tier.
    """

    share: Floats
    cost: Floats
    quality: Floats
    tier_cost: Floats
    tier_quality: Floats
    best: int


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Mean cost and quality at every setting of a knob, cheapest first.

    Args:
        knob: Setting of each point, (m,): the score above which, or the shadow price at which, this point is reached.
        cost: Mean USD per request, (m,).
        quality: Mean quality, (m,).
        share: Share of requests per column, (m, C).
        tier_cost: Mean USD of always using one tier, (K,).
        tier_quality: Mean quality of always using one tier, (K,).
        best: The reference tier.
    """

    knob: Floats
    cost: Floats
    quality: Floats
    share: Floats
    tier_cost: Floats
    tier_quality: Floats
    best: int

    def points(self) -> Points:
        """This curve as the only one of a batch."""
        large = 1.0 - self.share[:, 0]
        return Points(
            large[None], self.cost[None], self.quality[None], self.tier_cost[None], self.tier_quality[None], self.best
        )

    def cheapest_reaching(self, quality: float) -> int | None:
        """Index of the cheapest point whose mean quality is at least `quality`; None when there is none."""
        reaching = np.flatnonzero(self.quality >= quality - 1e-12)
        return int(reaching[np.argmin(self.cost[reaching])]) if reaching.size else None
