"""A log as tables for a reader: one row per interaction, tiers, sources of feedback, days, examples."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl

from router_ml.features import text_of
from router_ml.schema import Interaction
from router_ml_training.labels import evidence_of
from router_ml_training.quality import DataQuality, QualityCounter

__all__ = ["data_quality", "days", "examples", "feedback_table", "interaction_table", "prompt_of", "tier_table"]

_EXCERPT = 160
_TABLE: dict[str, Any] = {
    "id": pl.String,
    "ts": pl.Datetime("us", "UTC"),
    "mode": pl.String,
    "tenant": pl.String,
    "feature": pl.String,
    "first_tier": pl.String,
    "last_tier": pl.String,
    "attempts": pl.Int64,
    "escalated": pl.Boolean,
    "cost_usd": pl.Float64,
    "latency_ms": pl.Float64,
    "quality_first": pl.Float64,
    "prompt": pl.String,
}


def prompt_of(item: Interaction, length: int = _EXCERPT) -> str:
    """Return the beginning of the last user message, on one line; say so where the log keeps no text."""
    for message in reversed(item.request.messages):
        if message.get("role") == "user":
            words = " ".join(text_of(message.get("content")).split())
            return words if len(words) <= length else f"{words[: length - 1]}…"
    return "(no text in the log)"


def interaction_table(interactions: Sequence[Interaction], tiers: Sequence[str]) -> pl.DataFrame:
    """Return one row per interaction: who answered, what it cost in all, whether the first answer was good enough.

    `quality_first` is the known quality of the first tier that was tried, null where nobody said.
    """
    return pl.DataFrame([_row(item, tiers) for item in interactions], schema=_TABLE, orient="row")


def data_quality(interactions: Sequence[Interaction], now: datetime) -> DataQuality:
    """Return the data-quality report that `router-ml ingest` prints."""
    counter = QualityCounter(now)
    for item in interactions:
        counter.add(item)
    return counter.result()


def tier_table(interactions: Sequence[Interaction], tiers: Sequence[str]) -> pl.DataFrame:
    """Return per tier: calls, errors, mean cost, tokens and latency, known outcomes and the share that was adequate."""
    calls = pl.DataFrame(
        [
            (one.tier, one.error is not None, one.cost_usd, one.output_tokens, one.latency_ms)
            for item in interactions
            for one in item.attempts
        ],
        schema={
            "tier": pl.String,
            "error": pl.Boolean,
            "cost_usd": pl.Float64,
            "output_tokens": pl.Int64,
            "latency_ms": pl.Float64,
        },
        orient="row",
    )
    per_tier = calls.group_by("tier").agg(
        calls=pl.len(),
        errors=pl.col("error").sum(),
        usd_per_1000=1000 * pl.col("cost_usd").mean(),
        output_tokens=pl.col("output_tokens").mean(),
        latency_ms=pl.col("latency_ms").median(),
    )
    qualities = [evidence_of(item, tiers).quality.tolist() for item in interactions]
    known = pl.DataFrame(qualities, schema=dict.fromkeys(tiers, pl.Float64), orient="row").fill_nan(None)
    outcomes = pl.DataFrame(
        {
            "tier": list(tiers),
            "known": [known[name].count() for name in tiers],
            "adequate": [known[name].mean() for name in tiers],
        },
        schema={"tier": pl.String, "known": pl.Int64, "adequate": pl.Float64},
    )
    return outcomes.join(per_tier, on="tier", how="left", maintain_order="left").select(
        "tier", "calls", "errors", "usd_per_1000", "output_tokens", "latency_ms", "known", "adequate"
    )


def feedback_table(interactions: Sequence[Interaction]) -> pl.DataFrame:
    """Return per source of a judgement: how many there are, and the share that says adequate."""
    said = [(one.source, one.adequate) for item in interactions for call in item.attempts for one in call.verdicts]
    said += [(one.source, one.adequate) for item in interactions for one in item.feedback]
    frame = pl.DataFrame(said, schema={"source": pl.String, "adequate": pl.Boolean}, orient="row")
    counted = frame.group_by("source").agg(judgements=pl.len(), adequate=pl.col("adequate").mean())
    return counted.sort("judgements", "source", descending=[True, False])


def days(table: pl.DataFrame) -> pl.DataFrame:
    """Return per day of the live traffic: requests, share escalated, USD, and the quality of first answers.

    Args:
        table: What `interaction_table` returns.
    """
    live = table.filter(pl.col("mode") == "live").with_columns(day=pl.col("ts").dt.date())
    return (
        live.group_by("day")
        .agg(
            requests=pl.len(),
            escalated=pl.col("escalated").mean(),
            usd=pl.col("cost_usd").sum(),
            quality_first=pl.col("quality_first").mean(),
        )
        .sort("day")
    )


def examples(table: pl.DataFrame, kind: str, n: int = 10) -> pl.DataFrame:
    """Return some interactions of one kind, the newest first: `escalated`, `failed`, `dearest` or `all`.

    Args:
        table: What `interaction_table` returns.
        kind: `failed` are those whose first answer was not good enough; `dearest` cost the most.
        n: How many.
    """
    shown = ("ts", "feature", "first_tier", "last_tier", "cost_usd", "quality_first", "prompt")
    if kind == "dearest":
        return table.sort("cost_usd", descending=True, nulls_last=True).head(n).select(shown)
    kinds = {"escalated": pl.col("escalated"), "failed": pl.col("quality_first") < 0.5, "all": pl.lit(value=True)}
    return table.filter(kinds[kind]).sort("ts", descending=True).head(n).select(shown)


def _row(item: Interaction, tiers: Sequence[str]) -> tuple[object, ...]:
    first = item.attempts[0].tier if item.attempts else None
    # An attempt that failed gave no answer: the one before it did, if there was one.
    last = next((one.tier for one in reversed(item.attempts) if one.error is None), None)
    costs = [one.cost_usd for one in item.attempts if one.cost_usd is not None]
    waits = [one.latency_ms for one in item.attempts if one.latency_ms is not None]
    quality = evidence_of(item, tiers).quality[tiers.index(first)] if first in tiers else None
    return (
        item.id,
        item.ts,
        item.mode,
        item.tenant,
        item.feature,
        first,
        last,
        len(item.attempts),
        item.mode == "live" and len({one.tier for one in item.attempts}) > 1,
        sum(costs) if costs else None,
        sum(waits) if waits else None,
        None if quality is None or quality != quality else float(quality),  # NaN is not equal to itself
        prompt_of(item),
    )
