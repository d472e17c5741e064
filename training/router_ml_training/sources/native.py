"""Source `native`: our own log, JSON Lines (plain, .gz, .zst) or Parquet; what the service records is read as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from router_ml.config import ObjectSettings
from router_ml.errors import DataError
from router_ml.objects import is_object_url
from router_ml.schema import Interaction
from router_ml_training.frames import INTERACTION_SCHEMA, read_batches, to_records
from router_ml_training.sources import Reject, SourceOptions
from router_ml_training.sources.files import MAX_LINE_BYTES, find_files, lines_of, read_lines
from router_ml_training.sources.objects import Objects, find_objects, frames_of
from router_ml_training.sources.rows import Place

__all__ = ["files_of", "objects_of", "read"]

_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".ndjson.zst")
_SUFFIXES = (*_LINES, ".parquet")
# Columns that the JSON has inside `request`: their presence tells our Parquet from one nested as the JSON is.
_AT_THE_TOP = frozenset({"messages", "tools", "response_format", "max_tokens"})


def read(location: str, options: SourceOptions) -> Iterator[Interaction | Reject]:
    """Stream interactions from one file, all files of a folder, or all that match a pattern; see `Source`.

    A location may be on object storage (`s3://…`); what is older than `options.since` is left out there.
    """
    if is_object_url(location):
        yield from _read_objects(location, options)
        return
    for path in files_of(location):
        if path.suffix.lower() == ".parquet":
            yield from _read_frames(str(path), read_batches(path), options)
        else:
            yield from _read_json_lines(str(path), read_lines(path), options)


def files_of(location: str) -> list[Path]:
    """Return the files that `read` would read at a location, in this order.

    Raises:
        DataError: When there is none.
    """
    return find_files(location, _SUFFIXES)


def objects_of(location: str, settings: ObjectSettings, *, since: datetime | None = None) -> Objects:
    """Return the objects that `read` would read at a location on object storage, in this order.

    Raises:
        DataError: When there is none.
        ObjectStoreError: When the storage cannot be read.
    """
    return find_objects(location, settings, _SUFFIXES, since=since)


def _read_objects(location: str, options: SourceOptions) -> Iterator[Interaction | Reject]:
    found = objects_of(location, options.objects, since=options.since)
    for item in found.items:
        name = found.url_of(item)
        if item.key.lower().endswith(".parquet"):
            frames = frames_of(found, item, options.since)
            yield from _recent(_read_frames(name, frames, options, numbered=options.since is None), options.since)
            continue
        with found.open(item) as file:
            yield from _recent(_read_json_lines(name, lines_of(file, name), options), options.since)


def _recent(rows: Iterator[Interaction | Reject], since: datetime | None) -> Iterator[Interaction | Reject]:
    return (row for row in rows if isinstance(row, Reject) or since is None or row.ts >= since)


def _read_json_lines(
    name: str, lines: Iterator[tuple[int, bytes | None]], options: SourceOptions
) -> Iterator[Interaction | Reject]:
    for number, line in lines:
        if line is None:
            yield Place(name, number).reject(f"longer than {MAX_LINE_BYTES // 2**20} MiB, so not an interaction", "")
        elif number == 1 and line.startswith(b"["):
            raise DataError(
                f"{name}: starts like one JSON array; write one object per line instead "
                f"(jq -c '.[]' {name.rpartition('/')[2]})"
            )
        else:
            yield Place(name, number).read(line, line, options)


def _read_frames(
    name: str, frames: Iterator[pl.DataFrame], options: SourceOptions, *, numbered: bool = True
) -> Iterator[Interaction | Reject]:
    number = 0
    for frame in frames:
        for record in _records(frame, name):
            number += 1
            yield Place(name, number if numbered else None).read(record, record, options)


def _records(frame: pl.DataFrame, name: str) -> Iterator[Mapping[str, Any]]:
    if _AT_THE_TOP.isdisjoint(frame.columns):
        # Nested as the JSON is. A column has every field of every row, so nulls mean absence.
        return (_without_nulls(row) for row in frame.iter_rows(named=True))
    if isinstance(frame.schema.get("ts"), pl.Datetime):  # other writers count time in other units
        frame = frame.with_columns(pl.col("ts").cast(INTERACTION_SCHEMA["ts"]))
    try:
        return iter(list(to_records(frame)))
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
