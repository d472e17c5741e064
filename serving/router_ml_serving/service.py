"""The parts of one running service, and what every endpoint does with them: let a request in, decide it, record it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request as HttpRequest

from router_ml.config import Config
from router_ml.constraints import NOTHING_SPECIAL, Circumstances
from router_ml.errors import RouterError
from router_ml.ladder import Ladder, Tier
from router_ml.records import record
from router_ml.router import Router
from router_ml.schema import Attempt, Decision, Plan
from router_ml.shelf import Shelf
from router_ml.store import StoreRow
from router_ml_serving.auth import Authorizer, Caller
from router_ml_serving.disconnect import ClientGone
from router_ml_serving.health import Health
from router_ml_serving.holder import RouterHolder
from router_ml_serving.ids import DecisionIds
from router_ml_serving.journal import CHALLENGER, row_of_exchange
from router_ml_serving.limits import Limits
from router_ml_serving.problems import BodyTooLarge, RateLimited
from router_ml_serving.recall import Recall, Recalled
from router_ml_serving.recorder import Recorder
from router_ml_serving.rollout import Rollout
from router_ml_serving.settings import ServingSettings
from router_ml_serving.shadow import BackgroundCalls
from router_ml_serving.telemetry import Telemetry
from router_ml_serving.upstream import Upstream
from router_ml_serving.wire import Chat, Target, resolve

if TYPE_CHECKING:
    from router_ml_serving.tracing import Tracing

__all__ = ["Admitted", "Decided", "Service", "now_s"]

now_s = time.perf_counter


@record
class Admitted:
    """A request that was let in: what is asked, by whom, and the tokens that were set aside for it."""

    chat: Chat
    caller: Caller
    aside: float = 0.0


@record
class Decided:
    """A decision, and what it was made with; `circumstances` say nothing where the client named its tier."""

    decision: Decision
    router: Router
    circumstances: Circumstances
    quality: float | None
    ts: datetime

    @property
    def input_tokens(self) -> int:
        """Length of the prompt as the router estimated it; 0 where nothing was decided."""
        basis = self.decision.basis
        return round(basis[2].input_tokens) if isinstance(basis, tuple) else 0


@dataclass(slots=True)
class Service:
    """One running service; `clock` tells the time of day (UTC), `rng` draws explorations, `ready` is set by the app."""

    config: Config
    settings: ServingSettings
    shelf: Shelf
    holder: RouterHolder
    rollout: Rollout
    upstream: Upstream
    health: Health
    recorder: Recorder
    telemetry: Telemetry
    background: BackgroundCalls
    authorizer: Authorizer
    limits: Limits
    recall: Recall
    tracing: Tracing | None
    ids: DecisionIds
    clock: Callable[[], datetime]
    rng: np.random.Generator
    started: datetime
    ready: bool = False
    measured: Ladder | None = None

    def authorize(self, request: HttpRequest) -> Caller:
        """Return who sent a request.

        Raises:
            WrongKey: When the key is missing or wrong.
        """
        return self.authorizer.caller(request.scope["headers"])

    def authorize_admin(self, request: HttpRequest) -> None:
        """Check the admin key.

        Raises:
            NoPermission: When the service has none, so that nobody may.
            WrongKey: When it is missing or wrong.
        """
        self.authorizer.admin(request.scope["headers"])

    def admit(self, chats: Sequence[Chat], caller: Caller, *, tokens: float = 0.0) -> list[Admitted]:
        """Let requests in, all or none of them, by the rules of the tenant that each is of.

        Args:
            chats: What is asked; more than one for a batch, which calls no upstream.
            caller: Who sent them.
            tokens: Estimate for the prompt of one that will be answered; it is set aside.

        Raises:
            WrongTenant: When one names another tenant than the key's.
            RateLimited: When the tenant has to wait.
        """
        acting = [self.authorizer.acting_for(caller, chat.request.tenant) for chat in chats]
        try:
            if len(acting) == 1:
                return [Admitted(chats[0], acting[0], self.limits.admit(acting[0], tokens=tokens))]
            self.limits.admit_all(acting)
        except RateLimited as error:
            self.telemetry.limited("tokens" if " tokens " in str(error) else "requests")
            raise
        return [Admitted(chat, who) for chat, who in zip(chats, acting, strict=True)]

    def refused(self, error: RouterError, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Trace a request that was refused before it was decided."""
        if self.tracing is not None:
            self.tracing.refused(path, headers, status=error.http_status, code=error.code)

    def decide(self, admitted: Admitted, *, target: Target | None = None) -> Decided:
        """Decide one request.

        Args:
            admitted: The request.
            target: What its `model` means, when only the decision is asked for: the router then decides whatever tier
                the client has named. None: the answer is asked for, and a tier that was named gives it.

        Raises:
            ModelNotFound: When the `model` means nothing here.
            TierNotAllowed: When the client named a tier that its tenant may not use.
        """
        chat, ts = admitted.chat, self.clock()
        decision_id = self.ids.next()
        router = self.rollout.router_for(chat.request.session_id or decision_id, chat.request.tenant)
        names = router.ladder.names
        allowed = self.limits.allowed(admitted.caller, names)
        answers = target is None
        if target is None:
            target = resolve(chat.model, router.ladder, allowed=allowed)
            if target.pinned is not None:
                self.limits.check_named(admitted.caller, target.pinned.name, names)
                decision = _pinned(target.pinned, decision_id, router.bundle.version)
                return Decided(decision, router, NOTHING_SPECIAL, None, ts)
        quality = chat.quality if target.quality is None else target.quality
        recalled = self.recall.before(chat.request, names, router.bundle.version)
        circumstances = self._circumstances(admitted, router, recalled, allowed)
        decision = router.route(
            chat.request, decision_id=decision_id, rng=self.rng, quality=quality, circumstances=circumstances
        )
        if answers:
            self._tell_weak_negative(recalled, ts)
        return Decided(decision, router, circumstances, quality, ts)

    def _circumstances(
        self, admitted: Admitted, router: Router, recalled: Recalled, allowed: frozenset[str] | None
    ) -> Circumstances:
        health, hint = self.health, recalled.hint
        if self.measured is not router.ladder and router is self.holder.current:
            self.measured = router.ladder
            health.follow(router.ladder)
        # A challenger of a bundle without configured tiers may have them in another order than they are measured in.
        same = self.measured is router.ladder
        if recalled.floor is not None:
            self.telemetry.floor(recalled.floor_reason)
        unhealthy = health.unhealthy()
        timed = admitted.chat.request.use_case in self.config.use_cases
        if not (timed or unhealthy) and allowed is None and recalled.floor is None and hint.warm is None:
            return NOTHING_SPECIAL
        return Circumstances(
            unhealthy=unhealthy,
            allowed=allowed,
            floor=recalled.floor,
            floor_reason=recalled.floor_reason,
            warm=hint.warm,
            warm_tokens=hint.warm_tokens,
            streaming=admitted.chat.stream,
            unheld_adequacy=self.settings.stream_adequacy,
            latency_ms=health.latency_ms() if same else None,
            ttft_ms=health.ttft_ms() if same else None,
        )

    def _tell_weak_negative(self, recalled: Recalled, ts: datetime) -> None:
        found = recalled.weak_negative(ts)
        if found is not None:
            self.recorder.feedback_later(*found, lambda new: self.telemetry.feedback("retry", new=new))

    def record(self, chat: Chat, decided: Decided, attempts: Sequence[Attempt]) -> None:
        """Queue the record of one request; it is stored later, off the hot path."""
        if self.config.store.text and not self.rollout.is_shadowing:
            # Written out at once: text takes a fifth of the memory that all these objects do while it waits. What
            # cannot be written is left to the recorder, which counts it as lost.
            try:
                row = self._row(chat, decided, attempts)
            except TypeError:
                pass
            else:
                self.recorder.record(row)
                return
        self.recorder.record(partial(self._row_with_shadow, chat, decided, attempts))

    def _row(
        self, chat: Chat, decided: Decided, attempts: Sequence[Attempt], tags: Mapping[str, Any] | None = None
    ) -> StoreRow:
        decision = decided.decision
        return row_of_exchange(
            chat,
            decision,
            attempts,
            ts=decided.ts,
            candidates=tuple(decision.propensity) if len(decision.propensity) == 1 else decided.router.ladder.names,
            keep_text=self.config.store.text,
            tags=tags,
        )

    def _row_with_shadow(self, chat: Chat, decided: Decided, attempts: Sequence[Attempt]) -> StoreRow:
        beside = self.rollout.shadow(
            chat.request, decided.decision, quality=decided.quality, circumstances=decided.circumstances
        )
        return self._row(chat, decided, attempts, None if beside is None else {CHALLENGER: beside})

    async def read_body(self, request: HttpRequest) -> bytes:
        """Return the request's body.

        Raises:
            BodyTooLarge: When it is longer than allowed; the rest of it is not kept.
            ClientGone: When the client hung up before it was whole.
        """
        limit = self.settings.max_body_bytes
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            body = await _rest(request, body, limit)
        if len(body) > limit:
            raise BodyTooLarge(f"the body is longer than {limit} bytes (serving.max_body_bytes)")
        return body


async def _rest(request: HttpRequest, first: bytes, limit: int) -> bytes:
    # What is too long is read to its end all the same (many clients listen only then), but not kept.
    pieces, size, more = [first], len(first), True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        more = bool(message.get("more_body"))
        size += len(piece)
        if size <= limit:
            pieces.append(piece)
        elif size > 16 * limit:
            break
    return b"".join(pieces) if size <= limit else bytes(limit + 1)


def _pinned(tier: Tier, decision_id: str, version: str) -> Decision:
    return Decision(
        decision_id=decision_id,
        tier=tier.name,
        model=tier.model,
        plan=Plan(tier.name),
        policy_version=version,
        adequacy={},
        expected_cost_usd={},
        propensity={tier.name: 1.0},
        quality=1.0,
        threshold=0.0,
        explored=False,
        reason=f"the client asked for {tier.name}",
    )
