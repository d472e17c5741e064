"""How long tiers take: estimates that follow what is measured, and go back to the configuration when nothing is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Speeds"]

# The weight of the newest measurement: an estimate follows the last twenty or so.
_WEIGHT = 0.1
# So long an estimate holds without a new measurement; in as much time again it is gone.
_FRESH_S = 60.0
# While an estimate fades it is worked out anew this often.
_STEP_S = 1.0


class Speeds:
    """What one thing, such as a whole answer, takes per tier, in milliseconds; 0 where nothing is known.

    A tier that one slow answer has made look too slow is not asked any more, and so would look slow for ever: an
    estimate that was not renewed for a minute fades to the configured figure within another. Where none is configured
    it is then forgotten.

    Args:
        clock: Seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._estimates: dict[str, _Estimate] = {}
        self._ladder: list[_Estimate] = []
        self._measured = False
        self._all: tuple[float, ...] | None = None
        self._until_s = math.inf  # until when that holds

    def follow(self, configured: Mapping[str, float]) -> None:
        """Take over another ladder; what was measured of tiers that stay is kept.

        Args:
            configured: What each tier takes by configuration, in the ladder's order; 0: it does not say.
        """
        for name, configured_ms in configured.items():
            estimate = self._estimate(name)
            estimate.configured_ms = configured_ms or estimate.configured_ms
        self._ladder = [self._estimates[name] for name in configured]
        self._all = None

    def note(self, tier: str, took_ms: float) -> None:
        """Take in one measurement."""
        self._estimate(tier).renew(took_ms, self._clock())
        self._measured, self._all = True, None

    def of(self, tier: str) -> float:
        """Return what a tier takes."""
        return self._estimate(tier).at(self._clock())

    def all(self) -> tuple[float, ...] | None:
        """Return what all tiers take, in the ladder's order; None before the first measurement."""
        if not self._measured:
            return None
        if self._all is None or self._clock() >= self._until_s:
            now_s = self._clock()
            self._all = tuple([estimate.at(now_s) for estimate in self._ladder])
            self._until_s = min([estimate.until_s(now_s) for estimate in self._ladder], default=math.inf)
        return self._all

    def _estimate(self, tier: str) -> _Estimate:
        found = self._estimates.get(tier)
        if found is None:
            found = self._estimates[tier] = _Estimate()
        return found


@dataclass(slots=True)
class _Estimate:
    configured_ms: float = 0.0
    measured_ms: float = 0.0
    n: int = 0
    renewed_s: float = -math.inf

    def at(self, now_s: float) -> float:
        age_s = now_s - self.renewed_s
        if age_s <= _FRESH_S:
            return self.measured_ms
        if age_s >= 2 * _FRESH_S:
            return self.configured_ms
        if not self.configured_ms:
            return self.measured_ms
        return self.configured_ms + (2.0 - age_s / _FRESH_S) * (self.measured_ms - self.configured_ms)

    def until_s(self, now_s: float) -> float:
        fresh_until_s = self.renewed_s + _FRESH_S
        if now_s <= fresh_until_s:
            return fresh_until_s
        return now_s + _STEP_S if now_s < fresh_until_s + _FRESH_S else math.inf

    def renew(self, took_ms: float, now_s: float) -> None:
        known_ms = self.at(now_s)
        self.n = self.n + 1 if known_ms else 1
        # Without a figure to start from the first few are averaged, so that none of them is all that is known.
        weight = _WEIGHT if self.configured_ms else max(_WEIGHT, 1.0 / self.n)
        self.measured_ms = known_ms + weight * (took_ms - known_ms)
        self.renewed_s = now_s
