"""Units: what a log is read by, and fingerprints that change when its rows do, and only then."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from router_ml.errors import DataError
from router_ml.store import open_store
from router_ml_training.corpus.units import folder_of, units_of
from router_ml_training.reading import Log


def test_a_store_is_cut_by_days_and_size(world: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with open_store(url) as store:
        store.append(world.log(1500))  # a minute apart: one day and an hour
    units = units_of(Log(url, "store"), 600)
    assert [(unit.name, unit.rows) for unit in units] == [
        ("2026-01-01.0000", 600),
        ("2026-01-01.0001", 600),
        ("2026-01-01.0002", 240),
        ("2026-01-02.0000", 60),
    ]
    assert units == units_of(Log(url, "store"), 600)
    assert len({unit.fingerprint for unit in units}) == 4


def test_a_folder_is_cut_by_files_and_a_change_of_one_changes_it_alone(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("{}\n" * 1000)
    before = units_of(Log(str(tmp_path)))
    os.utime(tmp_path / "b.jsonl", ns=(0, 0))
    after = units_of(Log(str(tmp_path)))
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]
    assert len({unit.name for unit in before}) == 2
    assert before[0].rows > 0


def test_a_table_of_several_files_is_one_unit_that_any_of_them_changes(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x\n")
    for location in (str(tmp_path), f"{tmp_path}/*.csv"):
        log = Log(location, "outcomes")
        (before,) = units_of(log)
        (tmp_path / "b.csv").write_text(f"{location}\n")
        (after,) = units_of(log)
        assert before.name == after.name
        assert before.fingerprint != after.fingerprint


def test_a_log_that_is_nowhere_has_no_fingerprint_or_is_an_error(tmp_path: Path) -> None:
    (unit,) = units_of(Log("topic://anything", "outcomes"))
    assert unit.fingerprint is None
    with pytest.raises(DataError, match="no such file"):
        units_of(Log(str(tmp_path / "none.jsonl")))


def test_a_password_decides_nothing() -> None:
    assert folder_of(Log("postgresql://me:a@host/db", "store")) == folder_of(Log("postgresql://me:b@host/db", "store"))
    assert folder_of(Log("x", "store")) != folder_of(Log("x", "native"))
