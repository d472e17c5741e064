"""Interactions as polars frames and Parquet files: one fixed nested schema, an exact round trip, bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import from_json, to_json

from router_ml.errors import DataError
from router_ml.schema import SCHEMA, Attempt, Interaction, StoredFeatures, parse_interaction

__all__ = [
    "INTERACTION_SCHEMA",
    "dump",
    "from_frame",
    "message_row",
    "read_batches",
    "read_parquet",
    "to_frame",
    "to_records",
    "write_parquet",
]

_Columns: TypeAlias = dict[str, pl.DataType | type[pl.DataType]]

_TIME = pl.Datetime("us", "UTC")
_VERDICT: _Columns = {"adequate": pl.Boolean, "score": pl.Float64, "source": pl.String, "reason": pl.String}
_ATTEMPT: _Columns = {
    "tier": pl.String,
    "model": pl.String,
    "input_tokens": pl.Int64,
    "cached_tokens": pl.Int64,
    "output_tokens": pl.Int64,
    "cost_usd": pl.Float64,
    "ttft_ms": pl.Float64,
    "latency_ms": pl.Float64,
    "finish_reason": pl.String,
    "error": pl.String,
    "response": pl.String,
    "tool_calls": pl.String,  # JSON
    "verdicts": pl.List(pl.Struct(_VERDICT)),
}
_FEEDBACK: _Columns = {
    "ts": _TIME,
    "source": pl.String,
    "tier": pl.String,
    "adequate": pl.Boolean,
    "score": pl.Float64,
    "reason": pl.String,
    "key": pl.String,
}
_FEATURES: _Columns = {
    "schema_hash": pl.String,
    "dense": pl.List(pl.Float64),
    "ids": pl.List(pl.Int64),
    "counts": pl.List(pl.Float64),
}

# One row per interaction; the names are those of the JSON, with the parts of `request` at the top.
_INTERACTION: _Columns = {
    "schema": pl.String,
    "id": pl.String,
    "ts": _TIME,
    "session_id": pl.String,
    "tenant": pl.String,
    "feature": pl.String,
    "use_case": pl.String,
    "tags": pl.String,  # JSON
    # `json` holds the whole message when it is more than a role and a string.
    "messages": pl.List(pl.Struct({"role": pl.String, "content": pl.String, "json": pl.String})),
    "tools": pl.String,  # JSON
    "response_format": pl.String,  # JSON
    "max_tokens": pl.Int64,
    "features": pl.Struct(_FEATURES),
    "policy_version": pl.String,
    "candidates": pl.List(pl.String),
    "propensity": pl.List(pl.Struct({"tier": pl.String, "p": pl.Float64})),
    "explored": pl.Boolean,
    "mode": pl.String,
    "attempts": pl.List(pl.Struct(_ATTEMPT)),
    "feedback": pl.List(pl.Struct(_FEEDBACK)),
}
INTERACTION_SCHEMA = pl.Schema(_INTERACTION)

# Rows are turned into columns a few at a time, since Python objects are many times their size in a column.
_ROWS_AT_ONCE = 64
_GROUP_BYTES = 32 * 2**20
_GROUP_ROWS = 50_000


def from_frame(frame: pl.DataFrame) -> Iterator[Interaction]:
    """Yield the interaction of every row.

    Raises:
        DataError: When the frame does not have the columns of `INTERACTION_SCHEMA`.
        RecordError: At a row that is not a valid interaction.
    """
    for record in to_records(frame):
        yield parse_interaction(record)


def to_records(frame: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield every row as the mapping that its line of JSON would hold, not yet validated.

    Raises:
        DataError: When the frame does not have the columns of `INTERACTION_SCHEMA`.
    """
    missing = [name for name, dtype in INTERACTION_SCHEMA.items() if frame.schema.get(name) != dtype]
    if missing:
        raise DataError(f"not a frame of interactions: missing, or of another type: {', '.join(missing)}")
    names = frame.columns  # a column too many is a field too many, which the record keeps in its tags
    for part in frame.iter_slices(_ROWS_AT_ONCE):
        for row in zip(*(part[name].to_list() for name in names), strict=True):
            yield _record(dict(zip(names, row, strict=True)))


def to_frame(interactions: Sequence[Interaction]) -> pl.DataFrame:
    """Return interactions as a frame of `INTERACTION_SCHEMA`; for many, use Parquet.

    Raises:
        DataError: When a number does not fit its column.
    """
    frame = pl.from_arrow(_to_table(interactions, _arrow_schema()))
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  a table never becomes a Series
    return frame


def write_parquet(path: Path, interactions: Iterable[Interaction]) -> int:
    """Write interactions to one Parquet file (zstd), holding one row group in memory at a time.

    Returns:
        The number of rows written.

    Raises:
        OSError: When the file cannot be written; what is there then is not a Parquet file.
    """
    schema = _arrow_schema()
    rows, waiting, bytes_waiting = iter(interactions), list[Any](), 0
    n_written = n_waiting = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def flush() -> None:
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
            waiting.clear()

        while chunk := list(islice(rows, _ROWS_AT_ONCE)):
            table = _to_table(chunk, schema)
            waiting.append(table)
            bytes_waiting += table.nbytes
            n_waiting += len(chunk)
            n_written += len(chunk)
            if bytes_waiting >= _GROUP_BYTES or n_waiting >= _GROUP_ROWS:
                flush()
                bytes_waiting = n_waiting = 0
        flush()
    return n_written


def read_batches(path: Path, *, rows: int = 2048) -> Iterator[pl.DataFrame]:
    """Yield the rows of a Parquet file in order, a batch at a time.

    Args:
        path: Any Parquet file.
        rows: The largest batch.

    Raises:
        DataError: When the file is missing, truncated, or not Parquet.
    """
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=rows):
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)  # noqa: S101  a batch never becomes a Series
                yield frame
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error


def read_parquet(path: Path) -> Iterator[Interaction]:
    """Stream the interactions of a Parquet file that `write_parquet` or `router-ml ingest` wrote.

    Raises:
        DataError: When the file cannot be read, or holds something else.
        RecordError: At a row that is not a valid interaction.
    """
    for frame in read_batches(path):
        yield from from_frame(frame)


def _arrow_schema() -> Any:
    # pyarrow has no types; `oldest` keeps to types that every Parquet reader knows.
    return pl.DataFrame(schema=INTERACTION_SCHEMA).to_arrow(compat_level=pl.CompatLevel.oldest()).schema


def _to_table(interactions: Sequence[Interaction], schema: Any) -> Any:
    try:
        return pa.Table.from_pylist([_row(item) for item in interactions], schema=schema)
    except (OverflowError, pa.ArrowInvalid) as error:
        raise DataError(f"an interaction does not fit the columns of a log: {error}") from error


def _row(item: Interaction) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "id": item.id,
        "ts": item.ts,
        "session_id": item.session_id,
        "tenant": item.tenant,
        "feature": item.feature,
        "use_case": item.use_case,
        "tags": dump(item.tags),
        "messages": [message_row(message) for message in item.request.messages],
        "tools": dump(item.request.tools),
        "response_format": dump(item.request.response_format),
        "max_tokens": item.request.max_tokens,
        "features": _features_row(item.features),
        "policy_version": item.policy_version,
        "candidates": item.candidates,
        "propensity": [{"tier": tier, "p": p} for tier, p in item.propensity.items()],
        "explored": item.explored,
        "mode": item.mode,
        "attempts": [_attempt_row(attempt) for attempt in item.attempts],
        "feedback": [vars(feedback) for feedback in item.feedback],
    }


def message_row(message: dict[str, Any]) -> dict[str, Any]:
    """Return one message as the frame holds it."""
    role, content = message.get("role"), message.get("content")
    # Keys in this order only, so that a log that was read back is the same to the byte.
    if list(message) == ["role", "content"] and isinstance(role, str) and isinstance(content, str):
        return {"role": role, "content": content, "json": None}
    return {
        "role": role if isinstance(role, str) else None,
        "content": content if isinstance(content, str) else None,
        "json": dump(message),
    }


def _attempt_row(attempt: Attempt) -> dict[str, Any]:
    return {
        **vars(attempt),
        "tool_calls": dump(attempt.tool_calls or None),
        "verdicts": [vars(verdict) for verdict in attempt.verdicts],
    }


def _features_row(features: StoredFeatures | None) -> dict[str, Any] | None:
    if features is None:
        return None
    return {
        "schema_hash": features.schema_hash,
        "dense": np.array(features.dense, dtype=np.float64),
        "ids": np.array(features.ids, dtype=np.int64),
        "counts": np.array(features.counts, dtype=np.float64),
    }


def _record(row: dict[str, Any]) -> dict[str, Any]:
    tools, response_format = row.pop("tools"), row.pop("response_format")
    row["request"] = {
        "messages": [_message(message) for message in row.pop("messages") or ()],
        "tools": None if tools is None else _load(tools),
        "response_format": None if response_format is None else _load(response_format),
        "max_tokens": row.pop("max_tokens"),
    }
    row["tags"] = _load(row["tags"]) if row["tags"] else {}
    row["propensity"] = {entry["tier"]: entry["p"] for entry in row["propensity"] or ()}
    for attempt in row["attempts"] or ():
        attempt["tool_calls"] = _load(attempt["tool_calls"]) if attempt["tool_calls"] else ()
    return row


def _message(row: dict[str, Any]) -> Any:
    return {"role": row["role"], "content": row["content"]} if row["json"] is None else _load(row["json"])


# pydantic's JSON keeps NaN and integers of any size, which the faster orjson does not.
def dump(value: object) -> str | None:
    """Return a value as JSON as a log holds it; None for None."""
    return None if value is None else to_json(value, inf_nan_mode="constants").decode()


_load: Callable[[str], Any] = from_json
