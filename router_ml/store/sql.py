"""The event store on SQL: SQLite by default, PostgreSQL by URL; SQLAlchemy Core, no ORM."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from router_ml.errors import RecordError, StoreError
from router_ml.schema import Feedback, Interaction, Mode, parse_interaction
from router_ml.store import OnReject
from router_ml.store.engine import connect, explained, parse_url, shown
from router_ml.store.migrations import MIGRATIONS, Migration, migrate, refuse_newer, schema_version

__all__ = ["SqlStore", "open_sql_store"]

log = logging.getLogger(__name__)

# Rows per page of a scan: memory stays bounded at a few MB of bodies, a page is one short read transaction.
PAGE = 500

_METADATA = MetaData()
_INTERACTIONS = Table(
    "interactions",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("ts", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("policy_version", Text),
    Column("body", Text, nullable=False),
)
_FEEDBACK = Table(
    "feedback",
    _METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("decision_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("ts", Text, nullable=False),
    Column("body", Text, nullable=False),
)
# `INSERT … ON CONFLICT DO NOTHING` is spelled alike in both, but belongs to the dialects.
_INSERT: dict[str, Callable[[Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def open_sql_store(url: str) -> SqlStore:
    """Open a SQLite file or a PostgreSQL database, creating or upgrading its tables.

    Args:
        url: A SQLAlchemy URL.

    Raises:
        ConfigError: When the URL cannot be read, or means a SQLite database in memory.
        MissingExtra: When the driver of the database is not installed.
        StoreError: When the store cannot be opened, or a newer release wrote it.
    """
    parsed = parse_url(url)
    store = SqlStore(connect(parsed), shown(parsed))
    try:
        store.upgrade()
    except StoreError:
        store.close()
        raise
    return store


class SqlStore:
    """The event store on one SQLAlchemy engine; safe to use from several threads and processes.

    Args:
        engine: As `open_sql_store` prepares it.
        name: The URL as errors show it, without password.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name
        self._engine = engine
        self._writer = engine.execution_options(router_ml_write=True)
        insert = _INSERT[engine.dialect.name]
        self._append = insert(_INTERACTIONS).on_conflict_do_nothing(index_elements=["id"])
        self._amend = insert(_FEEDBACK).on_conflict_do_nothing(index_elements=["decision_id", "key"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def upgrade(self, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        """Create or upgrade the tables; several processes may do so at once.

        Args:
            migrations: All steps up to this release, in order.

        Raises:
            StoreError: When that fails, or a newer release wrote the database; nothing was changed.
        """
        with self._explained("open"):
            with self._engine.connect() as connection:
                version = schema_version(connection)
            try:
                refuse_newer(version, len(migrations))
                if version < len(migrations):
                    with self._writer.begin() as connection:
                        migrate(connection, migrations)
            except StoreError as error:
                raise StoreError(f"event store {self.name}: {error}") from error

    def append(self, interactions: Sequence[Interaction]) -> None:
        """Keep these interactions in one transaction; ids that are already there are left as they are.

        Raises:
            RecordError: When one of them cannot be written as JSON; nothing was written.
            StoreError: When the store refused; nothing was written.
        """
        if not interactions:
            return
        rows = [_row(item) for item in interactions]
        with self._explained("write"), self._writer.begin() as connection:
            connection.execute(self._append, rows)

    def amend(self, decision_id: str, feedback: Feedback) -> bool:
        """Add feedback to one interaction, stored or not yet; durable on return.

        Args:
            decision_id: The `id` of the interaction.
            feedback: Counts once per `key`; without a key, once per content.

        Returns:
            Whether it was new.

        Raises:
            StoreError: When nothing was written.
        """
        body = feedback.model_copy(update={"ts": _utc(feedback.ts)}).model_dump_json()
        key = feedback.key or f"sha256:{hashlib.sha256(body.encode()).hexdigest()}"
        row = {"decision_id": _clean(decision_id), "key": _clean(key), "ts": _stamp(feedback.ts), "body": body}
        with self._explained("write"), self._writer.begin() as connection:
            # Without the option SQLAlchemy may leave the row count of an INSERT at -1.
            return connection.execute(self._amend, row, execution_options={"preserve_rowcount": True}).rowcount > 0

    def scan(
        self, since: datetime | None = None, *, mode: Mode | None = None, on_reject: OnReject | None = None
    ) -> Iterator[Interaction]:
        """Stream interactions by (ts, id), each with its feedback; see `EventStore.scan`.

        Pages are read one by one, each in a transaction of its own: a long scan keeps no lock and blocks no writer.
        What is appended meanwhile is seen when it lies after the current page.

        Raises:
            StoreError: When the store cannot be read.
        """
        on_reject = on_reject or _log_reject
        query = select(_INTERACTIONS.c.ts, _INTERACTIONS.c.id, _INTERACTIONS.c.body)
        if mode is not None:
            query = query.where(_INTERACTIONS.c.mode == mode)
        if since is not None:
            query = query.where(_INTERACTIONS.c.ts >= _stamp(since))
        query = query.order_by(_INTERACTIONS.c.ts, _INTERACTIONS.c.id).limit(PAGE)
        page = query
        while True:
            with self._explained("read"), self._engine.connect() as connection:
                rows = connection.execute(page).all()
                feedback = _feedback_of(connection, [row.id for row in rows])
            for row in rows:
                interaction = _read(row.id, row.body, feedback.get(row.id, ()), on_reject)
                if interaction is not None:
                    yield interaction
            if len(rows) < PAGE:
                return
            page = query.where(tuple_(_INTERACTIONS.c.ts, _INTERACTIONS.c.id) > (rows[-1].ts, rows[-1].id))

    def count(self) -> int:
        """Return the number of interactions.

        Raises:
            StoreError: When the store cannot be read.
        """
        with self._explained("read"), self._engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(_INTERACTIONS)).scalar_one()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _explained(self, action: str) -> AbstractContextManager[None]:
        return explained(action, self._engine, self.name)


def _row(item: Interaction) -> dict[str, str | None]:
    try:
        body = item.to_json()
    except PydanticSerializationError as error:
        raise RecordError(f"interaction {item.id!r} cannot be written as JSON: {error}") from error
    version = None if item.policy_version is None else _clean(item.policy_version)
    return {"id": _clean(item.id), "ts": _stamp(item.ts), "mode": item.mode, "policy_version": version, "body": body}


def _feedback_of(connection: Connection, ids: Sequence[str]) -> dict[str, list[str]]:
    if not ids:
        return {}
    query = select(_FEEDBACK.c.decision_id, _FEEDBACK.c.body).where(_FEEDBACK.c.decision_id.in_(ids))
    found: dict[str, list[str]] = {}
    for decision_id, body in connection.execute(query.order_by(_FEEDBACK.c.ts, _FEEDBACK.c.id)):
        found.setdefault(decision_id, []).append(body)
    return found


def _read(row_id: str, body: str, feedback: Sequence[str], on_reject: OnReject) -> Interaction | None:
    try:
        interaction = parse_interaction(body)
    except RecordError as error:
        on_reject(row_id, str(error))
        return None
    later = []
    for item in feedback:
        try:
            later.append(Feedback.model_validate_json(item))
        except ValidationError as error:
            on_reject(row_id, f"one feedback left out: {error.errors()[0]['msg']}")
    return _merged(interaction, later) if later else interaction


def _merged(interaction: Interaction, later: Sequence[Feedback]) -> Interaction:
    # What came inside the interaction may have been sent again through `amend`.
    keys = {item.key for item in interaction.feedback if item.key is not None}
    new = [item for item in later if item.key not in keys and item not in interaction.feedback]
    both = sorted((*interaction.feedback, *new), key=lambda item: _utc(item.ts))
    return interaction.model_copy(update={"feedback": tuple(both)})


def _log_reject(row_id: str, _reason: str) -> None:
    # The reason may quote the row, and so a prompt: it goes only to callers who ask for it.
    log.warning("stored_interaction_unreadable", extra={"interaction_id": row_id})


def _utc(ts: datetime) -> datetime:
    return ts.replace(tzinfo=UTC) if ts.tzinfo is None else ts.astimezone(UTC)


def _stamp(ts: datetime) -> str:
    # Fixed width, so that the order of the text is the order of time.
    return _utc(ts).isoformat(timespec="microseconds")


def _clean(text: str) -> str:
    # Identifiers come from outside; neither database takes lone surrogates, and PostgreSQL no NUL.
    return text.encode(errors="replace").decode().replace("\x00", "\ufffd")
