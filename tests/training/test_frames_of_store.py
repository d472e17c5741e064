"""Frames of the store: whatever stands in it, the same as by the way that checks every record."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_ml.errors import DataError
from router_ml.schema import Feedback, Interaction
from router_ml.store import StoredRow, open_store
from router_ml.store.reading import read_row
from router_ml_training import frames_of_store
from router_ml_training.executor import LocalExecutor
from router_ml_training.frames import INTERACTION_SCHEMA, to_frame
from router_ml_training.frames_of_store import frame_of, read_frames

VERDICT = {"adequate": True, "score": 0.5, "source": "check", "reason": None}
ATTEMPT = {
    "tier": "small",
    "model": "mini",
    "input_tokens": 12,
    "cached_tokens": 0,
    "output_tokens": None,
    "cost_usd": 1e-7,
    "ttft_ms": None,
    "latency_ms": 900,
    "finish_reason": "stop",
    "error": None,
    "response": 'so "it" is\n\\ é 😀',
    "tool_calls": [],
    "verdicts": [VERDICT, {**VERDICT, "score": 1, "reason": "x"}],
    "logprobs": None,
    "features": None,
}
MESSAGES = [
    {"role": "system", "content": ""},
    {"role": "user", "content": 'what\tis "this"? },"tools":null'},
    {"content": "keys in another order", "role": "user"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "user", "content": [{"type": "text", "text": "parts"}, {"type": "image_url", "image_url": {"url": "u"}}]},
    {"role": "tool", "content": "3.0", "tool_call_id": "c", "n": 3.0, "big": 1e18},
]
RECORD: dict[str, Any] = {
    "schema": "router_ml.interaction/1",
    "id": "i1",
    "ts": "2026-01-01T00:00:00.123456Z",
    "session_id": None,
    "tenant": "acme",
    "feature": None,
    "use_case": "chat",
    "tags": {"x": 1.5, "y": [None, {"z": "é"}]},
    "request": {
        "messages": MESSAGES,
        "tools": [{"type": "function"}],
        "response_format": {"type": "json"},
        "max_tokens": 5,
    },
    "features": None,
    "policy_version": "p1",
    "candidates": ["small", "large"],
    "propensity": {"large": 0.25, "small": 0.75},
    "explored": False,
    "mode": "live",
    "attempts": [ATTEMPT, {**ATTEMPT, "tier": "large", "verdicts": []}],
    "feedback": [],
}
# Values to put where others were: of another type, out of range, or merely unusual.
ODD = (
    None,
    True,
    0,
    -1,
    1.5,
    2**63,
    2**70,
    -0.0,
    1e400,
    "",
    "x",
    "é\n",
    [],
    {},
    [1],
    ["small"],
    [{}],
    {"a": 1},
    {"small": 1},
)


def slow(rows: list[StoredRow]) -> tuple[pl.DataFrame, list[tuple[str, str]]]:
    rejected: list[tuple[str, str]] = []
    found = [read_row(*row, lambda *why: rejected.append(why)) for row in rows]
    return to_frame([item for item in found if item is not None]), rejected


def agrees(rows: list[StoredRow]) -> None:
    """As the slow way: the same frame, and the same rejects; an overflow is the same error."""
    rejected: list[tuple[str, str]] = []
    try:
        expected, expected_rejects = slow(rows)
    except DataError as error:
        with pytest.raises(DataError, match=str(error)[:30]):
            frame_of(rows, lambda *why: rejected.append(why))
        return
    found = frame_of(rows, lambda *why: rejected.append(why))
    assert found.schema == INTERACTION_SCHEMA
    assert found.equals(expected)
    assert sorted(rejected) == sorted(expected_rejects)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def changed(path: tuple[Any, ...], value: Any, *, how: str = "set") -> dict[str, Any]:
    record = json.loads(json.dumps(RECORD))
    if not path:
        return record
    parent = record
    for key in path[:-1]:
        parent = parent[key]
    if how == "set":
        parent[path[-1]] = value
    elif how == "drop":
        del parent[path[-1]]
    elif isinstance(parent, dict):
        parent["unknown"] = value
    return record


def row(record: Any, i: int = 0, feedback: tuple[str, ...] = ()) -> StoredRow:
    return StoredRow(f"row{i}", json.dumps(record), feedback)


def test_a_record_of_the_service_is_read_without_checking_it_as_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(RECORD), row({**RECORD, "id": "i2", "attempts": [], "propensity": {}, "tags": {}})]
    expected, _ = slow(rows)
    monkeypatch.setattr(frames_of_store, "read_row", lambda *_: pytest.fail("took the slow way"))
    assert frame_of(rows, print).equals(expected)


def test_every_place_may_hold_anything() -> None:
    records = [changed(path, value) for path in places(RECORD) for value in ODD if value != 1e400]
    records += [changed(path, None, how="drop") for path in places(RECORD)]
    records += [changed(path, 1, how="add") for path in places(RECORD)]
    rows = [row(record, i) for i, record in enumerate(records)]
    fitting = []
    for one in rows:  # those that fit no column are an error on their own, and for both
        try:
            slow([one])
        except DataError:
            agrees([one])
        else:
            fitting.append(one)
    assert len(fitting) > 500
    agrees(fitting)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_two_changes_at_once_are_read_the_same(data: Any) -> None:
    paths = st.sampled_from(places(RECORD)[1:])
    values = st.one_of(st.sampled_from(ODD), st.floats(), st.text(max_size=4), st.integers())
    record = changed(data.draw(paths), data.draw(values), how=data.draw(st.sampled_from(["set", "drop", "add"])))
    body = json.dumps({**record, data.draw(st.sampled_from(list(RECORD))): data.draw(values)})
    agrees([row(RECORD), StoredRow("odd", body, ()), row(RECORD, 2)])


@pytest.mark.parametrize(
    "ts",
    [
        "2026-01-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T23:59:60Z",
        "2026-01-01T00:00:00.5Z",
        "2026-01-01T00:00:00+02:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
        "2026-01-01",
        1767225600,
        "2026-01-01T00:00:00Zx",
        "2026-01-01T00:00:00ZZ",
    ],
)
def test_times_are_read_as_they_are_by_everybody(ts: Any) -> None:
    agrees([row({**RECORD, "ts": ts})])


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"x"', '{"id": NaN}', json.dumps(RECORD) + "x", "[" * 300])
def test_what_is_no_record_is_rejected(body: str) -> None:
    agrees([StoredRow("bad", body, ()), row(RECORD)])


def test_nested_tags_as_deep_as_pydantic_reads_or_deeper() -> None:
    for depth in (10, 60, 150, 240):
        tags: Any = 1
        for _ in range(depth):
            tags = {"t": tags}
        agrees([row({**RECORD, "tags": tags})])


def test_unusual_json_is_read_the_same() -> None:
    plain = json.dumps(RECORD)
    for old, new in (
        ('"tenant": "acme"', '"tenant": "\\ud83d\\ude00"'),
        ('"tenant": "acme"', '"tenant": "\\ud800"'),
        ('"tenant": "acme"', '"tenant": "a\\u0000b"'),
        ('"max_tokens": 5', '"max_tokens": 5.0'),
        ('"max_tokens": 5', '"max_tokens": "5"'),
        ('"latency_ms": 900', '"latency_ms": 1E3'),
        ('"latency_ms": 900', '"latency_ms": NaN'),
        ('"latency_ms": 900', '"latency_ms": 12345678901234567890123'),
        ('"explored": false', '"explored": 0'),
        ('"tenant": "acme"', '"tenant": "acme", "tenant": "other"'),
        ('"large": 0.25, "small": 0.75', '"large": 0.25, "small": 0.7501'),
        ('"large": 0.25, "small": 0.75', '"large": 0.25, "small": 0.8'),
    ):
        assert old in plain
        agrees([StoredRow("odd", plain.replace(old, new), ()), row(RECORD)])


def test_feedback_is_merged_and_what_cannot_be_read_of_it_is_told() -> None:
    said = Feedback(ts=datetime(2026, 1, 2, tzinfo=UTC), source="user", tier="small", adequate=False, key="k")
    early = said.model_copy(update={"ts": said.ts - timedelta(hours=3), "key": None})
    words = (said.model_dump_json(), "{broken", early.model_dump_json(), '{"ts": 1, "source": "nobody"}')
    inside = {**RECORD, "feedback": [json.loads(said.model_dump_json())]}
    agrees([row(RECORD, 1, words), row(inside, 2, words), row(RECORD, 3), row({**RECORD, "mode": "odd"}, 4, words)])


def test_rows_of_the_service_itself_are_read_too() -> None:
    item = Interaction.model_validate(RECORD)
    times = {**RECORD, "ts": item.ts, "attempts": [vars(one) for one in item.attempts]}
    body = orjson.dumps(times, lambda one: vars(one), orjson.OPT_UTC_Z).decode()
    agrees([StoredRow("a", body, ()), StoredRow("b", item.to_json(), ())])


@pytest.fixture
def url(world: Any, tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/events.db"
    with open_store(url) as store:
        store.append(world.log(90))
        store.amend("i00003", Feedback(ts=datetime(2026, 1, 2, tzinfo=UTC), source="user", adequate=True))
    return url


def test_a_store_is_read_as_frames(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_of_store, "_BATCH", 40)
    with open_store(url) as store:
        expected = to_frame(list(store.scan()))
    frames = list(read_frames(url))
    assert [frame.height for frame in frames] == [40, 40, 10]
    assert pl.concat(frames).equals(expected)
    assert pl.concat(read_frames(url, executor=LocalExecutor())).equals(expected)
    since = expected["ts"][55]
    for executor in (None, LocalExecutor()):
        assert pl.concat(read_frames(url, since, executor=executor)).equals(expected[55:])


def test_rows_that_cannot_be_read_are_told_by_every_way(url: str) -> None:
    from sqlalchemy import create_engine, text

    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE interactions SET body = '{}' WHERE id = 'i00007'"))
    engine.dispose()
    for executor in (None, LocalExecutor()):
        told: list[str] = []
        frames = read_frames(url, executor=executor, on_reject=lambda row_id, _, told=told: told.append(row_id))
        assert sum(frame.height for frame in frames) == 89
        assert told == ["i00007"]


def test_what_is_deleted_while_the_store_is_read_is_not_there(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_of_store, "_BATCH", 30)
    frames = read_frames(url, executor=LocalExecutor())
    first = next(frames)
    with open_store(url) as store:
        left = [one.id for one in store.scan() if one.id not in set(first["id"])]
        assert store.delete(ids=left[:30]) == 30
    rest = list(frames)
    assert [frame.height for frame in rest] == [0, 30]
    assert rest[0].schema == INTERACTION_SCHEMA
    assert rest[1]["id"].to_list() == left[30:]


def test_a_store_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such event store"):
        list(read_frames(str(tmp_path / "none.db")))
