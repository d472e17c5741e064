"""The tables of the SQL store as numbered steps, each applied once; the number reached is kept in `meta`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, inspect, text

from router_ml.errors import StoreError
from router_ml.store.partitions import partition_interactions

__all__ = ["MIGRATIONS", "Migration", "migrate", "refuse_newer", "schema_version"]

Migration = Callable[[Connection], None]

# Bytewise order on every database: PostgreSQL would sort ids by the server's locale.
_TEXT = {"sqlite": "TEXT", "postgresql": 'TEXT COLLATE "C"'}
_SERIAL = {
    "sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "postgresql": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
}
# Any constant does, as long as all releases use the same one.
_ADVISORY_LOCK = 7_316_050_943
# While a step waits for a table that somebody reads for long, everybody else waits behind it.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '10s'"


def _m001_tables(connection: Connection) -> None:
    column, serial = _TEXT[connection.dialect.name], _SERIAL[connection.dialect.name]
    connection.exec_driver_sql(
        f"CREATE TABLE interactions (id {column} PRIMARY KEY, ts {column} NOT NULL, mode {column} NOT NULL, "
        f"policy_version {column}, body TEXT NOT NULL)"
    )
    connection.exec_driver_sql(
        f"CREATE TABLE feedback (id {serial}, decision_id {column} NOT NULL, key {column} NOT NULL, "
        f"ts {column} NOT NULL, body TEXT NOT NULL, UNIQUE (decision_id, key))"
    )


def _m002_index_by_time(connection: Connection) -> None:
    connection.exec_driver_sql("CREATE INDEX interactions_by_time ON interactions (ts, id)")


def _m003_deletion(connection: Connection) -> None:
    column = _TEXT[connection.dialect.name]
    # NULL: not looked at yet. Filling in old rows here would keep every writer waiting; whoever asks does it, in pages.
    connection.exec_driver_sql(f"ALTER TABLE interactions ADD COLUMN tenant {column}")
    connection.exec_driver_sql("CREATE INDEX interactions_by_tenant ON interactions (tenant)")
    connection.exec_driver_sql("CREATE INDEX feedback_by_time ON feedback (ts)")
    connection.exec_driver_sql(
        f"CREATE TABLE deletions (mark {column} PRIMARY KEY, until {column} NOT NULL, made {column} NOT NULL)"
    )


def _m004_partitions(connection: Connection) -> None:
    # A SQLite file is one machine's log; deleting from it by pages is all it needs.
    if connection.dialect.name == "postgresql":
        partition_interactions(connection)


# Append only: a released step is never changed, so that every old file can be brought up to date.
MIGRATIONS: tuple[Migration, ...] = (_m001_tables, _m002_index_by_time, _m003_deletion, _m004_partitions)


def schema_version(connection: Connection) -> int:
    """Return how many migrations the database has seen; 0 for an empty one."""
    if not inspect(connection).has_table("meta"):
        return 0
    found = connection.execute(text("SELECT value FROM meta WHERE key = 'schema_version'")).scalar_one_or_none()
    return int(found or 0)


def migrate(connection: Connection, migrations: Sequence[Migration]) -> None:
    """Apply the missing migrations within the transaction of this connection, which must hold the write lock.

    Args:
        connection: In a transaction; all steps are committed together, or none.
        migrations: The steps, in order.

    Raises:
        StoreError: When the database has seen more steps than there are.
    """
    if connection.dialect.name == "postgresql":
        # Two services may start at once; DDL alone does not make the second wait.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
        connection.exec_driver_sql(_LOCK_TIMEOUT)
    version = schema_version(connection)
    refuse_newer(version, len(migrations))
    for step in migrations[version:]:
        step(connection)
    column = _TEXT[connection.dialect.name]
    connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS meta (key {column} PRIMARY KEY, value {column} NOT NULL)")
    connection.execute(
        text(
            "INSERT INTO meta (key, value) VALUES ('schema_version', :version) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        ),
        {"version": str(len(migrations))},
    )


def refuse_newer(version: int, known: int) -> None:
    """Raise StoreError when a database has seen more migrations than this release knows."""
    if version > known:
        raise StoreError(
            f"a newer release wrote it (schema {version}, this release knows up to {known}); "
            "upgrade router-ml, or set [store] url to another database"
        )
