"""Two archive runs at once: the second is told, and whoever was killed blocks nobody for long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from router_ml.errors import RouterError, UsageError
from router_ml.schema import parse_interaction
from router_ml.store import open_store
from router_ml_training.archive import archive
from router_ml_training.archive_lock import LOCK, lease, lock
from router_ml_training.archive_places import open_place

DAY = datetime(2026, 11, 20, tzinfo=UTC)
HOLDING = """
import sys, time
from pathlib import Path
from router_ml_training.archive_lock import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def at(minutes: int) -> Callable[[], datetime]:
    return lambda: DAY + timedelta(minutes=minutes)


def test_a_folder_has_one_writer_and_is_free_again_when_that_one_dies(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "past")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RouterError, match="past: another archive run is writing there"), lock(tmp_path / "past"):
            pass
        os.kill(other.pid, signal.SIGKILL)
        other.wait(10)
    with lock(tmp_path / "past"):
        pass


@pytest.mark.e2e
def test_a_bucket_has_one_writer(objects: Any) -> None:
    store = objects.store("past")
    with lease(store, at(0)):
        with pytest.raises(RouterError, match=r"another archive run is writing there, until 2026-11-20 01:00:00 UTC"):
            lease(store, at(30)).__enter__()
        assert store.get(LOCK) is not None
    with lease(store, at(-5)):  # given back, by the clock of any machine
        pass


@pytest.mark.e2e
def test_who_was_killed_keeps_others_away_for_an_hour_and_does_not_write_on(objects: Any) -> None:
    store, minutes = objects.store("past"), 0
    with ExitStack() as first, ExitStack() as second:
        renew = first.enter_context(lease(store, lambda: DAY + timedelta(minutes=minutes)))
        minutes = 50
        renew()
        with pytest.raises(RouterError, match="another archive run"):
            lease(store, at(70)).__enter__()
        go_on = second.enter_context(lease(store, at(111)))
        with pytest.raises(RouterError, match="another archive run has begun to write there"):
            renew()
        go_on()


@pytest.mark.e2e
def test_what_is_no_lease_holds_nobody_up(objects: Any) -> None:
    objects.store("past").put(LOCK, b"not a lease", after=None)
    with lease(objects.store("past"), at(0)):
        pass


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_second_run_writes_and_deletes_nothing(kind: str, objects: Any, tmp_path: Path) -> None:
    to = str(tmp_path / "past") if kind == "folder" else f"{objects.url}/past"
    place = open_place(to, objects.settings)
    with open_store(f"sqlite:///{tmp_path}/events.db") as store:
        store.append([parse_interaction({"id": "a", "ts": DAY.isoformat()})])
        with place.held(), pytest.raises(RouterError, match="another archive run"):
            archive(store, open_place(to, objects.settings), before=DAY + timedelta(days=1), delete=True)
        assert (place.days(), store.count()) == ([], 1)
        assert archive(store, place, before=DAY + timedelta(days=1)).days[0].written


@pytest.mark.e2e
def test_who_was_overtaken_while_a_day_was_read_does_not_write_it(objects: Any, tmp_path: Path) -> None:
    to, calls = f"{objects.url}/past", 0
    with ExitStack() as overtaking, open_store(f"sqlite:///{tmp_path}/events.db") as store:
        store.append([parse_interaction({"id": "a", "ts": DAY.isoformat()})])

        def clock() -> datetime:
            nonlocal calls
            calls += 1
            if calls == 4:  # two for the lease, one when the day begins, one before it is written
                overtaking.enter_context(lease(objects.store("past"), at(120)))
            return DAY

        place = open_place(to, objects.settings, clock)
        with pytest.raises(RouterError, match="another archive run has begun to write there"):
            archive(store, place, before=DAY + timedelta(days=1))
        assert place.days() == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "past").write_text("a file")
    with pytest.raises(UsageError, match="cannot be written"):
        lock(tmp_path / "past").__enter__()
