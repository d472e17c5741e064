"""What came of the requests of champion and challenger, and the trials it feeds; for one thread, constant time each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np

from router_ml_serving.settings import RolloutSettings
from router_ml_serving.trials import METRICS, Alarm, Metric, PastRecord, Trial

__all__ = ["Comparison"]

K = TypeVar("K", bound=Hashable)

# A session counts once per version: its requests are no independent evidence. So many sessions are remembered.
_SESSIONS = 10_000
# A decision is judged once: somebody who says it again and again is one voice. So many decisions are remembered.
_DECISIONS = 10_000


class Comparison:
    """Counts outcomes by the version that decided, and tests challengers against the champion.

    `beside` is the trial of a canary, `after` that of a bundle that was promoted.

    Args:
        champion: The version in service.
        settings: `[rollout]`.
        workers: Processes of this service: each tests by itself, with its part of alpha.
        now_s: Monotonic seconds.
        rng: Deals the outcomes of a champion that serves no more.
    """

    def __init__(
        self,
        champion: str,
        settings: RolloutSettings,
        *,
        workers: int,
        now_s: Callable[[], float],
        rng: np.random.Generator,
    ) -> None:
        self._settings = settings
        self._threshold = len(METRICS) * workers / settings.alpha
        self._margins: dict[Metric, float] = {
            "escalation": settings.max_escalation_rise,
            "error": settings.max_error_rise,
            "latency": settings.max_latency_rise,
            "negative": settings.max_negative_rise,
        }
        self._now_s, self._rng = now_s, rng
        self._past = PastRecord(champion)
        self._seen: OrderedDict[tuple[str, str | None, str], None] = OrderedDict()
        self._judged: OrderedDict[str, None] = OrderedDict()
        self.beside: Trial | None = None
        self.after: Trial | None = None

    @property
    def champion(self) -> str:
        """The version whose requests are the measure."""
        return self._past.version

    def takes_part(self, tenant: str | None) -> bool:
        """Say whether a tenant's requests may be drawn for the canary, and so belong into its comparison."""
        tenants = self._settings.canary_tenants
        return not tenants or tenant in tenants

    def change_champion(self, version: str, *, promoted: bool) -> None:
        """Begin a new record.

        Args:
            version: The version in service from now on.
            promoted: Whether it took the place of the one before; one that came back is not tried again.
        """
        past, self._past = self._past, PastRecord(version)
        self.beside = None
        self.after = self._trial(version, past.version, past.slow_ms, past) if promoted else None
        if self.after is not None and self.after.over:  # nothing to compare with
            self.after = None

    def change_challenger(self, version: str | None) -> None:
        """Begin the trial of a canary, or end it (None)."""
        if version is None:
            self.beside = None
        elif self.beside is None or self.beside.version != version:
            # Sessions that are under way are counted anew on both sides: else only their later requests, on one.
            self._seen.clear()
            self.beside = self._trial(version, self.champion, self._past.slow_ms, None)

    def note(
        self,
        version: str,
        *,
        escalated: bool | None,
        error: bool | None,
        latency_ms: float | None,
        session: str | None,
        tenant: str | None,
        started_s: float | None = None,
    ) -> Alarm | None:
        """Count what came of one request; see `Rollout.note`.

        Returns:
            The alarm that it raised, if any.
        """
        if session is not None and _known(self._seen, (version, tenant, session), _SESSIONS):
            return None
        if started_s is None and latency_ms is not None:
            started_s = self._now_s() - latency_ms / 1e3
        outcomes: tuple[tuple[Metric, bool | None], ...] = (("escalation", escalated), ("error", error))
        for metric, bad in outcomes:
            if bad is not None:
                self._count(version, metric, bad=bad, started_s=started_s, tenant=tenant)
        if latency_ms is not None:
            self._count_latency(version, latency_ms, started_s, tenant)
        return self._alarm()

    def feedback(
        self, version: str, *, adequate: bool, tenant: str | None, decision_id: str | None = None
    ) -> Alarm | None:
        """Count one judgement; see `Rollout.feedback`.

        Returns:
            The alarm that it raised, if any.
        """
        if decision_id is not None and _known(self._judged, decision_id, _DECISIONS):
            return None
        self._count(version, "negative", bad=not adequate, started_s=None, tenant=tenant)
        return self._alarm()

    def to_dict(self) -> dict[str, Any]:
        """Return the champion's record and the trials."""
        return {
            "lately": {metric: self._past.rate(metric).to_dict() for metric in METRICS},
            "canary": None if self.beside is None else self.beside.to_dict(),
            "promoted": None if self.after is None else self.after.to_dict(),
        }

    def _trial(self, version: str, against: str, slow_ms: float | None, past: PastRecord | None) -> Trial:
        return Trial(
            version,
            against,
            self._margins,
            self._threshold,
            self._settings.min_requests,
            self._now_s(),
            slow_ms,
            past,
            self._rng,
        )

    def _count(self, version: str, metric: Metric, *, bad: bool, started_s: float | None, tenant: str | None) -> None:
        if version == self._past.version:
            self._past.add(metric, bad=bad)
            if self.after is not None:
                self.after.of_challenger(metric, bad=bad)
        self._count_beside(version, metric, bad=bad, started_s=started_s, tenant=tenant)

    def _count_beside(
        self, version: str, metric: Metric, *, bad: bool, started_s: float | None, tenant: str | None
    ) -> None:
        trial = self.beside
        if trial is None or not self.takes_part(tenant):
            return
        if version == trial.version:
            trial.of_challenger(metric, bad=bad)
        # What the champion began before there was a challenger would put its slow requests against the other's fast
        # ones, which are over first.
        elif version == trial.against and (started_s is None or started_s >= trial.started_s):
            trial.of_champion(metric, bad=bad)

    def _count_latency(self, version: str, latency_ms: float, started_s: float | None, tenant: str | None) -> None:
        after, beside = self.after, self.beside
        if version == self._past.version:
            self._past.add_latency(latency_ms)
            if after is not None and after.slow_ms is not None:
                after.of_challenger("latency", bad=latency_ms > after.slow_ms)
        if beside is not None and beside.slow_ms is not None:
            bad = latency_ms > beside.slow_ms
            self._count_beside(version, "latency", bad=bad, started_s=started_s, tenant=tenant)
        elif beside is not None:
            beside.slow_ms = self._past.slow_ms

    def _alarm(self) -> Alarm | None:
        for trial in (self.beside, self.after):
            if trial is not None and trial.rings:
                return trial.answer()
        return None


def _known(seen: OrderedDict[K, None], key: K, most: int) -> bool:
    if key in seen:
        return True
    seen[key] = None
    if len(seen) > most:
        seen.popitem(last=False)
    return False
