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
from itertools import chain
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from router_ml.store import Bounds, OnReject, StoredRow
from router_ml.store.reading import later_feedback, log_reject, read_row
from router_ml_training.executor import Executor
from router_ml_training.flat_bodies import Columns, read_flat
from router_ml_training.flat_columns import fields_of, list_column
from router_ml_training.frames import INTERACTION_SCHEMA, to_frame
from router_ml_training.sources.store import open_log

__all__ = ["frame_of", "read_frames"]

# What a piece costs beside its rows (opening the store, a few dozen columns) is a tenth at half of this.
_BATCH = 16_000
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
        cuts = store.cuts(_BATCH, since)
    for written, rejected in executor.map(partial(_frame_within, location), cuts):
        for row_id, reason in rejected:
            on_reject(row_id, reason)
        # In place: polars itself would copy.
        yield _as_frame(pa.ipc.open_file(pa.py_buffer(written)).read_all())


def _as_frame(table: Any) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  a table never becomes a Series
    return frame


def _frame_within(location: str, bounds: Bounds) -> tuple[bytes, list[tuple[str, str]]]:
    rejected: list[tuple[str, str]] = []
    # Pickling a frame takes three times as long.
    written = BytesIO()
    with _no_search_for_cycles(), open_log(location) as store:
        # A page that is full would be followed by the question for another.
        pages = store.pages(bounds=bounds, size=_BATCH + 1)
        frames = [frame_of(page, lambda row_id, reason: rejected.append((row_id, reason))) for page in pages]
    # None, when all were deleted meanwhile.
    pl.concat(frames or [INTERACTION_SCHEMA.to_frame()], rechunk=False).write_ipc(written)
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
    columns, places = read_flat([row.body for row in page])
    times = _times(columns["ts"])
    if times is None:  # so seldom that reading the others once more does not matter
        some = [i for i, ts in zip(places, columns["ts"], strict=True) if _times([ts]) is not None]
        frame, places = _strict_rows([page[i] for i in some], on_reject)
        return frame, [some[i] for i in places]
    none = pl.Series([None], dtype=INTERACTION_SCHEMA["features"])
    given = {"ts": times, "features": none.new_from_index(0, len(places))}
    columns |= _feedback([page[i] for i in places], on_reject)
    series = {
        name: given[name] if name in given else _series(name, INTERACTION_SCHEMA[name], columns)
        for name in INTERACTION_SCHEMA
    }
    return pl.DataFrame(series), places


def _series(path: str, dtype: pl.DataType, columns: Columns) -> pl.Series:
    # Each with its type: a frame of lists would guess.
    if not isinstance(dtype, pl.List):
        return pl.Series(columns[path], dtype=dtype)
    if not isinstance(dtype.inner, pl.Struct):
        return list_column(pl.Series(columns[f"{path}.item"], dtype=dtype.inner), columns[path], dtype)
    inner = {name: _series(f"{path}.{name}", kind, columns) for name, kind in fields_of(dtype).items()}
    return list_column(inner, columns[path], dtype)


def _times(values: list[str]) -> pl.Series | None:
    """Return times as the service writes them; None when one of them is no such time."""
    found = pa.array(values, type=pa.string())
    if not pc.all(pc.match_substring_regex(found, _TIME), min_count=0).as_py():
        return None
    try:
        # Polars takes five times as long.
        times = found.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:  # such as 30 February
        return None
    return pl.Series(times, dtype=INTERACTION_SCHEMA["ts"])


def _feedback(page: Sequence[StoredRow], on_reject: OnReject) -> Columns:
    said = [later_feedback(row.id, row.feedback, on_reject) if row.feedback else [] for row in page]
    flat = [vars(one) for one in chain.from_iterable(said)]
    fields = fields_of(INTERACTION_SCHEMA["feedback"])
    return {"feedback": list(map(len, said)), **{f"feedback.{name}": [one[name] for one in flat] for name in fields}}
