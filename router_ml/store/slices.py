"""A store cut into slices by day and size, each with a fingerprint: who keeps what it read knows what to read again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import TextClause, select, text, tuple_
from sqlalchemy.engine import Connection

from router_ml.store.partitions import windows
from router_ml.store.rows import Bounds, Place, StoredRow, StoreSlice
from router_ml.store.tables import INTERACTIONS

__all__ = ["cuts_of", "page_of", "slices_of"]

# What `rows.stamp` writes, always: a stamp and an id can be taken apart again.
_STAMP = len("2026-01-01T00:00:00.000000+00:00")
_DAY = len("2026-01-01")
# Ids in any fixed order: the same rows give the same text, and other rows another one.
_IDS = {
    "sqlite": "group_concat(id, char(31))",
    "postgresql": "md5(string_agg(id, chr(31) ORDER BY ts, id))",
}
_DAYS = "SELECT substr(ts, 1, 10) AS day, count(*) AS n FROM interactions GROUP BY 1 ORDER BY 1"
# One slice at a time by the index; numbering all rows of a day took three times as long.
_CUT = (
    "SELECT count(*) AS n, min(ts || id) AS first, max(ts || id) AS last, {ids} AS ids FROM (SELECT ts, id "
    "FROM interactions WHERE ts >= :ts AND ts < :end AND (ts, id) > (:ts, :id) ORDER BY ts, id LIMIT :size) AS next"
)
_WITHIN = (
    "SELECT count(*) AS n, min(ts || id) AS first, max(ts || id) AS last, {ids} AS ids FROM (SELECT ts, id "
    "FROM interactions WHERE ts >= :ts_0 AND ts <= :ts_1 AND (ts, id) >= (:ts_0, :id_0) "
    "AND (ts, id) <= (:ts_1, :id_1) ORDER BY ts, id) AS within"
)
# What is skipped is counted in the index, and no row is looked at.
_EDGE = (
    "SELECT ts, id FROM interactions WHERE ts >= :ts AND ts < :end AND (ts, id) > (:ts, :id) "
    "ORDER BY ts {order}, id {order} LIMIT 1 OFFSET :skip"
)
# After every stamp.
_END = "~"
# The times say which partitions of PostgreSQL are opened; comparing pairs does not.
_BETWEEN = "i.ts >= :ts_0 AND i.ts <= :ts_1 AND (i.ts, i.id) >= (:ts_0, :id_0) AND (i.ts, i.id) <= (:ts_1, :id_1)"
# Numbers of feedback are given once and rise: a set of them is told by how many they are and what they add up to.
_JUDGED = (
    "SELECT count(f.id) AS n, coalesce(sum(f.id), 0) AS total FROM interactions AS i "  # noqa: S608
    f"JOIN feedback AS f ON f.decision_id = i.id WHERE {_BETWEEN}"
)
_WORDS_ON = (
    "SELECT f.decision_id, f.body FROM interactions AS i JOIN feedback AS f ON f.decision_id = i.id "  # noqa: S608
    f"WHERE {_BETWEEN} ORDER BY f.ts, f.id"
)


def slices_of(connection: Connection, size: int, bounds: Bounds | None = None) -> Iterator[StoreSlice]:
    """Cut a store into slices, oldest first.

    What is appended to a day leaves its earlier slices as they are, unless it is dated before them.

    Args:
        connection: In a transaction.
        size: Interactions per slice, at most.
        bounds: Of one slice: what is within them now, whatever its size; None for the whole store.
    """
    dialect = connection.dialect.name
    if bounds is not None:
        row = connection.execute(text(_WITHIN.format(ids=_IDS[dialect])), _named(bounds)).one()
        if row.n:
            yield _slice(bounds[0][0][:_DAY], 0, row, _judged(connection, bounds))
        return
    has_feedback = connection.execute(text("SELECT 1 FROM feedback LIMIT 1")).first() is not None
    cut = text(_CUT.format(ids=_IDS[dialect]))
    for day, _ in connection.execute(text(_DAYS)).all():
        # A stamp goes on with a T.
        after, end, number = (day, ""), f"{day}U", 0
        while (row := connection.execute(cut, {"size": size, "ts": after[0], "id": after[1], "end": end}).one()).n:
            found = _apart(row.first), _apart(row.last)
            said = _judged(connection, found) if has_feedback else (0, 0)
            yield _slice(day, number, row, said)
            if row.n < size:
                break
            after, number = found[1], number + 1


def cuts_of(connection: Connection, size: int, since: str) -> Iterator[Bounds]:
    """Cut a store into pieces, oldest first, and yield their bounds.

    Args:
        connection: In a transaction.
        size: Interactions per piece.
        since: Stamp of the oldest that are wanted; "" for all.
    """
    ahead, back = text(_EDGE.format(order="ASC")), text(_EDGE.format(order="DESC"))
    for start, end in windows(connection, since):
        after: Place = (start, "")
        until = end or _END
        while (first := _edge(connection, ahead, after, until, 0)) is not None:
            last = _edge(connection, ahead, after, until, size - 1)
            if last is None:  # what is appended meanwhile would make a piece of every few rows
                yield first, _edge(connection, back, after, until, 0) or first
                break
            yield first, last
            after = last


def page_of(
    connection: Connection, size: int, *, after: Place | None, first: Place | None, last: Place | None
) -> tuple[list[StoredRow], Place | None]:
    """Return the next rows by (ts, id), and where to go on; None at the end.

    Args:
        connection: In a transaction.
        size: Rows per page.
        after: The last row of the page before; None for the first page.
        first: The first row that is wanted; None for all.
        last: The last row that is wanted; None for all.
    """
    place = tuple_(INTERACTIONS.c.ts, INTERACTIONS.c.id)
    query = select(INTERACTIONS.c.ts, INTERACTIONS.c.id, INTERACTIONS.c.body)
    if after is not None:
        query = query.where(INTERACTIONS.c.ts >= after[0], place > after)
    elif first is not None:
        query = query.where(INTERACTIONS.c.ts >= first[0], place >= first)
    if last is not None:
        query = query.where(INTERACTIONS.c.ts <= last[0], place <= last)
    rows = connection.execute(query.order_by(INTERACTIONS.c.ts, INTERACTIONS.c.id).limit(size)).all()
    if not rows:
        return [], None
    words = _words_on(connection, rows)
    page = [StoredRow(id_, body, words.get(id_, ())) for _, id_, body in rows]
    return page, (rows[-1].ts, rows[-1].id) if len(rows) == size else None


def _edge(connection: Connection, query: TextClause, after: Place, end: str, skip: int) -> Place | None:
    row = connection.execute(query, {"ts": after[0], "id": after[1], "end": end, "skip": skip}).first()
    return None if row is None else (row.ts, row.id)


def _words_on(connection: Connection, rows: Sequence[Any]) -> dict[str, list[str]]:
    bounds = (rows[0].ts, rows[0].id), (rows[-1].ts, rows[-1].id)
    found: dict[str, list[str]] = {}
    for decision_id, body in connection.execute(text(_WORDS_ON), _named(bounds)):
        found.setdefault(decision_id, []).append(body)
    return found


def _slice(day: str, number: int, row: Any, said: tuple[int, int]) -> StoreSlice:
    marks = "\x1f".join((day, str(row.n), row.first, row.last, row.ids, *map(str, said)))
    fingerprint = hashlib.sha256(marks.encode("utf-8", "surrogatepass")).hexdigest()
    return StoreSlice(day, number, row.n, (_apart(row.first), _apart(row.last)), fingerprint)


def _judged(connection: Connection, bounds: Bounds) -> tuple[int, int]:
    row = connection.execute(text(_JUDGED), _named(bounds)).one()
    return int(row.n), int(row.total)


def _named(bounds: Bounds) -> dict[str, str]:
    return {
        f"{name}_{i}": value for i, edge in enumerate(bounds) for name, value in zip(("ts", "id"), edge, strict=True)
    }


def _apart(place: str) -> Place:
    return place[:_STAMP], place[_STAMP:]
