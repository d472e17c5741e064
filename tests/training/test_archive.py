"""Past days of the event store in a folder and on a real S3 server: the same bytes twice, no row lost, deleted last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from router_ml.cli import main
from router_ml.config import ObjectSettings
from router_ml.errors import DataError, ObjectStoreError, UsageError
from router_ml.schema import Feedback, Interaction, parse_interaction
from router_ml.store import EventStore, open_store
from router_ml_training.archive import archive, forget
from router_ml_training.archive_lock import LOCK
from router_ml_training.archive_places import open_place
from router_ml_training.frames import read_parquet
from router_ml_training.sources.objects import scan

DAY = datetime(2026, 11, 20, tzinfo=UTC)
END = DAY + timedelta(days=3)


def interaction(i: int, ts: datetime) -> Interaction:
    return parse_interaction({"id": f"i{i:03d}", "ts": ts.isoformat(), "attempts": [{"tier": "small"}]})


@pytest.fixture
def store(tmp_path: Path) -> Any:
    """Four days with an interaction every six hours, the last day not over yet."""
    with open_store(f"sqlite:///{tmp_path}/events.db") as store:
        store.append([interaction(i, DAY + timedelta(hours=6 * i)) for i in range(15)])
        yield store


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("[!.]*") if file.is_file()}


def ids_of(file: Path) -> list[str]:
    return [item.id for item in read_parquet(file)]


def test_every_day_that_is_over_is_one_part(store: EventStore, tmp_path: Path) -> None:
    report = archive(store, open_place(str(tmp_path / "past"), ObjectSettings()), before=END + timedelta(hours=5))
    days = ["2026-11-20", "2026-11-21", "2026-11-22"]
    assert [(one.day, one.rows, one.written) for one in report.days] == [(day, 4, True) for day in days]
    assert sorted(bytes_below(tmp_path / "past")) == [f"day={day}/part-0.parquet" for day in days]
    assert ids_of(tmp_path / "past" / "day=2026-11-21" / "part-0.parquet") == ["i004", "i005", "i006", "i007"]
    assert store.count() == 15


def test_a_day_written_twice_is_the_same_to_the_byte(store: EventStore, tmp_path: Path) -> None:
    place = open_place(str(tmp_path / "past"), ObjectSettings())
    archive(store, place, before=END)
    before = bytes_below(tmp_path / "past")
    report = archive(store, place, before=END)
    assert [one.written for one in report.days] == [False, False, False]
    archive(store, open_place(str(tmp_path / "again"), ObjectSettings()), before=END)
    assert bytes_below(tmp_path / "past") == before == bytes_below(tmp_path / "again")


def test_late_feedback_reaches_a_day_that_was_archived(store: EventStore, tmp_path: Path) -> None:
    place = open_place(str(tmp_path / "past"), ObjectSettings())
    archive(store, place, before=END)
    store.amend("i001", Feedback(ts=END, source="user", adequate=False))
    report = archive(store, place, before=END)
    assert [one.written for one in report.days] == [True, False, False]
    second = list(read_parquet(tmp_path / "past" / "day=2026-11-20" / "part-0.parquet"))[1]
    assert [one.adequate for one in second.feedback] == [False]


def test_a_day_never_loses_a_row(store: EventStore, tmp_path: Path) -> None:
    place = open_place(str(tmp_path / "past"), ObjectSettings())
    archive(store, place, before=END)
    store.delete(ids=["i000", "i002"])
    store.append([interaction(99, DAY + timedelta(hours=7))])
    (first, *_), *_ = [archive(store, place, before=END).days]
    assert first.rows == 5
    assert ids_of(tmp_path / "past" / "day=2026-11-20" / "part-0.parquet") == ["i000", "i001", "i099", "i002", "i003"]


def test_deleting_keeps_the_last_hour_and_what_is_not_over(store: EventStore, tmp_path: Path) -> None:
    store.append([interaction(50, END - timedelta(minutes=10))])
    place = open_place(str(tmp_path / "past"), ObjectSettings())
    report = archive(store, place, before=END, delete=True)
    assert report.deleted == 12
    # What runs beside the request of ten to midnight may not be here yet.
    assert [item.id for item in store.scan()] == ["i050", "i012", "i013", "i014"]
    assert archive(store, place, before=END, delete=True).deleted == 0
    total = sum(len(ids_of(file)) for file in (tmp_path / "past").rglob("*.parquet"))
    assert total == 13


def test_what_got_feedback_or_arrived_while_it_was_archived_is_not_deleted(store: EventStore, tmp_path: Path) -> None:
    store.amend("i003", Feedback(ts=DAY, source="user", adequate=True))
    place = open_place(str(tmp_path / "past"), ObjectSettings())

    def progress(text: str) -> None:
        if text == "deleting 2026-11-20":
            store.amend("i001", Feedback(ts=END, source="user", adequate=False))
            store.append([interaction(99, DAY + timedelta(hours=7))])

    assert archive(store, place, before=END, delete=True, progress=progress).deleted == 11
    assert [item.id for item in store.scan()][:2] == ["i001", "i099"]
    assert archive(store, place, before=END, delete=True).deleted == 2
    day = {item.id: item for item in read_parquet(tmp_path / "past" / "day=2026-11-20" / "part-0.parquet")}
    assert sorted(day) == ["i000", "i001", "i002", "i003", "i099"]
    assert [one.adequate for one in (*day["i001"].feedback, *day["i003"].feedback)] == [False, True]


def test_only_recent_days_are_looked_at_when_asked(store: EventStore, tmp_path: Path) -> None:
    place = open_place(str(tmp_path / "past"), ObjectSettings())
    report = archive(store, place, before=END, since=DAY + timedelta(days=1, hours=5))
    assert [(one.day, one.rows) for one in report.days] == [("2026-11-21", 4), ("2026-11-22", 4)]


def test_a_damaged_day_stops_everything_before_it_is_deleted(store: EventStore, tmp_path: Path) -> None:
    place = open_place(str(tmp_path / "past"), ObjectSettings())
    archive(store, place, before=END)
    (tmp_path / "past" / "day=2026-11-21" / "part-0.parquet").write_bytes(b"no Parquet")
    with pytest.raises(DataError, match=r"day=2026-11-21/part-0.parquet: cannot be read as Parquet"):
        archive(store, place, before=END, delete=True)
    assert store.count() == 15


def test_a_folder_that_cannot_be_written_is_named(store: EventStore, tmp_path: Path) -> None:
    (tmp_path / "past").write_text("a file")
    with pytest.raises(UsageError, match=r"past/?.*: cannot be written"):
        archive(store, open_place(str(tmp_path / "past"), ObjectSettings()), before=END)


@pytest.mark.e2e
def test_a_bucket_gets_the_same_bytes_as_a_folder(store: EventStore, objects: Any, tmp_path: Path) -> None:
    archive(store, open_place(str(tmp_path / "past"), ObjectSettings()), before=END)
    place = open_place(f"{objects.url}/past", objects.settings)
    assert all(one.written for one in archive(store, place, before=END).days)
    found = {
        item.key: objects.store("past").get(item.key).data for item in objects.store("past").list() if item.key != LOCK
    }
    assert found == bytes_below(tmp_path / "past")
    store.delete(ids=["i000"])
    store.append([interaction(99, DAY + timedelta(days=1))])
    report = archive(store, place, before=END, delete=True)
    assert [(one.rows, one.written) for one in report.days] == [(4, False), (5, True), (4, False)]
    assert report.deleted == 12
    since = DAY + timedelta(days=1)
    assert sum(map(len, scan(f"{objects.url}/past", objects.settings, since=since))) == 9


@pytest.mark.e2e
def test_a_storage_that_goes_away_deletes_nothing(store: EventStore, objects_of_its_own: Any) -> None:
    place = open_place(f"{objects_of_its_own.url}/past", objects_of_its_own.settings)
    said: list[str] = []

    def progress(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            objects_of_its_own.stop()

    with pytest.raises(ObjectStoreError, match=r"/past/.* does not answer"):
        archive(store, place, before=END, delete=True, progress=progress)
    assert said == ["archiving 2026-11-20", "archiving 2026-11-21"]
    assert store.count() == 15


def test_the_command_archives_and_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    noon = datetime.now(UTC).replace(hour=12)
    with open_store("sqlite:///router_ml.db") as store:
        store.append([interaction(days, noon - timedelta(days=days)) for days in (30, 20, 10, 0)])
    assert main(["archive", "--to", "past", "--before", "2w", "--since", "25d", "--delete"]) == 0
    day = f"{noon - timedelta(days=20):%Y-%m-%d}"
    assert capsys.readouterr().out.splitlines() == [
        f"{day}  1 interactions  written  past/day={day}/part-0.parquet",
        "deleted 1 interactions from the event store",
    ]
    assert main(["archive", "--to", "past", "--before", "5w"]) == 0
    assert capsys.readouterr().out == "no day is over yet; nothing was archived\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--before", "soon"], "expected an age such as 7d, 12h or 2w, got 'soon'"),
        (["--store", "sqlite:///nowhere.db"], "there is no event store nowhere.db"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(
    argv: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["archive", "--to", "past", *argv]) == 2
    assert words in capsys.readouterr().err


def of_tenants(store: EventStore, day: datetime = DAY) -> None:
    rows = [
        {"id": "a1", "tenant": "acme"},
        {"id": "a1-audit", "tenant": "acme"},
        {"id": "b1", "tenant": "beta"},
        {"id": "a2", "tenant": "acme", "ts": day + timedelta(days=2, hours=23)},
    ]
    store.append([parse_interaction({"ts": (day + timedelta(hours=1)).isoformat(), **row}) for row in rows])


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_tenant_and_a_request_are_forgotten_by_the_archive_too(
    kind: str, store: EventStore, objects: Any, tmp_path: Path
) -> None:
    of_tenants(store)
    place = open_place(str(tmp_path / "past") if kind == "folder" else f"{objects.url}/past", objects.settings)
    archive(store, place, before=END)
    store.delete(tenant="acme")
    store.delete(ids=["i004"])

    def ids() -> list[str]:
        return sorted(id_ for key in place.days() for frame in place.frames(key) for id_ in frame["id"])

    assert {"a1", "a1-audit", "a2", "i004"} <= set(ids()), "an archived day loses nothing by itself"
    report = forget(place, ids=["i004"], tenant="acme")
    assert ([one.day for one in report.days], report.forgotten) == (["2026-11-20", "2026-11-21", "2026-11-22"], 4)
    assert ids() == ["b1", *(f"i{i:03d}" for i in range(12) if i != 4)]
    assert forget(place, ids=["i004"], tenant="acme").days == ()
    archive(store, place, before=END)
    assert ids() == ["b1", *(f"i{i:03d}" for i in range(12) if i != 4)], "nor does it come back from the store"
    assert forget(place, ids=ids()).forgotten == 12
    assert ids() == []


def test_where_no_day_is_nothing_passes_for_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["archive", "--to", str(tmp_path / "pats"), "--forget-tenant", "acme"]) == DataError.exit_code
    assert "pats: no archived day is there; check --to" in capsys.readouterr().err
    assert not (tmp_path / "pats").exists()


def test_the_commands_say_where_else_something_is_and_take_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///router_ml.db") as store:
        of_tenants(store, DAY - timedelta(days=365))
    assert main(["archive", "--to", "past"]) == 0
    assert main(["store", "delete", "--tenant", "acme", "--yes"]) == 0
    assert "`router-ml archive --to URL --forget-tenant acme` takes them out there" in capsys.readouterr().out
    assert main(["archive", "--to", "past", "--forget-tenant", "acme"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 interactions are gone from the archive"
    assert main(["archive", "--to", "past", "--forget-tenant", "acme", "--delete"]) == 2
    assert "go with --to alone" in capsys.readouterr().err
