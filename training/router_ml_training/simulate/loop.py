"""The service's part of the loop on known outcomes, in this process: decide, answer, run beside, record, be judged.

What the service would have logged is written as interactions of the same shape; what it would not have seen (an answer
that nobody fetched, what an answer was worth where nobody said so) is not in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import JsonValue

from router_ml.config import ExplorationSettings
from router_ml.exploration import Background, draw_background
from router_ml.router import Router
from router_ml.schema import Answer, Attempt, Decision, Feedback, Interaction, Request, RequestBody, Verdict
from router_ml_training.simulate.outcomes import OutcomeTable

__all__ = ["Judging", "Loop"]

Cells: TypeAlias = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Judging:
    """Who says what an answer was worth.

    A judge scores every answer that was fetched in the background, and a share `live` of the shown ones, at random; it
    errs with probability `noise`. With `thumbs`, users speak about what they were shown, when the table says that they
    do. Response checks, and the verifier of the bundle if it has one, judge every answer as they do in the service.
    """

    live: float = 0.1
    noise: float = 0.05
    thumbs: bool = True


@dataclass(frozen=True, slots=True)
class Loop:
    """A service that answers from a table of known outcomes.

    Args:
        table: What every tier would have answered.
        exploration: `[exploration]` of the service.
        judging: See `Judging`.
        rng: What the service draws from: explorations and background calls. Judgements are drawn from a child of it, so
            that with the same seed the real service decides the same.
    """

    table: OutcomeTable
    exploration: ExplorationSettings
    judging: Judging
    rng: Generator
    _cells: dict[str, Cells] = field(init=False)
    _ears: Generator = field(init=False)

    def __post_init__(self) -> None:
        """Look the optional columns up once, and set the judgements' draws apart."""
        object.__setattr__(self, "_ears", self.rng.spawn(1)[0])
        names = ("finish_reason", "ttft_ms", "latency_ms", "feedback_delay_s")
        object.__setattr__(self, "_cells", {name: self.table.cells(name) for name in names})

    def serve(self, router: Router, rows: Iterable[int]) -> Iterator[Interaction]:
        """Answer some prompts of the table in this order, and yield what the service would have logged.

        Args:
            router: Decides and judges.
            rows: Numbers of prompts.
        """
        for i in rows:
            drawn = draw_background(self.exploration.audit, self.exploration.shadow, self.rng)
            request = self.table.requests[i]
            decision = router.route(request, decision_id=f"loop-{i:07d}", rng=self.rng)
            attempts = self._chain(router, decision, i)
            yield self._record(decision, attempts, i).model_copy(update={"feedback": self._said(attempts, i)})
            if drawn is not None:
                yield from self._beside(router, decision, drawn, i)

    def _chain(self, router: Router, decision: Decision, i: int) -> list[Attempt]:
        plan, request = decision.plan, self.table.requests[i]
        attempts: list[Attempt] = []
        for name in (plan.first, plan.escalate_to):
            if name is None:
                break
            attempts.append(self._attempt(router, request, decision, name, i))
            if attempts[-1].error is None and not any(v.adequate is False for v in attempts[-1].verdicts):
                break
        return attempts

    def _beside(self, router: Router, decision: Decision, drawn: Background, i: int) -> Iterator[Interaction]:
        request = self.table.requests[i]
        tiers, propensity = router.beside(request, decision.tier, drawn)
        if not tiers:
            return
        attempts = [self._attempt(router, request, decision, name, i) for name in tiers]
        live = self._record(decision, attempts, i)
        judged = tuple(self._judge(attempt.tier, i) for attempt in attempts if attempt.error is None)
        changed = {
            "id": f"{live.id}-{drawn.mode}",
            "mode": drawn.mode,
            "explored": False,
            "candidates": tuple(propensity) or tiers,
            "propensity": propensity,
            "tags": {**live.tags, "beside": live.id, "share": drawn.share},
            "feedback": judged,
        }
        yield live.model_copy(update=changed)

    def _attempt(self, router: Router, request: Request, decision: Decision, name: str, i: int) -> Attempt:
        table = self.table
        k = table.tiers.index(name)
        shared = {"tier": name, "model": table.models[k], "input_tokens": int(table.input_tokens[i, k])}
        if table.errors[i, k] is not None:
            return Attempt(**shared, output_tokens=0, cost_usd=0.0, error=table.errors[i, k])
        text, tokens = table.responses[i, k], int(table.output_tokens[i, k])
        finish = self._cells["finish_reason"][i, k] or "stop"
        verdict: Verdict | None = None
        if text is not None:  # a table without answers has nothing to look at
            answer = Answer(text, finish, (), tokens)
            verdict = router.judge(request, answer, decision=decision, tier=name)
        return Attempt(
            **shared,
            output_tokens=tokens,
            cost_usd=float(table.cost_usd[i, k]),
            ttft_ms=self._cells["ttft_ms"][i, k],
            latency_ms=self._cells["latency_ms"][i, k],
            finish_reason=finish,
            response=text,
            verdicts=() if verdict is None else (verdict,),
        )

    def _record(self, decision: Decision, attempts: list[Attempt], i: int) -> Interaction:
        request = self.table.requests[i]
        names = ("messages", "tools", "response_format", "max_tokens")
        tags: dict[str, JsonValue] = {"simulated": "loop", "prompt_id": self.table.prompt_ids[i]}
        return Interaction(
            id=decision.decision_id,
            ts=self.table.ts[i],
            session_id=request.session_id,
            tenant=request.tenant,
            feature=request.feature,
            use_case=request.use_case,
            tags=tags if self.table.dated else {**tags, "ts_assigned": True},
            request=RequestBody.model_validate({name: getattr(request, name) for name in names}),
            policy_version=decision.policy_version,
            candidates=tuple(decision.propensity),
            propensity=dict(decision.propensity),
            explored=decision.explored,
            attempts=tuple(attempts),
        )

    def _said(self, attempts: list[Attempt], i: int) -> tuple[Feedback, ...]:
        # Drawn before it is known whether there is an answer, so that the numbers do not shift.
        is_judged = bool(self._ears.random() < self.judging.live)
        shown = next((attempt.tier for attempt in reversed(attempts) if attempt.error is None), None)
        if shown is None:
            return ()
        k = self.table.tiers.index(shown)
        said = [self._judge(shown, i)] if is_judged else []
        delay_s = self._cells["feedback_delay_s"][i, k] if self.judging.thumbs else None
        if delay_s is not None:
            good = bool(self.table.quality[i, k] >= 1.0)
            ts = self.table.ts[i] + timedelta(seconds=delay_s)
            said.append(Feedback(ts=ts, source="user", tier=shown, adequate=good))
        return tuple(said)

    def _judge(self, tier: str, i: int) -> Feedback:
        good = bool(self.table.quality[i, self.table.tiers.index(tier)] >= 1.0)
        heard = good != bool(self._ears.random() < self.judging.noise)
        return Feedback(ts=self.table.ts[i], source="judge", tier=tier, adequate=heard)
