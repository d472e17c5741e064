"""Outcomes are counted for who decided, once per session, and only where both sides are alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from router_ml_serving.comparison import Comparison
from router_ml_serving.settings import RolloutSettings
from router_ml_serving.trials import Alarm


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def comparison(clock: Clock, *, workers: int = 1, **settings: Any) -> Comparison:
    rng = np.random.default_rng(0)
    return Comparison("v1", RolloutSettings(**settings), workers=workers, now_s=clock, rng=rng)


def note(to: Comparison, version: str, **outcome: Any) -> Alarm | None:
    given = {"escalated": None, "error": None, "latency_ms": None, "session": None, "tenant": None, **outcome}
    return to.note(version, **given)


def counts(of: Comparison, trial: str, metric: str) -> tuple[int, int]:
    found = of.to_dict()[trial]["metrics"][metric]
    return found["champion"]["n"], found["challenger"]["n"]


def test_each_worker_has_its_part_of_alpha(clock: Clock) -> None:
    one, four = comparison(clock), comparison(clock, workers=4, alpha=0.02)
    for each in (one, four):
        each.change_challenger("v2")
    assert one.to_dict()["canary"]["threshold"] == pytest.approx(400)
    assert four.to_dict()["canary"]["threshold"] == pytest.approx(800)


def test_requests_count_for_the_version_that_decided(clock: Clock) -> None:
    both = comparison(clock)
    both.change_challenger("v2")
    note(both, "v1", escalated=True, error=False)
    note(both, "v2", escalated=False)
    note(both, "v0", escalated=True, error=True)
    both.feedback("v2", adequate=False, tenant=None)
    assert counts(both, "canary", "escalation") == (1, 1)
    assert counts(both, "canary", "error") == (1, 0)
    assert counts(both, "canary", "negative") == (0, 1)
    assert both.to_dict()["lately"]["escalation"] == {"n": 1, "bad": 1, "rate": 1.0}


def test_a_session_counts_once_per_version(clock: Clock) -> None:
    both = comparison(clock)
    both.change_challenger("v2")
    alarms = [note(both, "v2", error=True, session="loop") for _ in range(500)]
    for _ in range(500):
        note(both, "v1", error=False)
    assert counts(both, "canary", "error") == (500, 1)
    assert alarms == [None] * 500
    for i in range(10_001):
        note(both, "v1", error=False, session=f"s{i}")
    note(both, "v2", error=True, session="loop")
    assert counts(both, "canary", "error")[1] == 2


def test_sessions_under_way_count_anew_when_a_canary_begins(clock: Clock) -> None:
    both = comparison(clock)
    note(both, "v1", error=False, session="long")
    both.change_challenger("v2")
    note(both, "v1", error=False, session="long")
    assert counts(both, "canary", "error") == (1, 0)


def test_only_tenants_that_take_part_are_compared(clock: Clock) -> None:
    both = comparison(clock, canary_tenants=["acme"])
    both.change_challenger("v2")
    for tenant in ("acme", "other", None):
        note(both, "v1", error=False, tenant=tenant)
        both.feedback("v1", adequate=True, tenant=tenant)
    assert counts(both, "canary", "error") == (1, 0)
    assert counts(both, "canary", "negative") == (1, 0)
    assert both.to_dict()["lately"]["error"]["n"] == 3


def test_what_began_before_the_canary_is_not_compared_with_it(clock: Clock) -> None:
    both = comparison(clock)
    clock.s += 10
    both.change_challenger("v2")
    clock.s += 1
    note(both, "v1", error=True, latency_ms=5_000.0)
    note(both, "v1", error=True, started_s=clock.s - 5)
    note(both, "v1", error=False, latency_ms=500.0)
    note(both, "v1", error=True, started_s=clock.s - 0.5)
    assert counts(both, "canary", "error") == (2, 0)


def test_latency_is_compared_by_what_is_slow_for_the_champion(clock: Clock) -> None:
    both = comparison(clock)
    both.change_challenger("v2")
    for i in range(200):
        clock.s += 1
        note(both, "v1", latency_ms=100.0 + i % 20)
    clock.s += 1
    note(both, "v2", latency_ms=100.0)
    note(both, "v1", latency_ms=110.0)
    note(both, "v2", latency_ms=900.0)
    found = both.to_dict()["canary"]
    assert found["slow_ms"] == pytest.approx(118, abs=1)
    assert found["metrics"]["latency"]["challenger"] == {"n": 2, "bad": 1, "rate": 0.5}
    assert found["metrics"]["latency"]["champion"] == {"n": 1, "bad": 0, "rate": 0.0}


@pytest.mark.parametrize("outcome", [{"escalated": True}, {"error": True}, {"latency_ms": 5_000.0}, {}])
def test_a_challenger_that_is_worse_in_one_thing_raises_one_alarm(clock: Clock, outcome: dict[str, Any]) -> None:
    both = comparison(clock)
    for _ in range(300):
        note(both, "v1", latency_ms=100.0)
    clock.s += 1
    both.change_challenger("v2")
    alarms = []
    for _ in range(100):
        clock.s += 10
        note(both, "v1", escalated=False, error=False, latency_ms=100.0)
        both.feedback("v1", adequate=True, tenant=None)
        good = {"escalated": False, "error": False, "latency_ms": 100.0}
        alarms.append(note(both, "v2", **good | outcome))
        alarms.append(both.feedback("v2", adequate=bool(outcome), tenant=None))
    found = [alarm for alarm in alarms if alarm is not None]
    assert len(found) == 1
    expected = {"escalated": "escalation", "error": "error", "latency_ms": "latency"}
    assert found[0].metric == (expected[next(iter(outcome))] if outcome else "negative")


def test_a_promoted_bundle_is_compared_with_the_one_before(clock: Clock) -> None:
    both = comparison(clock)
    for _ in range(1_000):
        note(both, "v1", error=False)
    both.change_champion("v2", promoted=True)
    assert both.champion == "v2"
    alarms = [alarm for _ in range(60) if (alarm := note(both, "v2", error=True)) is not None]
    assert [(alarm.version, alarm.against) for alarm in alarms] == [("v2", "v1")]


def test_a_bundle_that_came_back_or_that_nothing_is_known_before_is_not_tried(clock: Clock) -> None:
    both = comparison(clock)
    both.change_champion("v2", promoted=True)
    assert both.after is None
    note(both, "v2", error=True)
    both.change_champion("v1", promoted=False)
    assert both.after is None


def test_the_end_of_a_canary_is_the_end_of_its_trial(clock: Clock) -> None:
    both = comparison(clock)
    both.change_challenger("v2")
    trial = both.beside
    both.change_challenger("v2")
    assert both.beside is trial
    both.change_challenger("v3")
    assert both.beside is not None
    assert both.beside.version == "v3"
    both.change_challenger(None)
    assert both.beside is None


def test_sessions_of_different_tenants_are_different_ones(clock: Clock) -> None:
    one = comparison(clock)
    for tenant in ("a", "b", "a", None, None):
        note(one, "v1", error=False, session="main", tenant=tenant)
    assert one.to_dict()["lately"]["error"]["n"] == 3


def test_a_decision_is_judged_once_whoever_is_tried_meanwhile(clock: Clock) -> None:
    one = comparison(clock)
    for challenger in ("v2", None, "v3"):
        for decision_id in ("d1", "d1", "d2"):
            one.feedback("v1", adequate=False, tenant=None, decision_id=decision_id)
        one.change_challenger(challenger)
    assert one.to_dict()["lately"]["negative"]["n"] == 2
