"""Days of interactions as partitions, in PostgreSQL: made ahead, read one by one, dropped whole.

What has no partition of its own is in the default one, so that nothing is refused for its time. Bounds are the
beginnings of stamps ("2026-11-22"), which sort before every stamp of their day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection, text

from router_ml.store.rows import StoreRow, to_utc

__all__ = [
    "Days",
    "Partition",
    "drop_partition",
    "make_partitions",
    "partition_interactions",
    "partitions_of",
    "unmade",
    "windows",
]

# Days that get their partitions before anything is written to them, today included.
AHEAD = 4
# Rows of days further back are old files or wrong clocks; they share the default partition.
BACK = timedelta(days=400)
# While DDL waits for its lock, everybody else waits behind it: rather not now than long.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"
# Any constant does, as long as all releases use the same one.
_DROP_LOCK = 7_316_050_945
_RETRY = timedelta(minutes=1)
# Whoever reads a day for long goes on for a while, and every try makes everybody wait for the two seconds.
_RETRY_DROP = timedelta(minutes=10)
_BOUNDS = re.compile(r"FROM \((?:MINVALUE|'([^']*)')\) TO \('([^']*)'\)")
_LIST = (
    "SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class "
    "WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'interactions'::regclass)"
)
_TEXT = 'TEXT COLLATE "C"'
_UNDIVIDED = "interactions_undivided"
_DIVIDE = (
    f"ALTER TABLE interactions RENAME TO {_UNDIVIDED}",
    f"ALTER INDEX interactions_by_time RENAME TO {_UNDIVIDED}_by_time",
    f"ALTER INDEX interactions_by_tenant RENAME TO {_UNDIVIDED}_by_tenant",
    f"CREATE TABLE interaction_ids (id {_TEXT} NOT NULL, ts {_TEXT} NOT NULL)",
    f"INSERT INTO interaction_ids (id, ts) SELECT id, ts FROM {_UNDIVIDED}",  # noqa: S608
    "ALTER TABLE interaction_ids ADD PRIMARY KEY (id)",
    # Ids come in the order of their time: a few bytes for every hundred pages find a day.
    "CREATE INDEX interaction_ids_by_time ON interaction_ids USING brin (ts)",
    f"ALTER TABLE {_UNDIVIDED} DROP CONSTRAINT interactions_pkey",
    f"CREATE TABLE interactions (id {_TEXT} NOT NULL, ts {_TEXT} NOT NULL, mode {_TEXT} NOT NULL, "
    f"policy_version {_TEXT}, body TEXT NOT NULL, tenant {_TEXT}) PARTITION BY RANGE (ts)",
    "CREATE INDEX interactions_by_time ON interactions (ts, id)",
    "CREATE INDEX interactions_by_tenant ON interactions (tenant)",
    "CREATE TABLE interactions_default PARTITION OF interactions DEFAULT",
)


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition but the default: its table, and the stamps from `start` to before `end`; "" begins all."""

    name: str
    start: str
    end: str


@dataclass(slots=True)
class Days:
    """What one writer knows of the days that need no new partition, and of when to try again what was refused."""

    _settled: set[str] = field(default_factory=set)
    _retry_at: datetime | None = None
    _retry_drop_at: datetime | None = None

    def missing(self, rows: Iterable[StoreRow], now: datetime) -> Sequence[str]:
        """Return the days that need a partition before these rows are stored; usually none.

        Args:
            rows: A batch.
            now: The time of day.
        """
        today = to_utc(now).date()
        needed = {row.ts[:10] for row in rows}
        needed.add((today + timedelta(days=1)).isoformat())
        if needed <= self._settled or (self._retry_at is not None and now < self._retry_at):
            return ()
        first, last = (today - BACK).isoformat(), (today + timedelta(days=AHEAD)).isoformat()
        days = {day for day in needed - self._settled if first <= day < last}
        days |= {(today + timedelta(days=n)).isoformat() for n in range(AHEAD)}
        self._settled |= needed | days
        return sorted(days)

    def put_off(self, days: Iterable[str], now: datetime) -> None:
        """Note that these days could not get their partitions: they are asked for again in a minute."""
        self._settled -= set(days)
        self._retry_at = now + _RETRY

    def may_drop(self, now: datetime) -> bool:
        """Return whether a day may be dropped, or was refused just now."""
        return self._retry_drop_at is None or now >= self._retry_drop_at

    def put_off_drop(self, now: datetime) -> None:
        """Note that somebody reads a day that should be dropped: it is tried again in ten minutes."""
        self._retry_drop_at = now + _RETRY_DROP


def partitions_of(connection: Connection) -> list[Partition]:
    """Return the partitions but the default, oldest first."""
    found = []
    for name, bounds in connection.exec_driver_sql(_LIST):
        # None: dropped just now.
        match = _BOUNDS.search(bounds or "")
        if match is not None:
            found.append(Partition(name, match[1] or "", match[2]))
    return sorted(found, key=lambda one: one.end)


def unmade(connection: Connection, days: Iterable[str]) -> list[str]:
    """Return those of these days, as `2026-11-22`, that have no partition."""
    there = partitions_of(connection)
    return [day for day in days if not any(one.start <= day < one.end for one in there)]


def make_partitions(connection: Connection, days: Iterable[str]) -> None:
    """Make the partitions of these days that are not there yet.

    Args:
        connection: In a transaction in which nobody else writes: rows of these days in the default partition are moved.
        days: As `2026-11-22`.
    """
    missing = unmade(connection, days)
    if not missing:
        return
    connection.exec_driver_sql(_LOCK_TIMEOUT)
    for day in missing:
        name, end = f"interactions_{day.replace('-', '_')}", _next_day(day)
        connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE interactions)")
        _move(connection, "interactions_default", name, f"ts >= '{day}' AND ts < '{end}'")
        # Not CREATE ... PARTITION OF, which keeps readers of all days waiting.
        connection.exec_driver_sql(
            f"ALTER TABLE interactions ATTACH PARTITION {name} FOR VALUES FROM ('{day}') TO ('{end}')"
        )


def drop_partition(connection: Connection, partition: Partition) -> int:
    """Delete all interactions of a partition with their feedback, and return how many it was; 0 if it is gone.

    Args:
        connection: In a transaction. Nothing is written to the partition any more.
        partition: Which.
    """
    # Every service has its retention, and may be at it.
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_DROP_LOCK})")
    if partition not in partitions_of(connection):
        return 0
    connection.exec_driver_sql(_LOCK_TIMEOUT)
    connection.exec_driver_sql(
        f"DELETE FROM feedback USING {partition.name} AS gone WHERE feedback.decision_id = gone.id"  # noqa: S608
    )
    bounds = {"start": partition.start, "end": partition.end}
    ids = connection.execute(text("DELETE FROM interaction_ids WHERE ts >= :start AND ts < :end"), bounds)
    # Last: from here to the commit nobody reads.
    connection.exec_driver_sql(f"DROP TABLE {partition.name}")
    return ids.rowcount


def windows(connection: Connection, since: str) -> list[tuple[str, str | None]]:
    """Return spans of time from `since` on, in order, each of which is in one partition; None: without end.

    A scan by time that may meet the default partition would merge all of them for every page.
    """
    if connection.dialect.name != "postgresql":
        return [(since, None)]
    edges = {edge for one in partitions_of(connection) for edge in (one.start, one.end) if edge > since}
    starts = [since, *sorted(edges)]
    return list(zip(starts, [*starts[1:], None], strict=True))


def partition_interactions(connection: Connection) -> None:
    """Turn the one table of older releases into partitions, of which it is the first, up to the end of today.

    No body is moved or read. What is copied is one short row for each id.
    """
    for statement in _DIVIDE:
        connection.exec_driver_sql(statement)
    if not connection.execute(text(f"SELECT EXISTS (SELECT FROM {_UNDIVIDED})")).scalar_one():  # noqa: S608
        connection.exec_driver_sql(f"DROP TABLE {_UNDIVIDED}")
        return
    now = connection.execute(text("SELECT now()")).scalar_one()
    end = _next_day(now.astimezone(UTC).date().isoformat())
    # What a wrong clock dated ahead.
    _move(connection, _UNDIVIDED, "interactions_default", f"ts >= '{end}'")
    connection.exec_driver_sql(
        f"ALTER TABLE interactions ATTACH PARTITION {_UNDIVIDED} FOR VALUES FROM (MINVALUE) TO ('{end}')"
    )


def _move(connection: Connection, from_: str, to: str, which: str) -> None:
    columns = ", ".join(StoreRow._fields)
    connection.exec_driver_sql(
        f"WITH moved AS (DELETE FROM {from_} WHERE {which} RETURNING {columns}) "  # noqa: S608
        f"INSERT INTO {to} ({columns}) SELECT {columns} FROM moved"
    )


def _next_day(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()
