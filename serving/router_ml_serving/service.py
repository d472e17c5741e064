"""The parts of one running service, and what every endpoint does with them: decide, begin an exchange, record."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from starlette.requests import Request as HttpRequest
from ulid import ULID

from router_ml.config import Config
from router_ml.exploration import Background, draw_background
from router_ml.ladder import Tier
from router_ml.router import Router
from router_ml.schema import Attempt, Decision, Plan
from router_ml.shelf import Shelf
from router_ml_serving.cascade import Limits
from router_ml_serving.exchange import Exchange
from router_ml_serving.journal import interaction_of
from router_ml_serving.problems import BodyTooLarge, NoPermission, WrongKey
from router_ml_serving.recorder import Recorder
from router_ml_serving.rollout import RouterHolder
from router_ml_serving.settings import ServingSettings
from router_ml_serving.shadow import BackgroundCalls, beside_of, run_beside
from router_ml_serving.telemetry import Telemetry
from router_ml_serving.upstream import Upstream
from router_ml_serving.wire import Chat, resolve

__all__ = ["Service", "now_s"]

now_s = time.perf_counter


@dataclass(slots=True)
class Service:
    """One running service; `clock` tells the time of day (UTC), `rng` draws explorations, `ready` is set by the app."""

    config: Config
    settings: ServingSettings
    shelf: Shelf
    holder: RouterHolder
    upstream: Upstream
    recorder: Recorder
    telemetry: Telemetry
    background: BackgroundCalls
    clock: Callable[[], datetime]
    rng: np.random.Generator
    api_key: str | None
    admin_key: str | None
    started: datetime
    ready: bool = False

    def decide(self, chat: Chat, router: Router, *, pin: bool) -> Decision:
        """Decide one request.

        Args:
            chat: The request.
            router: The router that was in service when it arrived.
            pin: Whether a tier or upstream model named by the client answers (else the router decides all the same).

        Raises:
            ModelNotFound: When the `model` means nothing here.
        """
        target = resolve(chat.model, router.ladder)
        decision_id = str(ULID())
        if target.pinned is not None and pin:
            return _pinned(target.pinned, decision_id, router.bundle.version)
        quality = chat.quality if target.quality is None else target.quality
        return router.route(chat.request, decision_id=decision_id, rng=self.rng, quality=quality)

    def begin(self, chat: Chat, started_s: float) -> Exchange:
        """Decide a chat request and open its exchange, which records itself when it is closed.

        Args:
            chat: The request.
            started_s: When it arrived, on the clock of `now_s`.
        """
        router = self.holder.current
        ts = self.clock()
        # Before the decision, so that nothing in the request can sway it.
        drawn = draw_background(self.config.exploration.audit, self.config.exploration.shadow, self.rng)
        decision = self.decide(chat, router, pin=True)
        case = self.config.use_cases.get(chat.request.use_case or "")
        budget_ms = case.total_ms if case else None
        limits = Limits(
            max_attempts=self.config.policy.max_attempts,
            deadline_s=None if budget_ms is None else started_s + budget_ms / 1e3,
            now=now_s,
        )

        def done(exchange: Exchange) -> None:
            self.telemetry.decision(decision, "/v1/chat/completions", exchange.overhead_ms() / 1e3)
            self.telemetry.exchange(exchange.attempts)
            self.record(chat, decision, exchange, router, ts)
            if drawn is not None and decision.adequacy:  # a client that named its tier left nothing to learn
                self._run_beside(exchange, drawn, ts)

        return Exchange(chat, decision, router, router.ladder, self.upstream, limits, started_s, done)

    def record(self, chat: Chat, decision: Decision, exchange: Exchange | None, router: Router, ts: datetime) -> None:
        """Queue the record of one request; it is built later, off the hot path."""
        attempts = exchange.attempts if exchange else []
        names = tuple(decision.propensity) if len(decision.propensity) == 1 else router.ladder.names
        keep_text = self.config.store.text
        self.recorder.record(
            lambda: interaction_of(chat, decision, attempts, ts=ts, candidates=names, keep_text=keep_text)
        )

    def _run_beside(self, exchange: Exchange, drawn: Background, ts: datetime) -> None:
        chat, decision = exchange.chat, exchange.decision
        keep_text = self.config.store.text

        async def work() -> None:
            tiers, propensity = exchange.router.beside(chat.request, decision.tier, drawn)
            if not tiers:
                self.telemetry.background(drawn.mode, "none")
                return

            def record(attempts: list[Attempt]) -> None:
                self.telemetry.calls(attempts)
                self.recorder.record(
                    lambda: beside_of(
                        interaction_of(
                            chat,
                            decision,
                            attempts,
                            ts=ts,
                            candidates=tuple(propensity) or tiers,
                            keep_text=keep_text,
                        ),
                        drawn,
                        propensity,
                    )
                )

            await run_beside(exchange, tiers, record)
            self.telemetry.background(drawn.mode, "run")

        if not self.background.start(work, on_error=lambda: self.telemetry.background(drawn.mode, "failed")):
            self.telemetry.background(drawn.mode, "dropped")

    def authorize(self, request: HttpRequest) -> None:
        """Check the client's key, if the service has one.

        Raises:
            WrongKey: When it is missing or wrong.
        """
        if self.api_key is not None and not _same_key(request.headers, self.api_key):
            raise WrongKey("the API key is missing or wrong; send it as 'Authorization: Bearer …'")

    def authorize_admin(self, request: HttpRequest) -> None:
        """Check the admin key.

        Raises:
            NoPermission: When the service has none, so that nobody may.
            WrongKey: When it is missing or wrong.
        """
        if self.admin_key is None:
            name = self.settings.admin_key_env
            raise NoPermission(f"the admin endpoints are off; set {name} in the service's environment to use them")
        if not _same_key(request.headers, self.admin_key):
            raise WrongKey("the admin key is missing or wrong; send it as 'Authorization: Bearer …'")

    async def read_body(self, request: HttpRequest) -> bytes:
        """Return the request's body.

        Raises:
            BodyTooLarge: When it is longer than allowed; the rest of it is not kept.
        """
        limit = self.settings.max_body_bytes
        message = await request.receive()
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
        piece: bytes = message.get("body", b"")
        more = bool(message.get("more_body"))
        size += len(piece)
        if size <= limit:
            pieces.append(piece)
        elif size > 16 * limit:
            break
    return b"".join(pieces) if size <= limit else bytes(limit + 1)


def _same_key(headers: Mapping[str, str], key: str) -> bool:
    given = headers.get("authorization", "").removeprefix("Bearer ")
    return hmac.compare_digest(given.encode(), key.encode())


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
