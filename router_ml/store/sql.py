"""The event store on SQL: SQLite by default, PostgreSQL by URL; SQLAlchemy Core, no ORM."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

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
from router_ml.store.engine import connect, explained, forget_log, is_refused, parse_url, shown
from router_ml.store.ids import append_new, where_ids
from router_ml.store.migrations import MIGRATIONS, Migration, migrate, refuse_newer, schema_version
from router_ml.store.partitions import Days, drop_partition, make_partitions, partitions_of, unmade, windows
from router_ml.store.reading import deciding_of, feedback_of, info_of, log_reject, read_row
from router_ml.store.rows import Bounds, Place, StoredRow, StoreRow, StoreSlice, clean, row_of, stamp, to_utc
from router_ml.store.slices import cuts_of, page_of, slices_of
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
        # None: the dialect has no partitions.
        self._days = Days() if engine.dialect.name == "postgresql" else None
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
                self._make_room(())
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
        with self._explained("write"):
            self._make_room(rows)
            with self._writing() as connection:
                wanted = still_wanted(connection, rows, self._clock())
                if wanted and self._days is not None:
                    append_new(connection, wanted)
                elif wanted:
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
        with self._explained("read"), self._engine.connect() as connection:
            spans = windows(connection, "" if since is None else stamp(since))
        for start, end in spans:
            span = query if not start else query.where(INTERACTIONS.c.ts >= start)
            yield from self._scan_span(span if end is None else span.where(INTERACTIONS.c.ts < end), on_reject)

    def _scan_span(self, query: Select[tuple[str, str, str]], on_reject: OnReject) -> Iterator[Interaction]:
        page = query = query.order_by(INTERACTIONS.c.ts, INTERACTIONS.c.id).limit(SCAN_PAGE)
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

    def slices(self, size: int, bounds: Bounds | None = None) -> list[StoreSlice]:
        """Return the interactions cut into slices of at most `size`, or the one slice within `bounds`, as it is now.

        Raises:
            StoreError: When the store cannot be read.
        """
        with self._explained("read"), self._engine.connect() as connection:
            return list(slices_of(connection, size, bounds))

    def cuts(self, size: int, since: datetime | None = None) -> list[Bounds]:
        """Return the bounds of pieces of at most `size` interactions, in order; see `EventStore.cuts`.

        Raises:
            StoreError: When the store cannot be read.
        """
        with self._explained("read"), self._engine.connect() as connection:
            return list(cuts_of(connection, size, "" if since is None else stamp(since)))

    def pages(
        self, since: datetime | None = None, *, bounds: Bounds | None = None, size: int = SCAN_PAGE
    ) -> Iterator[list[StoredRow]]:
        """Stream what is kept as it is kept, page by page as `scan` does; see `EventStore.pages`.

        Raises:
            StoreError: When the store cannot be read.
        """
        spans: list[tuple[Place, Place | None]] = [] if bounds is None else [bounds]
        if bounds is None:
            with self._explained("read"), self._engine.connect() as connection:
                found = windows(connection, "" if since is None else stamp(since))
            spans = [((start, ""), None if end is None else (end, "")) for start, end in found]
        for first, last in spans:
            after: Place | None = None
            page: list[StoredRow] | None = None
            while page is None or after is not None:
                with self._explained("read"), self._engine.connect() as connection:
                    page, after = page_of(connection, size, after=after, first=first, last=last)
                if page:
                    yield page

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
            if done and not forget_log(self._engine):
                until = "readers of old pages are done"
                log.warning("deleted_text_in_log", extra={"store": self.name, "until": until})
        return deleted

    def expire(self, before: datetime, *, limit: int) -> int:
        """Delete what is older than its retention; see `EventStore.expire`.

        Raises:
            StoreError: When the store refused; pages before that are gone.
        """
        # Hour by hour, every row of a day would have been deleted when the day could be dropped.
        whole = before if self._days is None else to_utc(before).replace(hour=0, minute=0, second=0, microsecond=0)
        return self.delete(before=whole, limit=limit)

    def info(self) -> StoreInfo:
        """Return what the store holds.

        Raises:
            StoreError: When the store cannot be read.
        """
        with self._explained("read"), self._engine.connect() as connection:
            return info_of(connection, schema_version(connection))

    def deciding(self, decision_id: str) -> Deciding | None:
        """Return what is known of a decision; None when nothing is, or not yet.

        Raises:
            StoreError: When the store cannot be read.
        """
        query = select(INTERACTIONS.c.body)
        with self._explained("read"), self._engine.connect() as connection:
            body = connection.execute(query.where(where_ids(connection, [clean(decision_id)]))).scalar_one_or_none()
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
        deleted = self._drop_days(before, limit) if before is not None and tenant is None else 0
        while limit is None or deleted < limit:
            size = PAGE if limit is None else min(PAGE, limit - deleted)
            with self._writing(alone=True) as connection:
                found = delete_page(connection, tenant, before, now, size)
                orphans = delete_orphans(connection, before, PAGE) if before is not None and tenant is None else 0
            deleted += found
            if found < size and orphans < PAGE:
                return deleted, True
        return deleted, False

    def _drop_days(self, before: str, limit: int | None) -> int:
        if self._days is None or not self._days.may_drop(self._clock()):
            return 0
        deleted = 0
        with self._engine.connect() as connection:
            old = [one for one in partitions_of(connection) if one.end <= before]
        for one in old:
            if limit is not None and deleted >= limit:
                break
            try:
                with self._writer.begin() as connection:
                    deleted += drop_partition(connection, one)
            except DBAPIError as error:
                if not is_refused(error):
                    raise
                # Somebody reads it for long, such as a backup: its rows are deleted by pages.
                log.warning("partition_not_dropped", extra={"store": self.name, "partition": one.name})
                self._days.put_off_drop(self._clock())
                break
        return deleted

    def _make_room(self, rows: Sequence[StoreRow]) -> None:
        now = self._clock()
        days = () if self._days is None else self._days.missing(rows, now)
        if self._days is None or not days:
            return
        try:
            with self._engine.connect() as connection:
                left = unmade(connection, days)
            if left:  # seldom: who only reads does not wait for those who write
                with self._writing(alone=True) as connection:
                    make_partitions(connection, left)
        except SQLAlchemyError as error:
            self._days.put_off(days, now)
            if not is_refused(error):
                raise
            log.warning("partitions_not_made", extra={"store": self.name, "until": "the next try, in a minute"})

    @contextmanager
    def _writing(self, *, alone: bool = False) -> Iterator[Connection]:
        # A deletion marks what it takes, and nothing may be written by those who have not seen the mark. In SQLite,
        # writers come one after another anyway.
        with self._writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                shared = "" if alone else "_shared"
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock{shared}({_WRITERS_LOCK})")
            yield connection

    def _explained(self, action: str) -> AbstractContextManager[None]:
        return explained(action, self._engine, self.name)
