"""Deletes in pages, and keeps what was deleted from coming back with what arrives late.

A queue, a spill file or an upstream may still hold what is being deleted. A deletion therefore leaves marks: for an id,
for a tenant up to a time, for everything before a time. What a mark covers is not stored. Every function works within
one transaction of its caller, who sees to it that no other writer is between reading marks and committing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from sqlalchemy import Connection, case, delete, exists, select, update

from router_ml.store.ids import where_ids
from router_ml.store.rows import StoreRow, clean, stamp
from router_ml.store.tables import DELETIONS, FEEDBACK, IDS, INTERACTIONS, insert

__all__ = [
    "PAGE",
    "add_marks",
    "delete_ids",
    "delete_orphans",
    "delete_page",
    "fill_tenants",
    "is_deleted",
    "still_wanted",
]

# Interactions per transaction of a deletion: a few milliseconds, in which other writers wait.
PAGE = 200
# What arrives later than this after a deletion is stored again. Until then every deleted id takes a few dozen bytes.
KEEP_MARKS = timedelta(days=90)
# An interaction, and what ran beside it.
_BESIDE = ("", "-audit", "-shadow")
_BEFORE = "before"
# After every stamp.
_ALWAYS = "~"
# Most stores have no mark, or that of their retention: so many are read at once, beyond that only those in question.
_MANY = 100
_MARK = (DELETIONS.c.mark, DELETIONS.c.until, DELETIONS.c.made)
_FEW = f"SELECT mark, until, made FROM deletions LIMIT {_MANY}"  # noqa: S608
# A mark from further ahead was made by a clock that was wrong: it would keep out all that happens until that day comes.
_AHEAD = timedelta(hours=1)


def still_wanted(connection: Connection, rows: Sequence[StoreRow], now: datetime) -> Sequence[StoreRow]:
    """Return the rows that no deletion covers; feedback that waits for the others is deleted."""
    read = connection.exec_driver_sql(_FEW).all()
    if not read:
        return rows
    if len(read) == _MANY:
        asked = {_BEFORE, *(mark for row in rows for mark in _marks(row))}
        read = connection.execute(select(*_MARK).where(DELETIONS.c.mark.in_(asked))).all()
    latest = stamp(now + _AHEAD)
    found = {row.mark: row.until for row in read if row.made <= latest or row.until == _ALWAYS}
    oldest = found.pop(_BEFORE, "")
    gone = [row.ts < oldest or (bool(found) and _is_covered(row, found)) for row in rows]
    _delete(connection, [row.id for row, is_gone in zip(rows, gone, strict=True) if is_gone], now)
    return [row for row, is_gone in zip(rows, gone, strict=True) if not is_gone]


def is_deleted(connection: Connection, decision_id: str) -> bool:
    """Return whether this interaction was deleted, as itself or with its tenant."""
    query = select(DELETIONS.c.mark).where(DELETIONS.c.mark == _id_mark(decision_id))
    return connection.execute(query).first() is not None


def add_marks(connection: Connection, tenant: str | None, before: str | None, now: datetime) -> None:
    """Note that a tenant's interactions, those before a time, or those of which both holds are deleted.

    Args:
        connection: In a transaction.
        tenant: As rows have it; None for all.
        before: Stamp from which on interactions stay; None for now.
        now: The time of day.
    """
    connection.execute(delete(DELETIONS).where(DELETIONS.c.made < stamp(now - KEEP_MARKS)))
    _mark(connection, [_BEFORE if tenant is None else _tenant_mark(tenant)], before or stamp(now), now)


def delete_ids(connection: Connection, ids: Iterable[str], now: datetime) -> int:
    """Delete interactions, what ran beside them, and all their feedback; return how many interactions it was."""
    meant = [clean(f"{id_}{suffix}") for id_ in ids for suffix in _BESIDE]
    return _delete(connection, meant, now)


def delete_page(connection: Connection, tenant: str | None, before: str | None, now: datetime, limit: int) -> int:
    """Delete up to `limit` of the interactions for which both holds, and their feedback; return how many it was."""
    query = select(INTERACTIONS.c.id)
    if tenant is not None:
        query = query.where(INTERACTIONS.c.tenant == tenant)
    if before is not None:
        query = query.where(INTERACTIONS.c.ts < before)
    found = connection.execute(query.limit(limit)).scalars().all()
    # A time has its own mark; a tenant's ids are marked one by one, as feedback does not say whose it is.
    return _delete(connection, found, None if tenant is None else now)


def delete_orphans(connection: Connection, before: str, limit: int) -> int:
    """Delete up to `limit` pieces of feedback from before a time whose interaction is not there."""
    kept = IDS if connection.dialect.name == "postgresql" else INTERACTIONS
    there = exists().where(kept.c.id == FEEDBACK.c.decision_id)
    query = select(FEEDBACK.c.id).where(FEEDBACK.c.ts < before, ~there).limit(limit)
    found = connection.execute(query).scalars().all()
    if found:
        connection.execute(delete(FEEDBACK).where(FEEDBACK.c.id.in_(found)))
    return len(found)


def fill_tenants(connection: Connection, limit: int) -> int:
    """Read the tenant of up to `limit` interactions that releases without that column wrote; return how many."""
    query = select(INTERACTIONS.c.ts, INTERACTIONS.c.id, INTERACTIONS.c.body)
    rows = connection.execute(query.where(INTERACTIONS.c.tenant.is_(None)).limit(limit)).all()
    for row in rows:
        found = update(INTERACTIONS).where(INTERACTIONS.c.ts == row.ts, INTERACTIONS.c.id == row.id)
        connection.execute(found.values(tenant=_tenant_in(row.body)))
    return len(rows)


def _delete(connection: Connection, ids: Sequence[str], mark_at: datetime | None) -> int:
    if not ids:
        return 0
    if mark_at is not None:
        _mark(connection, [_id_mark(id_) for id_ in ids], _ALWAYS, mark_at)
    connection.execute(delete(FEEDBACK).where(FEEDBACK.c.decision_id.in_(ids)))
    deleted = connection.execute(delete(INTERACTIONS).where(where_ids(connection, ids))).rowcount
    if connection.dialect.name == "postgresql":
        connection.execute(delete(IDS).where(IDS.c.id.in_(ids)))
    return deleted


def _mark(connection: Connection, marks: Iterable[str], until: str, made: datetime) -> None:
    inserted = insert(connection.dialect.name, DELETIONS)
    new = inserted.excluded
    latest = stamp(made + _AHEAD)
    wins = (new.until > DELETIONS.c.until) | (DELETIONS.c.made > latest)
    changed = {"until": case((wins, new.until), else_=DELETIONS.c.until), "made": new.made}
    rows = [{"mark": mark, "until": until, "made": stamp(made)} for mark in marks]
    connection.execute(inserted.on_conflict_do_update(index_elements=["mark"], set_=changed), rows)


def _is_covered(row: StoreRow, found: Mapping[str, str]) -> bool:
    return any(row.ts < found.get(mark, "") for mark in _marks(row))


def _marks(row: StoreRow) -> tuple[str, str]:
    return _id_mark(row.id), _tenant_mark(row.tenant)


def _id_mark(id_: str) -> str:
    return f"id:{id_}"


@lru_cache(maxsize=1_000)
def _tenant_mark(tenant: str) -> str:
    # Whoever asked to be forgotten is not remembered by name.
    return f"tenant:{hashlib.sha256(tenant.encode()).hexdigest()}"


def _tenant_in(body: str) -> str:
    try:
        found = json.loads(body)["tenant"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""
    return clean(found) if isinstance(found, str) else ""
