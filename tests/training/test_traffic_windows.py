"""The last window of a log and the time before it, from files and stores, with who decided what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.errors import DataError
from router_ml.store import open_store
from router_ml_training.reading import Log
from router_ml_training.traffic_windows import EARLIER_WINDOWS, read_windows

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def log(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Log:
    """600 requests, one a minute: the second half decided by `v2`."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    items = world.log(600, policy="chain")
    lines = [
        item.model_copy(update={"policy_version": "v1" if i < 300 else "v2"}).to_json() for i, item in enumerate(items)
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    return Log(str(path))


def read(log: Log, world: Any, *, hours: float = 2.0, until_hours: float = 10.0, version: str = "v2") -> Any:
    return read_windows(
        [log],
        world.ladder,
        length=timedelta(hours=hours),
        until=START + timedelta(hours=until_hours),
        version=version,
    )


def test_the_window_and_what_came_before_it(log: Log, world: Any) -> None:
    found = read(log, world)
    assert len(found.window()) == 120
    assert len(found.before()) == 480
    assert len(found.own_window()) == 120
    assert len(found.own_before()) == 180
    assert found.window().ts.min() == (START + timedelta(hours=8)).timestamp()
    assert found.window().text.nnz > 0


def test_only_so_much_is_read_of_what_came_before(log: Log, world: Any) -> None:
    found = read(log, world, hours=0.5)
    assert len(found.before()) == EARLIER_WINDOWS * 30


def test_what_is_later_than_the_end_is_left_out(log: Log, world: Any) -> None:
    found = read(log, world, until_hours=4.0)
    assert found.dataset.ts.max() <= (START + timedelta(hours=4)).timestamp()
    assert found.own_window() is None
    assert len(read(log, world, until_hours=4.0, version="v1").own_window()) == 121  # both ends belong to it


def test_nothing_before_the_window_is_none(log: Log, world: Any) -> None:
    found = read(log, world, hours=24.0)
    assert found.before() is None
    assert found.own_before() is None


def test_an_empty_window_says_where_to_look(log: Log, world: Any) -> None:
    with pytest.raises(DataError, match=r"no interaction between .*look further back with --since"):
        read(log, world, until_hours=1000.0)


def test_a_tier_that_nobody_judged_is_no_obstacle(log: Log, world: Any, tmp_path: Path) -> None:
    items = [
        item.model_copy(update={"attempts": (item.attempts[0].model_copy(update={"verdicts": ()}),)})
        for item in world.log(50, policy="chain")
    ]
    path = tmp_path / "silent.jsonl"
    path.write_text("".join(f"{item.to_json()}\n" for item in items))
    found = read(Log(str(path)), world, until_hours=1.0)
    assert np.isnan(found.window().quality).all()


def test_a_store_is_read_from_where_it_matters(world: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with open_store(url) as store:
        store.append(world.log(600, policy="chain"))
    found = read(Log(url, "store"), world, hours=1.0)
    assert (len(found.window()), len(found.before())) == (60, 240)
