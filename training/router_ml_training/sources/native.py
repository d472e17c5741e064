"""Source `native`: our own log, JSON Lines (plain, .gz, .zst) or Parquet; what the service records is read as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from router_ml.errors import DataError
from router_ml.schema import Interaction
from router_ml_training.frames import INTERACTION_SCHEMA, read_batches, to_records
from router_ml_training.sources import Reject, SourceOptions
from router_ml_training.sources.files import MAX_LINE_BYTES, find_files, read_lines
from router_ml_training.sources.rows import Place

__all__ = ["read"]

_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".ndjson.zst")
_SUFFIXES = (*_LINES, ".parquet")
# Columns that the JSON has inside `request`: their presence tells our Parquet from one nested as the JSON is.
_AT_THE_TOP = frozenset({"messages", "tools", "response_format", "max_tokens"})


def read(location: str, options: SourceOptions) -> Iterator[Interaction | Reject]:
    """Stream interactions from one file, all files of a folder, or all that match a pattern; see `Source`."""
    for path in find_files(location, _SUFFIXES):
        read_file = _read_parquet if path.suffix.lower() == ".parquet" else _read_json_lines
        yield from read_file(path, options)


def _read_json_lines(path: Path, options: SourceOptions) -> Iterator[Interaction | Reject]:
    for number, line in read_lines(path):
        if line is None:
            yield Place(path, number).reject(f"longer than {MAX_LINE_BYTES // 2**20} MiB, so not an interaction", "")
        elif number == 1 and line.startswith(b"["):
            raise DataError(
                f"{path}: starts like one JSON array; write one object per line instead (jq -c '.[]' {path.name})"
            )
        else:
            yield Place(path, number).read(line, line, options)


def _read_parquet(path: Path, options: SourceOptions) -> Iterator[Interaction | Reject]:
    number = 0
    for frame in read_batches(path):
        for record in _records(frame, path):
            number += 1
            yield Place(path, number).read(record, record, options)


def _records(frame: pl.DataFrame, path: Path) -> Iterator[Mapping[str, Any]]:
    if _AT_THE_TOP.isdisjoint(frame.columns):
        # Nested as the JSON is. A column has every field of every row, so nulls mean absence.
        return (_without_nulls(row) for row in frame.iter_rows(named=True))
    if isinstance(frame.schema.get("ts"), pl.Datetime):  # other writers count time in other units
        frame = frame.with_columns(pl.col("ts").cast(INTERACTION_SCHEMA["ts"]))
    try:
        return iter(list(to_records(frame)))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
