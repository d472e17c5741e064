"""The simulated workload: requests of a made-up company, and what each tier would answer to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.random import Generator

from router_ml.errors import DataError, UnknownName
from router_ml.ladder import CATALOGUE, Tier, price_of
from router_ml_training.simulate.answers import (
    Written,
    answer_kind,
    max_tokens_of,
    response_format_of,
    write_answer,
)
from router_ml_training.simulate.bodies import Body, Library, Thread, build_library, write_body
from router_ml_training.simulate.company import FEATURES, LANGUAGES, TENANTS, Company, Feature, Template, found_company
from router_ml_training.simulate.latent import (
    THREE_TIERS,
    TWO_TIERS,
    SimulatedTier,
    draw_difficulty,
    draw_errors,
    draw_outcomes,
)
from router_ml_training.simulate.timetable import Call, timetable
from router_ml_training.simulate.voice import voice_of

__all__ = ["THREE_TIERS", "TWO_TIERS", "SimulatedTier", "generate"]

# People who are disappointed say so more often, and nobody rates the output of a batch job as readily as a chat.
_THUMB_IF_GOOD, _THUMB_IF_BAD, _THUMB_OFF_CHAT = 0.15, 0.50, 0.5
_THUMB_MEDIAN_S, _THUMB_SPREAD = 240.0, 1.2
_TTFT_SPREAD = 0.3

# Offered, never called: what the simulated models return is text.
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find_order",
            "description": "Look up an order by its number.",
            "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
        },
    }
]

_SCHEMA: dict[str, Any] = {
    "dataset": pl.String,
    "task": pl.String,
    "prompt_id": pl.String,
    "prompt": pl.String,
    "model": pl.String,
    "quality": pl.Float64,
    "input_tokens": pl.Int64,
    "output_tokens": pl.Int64,
    "tokens_estimated": pl.Boolean,
    "cost_usd": pl.Float64,
    "response": pl.String,
    "finish_reason": pl.String,
    "error": pl.String,
    "ttft_ms": pl.Float64,
    "latency_ms": pl.Float64,
    "feedback_delay_s": pl.Float64,
    "messages": pl.String,
    "tools": pl.String,
    "response_format": pl.String,
    "max_tokens": pl.Int64,
    "tenant": pl.String,
    "feature": pl.String,
    "use_case": pl.String,
    "session_id": pl.String,
    "ts": pl.Datetime("us", "UTC"),
    "language": pl.String,
    "template": pl.String,
    "system_tokens": pl.Int64,
    "context_tokens": pl.Int64,
    "history_tokens": pl.Int64,
    "question_tokens": pl.Int64,
    "simulated": pl.Boolean,
}


def generate(
    n: int,
    *,
    rng: Generator,
    tiers: Sequence[SimulatedTier] = TWO_TIERS,
    start: datetime = datetime(2025, 3, 3, tzinfo=UTC),
    days: int = 28,
    progress: Callable[[int], None] | None = None,
) -> pl.DataFrame:
    """Make up a workload of n requests, and what every tier answers to each.

    Args:
        n: Number of requests.
        rng: Source of everything; the same state gives the same rows.
        tiers: The tiers, cheapest first; their models need a price in the catalogue.
        start: Time of the first day.
        days: Length of the period.
        progress: Called with the number of requests written so far, now and then.

    Returns:
        n * len(tiers) rows, in order of time: an outcome table with the columns of a request, and `simulated` true
        throughout. Where `error` names an infrastructure error, quality and response are what would have been.

    Raises:
        DataError: When n is not positive.
        UnknownName: When a model has no price.
    """
    if n < 1:
        raise DataError(f"a workload needs at least one request, got n = {n}")
    priced = [_priced(tier) for tier in tiers]
    company = found_company(rng)
    library = build_library([voice_of(language) for language in LANGUAGES], rng)
    calls = timetable(n, company, start=start, days=days, rng=rng)
    complexity = rng.normal(size=n)
    good = draw_outcomes(draw_difficulty(calls, company, complexity, rng), tiers, rng)
    errors = draw_errors(calls, len(tiers), rng)
    writer = _Writer(company, library, tuple(tiers), tuple(priced), rng)
    rows: list[dict[str, Any]] = []
    for i, call in enumerate(calls):
        rows += writer.write(f"workload/{i:06d}", call, float(complexity[i]), good[i].tolist(), errors[i].tolist())
        if progress is not None and (i % 100 == 99 or i == n - 1):
            progress(i + 1)
    return pl.DataFrame(rows, schema=_SCHEMA)


@dataclass(slots=True)
class _Writer:
    """Writes the rows of one request after the other, and remembers the sessions."""

    company: Company
    phrases: Library
    tiers: tuple[SimulatedTier, ...]
    priced: tuple[Tier, ...]
    rng: Generator
    threads: dict[int, Thread] = field(default_factory=dict)

    def write(
        self, prompt_id: str, call: Call, complexity: float, good: list[bool], errors: list[str | None]
    ) -> list[dict[str, Any]]:
        feature, voice = FEATURES[call.feature], voice_of(call.language)
        template = self.company.templates[call.feature][call.template]
        thread = self.threads.setdefault(call.session, Thread())
        body = write_body(feature, template, voice, complexity, thread, self.phrases, self.rng)
        kinds = [answer_kind(ok, feature, tier.visible, self.rng) for ok, tier in zip(good, self.tiers, strict=True)]
        written = [write_answer(kind, feature, voice, self.rng) for kind in kinds]
        if feature.chat:
            # What the user got is not known here; the history goes on with the best tier's answer.
            thread.turns.append((body.question, written[-1].text or voice.dont_know[0]))
        shared = {"prompt_id": prompt_id, **_request_columns(call, feature, template, body)}
        return [
            shared | self._outcome_columns(k, feature, body, written[k], good[k], errors[k])
            for k in range(len(self.tiers))
        ]

    def _outcome_columns(
        self, k: int, feature: Feature, body: Body, written: Written, good: bool, error: str | None
    ) -> dict[str, Any]:
        tier, tokens = self.tiers[k], body.anatomy.total
        ttft_ms = tier.ttft_ms * float(np.exp(self.rng.normal(0.0, _TTFT_SPREAD))) + 0.02 * tokens
        return {
            "model": tier.model,
            "quality": float(good),
            "output_tokens": written.tokens,
            "cost_usd": self.priced[k].cost_usd(tokens, written.tokens),
            "response": written.text,
            "finish_reason": written.finish_reason,
            "error": error,
            "ttft_ms": round(ttft_ms, 1),
            "latency_ms": round(ttft_ms + tier.ms_per_token * written.tokens, 1),
            "feedback_delay_s": self._feedback_delay_s(feature, good),
        }

    def _feedback_delay_s(self, feature: Feature, good: bool) -> float | None:
        draw, delay = self.rng.random(), self.rng.normal()
        chance = (_THUMB_IF_GOOD if good else _THUMB_IF_BAD) * (1.0 if feature.chat else _THUMB_OFF_CHAT)
        return round(_THUMB_MEDIAN_S * float(np.exp(_THUMB_SPREAD * delay)), 1) if draw < chance else None


def _priced(tier: SimulatedTier) -> Tier:
    price = price_of(tier.model)
    if price is None:
        raise UnknownName(f"no price is known for the model '{tier.model}'; known: {', '.join(CATALOGUE)}")
    return Tier(name=tier.name, model=tier.model, **price.model_dump())


def _request_columns(call: Call, feature: Feature, template: Template, body: Body) -> dict[str, Any]:
    response_format = response_format_of(feature)
    return {
        "dataset": "workload",
        "task": feature.name,
        "prompt": body.messages[-1]["content"],
        "messages": json.dumps(body.messages, ensure_ascii=False),
        "tools": json.dumps(_TOOLS) if template.tools else None,
        "response_format": None if response_format is None else json.dumps(response_format),
        "max_tokens": max_tokens_of(feature),
        "tenant": TENANTS[call.tenant].name,
        "feature": feature.name,
        "use_case": feature.use_case,
        "session_id": f"session-{call.session:05d}",
        "ts": call.ts,
        "language": call.language,
        "template": template.name,
        "input_tokens": body.anatomy.total,
        "tokens_estimated": True,
        **{f"{part}_tokens": tokens for part, tokens in asdict(body.anatomy).items()},
        "simulated": True,
    }
