"""Database connections of the SQL store: how they are set up, and what their errors mean for a person."""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from router_ml.errors import ConfigError, MissingExtra, StoreError

__all__ = ["connect", "explained", "forget_log", "is_refused", "parse_url", "shown"]

# How long a writer waits for another one before it gives up; `?timeout=` in the URL overrides it.
LOCK_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 5.0
VANISHED_MS = 10_000
_TRIES, _TRY_MS = 5, 100
# A lock that was not to be had in time, a right that this user has not, a copy or user that only reads: PostgreSQL's
# words for "not now", "not you", "not here".
_REFUSALS = ("55P03", "42501", "25006")

# What a database says, and what to do about it; the first that matches.
_ADVICE = (
    ("lock timeout", "somebody reads or writes these tables for long, such as a backup; try again after it"),
    ("locked", "another process holds the write lock; try again, or use PostgreSQL for many writers"),
    ("busy", "another process holds the write lock; try again, or use PostgreSQL for many writers"),
    ("unable to open", "the folder must exist and be writable"),
    ("readonly", "make the file and its folder writable"),
    ("read-only", "make the file and its folder writable"),
    ("not a database", "the file is something else; set [store] url to another file"),
    ("malformed", "the file is damaged; restore a copy, or set [store] url to another file"),
    ("full", "free some disk space"),
    ("no space", "free some disk space"),
    ("already exists", "another program owns these tables; give router-ml a database of its own"),
)


def parse_url(url: str) -> URL:
    """Read a database URL.

    Raises:
        ConfigError: When it cannot be read, or means a SQLite database in memory.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Neither the URL nor the cause is repeated: a password may stand in an unexpected place.
        message = "[store] url: not a database URL; expected something like sqlite:///router_ml.db"
        raise ConfigError(message) from None
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigError("[store] url: a SQLite store needs a file, such as sqlite:///router_ml.db")
    return parsed


def shown(url: URL) -> str:
    """Return the URL without anything secret: the query may hold a password too."""
    return url.set(query={}).render_as_string(hide_password=True)


def connect(url: URL) -> Engine:
    """Prepare the engine of a database; nothing is contacted yet.

    Raises:
        ConfigError: When the URL names an unknown dialect or driver, or a timeout that is no number.
        MissingExtra: When the driver of the database is not installed.
    """
    arguments: dict[str, Any] = {}
    in_file = url.get_backend_name() == "sqlite"
    if in_file:
        arguments["timeout"] = _seconds(url, "timeout", LOCK_TIMEOUT_S)
        url = url.difference_update_query(["timeout"])
    elif url.drivername in ("postgresql", "postgresql+psycopg", "postgresql+psycopg2"):
        arguments["connect_timeout"] = int(_seconds(url, "connect_timeout", CONNECT_TIMEOUT_S))
        url = url.difference_update_query(["connect_timeout"])
        # A server that vanished without a word: else the operating system waits for it for a quarter of an hour.
        arguments["tcp_user_timeout"] = VANISHED_MS
    try:
        # Parameters hold prompt text: they never appear in an error. A server may have been restarted since a
        # connection was used last: one question finds out, before a batch is lost on it.
        engine = create_engine(url, connect_args=arguments, hide_parameters=True, pool_pre_ping=not in_file)
    except ModuleNotFoundError as error:
        package = "psycopg[binary]" if error.name == "psycopg" else error.name
        message = f"{error.name} is needed to reach {shown(url)}. Install it: pip install '{package}'"
        raise MissingExtra(message) from error
    except SQLAlchemyError as error:
        raise ConfigError(f"[store] url: {error}") from error
    if in_file:
        event.listen(engine, "do_connect", _make_private)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def is_refused(error: SQLAlchemyError) -> bool:
    """Return whether PostgreSQL is well, and only did not do what it was asked: for a lock, or for want of a right."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _REFUSALS


def _seconds(url: URL, name: str, default: float) -> float:
    given = url.query.get(name, default)
    try:
        seconds = float(given) if isinstance(given, str | float) else math.nan
    except ValueError:
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:
        raise ConfigError(f"[store] url: {name}: expected a number of seconds, got {given!r}")
    return seconds


def _make_private(
    _dialect: Any, _record: Any, positional: Any, named: dict[str, Any]
) -> None:  # the driver's arguments
    # Prompts stand in it. SQLite gives the files beside it the same mode.
    path = positional[0] if positional else named.get("database")
    if not isinstance(path, str) or named.get("uri"):
        return
    with suppress(OSError):  # there already, or not to be made: the driver says why
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _prepare_sqlite(connection: Any, _record: Any) -> None:  # the driver's own connection
    # Transactions are begun by _begin_sqlite; the driver's own would start too late, as readers.
    connection.isolation_level = None
    try:
        # For new files: rows of a few kB are then written at two thirds of the price of the default page.
        connection.execute("PRAGMA page_size = 16384")
        # FULL: a commit is on the disk when it returns, whatever the power does. One sync per batch costs little.
        connection.execute("PRAGMA synchronous = FULL")
        # Rows are added at the end and read in order: a large cache brings nothing, and every process has its own.
        connection.execute("PRAGMA cache_size = -512")
        # What is deleted is overwritten, not only taken out of the index.
        connection.execute("PRAGMA secure_delete = ON")
        _write_ahead(connection, give_up=time.monotonic() + LOCK_TIMEOUT_S)
    except sqlite3.Error:
        connection.close()
        raise


def _write_ahead(connection: Any, *, give_up: float) -> None:
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # SQLite does not wait here when two processes create one file at the same moment.
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.02)
        else:
            # Some file systems cannot; SQLite then keeps its rollback journal, which is slower and as safe.
            return


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes its lock at the start and waits for it; a reader that turns writer would fail at once instead.
    write = connection.get_execution_options().get("router_ml_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def forget_log(engine: Engine) -> bool:
    """Empty the write-ahead log of SQLite, which still has the pages as they were before a deletion.

    Returns:
        Whether that is done; False while somebody reads old pages. True for other databases.
    """
    if engine.dialect.name != "sqlite":
        return True
    with closing(engine.raw_connection()) as connection:
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
    return not busy


@contextmanager
def explained(action: str, engine: Engine, name: str) -> Iterator[None]:
    """Turn an error of the database into a StoreError that says what to do.

    Args:
        action: What was tried, to end the sentence "cannot ...".
        engine: Where.
        name: The URL as errors show it.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:  # the latter from _prepare_sqlite
        # `orig` is the database's own sentence; str(error) would add the statement.
        cause = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split()) or type(error).__name__
        advice = next((what for sign, what in _ADVICE if sign in cause.lower()), _default_advice(engine))
        raise StoreError(f"event store {name}: cannot {action}: {cause}; {advice}") from error


def _default_advice(engine: Engine) -> str:
    if engine.dialect.name == "sqlite":
        return "check [store] url"
    return "check that the server runs, and the user, password and database in [store] url"
