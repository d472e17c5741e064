"""Two shelves and a depot on a real S3 server: what is pushed is followed, and nobody undoes what another did."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from router_ml.depot import Depot
from router_ml.errors import BundleCorrupt, BundleError, ObjectStoreError, RouterError
from router_ml.objects import ObjectConflict
from router_ml.shelf import Shelf
from router_ml.syncing import Synced, pull, push, watch

pytestmark = pytest.mark.e2e
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.fixture
def depot(objects: Any) -> Depot:
    return Depot(objects.store("models"))


@pytest.fixture
def trainer(make_bundle: Callable[..., Path]) -> Shelf:
    """A shelf with three bundles, the first of them in service."""
    folder = make_bundle("v1").parent
    for version in ("v2", "v3"):
        make_bundle(version)
    shelf = Shelf(folder)
    shelf.promote("v1", reason="first", now=NOW)
    return shelf


@pytest.fixture
def replica(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "replica")


def later(minutes: int) -> datetime:
    return NOW + timedelta(minutes=minutes)


def versions(shelf: Shelf) -> list[str]:
    return [entry.version for entry in shelf.versions()]


def test_a_replica_follows_champion_and_challenger(depot: Depot, trainer: Shelf, replica: Shelf) -> None:
    trainer.challenge("v2", reason="try it", now=later(1), share=0.1)
    assert push(trainer, depot) == Synced(("v1", "v2", "v3"), "v1", "v2", changed=True)
    assert pull(replica, depot) == Synced(("v1", "v2"), "v1", "v2", changed=True)
    found = replica.challenger()
    assert found is not None
    assert found.share == 0.1
    trainer.promote("v2", reason="better", now=later(2))
    assert push(trainer, depot) == Synced((), "v2", None, changed=True)
    assert pull(replica, depot) == Synced((), "v2", None, changed=True)
    assert replica.switches() == trainer.switches()
    assert replica.rollback(now=later(3)) == "v1"


def test_what_is_in_step_is_left_alone(depot: Depot, trainer: Shelf, replica: Shelf) -> None:
    push(trainer, depot)
    assert push(trainer, depot) == Synced((), "v1", None, changed=False)
    pull(replica, depot)
    before = (replica.directory / "champion").stat().st_mtime_ns
    assert pull(replica, depot) == Synced((), "v1", None, changed=False)
    assert (replica.directory / "champion").stat().st_mtime_ns == before


def test_a_rollback_to_the_default_bundle_is_followed(depot: Depot, trainer: Shelf, replica: Shelf) -> None:
    push(trainer, depot)
    pull(replica, depot)
    trainer.rollback(now=later(1))
    push(trainer, depot)
    assert pull(replica, depot).champion == "default"
    assert replica.champion() is None


def test_an_automatic_rollback_is_not_undone_until_the_depot_changes(
    depot: Depot, trainer: Shelf, replica: Shelf
) -> None:
    trainer.promote("v2", reason="better", now=later(1))
    push(trainer, depot)
    pull(replica, depot)
    replica.rollback(now=later(2), cause="automatic", reason="it does worse")
    assert pull(replica, depot).champion == "v1"
    # Somebody means the same version anew: rolled back, and promoted again, between two looks.
    trainer.rollback(now=later(3))
    trainer.promote("v2", reason="once more", now=later(4))
    push(trainer, depot)
    assert pull(replica, depot).champion == "v2"
    assert [one.action for one in replica.switches()] == ["promote", "promote", "rollback", "rollback", "promote"]


def test_a_replica_can_tell_the_depot_of_its_rollback(depot: Depot, trainer: Shelf, replica: Shelf) -> None:
    trainer.promote("v2", reason="better", now=later(1))
    push(trainer, depot)
    pull(replica, depot)
    replica.rollback(now=later(2), cause="automatic", reason="it does worse")
    assert push(replica, depot).champion == "v1"
    assert pull(trainer, depot).champion == "v1"


def test_two_writers_cannot_make_two_champions(depot: Depot, trainer: Shelf, replica: Shelf, tmp_path: Path) -> None:
    push(trainer, depot)
    pull(replica, depot, ["v2", "v3"])
    trainer.promote("v2", reason="ours", now=later(1))
    replica.promote("v3", reason="theirs", now=later(2))
    push(trainer, depot)
    with pytest.raises(ObjectConflict, match=r"somebody else has switched there \(promote v2, .*`router-ml sync pull`"):
        push(replica, depot)
    assert pull(replica, depot).champion == "v2"
    replica.promote("v3", reason="all the same", now=later(3))
    assert push(replica, depot).champion == "v3"
    assert pull(trainer, depot).champion == "v3"


def test_a_writer_who_saw_the_record_but_not_yet_the_pointer_is_refused(
    depot: Depot, trainer: Shelf, replica: Shelf
) -> None:
    push(trainer, depot)
    pull(replica, depot)
    trainer.promote("v2", reason="better", now=later(1))
    state = depot.state()
    # The other writer has written the record, and is about to write the pointer.
    depot.push(trainer.path("v2"))
    record = (trainer.directory / "switches.jsonl").read_bytes()
    depot.write({"switches.jsonl": (state.record, record)})
    assert pull(replica, depot).champion == "v1"
    depot.write({"champion": (state.champion, b"v2\n")})
    with pytest.raises(ObjectConflict, match="says 'v2', which this shelf has not seen yet"):
        push(replica, depot)
    assert pull(replica, depot).champion == "v2"


def test_a_push_that_was_cut_off_before_the_pointer_goes_on(depot: Depot, trainer: Shelf, replica: Shelf) -> None:
    push(trainer, depot)
    trainer.promote("v2", reason="better", now=later(1))
    state = depot.state()
    depot.write({"switches.jsonl": (state.record, (trainer.directory / "switches.jsonl").read_bytes())})
    assert push(trainer, depot).champion == "v2"
    assert pull(replica, depot).champion == "v2"


def test_a_champion_that_is_damaged_in_the_depot_is_not_put_into_service(
    depot: Depot, trainer: Shelf, replica: Shelf
) -> None:
    push(trainer, depot)
    pull(replica, depot)
    trainer.promote("v2", reason="better", now=later(1))
    push(trainer, depot)
    depot.objects.put("v2/model.onnx", b"no graph", after=depot.objects.get("v2/model.onnx"))
    with pytest.raises(BundleCorrupt, match=r"v2/model.onnx: does not match its checksum"):
        pull(replica, depot)
    assert (replica.champion(), versions(replica)) == ("v1", ["v1"])


def test_a_copy_that_was_damaged_here_is_not_put_into_service(depot: Depot, trainer: Shelf, replica: Shelf) -> None:
    push(trainer, depot)
    pull(replica, depot, ["v2"])
    (replica.directory / "v2" / "model.onnx").write_bytes(b"no graph")
    trainer.promote("v2", reason="better", now=later(1))
    push(trainer, depot)
    with pytest.raises(BundleCorrupt, match="checksum"):
        pull(replica, depot)
    assert replica.champion() == "v1"


def another(version: str, shelf: Shelf, folder: Path) -> Shelf:
    """A shelf of another machine, which has made a bundle of its own under the same name."""
    folder.mkdir()
    shutil.copytree(shelf.path(version), folder / version)
    manifest = json.loads((folder / version / "manifest.json").read_text())
    (folder / version / "manifest.json").write_text(json.dumps({**manifest, "git_commit": "another"}))
    return Shelf(folder)


def test_two_bundles_of_one_name_are_not_taken_for_each_other(depot: Depot, trainer: Shelf, tmp_path: Path) -> None:
    push(trainer, depot)
    other = another("v1", trainer, tmp_path / "other")
    with pytest.raises(BundleError, match=r"v1/manifest.json: is another bundle than .*, under the same name"):
        pull(other, depot)
    assert other.champion() is None
    shutil.copy(trainer.directory / "switches.jsonl", other.directory)
    with pytest.raises(BundleError, match="is another bundle"):
        push(other, depot, ["v1"])
    other.promote("v1", reason="its own", now=later(1))
    with pytest.raises(BundleError, match="is another bundle"):
        push(other, depot)
    record = depot.objects.get("switches.jsonl")
    assert record is not None
    assert b"its own" not in record.data


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("champion", b"v2 \xff\n"),
        ("champion", b"../v2\n"),
        ("challenger", b"v2 7\n"),
        ("challenger", b"v2 \xff\n"),
    ],
)
def test_what_no_shelf_would_write_is_refused_before_it_is_followed(
    depot: Depot, trainer: Shelf, replica: Shelf, key: str, text: bytes
) -> None:
    push(trainer, depot)
    pull(replica, depot)
    depot.objects.put(key, text, after=depot.objects.get(key))
    with pytest.raises(RouterError, match=depot.objects.url):
        pull(replica, depot)
    assert replica.champion() == "v1"
    assert replica.challenger() is None


@pytest.mark.parametrize("line", [b'{"action": "promote", "to": ["v1"]}', b"5", b"[" * 100_000, b'{"ts": "\xff"}'])
def test_lines_of_the_record_that_say_no_switch_are_left_out(
    depot: Depot, trainer: Shelf, replica: Shelf, line: bytes
) -> None:
    push(trainer, depot)
    record = depot.objects.get("switches.jsonl")
    assert record is not None
    depot.objects.put("switches.jsonl", record.data + line + b"\n", after=record)
    assert pull(replica, depot).champion == "v1"
    assert [one.after for one in replica.switches()] == ["v1"]


def test_an_empty_depot_is_said_to_be_empty(depot: Depot, replica: Shelf) -> None:
    with pytest.raises(ObjectStoreError, match="no bundle and no champion there; `router-ml sync push` first"):
        pull(replica, depot)
    assert not replica.directory.exists()


def test_a_version_that_was_pruned_from_the_depot_is_not_missed(depot: Depot, trainer: Shelf, replica: Shelf) -> None:
    trainer.promote("v2", reason="better", now=later(1))
    shutil.rmtree(trainer.directory / "v1")
    push(trainer, depot)
    assert pull(replica, depot).versions == ("v2",)


def test_a_watch_says_each_change_once_and_keeps_the_last_good_state(
    objects_of_its_own: Any, trainer: Shelf, replica: Shelf
) -> None:
    depot = Depot(objects_of_its_own.store("models"))
    push(trainer, depot)
    said: list[str] = []
    stop, heard = threading.Event(), threading.Condition()

    def say(state: str, _: Synced | None) -> None:
        with heard:
            said.append(state)
            heard.notify_all()

    def wait_for(n: int) -> None:
        with heard:
            assert heard.wait_for(lambda: len(said) >= n, 20)

    watching = threading.Thread(target=watch, args=(replica, depot), kwargs={"every_s": 0.05, "stop": stop, "say": say})
    watching.start()
    try:
        wait_for(1)
        trainer.promote("v2", reason="better", now=later(1))
        push(trainer, depot)
        wait_for(2)
        objects_of_its_own.stop()
        wait_for(3)
        # Several looks at a storage that stays away.
        watching.join(2.0)
    finally:
        stop.set()
        watching.join(10)
    url = depot.objects.url
    assert said[:2] == [f"in step with {url}: champion v1", f"in step with {url}: champion v2"]
    assert "the shelf stays as it is" in said[2]
    assert "does not answer" in said[2]
    assert len(said) == 3
    assert replica.champion() == "v2"
