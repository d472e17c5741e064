"""A trial counts both sides, rings once, and compares a promoted bundle with a sample of the one before."""

from __future__ import annotations

import numpy as np
import pytest

from router_ml_serving.alarms import Rate
from router_ml_serving.trials import METRICS, PastRecord, Trial

THRESHOLD = 400.0


def trial(past: PastRecord | None = None, *, min_requests: int = 30, seed: int = 0) -> Trial:
    return Trial(
        "v2",
        "v1",
        dict.fromkeys(METRICS, 0.01),
        THRESHOLD,
        min_requests,
        0.0,
        past=past,
        rng=np.random.default_rng(seed),
    )


def record(n: int, bad: int) -> PastRecord:
    past = PastRecord("v1")
    for i in range(n):
        past.add("error", bad=i < bad)
    return past


def test_a_challenger_that_always_fails_rings_once_with_its_numbers() -> None:
    found = trial()
    for i in range(40):
        assert found.rings is False or i >= 30
        found.of_champion("error", bad=False)
        found.of_challenger("error", bad=True)
    assert found.rings
    alarm = found.answer()
    assert alarm is not None
    assert (alarm.version, alarm.against, alarm.metric) == ("v2", "v1", "error")
    assert alarm.evidence["challenger"] == {"n": 30, "bad": 30, "rate": 1.0}
    assert alarm.evidence["largest_e_value"] >= THRESHOLD
    assert alarm.reason.startswith("upstream errors: 100.0% of 30 with v2, 0.0% of 30 with v1 (e-value ")
    found.of_challenger("error", bad=True)
    found.of_champion("error", bad=False)
    assert not found.rings
    assert found.to_dict()["alarm"] == alarm.reason


def test_a_challenger_that_does_better_does_not_ring() -> None:
    found = trial()
    for _ in range(2_000):
        found.of_champion("negative", bad=True)
        found.of_challenger("negative", bad=False)
    assert found.alarm is None
    assert found.to_dict()["metrics"]["negative"]["e_value"] < 1e-6


def test_a_promoted_bundle_is_compared_with_the_one_before_until_its_outcomes_are_used_up() -> None:
    found = trial(record(4_000, 80))
    rng = np.random.default_rng(1)
    while not found.over:
        for metric in METRICS:
            found.of_challenger(metric, bad=bool(rng.random() < 0.02))
        if found.to_dict()["metrics"]["error"]["challenger"]["n"] > 3_000:
            pytest.fail("never over")
    counts = found.to_dict()["metrics"]["error"]
    assert (counts["challenger"]["n"], counts["champion"]) == (1_000, {"n": 4_000, "bad": 80, "rate": 0.02})
    assert found.alarm is None
    assert found.to_dict()["metrics"]["latency"]["challenger"]["n"] == 0
    found.of_challenger("error", bad=True)
    assert found.to_dict()["metrics"]["error"] == counts


def test_a_promoted_bundle_that_does_worse_rings() -> None:
    found = trial(record(2_000, 40))
    rng = np.random.default_rng(2)
    n = 0
    while not found.rings and not found.over:
        found.of_challenger("error", bad=bool(rng.random() < 0.12))
        n += 1
    assert found.rings
    assert n < 500


def test_a_promoted_bundle_that_does_as_well_rings_no_more_often_than_promised() -> None:
    rng = np.random.default_rng(3)
    rung = 0
    for seed in range(200):
        # The record is a draw too: its rate differs from the truth.
        past = record(1_000, int(rng.binomial(1_000, 0.2)))
        found = trial(past, seed=seed)
        bad = rng.random(1_000) < 0.2
        for one in bad.tolist():
            found.of_challenger("error", bad=one)
        # At ten times the allowed rate, where 200 trials say something.
        rung += found.to_dict()["metrics"]["error"]["largest_e_value"] >= 10
    assert rung <= 200 * 0.1


def test_without_a_past_there_is_nothing_to_compare_with() -> None:
    assert trial(PastRecord("v1")).over
    assert not trial().over


def test_a_record_keeps_the_last_one_or_two_windows() -> None:
    past = PastRecord("v1")
    for _ in range(5_000):
        past.add("error", bad=True)
    assert past.rate("error") == Rate(5_000, 5_000)
    for _ in range(9_999):
        past.add("error", bad=False)
    assert past.rate("error") == Rate(9_999, 0)


def test_slow_is_what_is_slower_than_95_percent_of_the_answers_before() -> None:
    past = PastRecord("v1")
    for ms in range(200):
        past.add_latency(float(ms))
    assert past.slow_ms == pytest.approx(189, abs=1.1)
    assert past.rate("latency") == Rate(0, 0)
    for ms in (100.0, 300.0, 180.0, 195.0):
        past.add_latency(ms)
    assert past.rate("latency") == Rate(4, 2)


def test_what_is_slow_is_learned_anew_with_every_window() -> None:
    past = PastRecord("v1")
    for _ in range(200):
        past.add_latency(100.0)
    for _ in range(5_000):
        past.add_latency(1_000.0)
    assert past.slow_ms == 1_000.0
    assert past.rate("latency") == Rate(0, 0)
