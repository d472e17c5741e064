"""Money set aside before it is spent, so that calls at the same time stay within one budget."""

from __future__ import annotations

__all__ = ["Purse"]


class Purse:
    """A budget in USD; what a call may cost is set aside before it goes out, and what it did cost taken out after.

    Estimates may be too low, since who counts tokens is the upstream: after a call that cost twice its estimate, twice
    the estimate is set aside for all others.

    Args:
        limit_usd: What may be spent in all.
        spent_usd: What was spent of it before.
    """

    def __init__(self, limit_usd: float, spent_usd: float = 0.0) -> None:
        self.limit_usd = limit_usd
        self.spent_usd = spent_usd
        self._aside_usd = 0.0
        self._scale = 1.0

    def fits(self, usd: float) -> bool:
        """Say whether a call of this estimate could be paid for now."""
        return self.spent_usd + (self._aside_usd + usd) * self._scale <= self.limit_usd

    def set_aside(self, usd: float) -> None:
        """Keep what a call may cost that is about to go out."""
        self._aside_usd += usd

    def settle(self, aside_usd: float, spent_usd: float) -> None:
        """Take out what was spent of what had been set aside; the rest is free again."""
        self._aside_usd -= aside_usd
        self.spent_usd += spent_usd
        if aside_usd > 0.0:
            self._scale = max(self._scale, spent_usd / aside_usd)
