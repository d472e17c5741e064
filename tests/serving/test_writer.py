"""The writer: the store when it answers, the spill file when it does not, and back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from router_ml.errors import StoreError
from router_ml.schema import Feedback, Interaction
from router_ml.store.sql import SqlStore, open_sql_store
from router_ml_serving.spill import Spill
from router_ml_serving.writer import Amendment, Writer, Written

T0 = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with open_sql_store(f"sqlite:///{tmp_path}/events.db?timeout=0.05") as opened:
        yield opened


def writer_of(store: SqlStore, tmp_path: Path, now: list[float], *, chunk: int = 10) -> Writer:
    return Writer(store, Spill(tmp_path / "spill.jsonl"), chunk=chunk, retry_s=5.0, clock=lambda: now[0])


def items(*ids: str) -> list[Interaction]:
    return [Interaction(id=id_, ts=T0) for id_ in ids]


def test_a_store_that_failed_is_left_alone_until_the_retry_time(store: SqlStore, tmp_path: Path) -> None:
    now = [0.0]
    writer = writer_of(store, tmp_path, now)
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert writer.write(items("a")) == Written(spilled=1)
    assert writer.write(items("b")) == Written(spilled=1)
    assert writer.recover() == Written()
    now[0] = 5.0
    assert writer.write(items("c")) == Written(recorded=1)
    assert writer.recover() == Written(recovered=2, more=True)
    assert writer.recover() == Written()
    assert [found.id for found in store.scan()] == ["a", "b", "c"]


def test_a_recovery_that_breaks_off_goes_on_where_it_was(store: SqlStore, tmp_path: Path) -> None:
    now = [0.0]
    writer = writer_of(store, tmp_path, now, chunk=2)
    writer.spill_batch(items("a", "b", "c"))
    assert writer.recover() == Written(recovered=2, more=True)
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert writer.recover() == Written()
    now[0] = 5.0
    assert writer.recover() == Written(recovered=1, more=True)
    assert store.count() == 3


def test_a_part_that_another_process_recovered_is_skipped(store: SqlStore, tmp_path: Path) -> None:
    writer = writer_of(store, tmp_path, [0.0], chunk=1)
    writer.spill_batch(items("a", "b"))
    assert writer.recover() == Written(recovered=1, more=True)
    [part] = tmp_path.glob("spill.jsonl.part-*")
    part.unlink()
    writer.spill_batch(items("c"))
    assert writer.recover() == Written(more=True)
    assert writer.recover() == Written(recovered=1, more=True)
    assert [found.id for found in store.scan()] == ["a", "c"]


def test_feedback_that_nobody_takes_is_an_error(store: SqlStore, tmp_path: Path) -> None:
    writer = Writer(store, Spill(tmp_path / "absent" / "spill.jsonl"), chunk=1, retry_s=5.0, clock=lambda: 0.0)
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="neither the event store nor the spill file"):
            writer.amend("a", Feedback(ts=T0, source="user", key="k"))


def test_feedback_in_a_batch_that_nobody_takes_is_counted_as_lost(store: SqlStore, tmp_path: Path) -> None:
    writer = Writer(store, Spill(tmp_path / "absent" / "spill.jsonl"), chunk=1, retry_s=5.0, clock=lambda: 0.0)
    told: list[bool] = []
    one = Amendment("a", Feedback(ts=T0, source="retry", key="retry"), told.append)
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert writer.write([one]) == writer.spill_batch([one]) == Written(failed=1)
    assert told == []
