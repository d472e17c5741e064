"""The shelf: one champion, switched atomically, with a way back."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from router_ml.bundle import default_bundle_path
from router_ml.errors import BundleCorrupt, BundleError, UnknownName, UsageError
from router_ml.pointers import Challenger
from router_ml.shelf import Shelf

Make = Callable[..., Path]
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def shelf(tmp_path: Path, make_bundle: Make) -> Shelf:
    for i, version in enumerate(["v1", "v2", "v3"]):
        make_bundle(version, created=NOW + timedelta(days=i), metrics={"apgr": {"value": i / 10}})
    return Shelf(tmp_path / "models")


def test_an_empty_shelf_serves_the_default_bundle(tmp_path: Path) -> None:
    empty = Shelf(tmp_path / "nowhere")
    assert (empty.versions(), empty.champion(), empty.champion_path()) == ([], None, default_bundle_path())


def test_versions_are_listed_oldest_first_with_the_champion_marked(shelf: Shelf) -> None:
    shelf.promote("v2", reason="better", now=NOW)
    entries = shelf.versions()
    assert [(entry.version, entry.champion) for entry in entries] == [("v1", False), ("v2", True), ("v3", False)]
    assert (entries[1].learner, entries[1].metrics["apgr"].value, entries[1].created.day) == ("linear", 0.1, 2)


def test_promotion_names_the_champion_and_writes_one_line_of_the_record(shelf: Shelf) -> None:
    shelf.promote("v1", reason="first", now=NOW)
    shelf.promote("v3", reason="better on Thursday's traffic", now=NOW)
    assert shelf.champion() == "v3"
    assert shelf.champion_path() == shelf.directory / "v3"
    assert (shelf.directory / "champion").read_text() == "v3\n"
    lines = [json.loads(line) for line in (shelf.directory / "switches.jsonl").read_text().splitlines()]
    assert [(line["from"], line["to"], line["reason"]) for line in lines] == [
        (None, "v1", "first"),
        ("v1", "v3", "better on Thursday's traffic"),
    ]
    assert lines[0]["ts"] == "2026-03-01T00:00:00+00:00"


def test_a_promotion_over_one_champion_is_refused_when_another_is_there(shelf: Shelf) -> None:
    shelf.promote("v1", reason="first", now=NOW, only_over="default")
    with pytest.raises(BundleError, match=r"v1 is the champion now, and v3 was compared with v2; run again"):
        shelf.promote("v3", reason="better than v2", now=NOW, only_over="v2")
    assert (shelf.champion(), len(shelf.switches())) == ("v1", 1)
    shelf.promote("v3", reason="better than v1", now=NOW, only_over="v1")
    assert shelf.champion() == "v3"


def test_names_are_remembered_by_gates_and_switches(shelf: Shelf) -> None:
    shelf.promote("v1", reason="first", now=NOW)
    shelf.promote("v2", reason="second", now=NOW)
    shelf.keep_gates("v3", [])
    for name in ("v2", "v3"):
        (shelf.directory / name).rename(shelf.directory / f".{name}")
    assert shelf.names() == {"v1", "v2", "v3"}


def test_an_unknown_version_is_refused_and_the_known_ones_listed(shelf: Shelf) -> None:
    with pytest.raises(UnknownName, match=r"no bundle is called 'v4' in .*known: v1, v2, v3"):
        shelf.promote("v4", reason="", now=NOW)
    with pytest.raises(UnknownName, match=r"'\.\./v1'"):
        shelf.path("../v1")
    assert shelf.champion() is None
    assert not (shelf.directory / "switches.jsonl").exists()


def test_a_damaged_bundle_is_not_promoted_and_the_champion_stays(shelf: Shelf) -> None:
    shelf.promote("v1", reason="", now=NOW)
    (shelf.directory / "v2" / "model.onnx").write_bytes(b"half")
    with pytest.raises(BundleCorrupt, match="checksum"):
        shelf.promote("v2", reason="", now=NOW)
    assert shelf.champion() == "v1"


def test_a_damaged_manifest_is_listed_with_its_problem(shelf: Shelf) -> None:
    (shelf.directory / "v2" / "manifest.json").write_text("{")
    problems = {entry.version: entry.problem for entry in shelf.versions()}
    assert problems["v1"] == problems["v3"] == ""
    assert "cannot be read" in problems["v2"]


def test_rollback_goes_back_step_by_step(shelf: Shelf) -> None:
    for version in ("v1", "v2", "v3"):
        shelf.promote(version, reason="", now=NOW)
    assert [shelf.rollback(now=NOW), shelf.champion()] == ["v2", "v2"]
    assert [shelf.rollback(now=NOW), shelf.champion()] == ["v1", "v1"]


def test_promoting_the_champion_again_does_not_lose_the_way_back(shelf: Shelf) -> None:
    for version in ("v1", "v2", "v2"):
        shelf.promote(version, reason="", now=NOW)
    assert shelf.rollback(now=NOW) == "v1"


def test_rollback_of_the_first_promotion_serves_the_default_bundle(
    shelf: Shelf, make_bundle: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = make_bundle("shipped")
    monkeypatch.setattr("router_ml.shelf.default_bundle_path", lambda: default)
    shelf.promote("v1", reason="", now=NOW)
    assert shelf.rollback(now=NOW) == "default"
    assert (shelf.champion(), shelf.champion_path()) == (None, default)


def test_without_a_promotion_there_is_nothing_to_roll_back(shelf: Shelf) -> None:
    with pytest.raises(UsageError, match="no promotion to roll back"):
        shelf.rollback(now=NOW)


def test_rollback_to_a_bundle_that_is_gone_is_refused(shelf: Shelf) -> None:
    shelf.promote("v1", reason="", now=NOW)
    shelf.promote("v2", reason="", now=NOW)
    (shelf.directory / "v1" / "policy.json").unlink()
    with pytest.raises(BundleCorrupt, match=r"no policy\.json"):
        shelf.rollback(now=NOW)
    assert shelf.champion() == "v2"


def test_lines_of_a_crash_do_not_lead_astray(shelf: Shelf) -> None:
    shelf.promote("v1", reason="", now=NOW)
    history = shelf.directory / "switches.jsonl"
    # A promotion of v3 that was never carried out, and half a line.
    ghost = {"ts": "", "from": "v1", "to": "v3", "reason": "", "action": "promote"}
    history.write_text(f'{history.read_text()}{json.dumps(ghost)}\n{{"ts": "20\n[]\n')
    shelf.promote("v2", reason="", now=NOW)
    assert shelf.rollback(now=NOW) == "v1"


def test_a_champion_that_is_not_on_the_shelf_is_an_error_that_says_what_to_do(shelf: Shelf) -> None:
    (shelf.directory / "champion").write_text("v9\n")
    with pytest.raises(BundleCorrupt, match="names 'v9', which is not on the shelf; promote one"):
        shelf.champion()
    shelf.promote("v1", reason="repair", now=NOW)
    assert shelf.champion() == "v1"


@pytest.mark.parametrize("content", [b"", b"  \n"])
def test_an_empty_champion_file_means_the_default(shelf: Shelf, content: bytes) -> None:
    (shelf.directory / "champion").write_bytes(content)
    assert shelf.champion() is None


@pytest.mark.parametrize("name", ["champion", "switches.jsonl"])
def test_a_file_that_is_no_text_is_an_error(shelf: Shelf, name: str) -> None:
    shelf.promote("v1", reason="", now=NOW)
    (shelf.directory / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleCorrupt, match=name):
        shelf.rollback(now=NOW)


def test_a_shelf_that_cannot_be_written_keeps_its_champion(shelf: Shelf) -> None:
    shelf.promote("v1", reason="", now=NOW)
    (shelf.directory / "switches.jsonl").unlink()
    (shelf.directory / "switches.jsonl").mkdir()
    with pytest.raises(BundleError, match="cannot be written"):
        shelf.promote("v2", reason="", now=NOW)
    assert shelf.champion() == "v1"


def test_prune_keeps_the_newest_the_champion_the_one_before_the_challenger_and_the_default(
    shelf: Shelf, make_bundle: Make
) -> None:
    for i, version in enumerate(["v4", "v5", "v6"], start=3):
        make_bundle(version, created=NOW + timedelta(days=i))
    make_bundle("default", created=NOW - timedelta(days=1))
    shelf.promote("v1", reason="", now=NOW)
    shelf.promote("v3", reason="", now=NOW)
    shelf.challenge("v4", reason="", now=NOW)
    assert shelf.prune(keep=1) == ["v2", "v5"]
    assert [entry.version for entry in shelf.versions()] == ["default", "v1", "v3", "v4", "v6"]
    assert not list(shelf.directory.glob(".v*"))
    assert shelf.prune(keep=10) == []


def test_a_challenger_stands_beside_the_champion_with_its_share(shelf: Shelf) -> None:
    shelf.promote("v1", reason="", now=NOW)
    shelf.challenge("v2", reason="try it", now=NOW)
    assert shelf.challenger() == Challenger("v2")
    assert shelf.canary(0.1, reason="a little", now=NOW) == shelf.challenger() == Challenger("v2", 0.1)
    shelf.challenge("v3", reason="another", now=NOW, share=0.2)
    entries = shelf.versions()
    assert [(entry.champion, entry.challenger) for entry in entries] == [(True, False), (False, False), (False, True)]
    assert shelf.withdraw(reason="enough", now=NOW) == "v3"
    assert (shelf.champion(), shelf.challenger()) == ("v1", None)
    assert [(one.action, one.before, one.after, dict(one.evidence)) for one in shelf.switches()] == [
        ("promote", None, "v1", {}),
        ("challenge", None, "v2", {}),
        ("canary", "v2", "v2", {"share": 0.1, "share_before": None}),
        ("challenge", "v2", "v3", {"share": 0.2}),
        ("withdraw", "v3", None, {}),
    ]


def test_a_challenger_that_is_promoted_or_rolled_back_to_is_none_any_more(shelf: Shelf) -> None:
    shelf.promote("v1", reason="", now=NOW)
    shelf.challenge("v2", reason="", now=NOW)
    shelf.promote("v2", reason="", now=NOW)
    assert (shelf.champion(), shelf.challenger()) == ("v2", None)
    shelf.challenge("v1", reason="", now=NOW)
    assert shelf.rollback(now=NOW) == "v1"
    assert shelf.challenger() is None


def test_who_cannot_challenge_is_refused_and_the_challenger_stays(shelf: Shelf) -> None:
    shelf.promote("v1", reason="", now=NOW)
    with pytest.raises(UsageError, match="there is no challenger; `router-ml challenge VERSION`"):
        shelf.canary(0.1, reason="", now=NOW)
    with pytest.raises(UsageError, match="there is no challenger"):
        shelf.withdraw(reason="", now=NOW)
    shelf.challenge("v3", reason="", now=NOW)
    with pytest.raises(UsageError, match="v1 is the champion already"):
        shelf.challenge("v1", reason="", now=NOW)
    with pytest.raises(UnknownName, match="no bundle is called 'v9'"):
        shelf.challenge("v9", reason="", now=NOW)
    with pytest.raises(UsageError, match=r"in \[0, 0\.9\], got 1"):
        shelf.challenge("v2", reason="", now=NOW, share=1.0)
    (shelf.directory / "v2" / "model.onnx").write_bytes(b"half")
    with pytest.raises(BundleCorrupt):
        shelf.challenge("v2", reason="", now=NOW)
    assert shelf.challenger() == Challenger("v3")


def test_an_unreadable_challenger_is_replaced_and_stops_no_promotion(shelf: Shelf) -> None:
    (shelf.directory / "challenger").write_text("v2 a lot")
    shelf.promote("v1", reason="", now=NOW)
    with pytest.raises(BundleCorrupt):
        shelf.challenger()
    shelf.challenge("v3", reason="", now=NOW)
    assert shelf.challenger() == Challenger("v3")


def test_a_switch_that_was_meant_for_another_version_is_not_made(shelf: Shelf) -> None:
    for version in ("v1", "v2"):
        shelf.promote(version, reason="", now=NOW)
    shelf.challenge("v3", reason="", now=NOW)
    with pytest.raises(UsageError, match="v2 is the champion, not v1"):
        shelf.rollback(now=NOW, only="v1")
    with pytest.raises(UsageError, match="v3 is the challenger, not v1"):
        shelf.withdraw(reason="", now=NOW, only="v1")
    assert (shelf.champion(), shelf.challenger()) == ("v2", Challenger("v3"))


def test_of_several_that_roll_back_the_same_version_one_does(shelf: Shelf) -> None:
    for version in ("v1", "v2", "v3"):
        shelf.promote(version, reason="", now=NOW)

    def roll_back(_: int) -> str:
        try:
            return shelf.rollback(now=NOW, cause="automatic", reason="worse", evidence={"e_value": 500}, only="v3")
        except UsageError:
            return "too late"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(roll_back, range(4))) == ["too late", "too late", "too late", "v2"]
    last = shelf.switches()[-1]
    assert (last.action, last.cause, last.reason, last.evidence) == (
        "rollback",
        "automatic",
        "worse",
        {"e_value": 500},
    )
    assert len(shelf.switches()) == 4


def test_what_the_gates_said_is_kept_with_the_bundle_and_goes_with_it(shelf: Shelf) -> None:
    assert shelf.gates("v1") == ()
    lines = [{"name": "size", "passed": True, "value": 4.2}, {"name": "drift", "passed": False, "value": None}]
    shelf.keep_gates("v1", lines)
    assert shelf.gates("v1") == tuple(lines)
    shelf.keep_gates("v1", lines[:1])
    assert shelf.gates("v1") == tuple(lines[:1])
    with pytest.raises(UnknownName, match="no bundle is called 'nope'"):
        shelf.keep_gates("nope", lines)
    assert "v1" in shelf.prune(keep=0)
    assert shelf.gates("v1") == ()
    assert not list((shelf.directory / "gates").iterdir())


@pytest.mark.parametrize("content", [b"[{", b'{"name": "size"}', b'["size"]'])
def test_gates_that_cannot_be_read_are_an_error(shelf: Shelf, content: bytes) -> None:
    shelf.keep_gates("v1", [])
    (shelf.directory / "gates" / "v1.json").write_bytes(content)
    with pytest.raises(BundleCorrupt, match=r"v1\.json"):
        shelf.gates("v1")
