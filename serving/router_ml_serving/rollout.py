"""Which router answers whom: the champion, or on a share of the sessions its challenger; and when that is undone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import numpy as np

from router_ml.constraints import NOTHING_SPECIAL, Circumstances
from router_ml.errors import RouterError, UsageError
from router_ml.pointers import LARGEST_SHARE
from router_ml.router import Router
from router_ml.schema import Decision, Request
from router_ml.shelf import Shelf
from router_ml_serving.canary import ShadowDecisions, is_drawn
from router_ml_serving.comparison import Comparison
from router_ml_serving.holder import RouterHolder
from router_ml_serving.settings import RolloutSettings
from router_ml_serving.trials import Alarm

__all__ = ["Rollout"]

log = logging.getLogger(__name__)

# How long a switch that failed is left alone: trying it loads a bundle.
_RETRY_S = 30.0


class Rollout:
    """Draws the canary, compares it with the champion, and takes back what does worse than allowed.

    All methods but `shadow` are called on the thread of the event loop.

    Args:
        holder: The routers in service.
        shelf: Where switches are made and recorded.
        settings: `[rollout]`.
        workers: Processes of this service: each tests by itself, with its part of alpha.
        clock: The time of day, for the record.
        now_s: Monotonic seconds.
        rng: Seeds what is drawn here.
        count: Told what happened, for the metrics: `alarm`, `withdrawn`, `rolled_back`, `failed`.
    """

    def __init__(
        self,
        holder: RouterHolder,
        shelf: Shelf,
        settings: RolloutSettings,
        *,
        workers: int,
        clock: Callable[[], datetime],
        now_s: Callable[[], float],
        rng: np.random.Generator,
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._holder, self._shelf, self._settings = holder, shelf, settings
        self._clock, self._now_s, self._rng, self._count = clock, now_s, rng, count
        version = holder.current.bundle.version
        self._comparison = Comparison(version, settings, workers=workers, now_s=now_s, rng=rng.spawn(1)[0])
        self._canary: Router | None = None
        self._share = 0.0
        self._shadow: tuple[Router, ShadowDecisions] | None = None
        # Found worse here: it gets no request again, also while the shelf cannot be written.
        self._barred: str | None = None
        self._alarm: Alarm | None = None
        self._retry_at_s = 0.0
        self._ringing = asyncio.Event()
        self._settle()

    def router_for(self, key: str, tenant: str | None = None) -> Router:
        """Return who decides a request: the challenger for the keys that it drew, else the champion.

        Args:
            key: What belongs together: the session's id, else the decision's. Not the tenant's alone: tenants differ,
                and the comparison would take that for the challenger's doing.
            tenant: Who pays: its sessions are its own, and for `canary_tenants`.
        """
        canary = self._canary
        if (
            canary is None
            or not self._comparison.takes_part(tenant)
            # Tenants choose the names of their sessions by themselves: "main" of two tenants are two sessions.
            or not is_drawn(canary.bundle.version, key if tenant is None else f"{tenant}\0{key}", self._share)
        ):
            return self._holder.current
        return canary

    def note(
        self,
        version: str,
        *,
        escalated: bool | None = None,
        error: bool | None = None,
        latency_ms: float | None = None,
        session: str | None = None,
        tenant: str | None = None,
        started_s: float | None = None,
    ) -> None:
        """Count what came of one request, when it is over; None is unknown.

        Args:
            version: Whose decision it was. Requests that name their tier say nothing about it: leave them out.
            escalated: Whether a further tier was needed.
            error: Whether the upstream failed.
            latency_ms: Time from the request to the end of the answer.
            session: Its session: only the first request of each counts.
            tenant: Who pays: its sessions are its own, and for `canary_tenants`.
            started_s: When it came, on the clock `now_s`; None reckons it from the latency.
        """
        alarm = self._comparison.note(
            version,
            escalated=escalated,
            error=error,
            latency_ms=latency_ms,
            session=session,
            tenant=tenant,
            started_s=started_s,
        )
        self._hear(alarm)

    def feedback(
        self, version: str | None, adequate: bool, *, tenant: str | None = None, decision_id: str | None = None
    ) -> None:
        """Count one judgement of a client.

        Args:
            version: Whose decision was judged; None when it is not known.
            adequate: What was said.
            tenant: Who pays; for `canary_tenants`.
            decision_id: What was judged: each decision counts once. None is always another one.
        """
        if version is not None:
            alarm = self._comparison.feedback(version, adequate=adequate, tenant=tenant, decision_id=decision_id)
            self._hear(alarm)

    @property
    def is_shadowing(self) -> bool:
        """Whether a challenger decides beside the champion, for the record."""
        return self._shadow is not None

    def shadow(
        self,
        request: Request,
        decision: Decision,
        *,
        quality: float | None = None,
        circumstances: Circumstances = NOTHING_SPECIAL,
    ) -> dict[str, Any] | None:
        """Decide a request of the champion once more with the challenger; for one background thread, after the answer.

        Args:
            request: What was asked.
            decision: What the champion decided.
            quality: As its `route` was given it.
            circumstances: As its `route` was given them.

        Returns:
            What the record's tags say under `challenger`; None without a challenger, under load, or when the client
            named the tier or another than the champion decided.
        """
        shadow = self._shadow
        if shadow is None or not decision.adequacy or decision.policy_version != self._comparison.champion:
            return None
        return shadow[1].decide(request, decision, quality=quality, circumstances=circumstances)

    async def refresh(self, *, force: bool = False) -> bool:
        """Look at the shelf and follow it.

        Args:
            force: Load the champion again in any case.

        Returns:
            Whether another champion is in service now.

        Raises:
            RouterError: When a bundle cannot be used; the champion in service stays.
        """
        try:
            return await asyncio.to_thread(self._holder.refresh, force=force)
        finally:
            self._settle()

    async def watch(self, every_s: float) -> None:
        """Look at the shelf for ever, and act upon alarms at once.

        Args:
            every_s: Time between two looks.
        """
        while True:
            # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._ringing.wait()
            self._ringing.clear()
            alarm = self._alarm
            if alarm is not None and self._now_s() >= self._retry_at_s:
                await self._act(alarm)
            await self._holder.look()
            self._settle()

    def state(self) -> dict[str, Any]:
        """Return who is in service and what is known about both, as this process sees it."""
        challenger = self._holder.challenger
        return {
            "champion": self._holder.current.bundle.version,
            "challenger": None if challenger is None else challenger.bundle.version,
            "share": self._share,
            "tenants": sorted(self._settings.canary_tenants),
            "alpha": self._settings.alpha,
            "automatic": self._settings.automatic,
            **self._comparison.to_dict(),
            "shadow": None if self._shadow is None else self._shadow[1].to_dict(),
            "barred": self._barred,
            "refused": self._holder.refusals(),
        }

    def _hear(self, alarm: Alarm | None) -> None:
        if alarm is None:
            return
        log.warning("rollout_alarm", extra={"reason": alarm.reason, "evidence": dict(alarm.evidence)})
        self._count("alarm")
        if not self._settings.automatic:
            return
        self._alarm, self._retry_at_s = alarm, 0.0
        if self._canary is not None and self._canary.bundle.version == alarm.version:
            self._barred = alarm.version
            self._settle()
        self._ringing.set()

    async def _act(self, alarm: Alarm) -> None:
        champion = alarm.version == self._comparison.champion
        switch = self._shelf.rollback if champion else self._shelf.withdraw
        try:
            await asyncio.to_thread(
                switch,
                reason=alarm.reason,
                now=self._clock(),
                cause="automatic",
                evidence=alarm.evidence,
                only=alarm.version,
            )
        except UsageError as error:  # a person or another worker was faster
            log.info("switch_not_needed", extra={"reason": str(error)})
        except RouterError as error:
            self._retry_at_s = self._now_s() + _RETRY_S
            self._count("failed")
            log.error("switch_failed", extra={"reason": str(error), "version": alarm.version})  # noqa: TRY400
            return
        else:
            event = "rolled_back" if champion else "withdrawn"
            self._count(event)
            log.warning(event, extra={"version": alarm.version, "reason": alarm.reason})
        self._alarm = None

    def _settle(self) -> None:
        # Runs where requests are counted, so that nothing changes in the middle of one.
        champion = self._holder.current.bundle.version
        if champion != self._comparison.champion:
            self._comparison.change_champion(champion, promoted=self._was_promoted(champion))
        challenger = self._holder.challenger
        if challenger is None or challenger.bundle.version != self._barred:
            self._barred = None
        configured, share = self._settings.canary_share, self._holder.challenger_share
        self._share = min(configured if share is None else share, LARGEST_SHARE)
        if challenger is None or self._barred is not None or challenger.bundle.version == champion:
            self._share = 0.0
        self._canary = challenger if self._share > 0.0 else None
        self._comparison.change_challenger(None if self._canary is None else self._canary.bundle.version)
        if challenger is None or not self._settings.shadow:
            self._shadow = None
        elif self._shadow is None or self._shadow[0] is not challenger:
            self._shadow = challenger, ShadowDecisions(challenger, self._rng.spawn(1)[0], self._now_s)

    def _was_promoted(self, version: str) -> bool:
        # What a rollback brought back is not tried: there would be nothing to go back to but what was found worse.
        try:
            switches = self._shelf.switches()
        except RouterError:
            return False
        last = next((one for one in reversed(switches) if one.action in ("promote", "rollback")), None)
        return last is not None and last.action == "promote" and last.after == version
