"""Where an archive is kept: the same days, rows and comparisons in a folder and in a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router_ml.errors import DataError
from router_ml.schema import parse_interaction
from router_ml_training.archive_places import PART, Place, open_place
from router_ml_training.frames import write_parquet

pytestmark = pytest.mark.e2e
KEYS = [f"day=2026-11-{day}/{PART}" for day in (20, 21)]


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, objects: Any, tmp_path: Path) -> Place:
    return open_place(str(tmp_path / "past") if request.param == "folder" else f"{objects.url}/past", objects.settings)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    items = [parse_interaction({"id": f"i{i}", "ts": f"2026-11-20T0{i}:00:00Z"}) for i in range(3)]
    write_parquet(tmp_path / PART, items)
    return tmp_path / PART


def test_a_day_is_read_as_it_was_put(place: Place, part: Path) -> None:
    assert (place.days(), list(place.frames(KEYS[0]))) == ([], [])
    assert not place.same(KEYS[0], part)
    for key in (*reversed(KEYS), f"day=soon/{PART}", "day=2026-11-22/part-1.parquet"):
        place.put(key, part)
    assert place.days() == KEYS
    assert place.same(KEYS[0], part)
    assert place.rows(KEYS[0]) == 3
    assert [id_ for frame in place.frames(KEYS[0]) for id_ in frame["id"]] == ["i0", "i1", "i2"]
    assert place.name(KEYS[0]).endswith(f"past/{KEYS[0]}")


def test_what_is_no_parquet_is_named(place: Place, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"no Parquet")
    place.put(KEYS[0], tmp_path / "bad")
    with pytest.raises(DataError, match="cannot be read back as Parquet"):
        place.rows(KEYS[0])


def test_what_a_killed_run_left_half_written_goes_with_the_next(tmp_path: Path, objects: Any, part: Path) -> None:
    folder = open_place(str(tmp_path / "past"), objects.settings)
    folder.put(KEYS[0], part)
    left = tmp_path / "past" / f"day=2026-11-20/.{PART}.tmp"
    left.write_bytes(part.read_bytes()[:-1])
    with folder.held():
        assert not left.exists()
        assert folder.rows(KEYS[0]) == 3
