"""The record of switches: whole lines, oldest first, also after a crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_ml.errors import BundleCorrupt
from router_ml.switches import Switch, append_switch, read_switches, replaced_by


def promotion(before: str | None, after: str | None, action: str = "promote") -> Switch:
    return Switch("2026-03-01T00:00:00+00:00", action, before, after, "person", "better")  # type: ignore[arg-type]


@settings(deadline=None, max_examples=30)  # it waits for the disk
@given(reason=st.text(st.characters(exclude_categories=["Cs"]), max_size=30), rate=st.floats(0, 1))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, reason: str, rate: float) -> None:
    path = tmp_path_factory.mktemp("record") / "switches.jsonl"
    switch = Switch("2026-03-01", "withdraw", "v2", None, "automatic", reason, {"rate": rate, "n": 3})
    append_switch(path, switch)
    append_switch(path, promotion("v1", "v2"))
    assert read_switches(path) == [switch, promotion("v1", "v2")]


def test_a_line_says_from_and_to(tmp_path: Path) -> None:
    append_switch(tmp_path / "record", promotion(None, "v1"))
    raw = json.loads((tmp_path / "record").read_text())
    assert raw == {
        "ts": "2026-03-01T00:00:00+00:00",
        "action": "promote",
        "from": None,
        "to": "v1",
        "cause": "person",
        "reason": "better",
        "evidence": {},
    }


def test_half_a_line_costs_nothing_but_itself(tmp_path: Path) -> None:
    path = tmp_path / "record"
    append_switch(path, promotion(None, "v1"))
    with path.open("a") as file:
        file.write('{"ts": "2026')
    append_switch(path, promotion("v1", "v2"))
    assert read_switches(path) == [promotion(None, "v1"), promotion("v1", "v2")]


@pytest.mark.parametrize("line", ["[]", "3", "null", '"x"', "{}", '{"ts": 1, "action": "promote", "from": null}'])
def test_a_line_that_is_no_switch_is_left_out(tmp_path: Path, line: str) -> None:
    (tmp_path / "record").write_text(f"{line}\n")
    assert read_switches(tmp_path / "record") == []


def test_no_file_is_no_switch_and_no_text_is_an_error(tmp_path: Path) -> None:
    assert read_switches(tmp_path / "record") == []
    (tmp_path / "record").write_bytes(b"\xff\xfe")
    with pytest.raises(BundleCorrupt, match="move it away"):
        read_switches(tmp_path / "record")


def test_a_version_replaced_what_was_there_when_it_was_last_promoted() -> None:
    record = [
        promotion(None, "v1"),
        promotion("v1", "v2"),
        promotion("v2", "v2"),
        promotion("v2", "v1", "rollback"),
        promotion("v1", "v3", "challenge"),
        promotion("v3", "v1"),
    ]
    assert replaced_by(record) == {"v1": "v3", "v2": "v1"}
