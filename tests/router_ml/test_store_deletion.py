"""Deletion: what is meant goes with all that belongs to it, nothing else does, and it does not come back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from router_ml.errors import UsageError
from router_ml.schema import Feedback, Interaction
from router_ml.store import EventStore, StoreRow, open_store, row_of
from router_ml.store import deletion as deletion_module
from router_ml.store.migrations import MIGRATIONS, migrate

# In the past: a tenant is forgotten up to now.
T0 = datetime(2025, 11, 22, 10, tzinfo=UTC)


def interaction(id_: str, *, days: float = 0.0, tenant: str | None = None, **fields: object) -> Interaction:
    return Interaction.model_validate({"id": id_, "ts": T0 + timedelta(days=days), "tenant": tenant, **fields})


def thumb(*, days: float = 0.0) -> Feedback:
    return Feedback(ts=T0 + timedelta(days=days), source="user", adequate=True, key="k")


def ids(store: EventStore) -> list[str]:
    return [found.id for found in store.scan()]


@pytest.fixture
def store(store_url: str) -> Iterator[EventStore]:
    with open_store(store_url) as opened:
        yield opened


def test_a_request_goes_with_its_feedback_and_what_ran_beside_it(store: EventStore) -> None:
    names = ("a", "a-audit", "a-shadow", "b", "b-audit")
    store.append([interaction(name) for name in names])
    for name in names:
        store.amend(name, thumb())
    assert store.delete(ids=["a", "a", "unheard-of"]) == 3
    assert ids(store) == ["b", "b-audit"]
    assert store.info().feedback == 2


def test_what_ran_beside_a_request_can_go_alone(store: EventStore) -> None:
    store.append([interaction("a"), interaction("a-audit")])
    assert store.delete(ids=["a-audit"]) == 1
    assert ids(store) == ["a"]


def test_a_tenant_goes_and_the_others_stay(store: EventStore) -> None:
    store.append([interaction("a", tenant="acme"), interaction("b", tenant="other"), interaction("c")])
    store.amend("a", thumb())
    assert store.delete(tenant="acme") == 1
    assert ids(store) == ["b", "c"]
    assert store.info().feedback == 0


def test_what_is_old_goes_and_the_rest_stays(store: EventStore) -> None:
    store.append([interaction("old"), interaction("edge", days=1), interaction("new", days=2)])
    for name in ("old", "never-stored"):
        store.amend(name, thumb())
    store.amend("later", thumb(days=2))
    assert store.delete(before=T0 + timedelta(days=1)) == 1
    assert ids(store) == ["edge", "new"]
    assert store.info().feedback == 1


def test_a_tenant_and_a_time_mean_both(store: EventStore) -> None:
    store.append([interaction(f"{who}{day}", days=day, tenant=who) for who in "xy" for day in (0, 1)])
    assert store.delete(tenant="x", before=T0 + timedelta(days=1)) == 1
    assert ids(store) == ["y0", "x1", "y1"]
    store.append([interaction("x-late", tenant="x"), interaction("x-new", days=1, tenant="x")])
    assert ids(store) == ["y0", "x-new", "x1", "y1"]


@pytest.mark.parametrize("meant", [{"ids": ["a"]}, {"tenant": "acme"}, {"before": T0 + timedelta(days=1)}])
def test_what_was_deleted_does_not_come_back(store: EventStore, meant: dict[str, object]) -> None:
    gone = [interaction("a", tenant="acme"), interaction("a-audit", tenant="acme")]
    store.append(gone[:1])
    store.delete(**meant)  # type: ignore[arg-type]
    store.append([*gone, interaction("b", days=5)])
    assert ids(store) == ["b"]


def test_feedback_on_what_was_deleted_is_not_kept(store: EventStore) -> None:
    store.append([interaction("a", tenant="acme"), interaction("b")])
    store.delete(tenant="acme")
    store.delete(ids=["b"])
    assert not store.amend("a", thumb())
    assert not store.amend("b", thumb())
    # The interaction was still on its way when its tenant was deleted, and its feedback arrived before it.
    assert store.amend("late", thumb())
    store.append([interaction("late", tenant="acme")])
    assert not store.amend("late", thumb())
    assert (ids(store), store.info().feedback) == ([], 0)


def test_a_tenant_that_comes_back_later_is_stored(store: EventStore) -> None:
    store.append([interaction("a", tenant="acme")])
    store.delete(tenant="acme")
    new = interaction("new", tenant="acme").model_copy(update={"ts": datetime.now(UTC) + timedelta(seconds=1)})
    store.append([new])
    assert ids(store) == ["new"]


def test_marks_are_found_among_many(store: EventStore) -> None:
    store.delete(ids=[f"i{n}" for n in range(deletion_module._MANY)])
    store.delete(tenant="acme")
    store.delete(before=T0)
    store.append([interaction("i7"), interaction("x", tenant="acme"), interaction("old", days=-1), interaction("kept")])
    assert ids(store) == ["kept"]


def test_a_limit_deletes_bit_by_bit(store: EventStore) -> None:
    store.append([interaction(f"i{n}", tenant="acme") for n in range(5)])
    assert [store.delete(tenant="acme", limit=2) for _ in range(4)] == [2, 2, 1, 0]
    store.append([interaction(f"j{n}", days=9) for n in range(3)])
    assert [store.delete(before=T0 + timedelta(days=9, hours=1), limit=2) for _ in range(3)] == [2, 1, 0]


def test_large_deletions_go_by_pages(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 2 * deletion_module.PAGE + 7
    store.append([interaction(f"i{k:04d}", tenant="acme") for k in range(n)])
    for k in range(n):
        store.amend(f"orphan{k}", thumb()) if k % 40 == 0 else None
    assert store.delete(before=T0 + timedelta(days=1)) == n
    assert (store.count(), store.info().feedback) == (0, 0)


@pytest.mark.parametrize("meant", [{}, {"tenant": ""}, {"ids": ["a"], "tenant": "acme"}, {"ids": ["a"], "before": T0}])
def test_a_deletion_that_is_not_clear_is_refused(store: EventStore, meant: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="say what to delete"):
        store.delete(**meant)  # type: ignore[arg-type]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tenant=st.text(min_size=1))
def test_any_text_is_a_tenant(store: EventStore, tenant: str) -> None:
    store.append_rows([StoreRow.of("x", T0, "{}", mode="live", policy_version=None, tenant=tenant)])
    store.delete(tenant=tenant)
    assert store.count() == 0


def test_long_names_are_told_apart_and_found_again(store: EventStore) -> None:
    names = [letter * 20_000 for letter in "aé日"]
    store.append([interaction(name, tenant=name) for name in names])
    for name in names:
        assert store.amend(name, thumb().model_copy(update={"key": name}))
        assert not store.amend(name, thumb().model_copy(update={"key": name}))
    assert [len(found.feedback) for found in store.scan()] == [1, 1, 1]
    assert store.delete(tenant=names[0]) == 1
    assert store.delete(ids=[names[1]]) == 1
    assert ids(store) == [names[2]]


def test_tenants_of_rows_without_that_column_are_read_from_their_bodies(store_url: str) -> None:
    engine = create_engine(store_url.replace("?timeout=0.5", ""))
    items = [interaction("a", tenant="acme"), interaction("b", tenant="other"), interaction("c")]
    with engine.begin() as connection:
        migrate(connection, MIGRATIONS[:2])
        for row in (*map(row_of, items), row_of(interaction("torn"))._replace(body='{"tenant": "ac')):
            values = ", ".join(f"'{value}'" for value in (row.id, row.ts, row.mode, row.body.replace("'", "''")))
            connection.exec_driver_sql(f"INSERT INTO interactions (id, ts, mode, body) VALUES ({values})")
    engine.dispose()
    with open_store(store_url) as store:
        assert store.delete(tenant="acme") == 1
        assert store.count() == 3
        assert list(store.scan()) == items[1:]


def test_what_the_store_holds_is_told(store: EventStore) -> None:
    empty = store.info()
    assert (empty.interactions, empty.feedback, empty.oldest, empty.newest) == (0, 0, None, None)
    store.append([interaction("a"), interaction("a-audit", mode="audit"), interaction("b", days=1)])
    store.amend("a", thumb())
    info = store.info()
    assert (info.schema, info.interactions, info.by_mode) == (len(MIGRATIONS), 3, {"live": 2, "audit": 1})
    assert (info.feedback, info.oldest, info.newest) == (1, T0, T0 + timedelta(days=1))
    assert type(info.size_bytes) is int
    assert info.size_bytes > 0


def files_with(folder: Path, needle: bytes) -> list[str]:
    return [path.name for path in folder.iterdir() if needle in path.read_bytes()]


@pytest.mark.parametrize("by", ["id", "tenant", "time"])
def test_deleted_text_is_in_no_file_any_more(tmp_path: Path, by: str) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with open_store(url) as service, open_store(url) as other:
        for batch in range(30):  # of many sizes, so that pages are split and merged and overflow
            rows = [
                interaction(
                    f"{'gone' if n % 3 else 'kept'}-{batch}-{n}",
                    days=-2 if n % 3 else 2,
                    tenant="acme" if n % 3 else "other",
                    tags={"text": ("CANARY-" if n % 3 else "harmless ") * (1 + (37 * n * batch) % 900)},
                )
                for n in range(10)
            ]
            service.append(rows)
            service.amend(rows[1].id, thumb(days=-2).model_copy(update={"reason": "CANARY-too"}))
        assert "events.db" in files_with(tmp_path, b"CANARY-") or "events.db-wal" in files_with(tmp_path, b"CANARY-")
        gone = [item.id for item in other.scan() if item.id.startswith("gone")]
        meant: dict[str, dict[str, object]] = {
            "id": {"ids": gone},
            "tenant": {"tenant": "acme"},
            "time": {"before": T0 + timedelta(days=1)},
        }
        assert other.delete(**meant[by]) == len(gone)  # type: ignore[arg-type]
        assert files_with(tmp_path, b"CANARY-") == []
        assert files_with(tmp_path, b"acme") == []
        assert service.count() == 30 * 4
    assert files_with(tmp_path, b"CANARY-") == []


def test_a_log_that_a_reader_still_needs_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{tmp_path}/events.db?timeout=0.05"
    with open_store(url) as store, closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as reader:
        store.append([interaction("a", tags={"text": "CANARY"})])
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM interactions").fetchall()
        assert store.delete(ids=["a"]) == 1
        assert [record.getMessage() for record in caplog.records] == ["deleted_text_in_log"]
        reader.execute("COMMIT")
        store.delete(ids=["a"])
    assert files_with(tmp_path, b"CANARY") == []


def test_old_marks_are_forgotten(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with open_store(url) as store:
        store.delete(ids=["a"])
        long_ago = (datetime.now(UTC) - timedelta(days=91)).isoformat(timespec="microseconds")
        with closing(sqlite3.connect(tmp_path / "events.db")) as file, file:
            file.execute("UPDATE deletions SET made = ?", (long_ago,))
        store.delete(before=T0)
        store.append([interaction("a")])
        assert ids(store) == ["a"]
    with closing(sqlite3.connect(tmp_path / "events.db")) as file:
        assert file.execute("SELECT mark FROM deletions").fetchall() == [("before",)]


def test_a_row_has_the_columns_of_its_interaction() -> None:
    row = row_of(interaction("a\x00", tenant="ac\x00me", policy_version="v1", mode="audit"))
    assert (row.id, row.tenant, row.policy_version, row.mode) == ("a\ufffd", "ac\ufffdme", "v1", "audit")
    assert json.loads(row.body)["tenant"] == "ac\x00me"
    assert row.ts == "2025-11-22T10:00:00.000000+00:00"
    assert row_of(interaction("a")).tenant == ""
