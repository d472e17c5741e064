"""`router-ml golden` on a real upstream: evidence in the store, a budget that holds, alarms, going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from router_ml.cli import main
from router_ml.schema import Interaction
from router_ml.store import open_store
from router_ml.watch import Watch, WatchedAlarm, read_watch, write_watch
from router_ml_serving.golden.history import locked

TOML = """
models_dir = "{home}/models"
[[tiers]]
name = "small"
model = "mini"
base_url = "{url}/v1"
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.60
[[tiers]]
name = "large"
model = "maxi"
base_url = "{url}/v1"
input_usd_per_mtok = 2.5
output_usd_per_mtok = 10.0
[[tiers]]
name = "grader"
model = "judge"
base_url = "{url}/v1"
input_usd_per_mtok = 3.0
output_usd_per_mtok = 12.0
[store]
url = "sqlite:///{home}/events.db"
{store}
[serving]
retries = 0
breaker_failures = 0
[golden]
file = "{home}/golden.jsonl"
{golden}
"""
BOTH = ("--tier", "small", "--tier", "large")
# What the stand-in bills for a call: 100 tokens in, 20 out.
SMALL_USD, LARGE_USD, GRADER_USD = 0.000027, 0.00045, 0.00054


def item(name: str, prompt: str = "What is six times seven?", **fields: Any) -> dict[str, Any]:
    wanted = {} if "judge" in fields else {"checks": {"contains": "42"}}
    return {"id": name, "request": {"messages": [{"role": "user", "content": prompt}]}, **wanted, **fields}


class Place:
    """A folder with a configuration and a golden set; runs the command there."""

    def __init__(self, home: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.url, self.capsys = home, url, capsys
        (home / "models").mkdir()
        self.configure()

    def configure(self, golden: str = "", store: str = "") -> None:
        text = TOML.format(home=self.home, url=self.url, golden=golden, store=store)
        (self.home / "router.toml").write_text(text, encoding="utf-8")

    def put(self, *items: dict[str, Any]) -> None:
        (self.home / "golden.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in items), encoding="utf-8")

    @property
    def command(self) -> list[str]:
        return ["golden", "--config", str(self.home / "router.toml"), "--json"]

    def run(self, *arguments: str, tiers: Sequence[str] = BOTH) -> tuple[int, dict[str, Any]]:
        code = main([*self.command, *tiers, *arguments])
        said = self.capsys.readouterr()
        self.err = said.err
        return code, json.loads(said.out) if said.out else {}

    def rows(self) -> list[Interaction]:
        with open_store(f"sqlite:///{self.home / 'events.db'}") as store:
            return list(store.scan())


@pytest.fixture
def place(tmp_path: Path, upstream: Any, capsys: pytest.CaptureFixture[str]) -> Place:
    upstream.calls()
    return Place(tmp_path, upstream.url, capsys)


def test_every_tier_is_asked_and_its_answer_checked(place: Place, upstream: Any) -> None:
    place.put(item("good"), item("poor", "Six times seven? [mini=idk]"))
    code, said = place.run()
    assert code == 0
    small, large = said["tiers"]["small"], said["tiers"]["large"]
    assert (small["passed"], small["known"], small["pass_rate"], small["failed"]) == (1, 2, 0.5, ["poor"])
    assert (large["passed"], large["known"], large["failed"], large["unknown"]) == (2, 2, [], [])
    assert small["cost_usd"] == pytest.approx(2 * SMALL_USD)
    assert said["spent_usd"] == pytest.approx(2 * SMALL_USD + 2 * LARGE_USD)
    sent = upstream.calls()
    assert sorted(call["body"]["model"] for call in sent) == ["maxi", "maxi", "mini", "mini"]
    assert {call["body"]["max_completion_tokens"] for call in sent} == {1024}


def test_results_are_audit_evidence_that_says_it_is_golden(place: Place) -> None:
    place.put(item("poor", "Six times seven? [mini=idk]"))
    place.run("--slot", "monday")
    (row,) = place.rows()
    assert (row.mode, row.propensity, row.explored, row.candidates) == ("audit", {}, False, ("small", "large"))
    assert row.tags["golden"]["slot"] == "monday"
    assert [(one.tier, one.verdicts[0].adequate, one.verdicts[0].source) for one in row.attempts] == [
        ("small", False, "check"),
        ("large", True, "check"),
    ]
    assert row.request.messages[0]["content"] == "Six times seven? [mini=idk]"
    assert row.attempts[0].verdicts[0].reason == "failed: contains"


def test_without_text_features_are_kept(place: Place) -> None:
    place.configure(store="text = false")
    place.put(item("poor", "Six times seven? [mini=idk]"))
    place.run()
    (row,) = place.rows()
    assert row.request.messages == ()
    assert row.features is not None
    assert row.attempts[0].response is None
    assert row.attempts[0].features is not None
    assert row.attempts[0].verdicts[0].adequate is False
    assert "times" not in row.to_json()


def test_a_slot_runs_once_and_costs_once(place: Place, upstream: Any) -> None:
    place.put(item("one"), item("two"))
    _, first = place.run("--slot", "monday")
    upstream.calls()
    _, again = place.run("--slot", "monday")
    assert upstream.calls() == []
    assert again == first
    assert len(place.rows()) == 2
    place.run("--slot", "tuesday")
    assert len(upstream.calls()) == 4
    assert len(place.rows()) == 4


def test_another_item_is_another_run(place: Place) -> None:
    place.put(item("one"))
    place.run("--slot", "monday")
    place.put(item("one"), item("two"))
    place.run("--slot", "monday")
    assert len({row.id for row in place.rows()}) == 3


def test_another_model_behind_a_tier_is_another_run(place: Place) -> None:
    place.put(item("one"))
    place.run("--slot", "monday")
    config = place.home / "router.toml"
    config.write_text(config.read_text().replace('model = "mini"', 'model = "mini-2"'))
    place.run("--slot", "monday")
    assert sorted(row.attempts[0].model or "" for row in place.rows()) == ["mini", "mini-2"]


# The budget


def test_the_budget_is_never_exceeded(place: Place, upstream: Any) -> None:
    place.configure(golden="max_tokens = 20\nconcurrency = 3")
    place.put(*(item(f"item-{i}", f"Six times seven, number {i}?") for i in range(8)))
    # Room for three: at most some 0.00045 each is set aside for the small and the large tier together.
    code, said = place.run("--budget", "0.0015")
    asked = len(upstream.calls())
    assert 0 < asked < 16
    assert said["left_out"] == 8 - asked // 2
    assert said["spent_usd"] == pytest.approx(asked / 2 * (SMALL_USD + LARGE_USD))
    assert said["spent_usd"] <= 0.0015
    assert "items left out" in place.err
    assert code == 0


def test_what_a_slot_has_spent_counts_when_it_goes_on(place: Place, upstream: Any) -> None:
    place.configure(golden="max_tokens = 20")
    place.put(*(item(f"item-{i}", f"Six times seven, number {i}?") for i in range(8)))
    _, first = place.run("--budget", "0.0015", "--slot", "monday")
    upstream.calls()
    _, second = place.run("--budget", "0.0015", "--slot", "monday")
    assert upstream.calls() == []
    assert second["spent_usd"] == first["spent_usd"]
    _, third = place.run("--budget", "1", "--slot", "monday")
    assert len(upstream.calls()) == 2 * first["left_out"]
    assert third["left_out"] == 0


def test_a_budget_for_nothing_asks_nobody(place: Place, upstream: Any) -> None:
    place.put(item("one"))
    code, said = place.run("--budget", "0.00001")
    assert upstream.calls() == []
    assert said["left_out"] == 1
    assert code == 1
    assert not (place.home / "models" / "golden.json").exists()


# The judge


def test_a_judge_decides_where_rules_cannot(place: Place, upstream: Any) -> None:
    place.put(
        item("fine", "Say it kindly. [judge=adequate]", judge=True, reference="Kind words."),
        item("rude", "Say it kindly! [judge=inadequate]", judge=True),
    )
    _, said = place.run("--judge", "grader")
    assert said["tiers"]["small"]["failed"] == ["rude"]
    assert said["judge_usd"] == pytest.approx(4 * GRADER_USD)
    assert said["spent_usd"] == pytest.approx(4 * GRADER_USD + 2 * SMALL_USD + 2 * LARGE_USD)
    verdicts = {row.tags["golden"]["item"]: row.attempts[0].verdicts[0] for row in place.rows()}
    assert {(one.source, one.adequate, one.score) for one in verdicts.values()} == {
        ("judge", True, 0.9),
        ("judge", False, None),
    }
    judged = [call["body"] for call in upstream.calls() if call["body"]["model"] == "judge"]
    assert len(judged) == 4
    shown = [json.loads(body["messages"][1]["content"]) for body in judged]
    assert {one["answer"] for one in shown} == {"The answer of mini is 42.", "The answer of maxi is 42."}
    assert {one["reference"] for one in shown} == {"Kind words.", None}
    assert judged[0]["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("behaviour", ["ok", "idk", "500"])
def test_a_judge_that_cannot_be_read_says_nothing(behaviour: str, place: Place) -> None:
    place.put(item("one", f"Say it kindly. [judge={behaviour}]", judge=True))
    code, said = place.run("--judge", "grader")
    assert said["tiers"]["small"]["unknown"] == ["one"]
    assert said["tiers"]["small"]["pass_rate"] is None
    assert [one.verdicts for one in place.rows()[0].attempts] == [(), ()]
    # Nothing is known, which nobody should take for a good night.
    assert code == 1


def test_who_fails_a_check_is_not_judged(place: Place, upstream: Any) -> None:
    place.put(item("one", "Six times seven? [mini=idk] [judge=adequate]", judge=True, checks={"contains": "42"}))
    _, said = place.run("--judge", "grader")
    assert said["tiers"]["small"]["failed"] == ["one"]
    assert sum(call["body"]["model"] == "judge" for call in upstream.calls()) == 1


def test_judging_without_a_judge_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.put(item("one", judge=True))
    assert main([*place.command, *BOTH]) == 2
    assert "item 'one' is to be judged; set golden.judge" in capsys.readouterr().err


# Failures and alarms


def test_an_upstream_error_is_no_evidence(place: Place) -> None:
    place.put(item("one", "Six times seven? [mini=500]"), item("two", "Six times seven? [mini=500] [maxi=503]"))
    code, said = place.run("--min-pass", "large=1.0")
    assert sorted(said["tiers"]["small"]["unknown"]) == ["one", "two"]
    assert said["tiers"]["large"]["pass_rate"] == 1.0
    assert code == 0
    # Nobody answered the second: there is nothing to keep.
    (row,) = place.rows()
    assert row.attempts[0].error == "status 500"
    assert row.attempts[0].verdicts == ()


def test_less_than_the_share_asked_for_is_a_failure(place: Place) -> None:
    place.put(item("one"), item("two", "Six times seven? [mini=idk]"))
    assert place.run("--min-pass", "0.5")[0] == 0
    code, said = place.run("--min-pass", "0.9", "--min-pass", "large=0.5")
    assert code == 1
    assert (said["tiers"]["small"]["below_min_pass"], said["tiers"]["large"]["below_min_pass"]) == (True, False)


def test_a_tier_that_got_worse_rings(place: Place) -> None:
    # From the second run on, the model behind the small tier is another one, and nobody was told.
    place.put(*(item(f"item-{i}", f"Number {i}: six times seven? [mini=idk-after-1]") for i in range(12)))
    assert place.run("--slot", "monday")[0] == 0
    code, said = place.run("--slot", "tuesday")
    assert code == 1
    small, large = said["tiers"]["small"], said["tiers"]["large"]
    assert (small["fell"], large["fell"]) == (True, False)
    assert small["chance"] == pytest.approx(0.5**12)
    assert large["chance"] == 1.0
    watch = read_watch(place.home / "models")
    assert watch is not None
    rings = {alarm.tier: alarm.rings for alarm in watch.alarms if alarm.kind == "golden"}
    assert rings == {"small": True, "large": False}
    assert "golden_fell" in place.err
    # Nothing of what was asked or answered.
    assert "seven" not in place.err


def test_an_alarm_rings_until_something_else_is_known(place: Place) -> None:
    place.put(*(item(f"item-{i}", f"No. {i}: six times seven? [mini=idk-after-1]") for i in range(12)))
    for arguments in (("--slot", "monday"), ("--slot", "tuesday"), ("--slot", "wednesday", "--budget", "0.00001")):
        place.run(*arguments)
    watch = read_watch(place.home / "models")
    assert watch is not None
    assert {alarm.tier: alarm.rings for alarm in watch.alarms} == {"small": True, "large": False}


def test_what_others_watch_stays(place: Place) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    facts = {"kind": "quality", "tier": "small", "direction": "fall", "evidence": 2.0, "limit": 1.0, "rings": True}
    other = WatchedAlarm(**facts, text="an audit")
    write_watch(place.home / "models", Watch(checked=now, bundle="b", since=now, until=now, n=7, alarms=(other,)))
    place.put(item("one"))
    for slot in ("monday", "tuesday", "wednesday"):
        place.run("--slot", slot)
    watch = read_watch(place.home / "models")
    assert watch is not None
    assert (watch.n, watch.alarms[0]) == (7, other)
    assert [(one.kind, one.tier) for one in watch.alarms[1:]] == [("golden", "small"), ("golden", "large")]


def test_a_run_that_was_killed_goes_on_where_it_was(place: Place, upstream: Any) -> None:
    place.configure(golden="concurrency = 1")
    place.put(*(item(f"item-{i}", f"Number {i}: six times seven? [mini=slow]") for i in range(4)))
    command = [sys.executable, "-m", "router_ml.cli", *place.command, *BOTH, "--slot", "monday"]
    process = subprocess.Popen(command, env={**os.environ}, stdout=subprocess.DEVNULL)
    history = place.home / "models" / "golden.json"
    deadline = time.monotonic() + 60
    while not history.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    kept = len(place.rows())
    assert 1 <= kept < 4
    upstream.calls()
    code, said = place.run("--slot", "monday")
    assert code == 0
    assert said["tiers"]["small"]["known"] == 4
    assert len(place.rows()) == 4
    # What was under way is asked again, what was kept is not.
    assert len(upstream.calls()) == 2 * (4 - kept)


def test_two_runs_at_once_are_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.put(item("one"))
    with locked(place.home / "models"):
        assert main([*place.command, *BOTH]) == 1
    assert "another run of a golden set is at work" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tier", "tiny"], "no tier is called 'tiny'"),
        (["--min-pass", "tiny=0.5"], "no tier that is asked is called 'tiny'"),
        (["--judge", "tiny"], "no tier is called 'tiny'"),
        (["--file", "nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        (["--budget", "-1"], "golden.budget_usd"),
    ],
)
def test_mistakes_are_explained(
    arguments: list[str], said: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.put(item("one"))
    assert main([*place.command, *arguments]) == 2
    assert said in capsys.readouterr().err
