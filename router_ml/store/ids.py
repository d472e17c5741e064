"""In PostgreSQL, every id once in a table of its own, with the time that says in which partition its interaction is.

A unique index of a partitioned table has to hold the partition's column: it would let the same id in twice, with two
times. The table of ids is not partitioned, and knows; all that is looked for by id goes through it: decision 0030.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, false, select, tuple_

from router_ml.store.rows import StoreRow
from router_ml.store.tables import IDS, INTERACTIONS

__all__ = ["append_new", "where_ids"]

_COLUMNS = ", ".join(StoreRow._fields)
# One statement and one round trip for a whole batch. A row goes in if its id did.
_APPEND = f"""
WITH given AS (SELECT * FROM unnest({{arrays}}) AS given ({_COLUMNS})),
new AS (INSERT INTO interaction_ids (id, ts) SELECT id, ts FROM given ON CONFLICT (id) DO NOTHING RETURNING id)
INSERT INTO interactions ({_COLUMNS})
SELECT {", ".join(f"given.{name}" for name in StoreRow._fields)}
FROM given JOIN new ON new.id = given.id COLLATE "C"
"""  # noqa: S608


def _append(placeholder: str) -> str:
    return _APPEND.format(arrays=", ".join(f"{placeholder}::text[]" for _ in StoreRow._fields))


# Binary where the driver can: writing JSON as an array's text, each quote escaped, took three times as long.
_BY_DRIVER = {"psycopg": _append("%b")}
_BY_TEXT = _append("%s")


def append_new(connection: Connection, rows: Sequence[StoreRow]) -> None:
    """Store the rows whose ids are not there yet, in PostgreSQL; of those with the same id the first.

    Args:
        connection: In a transaction.
        rows: One batch; all are sent at once.
    """
    first = {row.id: row for row in reversed(rows)}
    # In order: of two batches with the same ids one then waits for the other, and never each for the other.
    batch = [first[id_] for id_ in sorted(first)]
    statement = _BY_DRIVER.get(connection.dialect.driver, _BY_TEXT)
    connection.exec_driver_sql(statement, tuple(map(list, zip(*batch, strict=True))))


def where_ids(connection: Connection, ids: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that an interaction has one of these ids.

    In PostgreSQL it names their times as well, so that only the partitions are opened which hold one.
    """
    if connection.dialect.name != "postgresql":
        return INTERACTIONS.c.id.in_(ids)
    keys = connection.execute(select(IDS.c.ts, IDS.c.id).where(IDS.c.id.in_(ids))).all()
    if not keys:
        return false()
    return tuple_(INTERACTIONS.c.ts, INTERACTIONS.c.id).in_([(ts, id_) for ts, id_ in keys])
