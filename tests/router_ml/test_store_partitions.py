"""PostgreSQL's partitions by day: made ahead, read one at a time, dropped whole; and nothing is lost for its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from router_ml.errors import StoreError
from router_ml.schema import Feedback, Interaction
from router_ml.store import migrations, open_store, partitions, row_of, sql
from router_ml.store.engine import connect, parse_url
from router_ml.store.migrations import MIGRATIONS, migrate
from router_ml.store.partitions import Days, partitions_of, windows
from router_ml.store.sql import SqlStore

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
DAY = timedelta(days=1)
Open = Callable[..., SqlStore]


def interaction(id_: str, *, days: float = 0.0, **fields: Any) -> Interaction:
    return Interaction(id=id_, ts=NOW + days * DAY, **fields)


def thumb(*, days: float = 0.0) -> Feedback:
    return Feedback(ts=NOW + days * DAY, source="user", adequate=True, key="k")


def ids(store: SqlStore) -> list[str]:
    return [found.id for found in store.scan()]


def days_of(store: SqlStore) -> list[str]:
    with store._engine.connect() as connection:
        return [one.start for one in partitions_of(connection)]


def whereabouts(store: SqlStore) -> dict[str, str]:
    with store._engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT id, tableoid::regclass::text FROM interactions").all()
    return {row[0]: row[1].removeprefix("interactions_") for row in found}


@pytest.fixture
def url(postgres: Any) -> str:
    return str(postgres.database())


@pytest.fixture
def open_at(url: str) -> Iterator[Open]:
    """Open the store at a time of day."""
    opened: list[SqlStore] = []

    def open_at(now: datetime = NOW) -> SqlStore:
        opened.append(SqlStore(connect(parse_url(url)), url, clock=lambda: now))
        opened[-1].upgrade()
        return opened[-1]

    yield open_at
    for store in opened:
        store.close()


def test_a_writer_asks_for_the_days_of_its_rows_and_for_those_to_come_once() -> None:
    days = Days()
    assert days.missing((), NOW) == ["2026-11-22", "2026-11-23", "2026-11-24", "2026-11-25"]
    assert days.missing([row_of(interaction("a"))], NOW) == ()
    assert days.missing([row_of(interaction("a", days=-30))], NOW)[0] == "2026-10-23"
    assert days.missing([row_of(interaction("a", days=-30))], NOW + DAY) == ()
    assert days.missing((), NOW + 3 * DAY)[-1] == "2026-11-28"
    # What a wrong clock says makes no tables.
    odd = [row_of(interaction("a", days=-9_000)), row_of(interaction("b", days=9_000))]
    assert not [day for day in days.missing(odd, NOW) if not day.startswith("2026-11")]


def test_days_that_were_put_off_are_asked_for_a_minute_later() -> None:
    days = Days()
    days.put_off(days.missing((), NOW), NOW)
    assert days.missing((), NOW) == ()
    assert len(days.missing((), NOW + timedelta(minutes=2))) == 4


def test_partitions_are_made_ahead_and_each_row_is_in_that_of_its_day(open_at: Open) -> None:
    store = open_at()
    assert days_of(store) == ["2026-11-22", "2026-11-23", "2026-11-24", "2026-11-25"]
    store.append([interaction("today"), interaction("tomorrow", days=1), interaction("before", days=-7)])
    assert whereabouts(store) == {"today": "2026_11_22", "tomorrow": "2026_11_23", "before": "2026_11_15"}
    assert open_at(NOW + 2 * DAY) is not store
    assert days_of(store)[-1] == "2026-11-27"


def test_the_last_moment_of_a_day_and_the_first_of_the_next_are_told_apart(open_at: Open) -> None:
    store, midnight = open_at(), datetime(2026, 11, 23, tzinfo=UTC)
    last, first = midnight - timedelta(microseconds=1), midnight
    store.append([Interaction(id="last", ts=last), Interaction(id="first", ts=first)])
    assert whereabouts(store) == {"last": "2026_11_22", "first": "2026_11_23"}
    assert [found.id for found in store.scan(midnight)] == ["first"]


def test_odd_times_are_kept_in_the_default_partition(open_at: Open) -> None:
    store = open_at()
    odd = {"first": datetime(1, 1, 1, tzinfo=UTC), "last": datetime(9999, 12, 31, 23, tzinfo=UTC)}
    store.append([interaction("now"), *(Interaction(id=id_, ts=ts) for id_, ts in odd.items())])
    assert whereabouts(store) == {"now": "2026_11_22", "first": "default", "last": "default"}
    assert ids(store) == ["first", "now", "last"]
    assert store.deciding("last") is not None
    assert store.delete(ids=["last"]) == 1
    assert store.delete(before=NOW - DAY) == 1
    assert ids(store) == ["now"]


def test_what_waits_in_the_default_partition_moves_when_its_day_comes(open_at: Open) -> None:
    store = open_at()
    store.append([interaction("ahead", days=10), interaction("far", days=99)])
    assert set(whereabouts(store).values()) == {"default"}
    later = open_at(NOW + 9 * DAY)
    assert whereabouts(later) == {"ahead": "2026_12_02", "far": "default"}
    assert ids(later) == ["ahead", "far"]


def test_a_day_that_cannot_get_its_partition_now_is_stored_all_the_same(
    open_at: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(partitions, "_LOCK_TIMEOUT", "SET LOCAL lock_timeout = '50ms'")
    store = open_at()
    with store._engine.connect() as backup:
        backup.exec_driver_sql("LOCK TABLE interactions_default IN ACCESS SHARE MODE")
        store.append([interaction("a", days=-30)])
        assert whereabouts(store) == {"a": "default"}
    assert [record.getMessage() for record in caplog.records] == ["partitions_not_made"]
    store._clock = lambda: NOW + timedelta(minutes=2)
    store.append([interaction("b", days=-30)])
    assert whereabouts(store) == {"a": "2026_10_23", "b": "2026_10_23"}


def test_a_pool_without_a_connection_puts_off_the_days_it_could_not_make(
    open_at: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_at()

    def exhausted(*_: object) -> None:
        raise PoolTimeoutError("no connection")

    with monkeypatch.context() as patch:
        patch.setattr(sql, "make_partitions", exhausted)
        with pytest.raises(StoreError):
            store.append([interaction("a", days=-30)])
    store._clock = lambda: NOW + timedelta(minutes=2)
    store.append([interaction("a", days=-30)])
    assert whereabouts(store) == {"a": "2026_10_23"}


def test_retention_drops_days_with_their_feedback_and_deletes_the_rest(open_at: Open) -> None:
    store = open_at()
    for n in range(4):
        store.append([interaction(f"i{n}", days=-n), interaction(f"i{n}-audit", days=-n, mode="audit")])
        store.amend(f"i{n}", thumb())  # younger than what it is about
    store.amend("never-stored", thumb(days=-3))
    assert store.delete(before=NOW - DAY) == 4
    assert ids(store) == ["i1", "i1-audit", "i0", "i0-audit"]
    assert days_of(store)[0] == "2026-11-21"
    assert store.info().feedback == 2
    # i1's day had gone on for ten hours; its first half is deleted, and its second stays.
    store.append([interaction("early", days=-1.2), interaction("i3", days=-3)])
    assert "early" not in ids(store)
    assert "i3" not in ids(store)
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM interaction_ids").scalar_one() == 4


def test_retention_waits_until_a_day_is_old_as_a_whole(open_at: Open) -> None:
    store = open_at()
    store.append([interaction(f"i{hours:02d}", days=hours / 24) for hours in (-34, -33, -11, -9)])
    midnight = datetime(2026, 11, 22, tzinfo=UTC)
    assert [store.expire(midnight - timedelta(minutes=n), limit=200) for n in (120, 1)] == [0, 0]
    assert store.count() == 4
    assert store.expire(midnight + timedelta(hours=5), limit=200) == 3
    assert ids(store) == ["i-9"]


def test_a_limit_stops_at_the_first_day_that_reaches_it(open_at: Open) -> None:
    store = open_at()
    store.append([interaction(f"i{n:02d}", days=-1 - n // 5) for n in range(20)])
    assert [store.delete(before=NOW, limit=7) for _ in range(4)] == [10, 10, 0, 0]


def test_a_day_that_somebody_reads_is_deleted_by_rows(
    open_at: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(partitions, "_LOCK_TIMEOUT", "SET LOCAL lock_timeout = '50ms'")
    store = open_at()
    store.append([interaction("old", days=-2), interaction("new")])
    with store._engine.connect() as backup:
        backup.exec_driver_sql("SELECT count(*) FROM interactions")
        assert store.delete(before=NOW - DAY) == 1
    assert [record.getMessage() for record in caplog.records] == ["partition_not_dropped"]
    assert ids(store) == ["new"]
    store._clock = lambda: NOW + timedelta(minutes=11)
    assert store.delete(before=NOW - DAY) == 0
    assert days_of(store)[0] == "2026-11-22"


def test_a_day_that_somebody_reads_is_not_asked_for_with_every_page(
    open_at: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each try keeps all readers and writers waiting: a purge by pages must not make one after the other."""
    monkeypatch.setattr(partitions, "_LOCK_TIMEOUT", "SET LOCAL lock_timeout = '50ms'")
    store = open_at()
    store.append([interaction(f"i{n}", days=-3 + n // 5) for n in range(10)])
    with store._engine.connect() as backup:
        backup.exec_driver_sql("SELECT count(*) FROM interactions")
        assert [store.expire(NOW, limit=4) for _ in range(4)] == [4, 4, 2, 0]
    assert [record.getMessage() for record in caplog.records] == ["partition_not_dropped"]


def test_who_only_reads_neither_waits_for_writers_nor_makes_partitions(
    open_at: Open, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    writer = open_at()
    writer.append([interaction("a")])
    patient = f"{url}{'&' if '?' in url else '?'}options=-clock_timeout%3D200ms"
    with writer._writing(), SqlStore(connect(parse_url(patient)), url, clock=lambda: NOW) as reader:
        reader.upgrade()
        assert reader.count() == 1
    with writer._writer.begin() as connection:
        for day in partitions_of(connection)[1:]:
            connection.exec_driver_sql(f"DROP TABLE {day.name}")
    read_only = f"{url}{'&' if '?' in url else '?'}options=-cdefault_transaction_read_only%3Don"
    with SqlStore(connect(parse_url(read_only)), url, clock=lambda: NOW) as reader:
        reader.upgrade()
        assert ids(reader) == ["a"]
    assert [record.getMessage() for record in caplog.records] == ["partitions_not_made"]


def test_replicas_that_drop_the_same_days_at_once_count_each_row_once(open_at: Open) -> None:
    stores = [open_at() for _ in range(3)]
    stores[0].append([interaction(f"i{n:03d}", days=-1 - n // 10) for n in range(100)])
    with ThreadPoolExecutor(3) as pool:
        deleted = list(pool.map(lambda store: store.delete(before=NOW), stores))
    assert sum(deleted) == 100
    assert stores[0].count() == 0


def test_the_table_of_an_older_release_becomes_the_first_partition(url: str, open_at: Open) -> None:
    engine = create_engine(url)
    items = [interaction("old", days=-700), interaction("newer", days=-1), interaction("ahead", days=40_000)]
    with engine.begin() as connection:
        migrate(connection, MIGRATIONS[:3])
        statement = "INSERT INTO interactions VALUES (%s, %s, %s, %s, %s, %s)"
        rows = [(row.id, row.ts, row.mode, None, row.body, row.tenant) for row in map(row_of, items)]
        connection.exec_driver_sql(statement, rows)
        sql = "INSERT INTO feedback (decision_id, key, ts, body) VALUES ('newer', 'k', %s, %s)"
        connection.exec_driver_sql(sql, (rows[0][1], thumb().model_dump_json()))
    engine.dispose()
    # The first partition ends with the day of the server's clock.
    now = datetime.now(UTC)
    store = open_at(now)
    assert whereabouts(store) == {"old": "undivided", "newer": "undivided", "ahead": "default"}
    store.append([*items, Interaction(id="now", ts=now), Interaction(id="soon", ts=now + 2 * DAY)])
    assert ids(store) == ["old", "newer", "now", "soon", "ahead"]
    assert [len(found.feedback) for found in store.scan()] == [0, 1, 0, 0, 0]
    assert whereabouts(store)["soon"] == (now + 2 * DAY).strftime("%Y_%m_%d")
    assert store.delete(ids=["old"]) == 1
    assert store.delete(before=now + 1.5 * DAY) == 2
    assert set(whereabouts(store)) == {"soon", "ahead"}
    assert days_of(store)[0] != ""


def test_an_upgrade_does_not_keep_everybody_waiting_for_a_backup(
    url: str, open_at: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_LOCK_TIMEOUT", "SET LOCAL lock_timeout = '50ms'")
    engine = create_engine(url)
    with engine.begin() as connection:
        migrate(connection, MIGRATIONS[:3])
    with engine.connect() as backup:
        backup.exec_driver_sql("SELECT count(*) FROM interactions")
        with pytest.raises(StoreError, match="such as a backup; try again"):
            open_at()
    engine.dispose()
    assert open_at().info().schema == len(MIGRATIONS)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.floats(-450.0, 10.0), min_size=1, max_size=30), st.floats(-450.0, 10.0))
def test_a_scan_goes_by_time_whatever_partition_a_row_is_in(postgres: Any, times: list[float], since: float) -> None:
    with open_store(shared_url(postgres)) as store:
        store.delete(before=NOW + 999 * DAY)
        assert isinstance(store, SqlStore)
        with store._writer.begin() as connection:
            connection.exec_driver_sql("DELETE FROM deletions")
        items = [interaction(f"i{n:02d}", days=days) for n, days in enumerate(times)]
        store.append(items)
        assert ids(store) == [one.id for one in sorted(items, key=lambda one: (one.ts, one.id))]
        limit = NOW + since * DAY
        assert {one.id for one in store.scan(limit)} == {one.id for one in items if one.ts >= limit}


def shared_url(postgres: Any) -> str:
    """Return one database for all examples: making one takes longer than using it."""
    if not hasattr(postgres, "scanned"):
        postgres.scanned = postgres.database()
    return str(postgres.scanned)


def test_spans_of_a_scan_meet_and_each_is_in_one_partition(open_at: Open) -> None:
    store = open_at()
    store.append([interaction("a", days=-9)])
    with store._engine.connect() as connection:
        found = windows(connection, "2026-11-13T07")
        assert [end for _, end in found[:-1]] == [start for start, _ in found[1:]]
        assert found[0] == ("2026-11-13T07", "2026-11-14")
        assert found[1] == ("2026-11-14", "2026-11-22")  # the default partition alone
        assert found[-1] == ("2026-11-26", None)
        assert max(len(_read_by(connection, start, end)) for start, end in found) == 1


def _read_by(connection: Connection, start: str, end: str | None) -> set[str]:
    where = f"ts >= '{start}'" + (f" AND ts < '{end}'" if end else "")
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) SELECT FROM interactions WHERE {where}").scalar_one()
    return {node["Relation Name"] for node in nodes(plan[0]["Plan"]) if "Relation Name" in node}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's node and all below it."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)
