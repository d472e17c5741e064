"""What the service recalls when a request arrives, and learns when one is over: sessions and template memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from router_ml.records import record
from router_ml.schema import Attempt, Decision, Feedback, Request
from router_ml_serving.memory import TemplateMemory, accepted
from router_ml_serving.sessions import NOTHING_KNOWN, SessionHint, Sessions, dearest_floor, retry_feedback
from router_ml_serving.settings import ServingSettings

__all__ = ["Recall", "Recalled"]


@record
class Recalled:
    """What is recalled for one request, as `Circumstances` take it; `hint` is what its session says."""

    hint: SessionHint = NOTHING_KNOWN
    floor: str | None = None
    floor_reason: str = ""

    def weak_negative(self, ts: datetime) -> tuple[str, Feedback] | None:
        """Return the earlier decision that this request asks about again and the feedback about it, or None."""
        if self.hint.retry_of is None:
            return None
        return self.hint.retry_of, retry_feedback(self.hint, ts)


_NOTHING = Recalled()


class Recall:
    """Sessions and template memory of one worker process.

    Args:
        settings: How much is remembered, and for how long.
        clock: Monotonic seconds.
    """

    def __init__(self, settings: ServingSettings, clock: Callable[[], float]) -> None:
        self.sessions = Sessions(
            settings.sessions,
            settings.session_ttl_s,
            clock,
            cache_idle_s=settings.cache_idle_s,
            repeat_s=settings.repeat_s,
        )
        self.memory = TemplateMemory(settings.memory_classes, settings.memory_ttl_s, clock)

    def before(self, request: Request, ladder: Sequence[str], version: str) -> Recalled:
        """Return what is known before a request is decided; a weak negative is in one answer only.

        Args:
            request: What is asked.
            ladder: Names of the tiers, cheapest first.
            version: The policy version that decides.
        """
        hint = self.sessions.look(request)
        needed = self.memory.floor(request, ladder, version)
        if hint is NOTHING_KNOWN and needed is None:
            return _NOTHING
        return Recalled(hint, *dearest_floor(ladder, (hint.floor, "session"), (needed, "template memory")))

    def after(self, request: Request, decision: Decision, attempts: Sequence[Attempt], shown: Attempt | None) -> None:
        """Learn from an exchange that is over; where no answer reached the client, its session stays as it was.

        Args:
            request: What was asked.
            decision: What was decided.
            attempts: What was tried, in order.
            shown: The attempt whose answer the client was given; None where it left before, or got an error.
        """
        self.memory.learn(request, decision, attempts)
        if shown is None or shown.error is not None:
            return
        escalated = shown.tier != attempts[0].tier and attempts[0].error is None
        self.sessions.note(request, decision, shown.tier, shown.input_tokens or 0, escalated=escalated)

    def decided(self, request: Request, decision: Decision, input_tokens: int) -> None:
        """Note a decision whose answer somebody else fetches, about `input_tokens` long."""
        self.sessions.note(request, decision, decision.tier, input_tokens, answered=False)

    def beside(self, request: Request, decision: Decision, attempts: Sequence[Attempt]) -> None:
        """Learn from an audit or a shadow of a request."""
        for attempt in attempts:
            if attempt.error is None:
                self.memory.note(request, decision.policy_version, attempt.tier, adequate=accepted(attempt))
