"""The event store as polars frames: stored JSON goes straight into columns wherever that is provably the same.

The service writes every field of a record, in one order. A body that has just those is taken apart into columns, and
every column is held against what `router_ml.schema` demands of it; any other body takes the way of all other readers.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from io import BytesIO
from itertools import chain, compress
from typing import Any

import polars as pl
from msgspec import Struct
from msgspec.structs import astuple

from router_ml.store import Bounds, OnReject, StoredRow
from router_ml.store.reading import later_feedback, log_reject, read_row
from router_ml.store.rows import stamp, to_utc
from router_ml_training.executor import Executor
from router_ml_training.flat_columns import fields_of, list_column
from router_ml_training.frames import INTERACTION_SCHEMA, dump, message_row, to_frame
from router_ml_training.sources.store import open_log
from router_ml_training.stored_json import (
    StoredAttempt,
    StoredInteraction,
    StoredRequest,
    StoredVerdict,
    is_simple,
    read_strictly,
)

__all__ = ["frame_of", "read_frames"]

_BATCH = 8_000
# Columns that are fields of a record as they are.
_PLAIN = (
    "schema",
    "id",
    "session_id",
    "tenant",
    "feature",
    "use_case",
    "policy_version",
    "explored",
    "mode",
)
_MESSAGE = ("role", "content", "json")
# As pydantic and orjson write a time in UTC.
_TIME = r"^[1-9]\d{3}-\d\d-\d\dT\d\d:\d\d:[0-5]\d(\.\d{6})?Z$"


def read_frames(
    location: str,
    since: datetime | None = None,
    *,
    executor: Executor | None = None,
    on_reject: OnReject = log_reject,
) -> Iterator[pl.DataFrame]:
    """Stream a store as frames of `INTERACTION_SCHEMA`, by (ts, id), feedback merged in.

    Args:
        location: URL of a store, or the path of a SQLite file.
        since: Leave out what is older.
        executor: Reads some slices ahead of who takes them; None reads in this process.
        on_reject: Told about each row that cannot be read; by default such rows are logged and left out.

    Raises:
        DataError: When there is no such store.
        StoreError: When it cannot be read.
    """
    if executor is None:
        with open_log(location) as store:
            for page in store.pages(since, size=_BATCH):
                yield frame_of(page, on_reject)
        return
    with open_log(location) as store:
        slices = store.slices(_BATCH)
    wanted = [one.bounds for one in slices if since is None or one.bounds[1][0] >= stamp(since)]
    for written, rejected in executor.map(partial(_frame_of_slice, location), wanted):
        for row_id, reason in rejected:
            on_reject(row_id, reason)
        frame = pl.read_ipc(written)
        yield frame if since is None else frame.filter(pl.col("ts") >= to_utc(since))


def _frame_of_slice(location: str, bounds: Bounds) -> tuple[bytes, list[tuple[str, str]]]:
    rejected: list[tuple[str, str]] = []
    # Pickling a frame takes three times as long.
    written = BytesIO()
    with _no_search_for_cycles(), open_log(location) as store:
        pages = store.pages(bounds=bounds, size=_BATCH)
        frames = [frame_of(page, lambda row_id, reason: rejected.append((row_id, reason))) for page in pages]
    pl.concat(frames, rechunk=False).write_ipc(written)
    return written.getvalue(), rejected


def frame_of(page: Sequence[StoredRow], on_reject: OnReject) -> pl.DataFrame:
    """Return stored rows as a frame: what `read_row` and `to_frame` would make of them, at a twentieth of the price.

    Args:
        page: Stored rows.
        on_reject: Told about each row that cannot be read, which the frame does not have.
    """
    with _no_search_for_cycles():
        frame, places = _strict_rows(page, on_reject)
    if len(places) == len(page):
        return frame
    done = set(places)
    read = ((i, read_row(*row, on_reject)) for i, row in enumerate(page) if i not in done)
    others = [(i, item) for i, item in read if item is not None]
    if not others:
        return frame
    both = pl.concat([frame, to_frame([item for _, item in others])])
    return both[pl.Series([*places, *(i for i, _ in others)], dtype=pl.UInt32).arg_sort()]


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    # JSON has none, and looking for them takes several times as long as reading it.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _strict_rows(page: Sequence[StoredRow], on_reject: OnReject) -> tuple[pl.DataFrame, list[int]]:
    """Return the rows that are just as the service writes them, and which of the page they are."""
    rows = [read_strictly(row.body) for row in page]
    places = [i for i, row in enumerate(rows) if row is not None]
    taken = [row for row in rows if row is not None]
    times, is_time = _times([row.ts for row in taken])
    if not is_time.all():
        kept = is_time.to_list()
        places, taken = list(compress(places, kept)), list(compress(taken, kept))
        times = times.filter(is_time)
    return _frame(taken, times, _feedback([page[i] for i in places], on_reject)), places


def _frame(rows: Sequence[StoredInteraction], times: pl.Series, feedback: pl.Series) -> pl.DataFrame:
    said = _columns_of(rows, StoredInteraction)
    asked = _columns_of(said["request"], StoredRequest)
    values: dict[str, Sequence[Any]] = {name: said[name] for name in _PLAIN}
    values |= {
        "tags": [dump(tags) if tags else "{}" for tags in said["tags"]],
        "tools": [None if tools is None else dump(tools) for tools in asked["tools"]],
        "response_format": [None if shape is None else dump(shape) for shape in asked["response_format"]],
        "max_tokens": asked["max_tokens"],
        "features": [None] * len(rows),
    }
    columns = {
        "ts": times,
        "messages": _messages(asked["messages"]),
        "candidates": _candidates(said["candidates"]),
        "propensity": _propensity(said["propensity"]),
        "attempts": _attempts(said["attempts"]),
        "feedback": feedback,
    }
    # Each as a column first: a frame of lists would guess at their types.
    columns |= {name: pl.Series(column, dtype=INTERACTION_SCHEMA[name]) for name, column in values.items()}
    return pl.DataFrame({name: columns[name] for name in INTERACTION_SCHEMA}, schema=INTERACTION_SCHEMA)


def _times(values: list[str]) -> tuple[pl.Series, pl.Series]:
    found = pl.Series(values, dtype=pl.String)
    times = found.str.strip_suffix("Z").str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f", time_unit="us", time_zone="UTC", strict=False
    )
    return times, found.str.contains(_TIME) & times.is_not_null()


def _columns_of(rows: Sequence[Struct], kind: type[Struct]) -> dict[str, Sequence[Any]]:
    names = kind.__struct_fields__
    return dict(zip(names, zip(*map(astuple, rows), strict=True) if rows else [()] * len(names), strict=True))


def _messages(values: Sequence[list[dict[str, Any]]]) -> pl.Series:
    flat = [
        (message["role"], message["content"], None) if is_simple(message) else tuple(message_row(message).values())
        for messages in values
        for message in messages
    ]
    columns = list(zip(*flat, strict=True)) or [(), (), ()]
    inner = {name: pl.Series(column, dtype=pl.String) for name, column in zip(_MESSAGE, columns, strict=True)}
    return list_column(inner, list(map(len, values)), INTERACTION_SCHEMA["messages"])


def _candidates(values: Sequence[list[str]]) -> pl.Series:
    flat = pl.Series(list(chain.from_iterable(values)), dtype=pl.String)
    return list_column(flat, list(map(len, values)), INTERACTION_SCHEMA["candidates"])


def _propensity(values: Sequence[dict[str, float]]) -> pl.Series:
    tiers = pl.Series(list(chain.from_iterable(values)), dtype=pl.String)
    p = pl.Series(list(chain.from_iterable(chances.values() for chances in values)), dtype=pl.Float64)
    return list_column({"tier": tiers, "p": p}, list(map(len, values)), INTERACTION_SCHEMA["propensity"])


def _attempts(values: Sequence[list[StoredAttempt]]) -> pl.Series:
    shape = INTERACTION_SCHEMA["attempts"]
    said = _columns_of(list(chain.from_iterable(values)), StoredAttempt)
    calls = [dump(one) if one else None for one in said["tool_calls"]]
    other = {"tool_calls": pl.Series(calls, dtype=pl.String), "verdicts": _verdicts(said["verdicts"])}
    columns = {
        name: other[name] if name in other else pl.Series(said[name], dtype=dtype)
        for name, dtype in fields_of(shape).items()
    }
    return list_column(columns, list(map(len, values)), shape)


def _verdicts(values: Sequence[list[StoredVerdict]]) -> pl.Series:
    shape = fields_of(INTERACTION_SCHEMA["attempts"])["verdicts"]
    said = _columns_of(list(chain.from_iterable(values)), StoredVerdict)
    columns = {name: pl.Series(said[name], dtype=dtype) for name, dtype in fields_of(shape).items()}
    return list_column(columns, list(map(len, values)), shape)


def _feedback(page: Sequence[StoredRow], on_reject: OnReject) -> pl.Series:
    said = [later_feedback(row.id, row.feedback, on_reject) if row.feedback else [] for row in page]
    flat = [vars(one) for one in chain.from_iterable(said)]
    shape = INTERACTION_SCHEMA["feedback"]
    columns = {name: pl.Series([one[name] for one in flat], dtype=dtype) for name, dtype in fields_of(shape).items()}
    return list_column(columns, list(map(len, said)), shape)
