"""The recorder and deletion: what is old goes by itself, and nothing that was deleted comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from router_ml.schema import Feedback, Interaction
from router_ml.store import EventStore
from router_ml.store.sql import SqlStore, open_sql_store
from router_ml_serving.recorder import PURGE_EVERY_S, Recorder
from tests.serving.recorders import away, ids, run, until

T0 = datetime(2025, 11, 22, 10, tzinfo=UTC)
THUMB = Feedback(ts=T0, source="user", adequate=True, key="k")


def later() -> datetime:
    return T0 + timedelta(days=7)


def interaction(n: int) -> Interaction:
    return Interaction(id=f"i{n:06d}", ts=T0 + timedelta(seconds=n))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with open_sql_store(f"sqlite:///{tmp_path}/events.db?timeout=0.05") as opened:
        yield opened


def test_what_is_older_than_the_retention_is_deleted_page_by_page(store: EventStore, tmp_path: Path) -> None:
    now = [T0 + timedelta(seconds=900) - timedelta(hours=1)]
    passed = [0.0]
    store.append([interaction(n) for n in range(1_000)])
    store.amend("i000000", THUMB)

    async def body(recorder: Recorder) -> None:
        recorder.record(interaction(1_000))
        await asyncio.sleep(0.05)
        assert recorder.purged == 0
        now[0] += timedelta(seconds=3_700)
        passed[0] = 3_600.0
        await until(lambda: recorder.purged == 700)
        assert store.count() == 301
        # Not again before an hour has passed.
        now[0] += timedelta(seconds=100)
        await asyncio.sleep(0.05)
        assert recorder.purged == 700
        passed[0] = 7_200.0
        await until(lambda: recorder.purged == 800)
        recorder.record(interaction(1))  # too late: it is old already
        await recorder.flush()

    run(
        store,
        tmp_path / "spill.jsonl",
        body,
        flush_s=0.01,
        retention=timedelta(seconds=300),
        now=lambda: now[0],
        clock=lambda: passed[0],
    )
    assert ids(store) == [f"i{n:06d}" for n in range(800, 1_001)]


def test_a_store_that_is_away_is_purged_later(store: EventStore, tmp_path: Path) -> None:
    store.append([interaction(1)])
    passed = [0.0]

    async def body(recorder: Recorder) -> None:
        await asyncio.sleep(0.05)
        passed[0] = PURGE_EVERY_S
        with away(tmp_path):
            await asyncio.sleep(0.2)
            assert recorder.purged == 0
        await until(lambda: recorder.purged == 1)

    run(
        store,
        tmp_path / "spill.jsonl",
        body,
        flush_s=0.01,
        retry_s=0.05,
        retention=timedelta(days=1),
        now=lambda: later() + timedelta(seconds=passed[0]),
        clock=lambda: time.monotonic() + passed[0],
    )


def test_a_clock_that_is_wrong_at_the_start_deletes_nothing(store: EventStore, tmp_path: Path) -> None:
    store.append([interaction(n) for n in range(10)])
    now, passed = [T0 + timedelta(days=400)], [0.0]

    async def body(recorder: Recorder) -> None:
        await asyncio.sleep(0.1)
        now[0] = T0  # somebody has set it
        for hour in (1, 2):
            passed[0] = hour * PURGE_EVERY_S
            now[0] = T0 + timedelta(hours=hour)
            await asyncio.sleep(0.1)

    recorder = run(
        store,
        tmp_path / "spill.jsonl",
        body,
        flush_s=0.01,
        retention=timedelta(days=30),
        now=lambda: now[0],
        clock=lambda: passed[0],
    )
    assert recorder.purged == 0
    assert store.count() == 10


def test_what_was_deleted_while_it_waited_in_the_spill_file_is_not_stored(store: EventStore, tmp_path: Path) -> None:
    spill = tmp_path / "spill.jsonl"
    gone = interaction(1).model_copy(update={"tenant": "acme"})

    async def spills(recorder: Recorder) -> None:
        with away(tmp_path):
            for item in (gone, interaction(2), interaction(3)):
                recorder.record(item)
            await recorder.feedback("i000001", THUMB)
            await recorder.close()

    run(store, spill, spills)
    store.delete(tenant="acme")
    store.delete(ids=["i000002"])

    async def recovers(recorder: Recorder) -> None:
        await until(lambda: not list(tmp_path.glob("spill*")))

    run(store, spill, recovers, flush_s=0.01)
    assert ids(store) == ["i000003"]
    assert store.info().feedback == 0
