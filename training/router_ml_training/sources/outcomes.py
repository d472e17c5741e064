"""Source `outcomes`: a table with the outcome of every model for every prompt, as interactions of mode `audit`.

One row per (prompt_id, model), Parquet or CSV. Every tier was run, so there is nothing to explore: propensities are
empty. Columns that this module does not know are kept in the tags.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from pydantic_core import from_json

from router_ml.errors import DataError, RecordError, UsageError
from router_ml.objects import explain, is_object_url
from router_ml.registry import did_you_mean
from router_ml.schema import Interaction
from router_ml_training.sources import Reject, SourceOptions
from router_ml_training.sources.files import find_files
from router_ml_training.sources.objects import Objects, is_of_storage, lazy_table
from router_ml_training.sources.rows import Place

__all__ = ["read"]

_SUFFIXES = (".parquet", ".csv")
_NEEDED = {"prompt_id": pl.String, "model": pl.String, "quality": pl.Float64, "cost_usd": pl.Float64}
_TOKENS = ("input_tokens", "output_tokens")
_OF_REQUEST = ("tools", "response_format", "max_tokens")
_OF_INTERACTION = ("session_id", "tenant", "feature", "use_case")
_OF_ATTEMPT = ("cost_usd", *_TOKENS, "cached_tokens", "ttft_ms", "latency_ms", "finish_reason", "error", "response")
_KNOWN = {*_NEEDED, *_OF_REQUEST, *_OF_INTERACTION, *_OF_ATTEMPT, "prompt", "messages", "ts", "row"}
_ROWS_AT_ONCE = 20_000


def read(location: str, options: SourceOptions) -> Iterator[Interaction | Reject]:
    """Stream one interaction per prompt, in order of first appearance; see `Source`.

    The memory needed is that of the prompts' ids, and of 20,000 rows.

    Raises:
        UsageError: When `options.tiers` does not say which models are the tiers.
        DataError: When columns are missing, or a tier's model is not in the table.
    """
    if len(set(options.tiers.values())) < len(options.tiers):
        raise UsageError(f"tiers: two tiers cannot be the same model: {_assignments(options.tiers)}")
    found: Objects | None = None
    try:
        if is_object_url(location):
            table, found = lazy_table(location, options.objects, _SUFFIXES)
        else:
            table = _scan(location)
        table = _checked(table, location)
        _check_models(table, options.tiers, location)
        for rows in _batches(table, tuple(options.tiers.values())):
            for prompt_rows in _by_prompt(rows):
                yield _interaction(prompt_rows, options, location)
            if found is not None:
                _check_same(found)
    except (pl.exceptions.PolarsError, OSError) as error:
        if found is not None and is_of_storage(error):
            raise explain(error, location, found.store.connection) from error
        raise DataError(f"{location}: cannot be read as a table: {error}") from error


def _check_same(found: Objects) -> None:
    # The table is read in many pieces, without a condition: those of two writers would be mixed.
    for item in found.items:
        found.store.check(item)


def _scan(location: str) -> pl.LazyFrame:
    paths = find_files(location, _SUFFIXES)
    kinds = {path.suffix.lower() for path in paths}
    if len(kinds) > 1:
        raise DataError(f"{location}: Parquet and CSV files cannot be read as one table; name one kind")
    scan = pl.scan_parquet if kinds == {".parquet"} else pl.scan_csv
    return scan(paths)


def _checked(table: pl.LazyFrame, location: str) -> pl.LazyFrame:
    schema = table.collect_schema()
    missing = [name for name in (*_NEEDED, *_TOKENS) if name not in schema]
    if "prompt" not in schema and "messages" not in schema:
        missing.append("prompt (or messages)")
    if missing:
        hints = "".join(did_you_mean(name, schema.names()) for name in missing)
        raise DataError(
            f"{location}: not a table of outcomes: missing {', '.join(missing)}{hints}; it has {', '.join(schema)}"
        )
    for name in ("quality", "cost_usd", *_TOKENS):
        if not schema[name].is_numeric() and schema[name] != pl.Null:
            raise DataError(f"{location}: column {name} holds {schema[name]}, expected numbers")
    return table.with_columns(pl.col(name).cast(dtype) for name, dtype in _NEEDED.items()).with_row_index("row", 1)


def _check_models(table: pl.LazyFrame, tiers: Mapping[str, str], location: str) -> None:
    models = table.select("model").unique().collect(engine="streaming")["model"].drop_nulls().sort().to_list()
    if not models:
        raise DataError(f"{location}: the table has no rows")
    if not tiers:
        example = _assignments(dict(zip(("small", "large"), models, strict=False)))
        raise UsageError(f"{location}: which models are the tiers? Pass --tiers {example}; models: {', '.join(models)}")
    for tier, model in tiers.items():
        if model not in models:
            hint = did_you_mean(model, models)
            raise DataError(
                f"{location}: tier '{tier}': no rows for the model '{model}'{hint}; models: {', '.join(models)}"
            )


def _batches(table: pl.LazyFrame, models: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Yield whole prompts, each batch read by its own range of rows, wherever in the table their rows are."""
    table = table.filter(pl.col("model").is_in(models))
    first, last = pl.col("row").min().alias("first"), pl.col("row").max().alias("last")
    prompts = table.group_by("prompt_id").agg(first, last).sort("first").collect(engine="streaming")
    n_prompts = max(1, _ROWS_AT_ONCE // len(models))
    for part in prompts.iter_slices(n_prompts):
        within = pl.col("row").is_between(part["first"].min(), part["last"].max())
        rows = table.filter(within & pl.col("prompt_id").is_in(part["prompt_id"].to_list(), nulls_equal=True))
        yield rows.sort("row").collect(engine="streaming")


def _by_prompt(rows: pl.DataFrame) -> Iterator[list[dict[str, Any]]]:
    grouped: dict[str | None, list[dict[str, Any]]] = {}
    for row in rows.iter_rows(named=True):
        grouped.setdefault(row["prompt_id"], []).append(row)
    yield from grouped.values()


def _interaction(rows: list[dict[str, Any]], options: SourceOptions, location: str) -> Interaction | Reject:
    first = rows[0]
    raw = {name: first.get(name) for name in ("prompt_id", "model", "quality", "cost_usd", "prompt", "messages")}
    place = Place(location, first["row"])
    try:
        record = _record(rows, options)
    except RecordError as error:
        return place.reject(str(error), raw)
    return place.read(record, raw, options)


def _record(rows: Sequence[dict[str, Any]], options: SourceOptions) -> dict[str, Any]:
    first, by_model = rows[0], {row["model"]: row for row in rows}
    if len(by_model) < len(rows):
        raise RecordError(f"prompt_id {first['prompt_id']!r} has {len(rows)} rows for {len(by_model)} models")
    of_tier = {tier: by_model[model] for tier, model in options.tiers.items() if model in by_model}
    messages = first.get("messages")
    if messages is None:
        prompt = first.get("prompt")
        if prompt is None:
            raise RecordError("prompt: missing")
        messages = [{"role": "user", "content": prompt}]
    request = {name: _decoded(first[name], name) for name in _OF_REQUEST if first.get(name) is not None}
    return {
        "id": first["prompt_id"],
        # Seconds apart, by position: only the order means something, and the tags say so.
        "ts": first.get("ts") or options.start + timedelta(seconds=first["row"]),
        **{name: first[name] for name in _OF_INTERACTION if first.get(name) is not None},
        "tags": _tags(of_tier, assigned_ts=first.get("ts") is None),
        "request": {"messages": _decoded(messages, "messages"), **request},
        "candidates": tuple(options.tiers),
        "mode": "audit",
        "attempts": [_attempt(tier, row, options.adequate_bar) for tier, row in of_tier.items()],
    }


def _attempt(tier: str, row: dict[str, Any], bar: float) -> dict[str, Any]:
    attempt = {name: row[name] for name in _OF_ATTEMPT if row.get(name) is not None}
    quality = row["quality"]
    if quality is not None and "error" not in attempt:
        attempt["verdicts"] = [{"adequate": quality >= bar, "score": quality, "source": "check"}]
    return {"tier": tier, "model": row["model"], **attempt}


def _tags(of_tier: Mapping[str, dict[str, Any]], *, assigned_ts: bool) -> dict[str, Any]:
    # A fact of the prompt is the same in all its rows; one of the answer is kept per tier.
    tags: dict[str, Any] = {"ts_assigned": True} if assigned_ts else {}
    names = [name for name in next(iter(of_tier.values())) if name not in _KNOWN]
    for name in names:
        values = {tier: _plain(row[name]) for tier, row in of_tier.items()}
        distinct = list(values.values())
        tags[name] = distinct[0] if all(value == distinct[0] for value in distinct) else values
    return {name: value for name, value in tags.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)


def _decoded(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return from_json(value)
    except ValueError as error:
        raise RecordError(f"{name}: not valid JSON ({error})") from error


def _assignments(tiers: Mapping[str, str]) -> str:
    return ",".join(f"{tier}={model}" for tier, model in tiers.items())
