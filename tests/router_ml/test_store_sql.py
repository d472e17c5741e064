"""The store as a database: durability, several processes, upgrades, and errors a person can act on."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from router_ml.errors import ConfigError, StoreError
from router_ml.schema import Feedback, Interaction
from router_ml.store import open_store
from router_ml.store.migrations import MIGRATIONS, migrate, schema_version
from router_ml.store.sql import open_sql_store

T0 = datetime(2026, 11, 22, 10, tzinfo=UTC)
THUMB = Feedback(ts=T0, source="user", adequate=True, key="k")


def interaction(n: int) -> Interaction:
    return Interaction(id=f"i{n:06d}", ts=T0 + timedelta(seconds=n))


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments], stdout=subprocess.PIPE, text=True
    )


def engine_of(url: str) -> Engine:
    """Return another way into the same database."""
    return create_engine(url.partition("?timeout")[0])


def test_acknowledged_writes_survive_a_kill(store_url: str) -> None:
    url = store_url
    code = """
        import sys, time
        from datetime import UTC, datetime
        from router_ml.schema import Feedback, Interaction
        from router_ml.store import open_store

        store = open_store(sys.argv[1])
        store.append([Interaction(id="i000000", ts=datetime(2026, 11, 22, 10, tzinfo=UTC))])
        store.amend("i000000", Feedback(ts=datetime(2026, 11, 22, 10, tzinfo=UTC), source="user", key="k"))
        print("acknowledged", flush=True)
        time.sleep(60)
        """
    with python(code, url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "acknowledged\n"
        process.send_signal(signal.SIGKILL)
    with open_store(url) as store:
        [found] = store.scan()
        assert [item.key for item in found.feedback] == ["k"]
        assert not store.amend("i000000", THUMB)


def test_two_processes_open_and_write_one_new_store(store_url: str) -> None:
    url = store_url.replace("timeout=0.5", "timeout=20")
    code = """
        import sys
        from datetime import UTC, datetime
        from router_ml.schema import Feedback, Interaction
        from router_ml.store import open_store

        ts = datetime(2026, 11, 22, 10, tzinfo=UTC)
        with open_store(sys.argv[1]) as store:
            for batch in range(20):
                store.append([Interaction(id=f"{sys.argv[2]}-{batch}-{n}", ts=ts) for n in range(5)])
                store.append([Interaction(id=f"both-{batch}", ts=ts)])
                store.amend(f"both-{batch}", Feedback(ts=ts, source="user", key=sys.argv[2]))
        """
    processes = [python(code, url, name) for name in ("a", "b", "c")]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    for process in processes:
        process.communicate()
    with open_store(url) as store:
        found = list(store.scan())
    assert len(found) == 3 * 20 * 5 + 20
    assert {len(item.feedback) for item in found if item.id.startswith("both")} == {3}


def test_a_store_of_an_older_release_is_brought_up_to_date(store_url: str) -> None:
    engine = engine_of(store_url)
    row = {"id": "i000000", "ts": "2026", "body": interaction(0).to_json()}
    with engine.begin() as connection:
        migrate(connection, MIGRATIONS[:1])
        connection.execute(text("INSERT INTO interactions (id, ts, mode, body) VALUES (:id, :ts, 'live', :body)"), row)
    with open_store(store_url) as store:
        assert list(store.scan()) == [interaction(0)]
    with engine.connect() as connection:
        assert schema_version(connection) == len(MIGRATIONS)
        assert "interactions_by_time" in {index["name"] for index in inspect(connection).get_indexes("interactions")}
    engine.dispose()


def test_a_failed_upgrade_changes_nothing(store_url: str) -> None:
    def adds_then_fails(connection: Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE interactions ADD COLUMN extra TEXT")
        connection.exec_driver_sql("ALTER TABLE absent ADD COLUMN extra TEXT")

    with open_sql_store(store_url) as store:
        store.append([interaction(0)])
        with pytest.raises(StoreError, match=r"cannot open: .*absent"):
            store.upgrade((*MIGRATIONS, adds_then_fails))
        store.upgrade()
        assert list(store.scan()) == [interaction(0)]
        columns = {column["name"] for column in inspect(store._engine).get_columns("interactions")}
    assert columns == {"id", "ts", "mode", "policy_version", "body", "tenant"}


def test_a_store_of_a_newer_release_is_refused(store_url: str) -> None:
    open_store(store_url).close()
    engine = engine_of(store_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE meta SET value = '7'")
    engine.dispose()
    with pytest.raises(StoreError, match=rf": a newer release wrote it \(schema 7, .* {len(MIGRATIONS)}\)"):
        open_store(store_url)


@pytest.mark.parametrize("url", ["sqlite:///{0}/x.db?timeout=soon", "postgresql://h/d?connect_timeout=soon"])
def test_a_timeout_that_is_no_number_says_so(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="timeout: expected a number of seconds, got 'soon'"):
        open_store(url.format(tmp_path))


def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/events\.db: cannot open: .*the folder must exist and be writable"):
        open_store(f"sqlite:///{tmp_path}/nowhere/events.db")


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, " * 200)
    with pytest.raises(StoreError, match="the file is something else"):
        open_store(f"sqlite:///{path}")
    assert path.read_text() == "not a database, " * 200


def test_a_locked_file_says_so_and_works_again_afterwards(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db?timeout=0.05"
    with open_store(url) as store, closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"cannot write: database is locked; another process"):
            store.append([interaction(0)])
        with pytest.raises(StoreError, match="locked"):
            store.amend("i000000", THUMB)
        assert store.count() == 0  # reading goes on
        other.execute("ROLLBACK")
        store.append([interaction(0)])
        assert store.count() == 1


def test_a_full_disk_says_so_and_keeps_what_was_there(tmp_path: Path) -> None:
    with open_sql_store(f"sqlite:///{tmp_path}/events.db") as store:
        store.append([interaction(0)])
        with closing(store._engine.raw_connection()) as connection:
            connection.execute("PRAGMA max_page_count = 1")  # SQLite's own way to be full
        big = Interaction(id="big", ts=T0, tags={"text": "x" * 200_000})
        with pytest.raises(StoreError, match=r"full; free some disk space"):
            store.append([big])
        assert list(store.scan()) == [interaction(0)]


def test_errors_quote_no_prompt(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db?timeout=0.05"
    with open_store(url) as store, closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError) as caught:
            store.append([Interaction(id="a", ts=T0, tags={"secret": "prompt text"})])
    assert "prompt text" not in str(caught.value)
    assert "prompt text" not in str(caught.value.__cause__)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(StoreError, match="writable"):
        open_store(f"sqlite:///{folder}/events.db")


def test_rows_that_cannot_be_read_are_reported_and_the_rest_is_read(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(store_url)
    with open_store(store_url) as store:
        store.append([interaction(0), interaction(1), interaction(2)])
        store.amend("i000002", THUMB)
        with engine.begin() as connection:
            newer = {"body": '{"schema": "router_ml.interaction/9"}'}
            connection.execute(text("UPDATE interactions SET body = :body WHERE id = 'i000001'"), newer)
            connection.execute(text("UPDATE feedback SET body = '{'"))
        engine.dispose()
        rejects: list[tuple[str, str]] = []
        found = list(store.scan(on_reject=lambda id_, reason: rejects.append((id_, reason))))
        assert found == [interaction(0), interaction(2)]
        assert [id_ for id_, _ in rejects] == ["i000001", "i000002"]
        assert "router_ml.interaction/9" in rejects[0][1]
        assert "feedback" in rejects[1][1]
        assert list(store.scan()) == found
    assert [record.interaction_id for record in caplog.records] == ["i000001", "i000002"]  # type: ignore[attr-defined]


def test_a_commit_is_synced_to_disk(tmp_path: Path) -> None:
    with open_sql_store(f"sqlite:///{tmp_path}/events.db") as store, closing(store._engine.raw_connection()) as raw:
        assert raw.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert raw.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert raw.execute("PRAGMA secure_delete").fetchone()[0] == 1


@pytest.mark.slow
def test_a_scan_keeps_memory_bounded(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with open_store(url) as store:
        words = "x" * 20_000
        for start in range(0, 10_000, 500):  # 200 MB of bodies
            store.append([interaction(n).model_copy(update={"tags": {"t": words}}) for n in range(start, start + 500)])
    code = """
        import resource, sys
        from router_ml.store import open_store

        with open_store(sys.argv[1]) as store:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            n = sum(1 for _ in store.scan())
            print(n, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
        """
    with python(code, url) as process:
        output, _ = process.communicate(timeout=60)
    n, grown_mb = map(int, output.split())
    assert n == 10_000
    assert grown_mb < 80


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with open_store(f"sqlite:///{path}") as store:
        assert store.count() == 0
        found = {one.name: one.stat().st_mode & 0o777 for one in tmp_path.iterdir()}
    assert found["new.db"] == 0o600
    assert set(found.values()) == {0o600}


def test_the_mode_of_a_file_that_is_there_is_its_owners_matter(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    path.touch()
    path.chmod(0o640)
    with open_store(f"sqlite:///{path}") as store:
        assert store.count() == 0
    assert path.stat().st_mode & 0o777 == 0o640
