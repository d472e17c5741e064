"""Turn known outcomes into the partial log that a service would have written under a named policy.

What the policy did not try is absent from the log, and propensities are exact: they are computed before the draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import exp
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import JsonValue

from router_ml.features import featurize, to_stored
from router_ml.schema import Attempt, Feedback, Interaction, RequestBody, StoredFeatures, Verdict
from router_ml_training.simulate import POLICIES
from router_ml_training.simulate.behaviours import Behaviour, LogOptions
from router_ml_training.simulate.outcomes import OutcomeTable

__all__ = ["LogOptions", "simulate_log"]

F64: TypeAlias = NDArray[np.float64]
Cells: TypeAlias = NDArray[np.object_]

# What a table gets that holds no latencies, and no times of feedback.
_LATENCY_MS, _MS_PER_TOKEN = 300.0, 10.0
_THUMB_IF_GOOD, _THUMB_IF_BAD, _THUMB_MEDIAN_S = 0.15, 0.50, 240.0


def simulate_log(
    outcomes: OutcomeTable, policy: str, *, rng: Generator, options: LogOptions | None = None
) -> Iterator[Interaction]:
    """Write the log that a policy would have left behind on known outcomes, in order of time.

    Args:
        outcomes: What every tier would have answered.
        policy: Name of a logging policy: uniform, cascade, skewed, audit, full.
        rng: Source of choices, errors and noise; the same state gives the same log.
        options: See `LogOptions`.

    Returns:
        One interaction per request. `propensity` holds the probability of each tier to be tried first; it is empty
        where all tiers were run. The tag `simulated` names the policy.

    Raises:
        UnknownName: When there is no such policy.
    """
    behaviour = POLICIES.load(policy)
    cells = _Optional(
        *(outcomes.cells(name) for name in ("ttft_ms", "latency_ms", "finish_reason", "feedback_delay_s"))
    )
    return _Engine(outcomes, policy, behaviour, options or LogOptions(), rng, cells).run()


@dataclass(frozen=True, slots=True)
class _Optional:
    """Columns that a table may lack, (n, K) each."""

    ttft_ms: Cells
    latency_ms: Cells
    finish_reason: Cells
    feedback_delay_s: Cells


@dataclass(frozen=True, slots=True)
class _Engine:
    outcomes: OutcomeTable
    policy: str
    behaviour: Behaviour
    options: LogOptions
    rng: Generator
    cells: _Optional

    def run(self) -> Iterator[Interaction]:
        table, rule = self.outcomes, self.behaviour.propensity
        propensity = None if rule is None else rule(table, self.options)
        token = f"{self.rng.integers(2**32):08x}"
        for i in sorted(range(len(table)), key=lambda row: (table.ts[row], row)):
            audited = propensity is None or self.rng.random() < self.options.audit_share
            row = None if audited or propensity is None else propensity[i]
            yield self._interaction(f"{self.policy}-{token}-{i:07d}", i, row)

    def _interaction(self, id_: str, i: int, propensity: F64 | None) -> Interaction:
        table, request = self.outcomes, self.outcomes.requests[i]
        attempts: Sequence[Attempt]
        feedback: tuple[Feedback, ...] = ()
        explored = False
        if propensity is None:
            attempts = [self._attempt(i, k, judged=True) for k in range(len(table.tiers))]
        else:
            first = int(self.rng.choice(len(propensity), p=propensity))
            explored = bool(propensity[first] < propensity.max())
            late = self.options.feedback == "thumbs" and self.rng.random() < self.options.thumbs_share
            attempts = self._chain(i, first, judged=not late)
            feedback = self._thumbs(i, attempts[-1]) if late else ()
        body, features = self._stored(i)
        return Interaction(
            id=id_,
            ts=table.ts[i],
            session_id=request.session_id,
            tenant=request.tenant,
            feature=request.feature,
            use_case=request.use_case,
            tags={"simulated": self.policy, "prompt_id": table.prompt_ids[i], **self._undated()},
            request=body,
            features=features,
            policy_version=f"simulated-{self.policy}",
            candidates=table.tiers,
            propensity={} if propensity is None else dict(zip(table.tiers, propensity.tolist(), strict=True)),
            explored=explored,
            mode="audit" if propensity is None else "live",
            attempts=tuple(attempts),
            feedback=feedback,
        )

    def _undated(self) -> dict[str, JsonValue]:
        return {} if self.outcomes.dated else {"ts_assigned": True}

    def _stored(self, i: int) -> tuple[RequestBody, StoredFeatures | None]:
        request = self.outcomes.requests[i]
        if not self.options.store_text:
            return RequestBody(max_tokens=request.max_tokens), to_stored(featurize(request))
        names = ("messages", "tools", "response_format", "max_tokens")
        return RequestBody.model_validate({name: getattr(request, name) for name in names}), None

    def _chain(self, i: int, first: int, *, judged: bool) -> list[Attempt]:
        attempts: list[Attempt] = []
        for k in range(first, len(self.outcomes.tiers)):
            attempts.append(self._attempt(i, k, judged=judged))
            refused = any(verdict.adequate is False for verdict in attempts[-1].verdicts)
            if not self.behaviour.escalates or not (refused or attempts[-1].error):
                break
        return attempts

    def _attempt(self, i: int, k: int, *, judged: bool) -> Attempt:
        table, cells = self.outcomes, self.cells
        tier, model, tokens = table.tiers[k], table.models[k], int(table.input_tokens[i, k])
        error = self._error(i, k)
        if error is not None:
            # Providers do not bill a call that they did not answer.
            return Attempt(tier=tier, model=model, input_tokens=tokens, output_tokens=0, cost_usd=0.0, error=error)
        output_tokens, latency_ms = int(table.output_tokens[i, k]), cells.latency_ms[i, k]
        return Attempt(
            tier=tier,
            model=model,
            input_tokens=tokens,
            output_tokens=output_tokens,
            cost_usd=float(table.cost_usd[i, k]),
            ttft_ms=cells.ttft_ms[i, k],
            latency_ms=_LATENCY_MS + _MS_PER_TOKEN * output_tokens if latency_ms is None else latency_ms,
            finish_reason=cells.finish_reason[i, k],
            response=table.responses[i, k] if self.options.store_text else None,
            verdicts=(self._verdict(i, k),) if judged else (),
        )

    def _error(self, i: int, k: int) -> str | None:
        if self.behaviour.ideal:
            return None
        drawn = self.rng.random() < self.options.error_rate
        error: str | None = self.outcomes.errors[i, k] or ("timeout" if drawn else None)
        return error

    def _verdict(self, i: int, k: int) -> Verdict:
        quality = float(self.outcomes.quality[i, k])
        if self.options.judge_noise == 0.0 or self.behaviour.ideal:
            return Verdict(adequate=quality >= self.options.bar, score=quality, source="check")
        return Verdict(adequate=self._heard(quality), source="judge")

    def _heard(self, quality: float) -> bool:
        return bool((quality >= self.options.bar) != (self.rng.random() < self.options.judge_noise))

    def _thumbs(self, i: int, shown: Attempt) -> tuple[Feedback, ...]:
        if shown.error is not None:
            return ()
        k = self.outcomes.tiers.index(shown.tier)
        quality = float(self.outcomes.quality[i, k])
        delay_s = self._delay_s(i, k, quality >= self.options.bar)
        if delay_s is None:
            return ()
        adequate = self._heard(quality)
        ts = self.outcomes.ts[i] + timedelta(seconds=delay_s)
        return (Feedback(ts=ts, source="user", tier=shown.tier, adequate=adequate, score=float(adequate)),)

    def _delay_s(self, i: int, k: int, good: bool) -> float | None:
        if "feedback_delay_s" in self.outcomes.frame.columns:
            known: float | None = self.cells.feedback_delay_s[i, k]
            return known
        speaks = self.rng.random() < (_THUMB_IF_GOOD if good else _THUMB_IF_BAD)
        return _THUMB_MEDIAN_S * exp(float(self.rng.normal())) if speaks else None
