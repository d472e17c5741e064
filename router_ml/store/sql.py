"""The event store on SQL: SQLite by default, PostgreSQL by URL; SQLAlchemy Core, no ORM."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from sqlalchemy import func, select, tuple_
from sqlalchemy.engine import Connection, Engine

from router_ml.errors import StoreError, UsageError
from router_ml.schema import Feedback, Interaction, Mode
from router_ml.store import Deciding, OnReject, StoreInfo
from router_ml.store.deletion import (
    PAGE,
    add_marks,
    delete_ids,
    delete_orphans,
    delete_page,
    fill_tenants,
    is_deleted,
    still_wanted,
)
from router_ml.store.engine import connect, explained, parse_url, shown
from router_ml.store.migrations import MIGRATIONS, Migration, migrate, refuse_newer, schema_version
from router_ml.store.reading import deciding_of, feedback_of, log_reject, read_row
from router_ml.store.rows import StoreRow, clean, row_of, stamp, to_utc
from router_ml.store.tables import FEEDBACK, INTERACTIONS, insert

__all__ = ["SqlStore", "open_sql_store"]

log = logging.getLogger(__name__)

# Rows per page of a scan: memory stays bounded at a few MB of bodies, a page is one short read transaction.
SCAN_PAGE = 500

_COLUMNS = ", ".join(StoreRow._fields)
# What the driver takes as it is: building each statement from its parts would cost more than the database does.
_APPEND = f"INSERT INTO interactions ({_COLUMNS}) VALUES ({{}}) ON CONFLICT (id) DO NOTHING"  # noqa: S608
_PLACE = {"qmark": "?"}
# Any constants do, as long as all releases use the same ones.
_WRITERS_LOCK = 7_316_050_944
_TRIES, _TRY_MS = 5, 100
_SIZE = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "postgresql": "SELECT pg_total_relation_size('interactions') + pg_total_relation_size('feedback')",
}


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
        clock: The time of day; a deletion ends there.
    """

    def __init__(self, engine: Engine, name: str, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.name = name
        self._clock = clock
        self._engine = engine
        self._writer = engine.execution_options(router_ml_write=True)
        places = ", ".join(_PLACE.get(engine.dialect.paramstyle, "%s") for _ in StoreRow._fields)
        self._append = _APPEND.format(places)
        self._amend = insert(engine.dialect.name, FEEDBACK).on_conflict_do_nothing(
            index_elements=["decision_id", "key"]
        )

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
        self.append_rows([row_of(item) for item in interactions])

    def append_rows(self, rows: Sequence[StoreRow]) -> None:
        """Keep interactions that are written out already; as `append`.

        Raises:
            StoreError: When the store refused; nothing was written.
        """
        if not rows:
            return
        with self._explained("write"), self._writing() as connection:
            wanted = still_wanted(connection, rows, self._clock())
            if wanted:
                connection.exec_driver_sql(self._append, list(wanted))

    def amend(self, decision_id: str, feedback: Feedback) -> bool:
        """Add feedback to one interaction, stored or not yet; durable on return.

        Args:
            decision_id: The `id` of the interaction.
            feedback: Counts once per `key`; without a key, once per content.

        Returns:
            Whether it was new; False, too, when the interaction was deleted.

        Raises:
            StoreError: When nothing was written.
        """
        body = feedback.model_copy(update={"ts": to_utc(feedback.ts)}).model_dump_json()
        key = feedback.key or f"sha256:{hashlib.sha256(body.encode()).hexdigest()}"
        row = {"decision_id": clean(decision_id), "key": clean(key), "ts": stamp(feedback.ts), "body": body}
        with self._explained("write"), self._writing() as connection:
            if is_deleted(connection, row["decision_id"]):
                return False
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
        on_reject = on_reject or log_reject
        query = select(INTERACTIONS.c.ts, INTERACTIONS.c.id, INTERACTIONS.c.body)
        if mode is not None:
            query = query.where(INTERACTIONS.c.mode == mode)
        if since is not None:
            query = query.where(INTERACTIONS.c.ts >= stamp(since))
        query = query.order_by(INTERACTIONS.c.ts, INTERACTIONS.c.id).limit(SCAN_PAGE)
        page = query
        while True:
            with self._explained("read"), self._engine.connect() as connection:
                rows = connection.execute(page).all()
                feedback = feedback_of(connection, [row.id for row in rows])
            for row in rows:
                interaction = read_row(row.id, row.body, feedback.get(row.id, ()), on_reject)
                if interaction is not None:
                    yield interaction
            if len(rows) < SCAN_PAGE:
                return
            page = query.where(tuple_(INTERACTIONS.c.ts, INTERACTIONS.c.id) > (rows[-1].ts, rows[-1].id))

    def delete(
        self,
        *,
        ids: Iterable[str] | None = None,
        tenant: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
    ) -> int:
        """Delete interactions with their feedback and what ran beside them; see `EventStore.delete`.

        Pages are deleted one by one, each in a transaction of its own: other writers wait for a page, not for all.

        Raises:
            UsageError: When it is not said what to delete, or in two ways.
            StoreError: When the store refused; pages before that are gone.
        """
        if (ids is None) == (tenant is None and before is None) or tenant == "":
            raise UsageError("say what to delete: ids, or a tenant, or a time, or a tenant and a time")
        with self._explained("delete"):
            if ids is not None:
                deleted, done = self._delete_ids(ids), True
            else:
                owner, until = None if tenant is None else clean(tenant), None if before is None else stamp(before)
                deleted, done = self._delete_where(owner, until, limit)
            if done:
                self._forget_log()
        return deleted

    def info(self) -> StoreInfo:
        """Return what the store holds.

        Raises:
            StoreError: When the store cannot be read.
        """
        oldest, newest = func.min(INTERACTIONS.c.ts), func.max(INTERACTIONS.c.ts)
        with self._explained("read"), self._engine.connect() as connection:
            modes = select(INTERACTIONS.c.mode, func.count().label("n")).group_by(INTERACTIONS.c.mode)
            by_mode = {row.mode: row.n for row in connection.execute(modes)}
            first, last = connection.execute(select(oldest, newest)).one()
            return StoreInfo(
                schema=schema_version(connection),
                interactions=sum(by_mode.values()),
                by_mode=by_mode,
                feedback=connection.execute(select(func.count()).select_from(FEEDBACK)).scalar_one(),
                oldest=None if first is None else datetime.fromisoformat(first),
                newest=None if last is None else datetime.fromisoformat(last),
                size_bytes=connection.exec_driver_sql(_SIZE[connection.dialect.name]).scalar_one(),
            )

    def deciding(self, decision_id: str) -> Deciding | None:
        """Return what is known of a decision; None when nothing is, or not yet.

        Raises:
            StoreError: When the store cannot be read.
        """
        query = select(INTERACTIONS.c.body).where(INTERACTIONS.c.id == clean(decision_id))
        with self._explained("read"), self._engine.connect() as connection:
            body = connection.execute(query).scalar_one_or_none()
        return None if body is None else deciding_of(body)

    def count(self) -> int:
        """Return the number of interactions.

        Raises:
            StoreError: When the store cannot be read.
        """
        with self._explained("read"), self._engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(INTERACTIONS)).scalar_one()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _delete_ids(self, ids: Iterable[str]) -> int:
        every, deleted = list(dict.fromkeys(ids)), 0
        for start in range(0, len(every), PAGE):
            with self._writing(alone=True) as connection:
                deleted += delete_ids(connection, every[start : start + PAGE], self._clock())
        return deleted

    def _fill_tenants(self) -> None:
        filled = PAGE
        while filled == PAGE:
            with self._writing(alone=True) as connection:
                filled = fill_tenants(connection, PAGE)

    def _delete_where(self, tenant: str | None, before: str | None, limit: int | None) -> tuple[int, bool]:
        now = self._clock()
        if tenant is not None:
            self._fill_tenants()
        with self._writing(alone=True) as connection:
            add_marks(connection, tenant, before, now)
        deleted = 0
        while limit is None or deleted < limit:
            size = PAGE if limit is None else min(PAGE, limit - deleted)
            with self._writing(alone=True) as connection:
                found = delete_page(connection, tenant, before, now, size)
                orphans = delete_orphans(connection, before, PAGE) if before is not None and tenant is None else 0
            deleted += found
            if found < size and orphans < PAGE:
                return deleted, True
        return deleted, False

    @contextmanager
    def _writing(self, *, alone: bool = False) -> Iterator[Connection]:
        # A deletion marks what it takes, and nothing may be written by those who have not seen the mark. In SQLite,
        # writers come one after another anyway.
        with self._writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                shared = "" if alone else "_shared"
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock{shared}({_WRITERS_LOCK})")
            yield connection

    def _forget_log(self) -> None:
        # The write-ahead log of SQLite still has the pages as they were.
        if self._engine.dialect.name != "sqlite":
            return
        with closing(self._engine.raw_connection()) as connection:
            cursor = connection.cursor()
            waits_ms = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
            # While this waits for readers, no other process can write: rather often and short than long.
            cursor.execute(f"PRAGMA busy_timeout = {_TRY_MS}")
            for _ in range(_TRIES):
                busy, *_rest = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not busy:
                    break
                time.sleep(_TRY_MS / 1e3)
            cursor.execute(f"PRAGMA busy_timeout = {waits_ms}")
        if busy:
            log.warning("deleted_text_in_log", extra={"store": self.name, "until": "readers of old pages are done"})

    def _explained(self, action: str) -> AbstractContextManager[None]:
        return explained(action, self._engine, self.name)
