from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_ml.errors import DataError, RecordError
from router_ml.schema import Interaction, parse_interaction
from router_ml_training import frames
from router_ml_training.frames import (
    INTERACTION_SCHEMA,
    from_frame,
    read_batches,
    read_parquet,
    write_parquet,
)

text = st.text(max_size=20)
maybe_text = st.none() | text
unit = st.floats(0, 1)
amount = st.none() | st.floats(0, 1e12)
count = st.integers(0, 2**63 - 1)
source = st.sampled_from(["verifier", "rule", "retry", "user", "judge", "human", "check"])
time = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
mapping = st.dictionaries(text, value, max_size=3)
message = st.fixed_dictionaries({"role": text, "content": text}) | st.fixed_dictionaries(
    {"role": value, "content": value}, optional={"name": text, "tool_calls": st.lists(mapping, max_size=2)}
)
judgement = {"adequate": st.none() | st.booleans(), "score": st.none() | unit, "reason": maybe_text}
attempt = st.fixed_dictionaries(
    {"tier": st.text(min_size=1, max_size=8)},
    optional={
        "model": text,
        "input_tokens": st.none() | count,
        "cached_tokens": count,
        "output_tokens": st.none() | count,
        "cost_usd": amount,
        "ttft_ms": amount,
        "latency_ms": amount,
        "finish_reason": maybe_text,
        "error": maybe_text,
        "response": maybe_text,
        "tool_calls": st.lists(mapping, max_size=2),
        "verdicts": st.lists(st.fixed_dictionaries({"source": source}, optional=judgement), max_size=2),
    },
)
feedback = st.fixed_dictionaries(
    {"ts": time, "source": source}, optional={**judgement, "tier": maybe_text, "key": maybe_text}
)
floats = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=5)
rows = st.fixed_dictionaries(
    {"id": st.text(min_size=1, max_size=8), "ts": time},
    optional={
        "session_id": maybe_text,
        "tenant": maybe_text,
        "feature": maybe_text,
        "use_case": maybe_text,
        "tags": mapping,
        "request": st.fixed_dictionaries(
            {},
            optional={
                "messages": st.lists(message, max_size=3),
                "tools": st.none() | st.lists(mapping, max_size=2),
                "response_format": st.none() | mapping,
                "max_tokens": st.none() | count,
            },
        ),
        "features": st.none()
        | st.fixed_dictionaries(
            {
                "schema_hash": text,
                "dense": floats,
                "ids": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
                "counts": floats,
            }
        ),
        "policy_version": maybe_text,
        "candidates": st.lists(text, max_size=3),
        "propensity": st.just({}) | unit.map(lambda p: {"small": p, "large": 1 - p}),
        "explored": st.booleans(),
        "mode": st.sampled_from(["live", "shadow", "audit"]),
        "attempts": st.lists(attempt, max_size=3),
        "feedback": st.lists(feedback, max_size=2),
    },
)


def frame_of(home: Path, *log: Interaction) -> pl.DataFrame:
    """Return a log as it is in a file."""
    write_parquet(home / "log.parquet", log)
    return pl.concat(read_batches(home / "log.parquet"))


def interaction(i: int = 0, **fields: Any) -> Interaction:
    return parse_interaction({"id": f"i{i}", "ts": "2026-01-01T00:00:00Z", **fields})


@settings(max_examples=80, deadline=None)
@given(st.lists(rows, max_size=5))
def test_a_log_survives_json_lines_to_parquet_and_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, log: list[dict[str, Any]]
) -> None:
    before = [parse_interaction(json.dumps(row)) for row in log]
    path = tmp_path_factory.getbasetemp() / "log.parquet"
    assert write_parquet(path, before) == len(before)
    after = list(read_parquet(path))
    assert after == before
    assert [item.to_json() for item in after] == [item.to_json() for item in before]


def test_a_message_that_is_only_a_role_and_a_text_is_stored_as_columns(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": parts}]
    frame = frame_of(tmp_path, interaction(request={"messages": messages}))
    assert frame.schema == INTERACTION_SCHEMA
    stored = frame["messages"].to_list()[0]
    assert stored[0] == {"role": "system", "content": "be brief", "json": None}
    assert stored[1]["role"] == "user"
    assert stored[1]["content"] is None
    assert json.loads(stored[1]["json"]) == messages[1]


def test_tools_that_are_absent_and_tools_that_are_empty_stay_different(tmp_path: Path) -> None:
    log = [interaction(0), interaction(1, request={"tools": [], "response_format": {}})]
    absent, empty = from_frame(frame_of(tmp_path, *log))
    assert absent.request.tools is None
    assert (empty.request.tools, empty.request.response_format) == ((), {})


def test_numbers_that_json_has_no_room_for_survive_in_tags(tmp_path: Path) -> None:
    log = [
        parse_interaction('{"id": "a", "ts": "2026-01-01T00:00:00Z", "tags": {"n": 123456789012345678901234567890}}')
    ]
    assert next(from_frame(frame_of(tmp_path, *log))).tags == {"n": 123456789012345678901234567890}


def test_columns_of_a_frame_that_the_schema_does_not_know_end_up_in_the_tags(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, interaction()).with_columns(pl.lit("eu").alias("region"))
    assert next(from_frame(frame)).tags == {"region": "eu"}


def test_a_frame_of_something_else_is_refused_with_the_columns_it_lacks(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, interaction()).drop("attempts").with_columns(pl.lit(1).alias("mode"))
    with pytest.raises(DataError, match="missing, or of another type: mode, attempts"):
        next(from_frame(frame))


def test_a_row_that_is_no_interaction_is_an_error_with_its_field(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, interaction()).with_columns(pl.lit("sometimes").alias("mode"))
    with pytest.raises(RecordError, match="mode"):
        next(from_frame(frame))


def test_an_integer_beyond_64_bits_is_an_error_and_not_another_number(tmp_path: Path) -> None:
    stored = {"schema_hash": "x", "dense": [], "ids": [2**63], "counts": []}
    with pytest.raises(DataError, match="does not fit"):
        frame_of(tmp_path, interaction(features=stored))


def test_a_log_larger_than_a_row_group_is_written_in_several_and_read_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "_GROUP_ROWS", 256)
    log = [interaction(i) for i in range(1000)]
    path = tmp_path / "log.parquet"
    assert write_parquet(path, iter(log)) == 1000
    # Groups close at the first chunk of rows that reaches the limit.
    assert sum(1 for _ in read_batches(path, rows=100)) >= 10
    assert max(frame.height for frame in read_batches(path, rows=100)) <= 100
    assert list(read_parquet(path)) == log


def test_an_empty_log_is_a_readable_file(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    assert write_parquet(path, []) == 0
    assert list(read_parquet(path)) == []
    assert pl.read_parquet_schema(path) == INTERACTION_SCHEMA


@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_a_file_that_is_not_parquet_is_named_in_the_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "log.parquet"
    write_parquet(path, [interaction()])
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(whole[:-20] if damage == "truncated" else b"id,ts\n1,2\n")
    with pytest.raises(DataError, match=r"log\.parquet: cannot be read as Parquet"):
        list(read_parquet(path))


def test_polars_reads_the_file_without_our_code(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_parquet(
        path, [interaction(attempts=[{"tier": "small", "cost_usd": 0.5}, {"tier": "large", "cost_usd": 1.5}])]
    )
    spent = (
        pl.scan_parquet(path)
        .explode("attempts", empty_as_null=True, keep_nulls=True)
        .unnest("attempts")
        .select(pl.col("cost_usd").sum())
        .collect()
    )
    assert spent.item() == 2.0
