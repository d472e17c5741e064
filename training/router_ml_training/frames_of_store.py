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
from typing import Any, NamedTuple, cast, get_args

import orjson
import polars as pl

from router_ml.schema import SCHEMA, Attempt, Interaction, Mode, RequestBody, Verdict, VerdictSource
from router_ml.store import Bounds, OnReject, StoredRow
from router_ml.store.reading import later_feedback, log_reject, read_row
from router_ml.store.rows import stamp, to_utc
from router_ml_training.executor import Executor
from router_ml_training.flat_columns import (
    Faults,
    booleans,
    fields_of,
    list_column,
    numbers,
    of_type,
    one_of,
    texts,
    whole_numbers,
)
from router_ml_training.frames import INTERACTION_SCHEMA, dump, message_row, to_frame
from router_ml_training.sources.store import open_log

__all__ = ["frame_of", "read_frames"]

_BATCH = 4_000
_NONE = type(None)
_FIELDS = tuple(info.alias or name for name, info in Interaction.model_fields.items())
_REQUEST, _ATTEMPT, _VERDICT = (tuple(kind.model_fields) for kind in (RequestBody, Attempt, Verdict))
_SIMPLE = ("role", "content")
_NAMES = ("id", "session_id", "tenant", "feature", "use_case", "policy_version", "mode")
_WORDS = ("tier", "model", "finish_reason", "error", "response")
_COUNTS = ("input_tokens", "cached_tokens", "output_tokens")
_AMOUNTS = ("cost_usd", "ttft_ms", "latency_ms")
_MODES, _SOURCES = frozenset(get_args(Mode)), frozenset(get_args(VerdictSource))
# As pydantic and orjson write a time in UTC.
_TIME = r"^[1-9]\d{3}-\d\d-\d\dT\d\d:\d\d:[0-5]\d(\.\d{6})?Z$"
# Of JSON of any shape, pydantic reads nothing nested deeper than some 200, and orjson long integers as floats.
_DEEPEST, _LARGE = 50, 2.0**63


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
    with open_log(location) as store:
        pages = [row for page in store.pages(bounds=bounds, size=_BATCH) for row in page]
    # Pickling a frame takes three times as long.
    written = BytesIO()
    frame_of(pages, lambda row_id, reason: rejected.append((row_id, reason))).write_ipc(written)
    return written.getvalue(), rejected


def frame_of(page: Sequence[StoredRow], on_reject: OnReject) -> pl.DataFrame:
    """Return stored rows as a frame: what `read_row` and `to_frame` would make of them, at a tenth of the price.

    Args:
        page: Stored rows.
        on_reject: Told about each row that cannot be read, which the frame does not have.
    """
    with _no_search_for_cycles():
        frame, places = _plain_rows(page, on_reject)
    done = set(places)
    read = ((i, read_row(*row, on_reject)) for i, row in enumerate(page) if i not in done)
    others = [(i, item) for i, item in read if item is not None]
    if not others:
        return frame
    both = pl.concat([frame, to_frame([item for _, item in others])])
    return both[pl.Series([*places, *(i for i, _ in others)], dtype=pl.UInt32).arg_sort()]


def _plain_rows(page: Sequence[StoredRow], on_reject: OnReject) -> tuple[pl.DataFrame, list[int]]:
    """Return the rows that are just as the service writes them, and which of the page they are."""
    taken = [(place, one) for place, row in enumerate(page) if (one := _taken(row.body)) is not None]
    faults = Faults()
    places = [place for place, _ in taken]
    frame = _frame([one for _, one in taken], [page[place] for place in places], faults, on_reject)
    if not faults:
        return frame, places
    kept = [i not in faults for i in range(len(places))]
    return frame.filter(pl.Series(kept)), list(compress(places, kept))


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


class _Taken(NamedTuple):
    """One record taken apart: values in the order of the schema's fields, of the parts that come in numbers too."""

    fields: tuple[Any, ...]
    request: tuple[Any, ...]
    attempts: list[tuple[Any, ...]]
    verdicts: list[list[tuple[Any, ...]]]


def _taken(body: str) -> _Taken | None:
    """Return a record that has just the fields of the schema, in all parts, and none that is rare."""
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError:  # or what pydantic reads nevertheless, such as NaN
        return None
    fields = _values(record, _FIELDS)
    if fields is None or fields[_AT["features"]] is not None or fields[_AT["feedback"]] != []:
        return None
    request, tried = _values(fields[_AT["request"]], _REQUEST), fields[_AT["attempts"]]
    if request is None or type(tried) is not list:
        return None
    attempts, verdicts = [], []
    for one in tried:
        attempt = _values(one, _ATTEMPT)
        # The last two: logprobs and features.
        if attempt is None or attempt[-1] is not None or attempt[-2] is not None or type(attempt[-3]) is not list:
            return None
        said = [_values(verdict, _VERDICT) for verdict in attempt[-3]]
        if None in said:
            return None
        attempts.append(attempt)
        verdicts.append(cast(list[tuple[Any, ...]], said))
    return _Taken(fields, request, attempts, verdicts)


_AT = {name: i for i, name in enumerate(_FIELDS)}


def _values(record: Any, names: tuple[str, ...]) -> tuple[Any, ...] | None:
    return tuple(record.values()) if type(record) is dict and tuple(record) == names else None


def _columns_of(rows: Sequence[tuple[Any, ...]], names: Sequence[str]) -> dict[str, list[Any]]:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def _frame(rows: Sequence[_Taken], page: Sequence[StoredRow], faults: Faults, on_reject: OnReject) -> pl.DataFrame:
    n = range(len(rows))
    said = _columns_of([row.fields for row in rows], _FIELDS)
    asked = _columns_of([row.request for row in rows], _REQUEST)
    columns = {name: texts(said[name], n, faults) for name in _NAMES}
    faults.add_where([value != SCHEMA for value in said["schema"]], n)
    faults.add_where([not text for text in said["id"]], n)
    columns |= {
        "schema": pl.repeat(SCHEMA, len(rows), dtype=pl.String, eager=True),
        "ts": _times(said["ts"], faults),
        "mode": one_of(said["mode"], _MODES, n, faults),
        "tags": _dumped(said["tags"], faults, dict),
        "messages": _messages(asked["messages"], faults),
        "tools": _tools(asked["tools"], faults),
        "response_format": _dumped(asked["response_format"], faults, dict, _NONE),
        "max_tokens": whole_numbers(asked["max_tokens"], n, faults),
        "features": pl.repeat(None, len(rows), dtype=INTERACTION_SCHEMA["features"], eager=True),
        "candidates": _candidates(said["candidates"], faults),
        "propensity": _propensity(said["propensity"], faults),
        "explored": booleans(said["explored"], n, faults, needed=True),
        "attempts": _attempts(rows, faults),
    }
    # The last of all: what is wrong with faulty rows is told when they are read again.
    columns["feedback"] = _feedback(page, faults, on_reject)
    return pl.DataFrame({name: columns[name] for name in INTERACTION_SCHEMA}, schema=INTERACTION_SCHEMA)


def _times(values: list[Any], faults: Faults) -> pl.Series:
    found = texts(values, range(len(values)), faults)
    times = found.str.strip_suffix("Z").str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f", time_unit="us", time_zone="UTC", strict=False
    )
    as_expected = found.str.contains(_TIME).fill_null(False) & times.is_not_null()
    faults.add_where(~as_expected, range(len(values)))
    return times


def _dumped(values: list[Any], faults: Faults, *types: type) -> pl.Series:
    if not set(map(type, values)) <= set(types):
        faults.add_where([type(value) not in types for value in values], range(len(values)))
    faults.add_where([bool(value) and not _is_common(value) for value in values], range(len(values)))
    return pl.Series(["{}" if value == {} else dump(value) for value in values], dtype=pl.String)


def _tools(values: list[Any], faults: Faults) -> pl.Series:
    faults.add_where([value is not None and not _are_records(value) for value in values], range(len(values)))
    return _dumped(values, faults, list, _NONE)


def _are_records(value: Any) -> bool:
    return type(value) is list and all(type(item) is dict for item in value)


def _is_common(value: Any, left: int = _DEEPEST) -> bool:
    if not isinstance(value, dict | list):
        return not isinstance(value, float) or abs(value) < _LARGE
    inner = value.values() if isinstance(value, dict) else value
    return left > 0 and all(_is_common(item, left - 1) for item in inner)


def _messages(values: list[Any], faults: Faults) -> pl.Series:
    lengths: list[int] = []
    flat: list[tuple[Any, ...]] = []
    for i, messages in enumerate(values):
        if not _are_records(messages):
            faults.add(i)
            lengths.append(0)
            continue
        lengths.append(len(messages))
        for message in messages:
            if tuple(message) == _SIMPLE and type(message["role"]) is type(message["content"]) is str:
                flat.append((message["role"], message["content"], None))
            elif _is_common(message):
                flat.append(tuple(message_row(message).values()))
            else:
                faults.add(i)
                flat.append((None, None, None))
    columns = _columns_of(flat, ("role", "content", "json"))
    inner = {name: pl.Series(column, dtype=pl.String) for name, column in columns.items()}
    return list_column(inner, lengths, INTERACTION_SCHEMA["messages"])


def _candidates(values: list[Any], faults: Faults) -> pl.Series:
    lists = of_type(values, list, faults, [])
    owners = [i for i, names in enumerate(lists) for _ in names]
    flat = list(chain.from_iterable(lists))
    faults.add_where([name is None for name in flat], owners)
    return list_column(texts(flat, owners, faults), list(map(len, lists)), INTERACTION_SCHEMA["candidates"])


def _propensity(values: list[Any], faults: Faults) -> pl.Series:
    dicts = of_type(values, dict, faults, {})
    owners = [i for i, chances in enumerate(dicts) for _ in chances]
    flat = list(chain.from_iterable(chances.values() for chances in dicts))
    faults.add_where([p is None for p in flat], owners)
    p = numbers(flat, owners, faults, most=1.0)
    faults.update(
        i
        for i, chances in enumerate(dicts)
        if chances and i not in faults and not 0.999 <= sum(chances.values()) <= 1.001
    )
    tiers = pl.Series(list(chain.from_iterable(dicts)), dtype=pl.String)
    return list_column({"tier": tiers, "p": p}, list(map(len, dicts)), INTERACTION_SCHEMA["propensity"])


def _attempts(rows: Sequence[_Taken], faults: Faults) -> pl.Series:
    owners = [i for i, row in enumerate(rows) for _ in row.attempts]
    said = _columns_of([attempt for row in rows for attempt in row.attempts], _ATTEMPT)
    columns = {name: texts(said[name], owners, faults) for name in _WORDS}
    columns |= {name: whole_numbers(said[name], owners, faults) for name in _COUNTS}
    columns |= {name: numbers(said[name], owners, faults) for name in _AMOUNTS}
    faults.add_where([not tier for tier in said["tier"]], owners)
    for name in ("model", "cached_tokens"):
        faults.add_where([value is None for value in said[name]], owners)
    calls = said["tool_calls"]
    faults.add_where([one != [] and not (_are_records(one) and _is_common(one)) for one in calls], owners)
    columns["tool_calls"] = pl.Series([dump(one or None) for one in calls], dtype=pl.String)
    verdicts = [said for row in rows for said in row.verdicts]
    columns["verdicts"] = _verdicts(verdicts, owners, faults)
    return list_column(columns, [len(row.attempts) for row in rows], INTERACTION_SCHEMA["attempts"])


def _verdicts(values: list[list[tuple[Any, ...]]], owners: Sequence[int], faults: Faults) -> pl.Series:
    whose = [owner for owner, verdicts in zip(owners, values, strict=True) for _ in verdicts]
    said = _columns_of(list(chain.from_iterable(values)), _VERDICT)
    columns = {
        "adequate": booleans(said["adequate"], whose, faults),
        "score": numbers(said["score"], whose, faults, most=1.0),
        "source": one_of(said["source"], _SOURCES, whose, faults),
        "reason": texts(said["reason"], whose, faults),
    }
    return list_column(columns, list(map(len, values)), fields_of(INTERACTION_SCHEMA["attempts"])["verdicts"])


def _feedback(page: Sequence[StoredRow], faults: Faults, on_reject: OnReject) -> pl.Series:
    said = [
        later_feedback(row.id, row.feedback, on_reject) if row.feedback and i not in faults else []
        for i, row in enumerate(page)
    ]
    flat = [vars(one) for one in chain.from_iterable(said)]
    shape = INTERACTION_SCHEMA["feedback"]
    columns = {name: pl.Series([one[name] for one in flat], dtype=dtype) for name, dtype in fields_of(shape).items()}
    return list_column(columns, list(map(len, said)), shape)
