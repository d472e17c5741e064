"""Alarms on outcomes: how often they ring for nothing, how soon they ring for something."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from router_ml_training.audit_alarms import RUN_LENGTH_DAYS, Alarm, alarms_text, evidence, listen, tolerated
from router_ml_training.outcome_streams import Stream, streams_of
from router_ml_training.profile import StreamMean

DAY = 86_400.0
START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()


def run_length(values: np.ndarray, bound: float, direction: str, limit: float) -> int:
    """Return after how many outcomes the alarm rings; one more than there are where it does not."""
    crossed = np.flatnonzero(evidence(values, bound, direction) >= limit)
    return int(crossed[0]) + 1 if len(crossed) else len(values) + 1


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "direction"), [(0.5, "fall"), (0.9, "fall"), (0.5, "rise"), (0.1, "rise")])
def test_without_a_change_the_run_is_as_long_as_promised(rate: float, direction: str) -> None:
    # At the edge of what is tolerated, where false alarms are most frequent.
    rng, limit, runs = np.random.default_rng(0), 100.0, 400
    lengths = np.array([run_length(rng.random(600) < rate, rate, direction, limit) for _ in range(runs)])
    assert lengths.mean() >= limit  # and runs were cut off at six times the limit
    for n in (10, 30):
        assert (lengths <= n).mean() <= n / limit + 3 * np.sqrt(n / limit / runs)


@pytest.mark.slow
def test_outcomes_that_depend_on_the_past_do_not_shorten_it() -> None:
    # The mean given the past is never below the bound; how the outcomes spread is chosen by what came before.
    rng, limit, lengths = np.random.default_rng(1), 100.0, []
    for _ in range(300):
        values = np.empty(400)
        for i in range(400):
            bad_luck = i > 0 and values[i - 1] < 0.5
            values[i] = (rng.random() < 0.7) if bad_luck else rng.uniform(0.4, 1.0)
        lengths.append(run_length(values, 0.7, "fall", limit))
    assert np.mean(np.array(lengths) <= 30) <= 0.3 + 3 * np.sqrt(0.3 / 300)
    assert np.mean(lengths) >= limit


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after", "most"), [(0.9, 0.8, 400), (0.8, 0.7, 600), (0.95, 0.85, 300)])
def test_a_drop_of_ten_points_is_heard(before: float, after: float, most: int) -> None:
    # As in service: eight alarms, 20 audits a day, one false alarm a year; the rate was measured on 2,000 audits.
    rng, limit = np.random.default_rng(2), RUN_LENGTH_DAYS * 20 * 8
    bound = tolerated(StreamMean(n=2000, mean=before), 0.02)[0]
    lengths = [run_length(rng.random(3000) < after, bound, "fall", limit) for _ in range(100)]
    assert np.median(lengths) <= most


def test_a_late_change_is_heard_as_soon_as_an_early_one() -> None:
    rng = np.random.default_rng(3)
    calm, bad = (rng.random(3000) < 0.9).astype(float), (rng.random(600) < 0.7).astype(float)
    late = run_length(np.concatenate([calm, bad]), 0.88, "fall", 1e5)
    assert 3000 < late <= 3000 + 1.5 * run_length(bad, 0.88, "fall", 1e5)


def test_what_is_tolerated_is_the_error_of_the_reference_and_never_less_than_the_margin() -> None:
    for n in (60, 600, 100_000):
        low, high = tolerated(StreamMean(n=n, mean=0.8), 0.02)
        assert low <= 0.78
        assert high >= 0.82
    assert tolerated(StreamMean(n=100_000, mean=0.8), 0.02) == (pytest.approx(0.78), pytest.approx(0.82))
    assert tolerated(StreamMean(n=60, mean=0.8), 0.02)[0] < 0.65
    assert tolerated(StreamMean(n=100, mean=1.0), 0.02)[1] >= 1.0


@pytest.mark.slow
def test_a_reference_measured_with_an_error_is_tolerated() -> None:
    rng, outside = np.random.default_rng(4), 0
    for _ in range(1000):
        low, high = tolerated(StreamMean(n=200, mean=rng.binomial(200, 0.85) / 200), 0.0)
        outside += not low <= 0.85 <= high
    assert outside <= 10 + 3 * np.sqrt(10)


def stream(values: np.ndarray, *, per_day: int = 50, kind: str = "quality", scale: float | None = None) -> Stream:
    ts = START + np.arange(len(values)) * DAY / per_day
    return Stream(kind, "small", ts, np.asarray(values, float), scale)  # type: ignore[arg-type]  # a kind there is


def heard(values: np.ndarray, reference: StreamMean, **options: object) -> dict[str, Alarm]:
    one = stream(values, **options)  # type: ignore[arg-type]  # as above
    return {alarm.direction: alarm for alarm in listen([one], {one.kind: {"small": reference}})}


def test_a_tier_that_became_worse_rings_once_and_says_since_when() -> None:
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.random(400) < 0.9, rng.random(800) < 0.75])
    found = heard(values, StreamMean(n=3000, mean=0.9))
    fall = found["fall"]
    assert fall.rings
    assert not found["rise"].rings
    assert fall.since is not None
    assert START + 8 * DAY < fall.since.timestamp() < START + 20 * DAY
    assert fall.current == pytest.approx(0.75, abs=0.1)
    assert fall.text.startswith("quality of small fell from 90.0%; lately 7")
    assert fall.to_dict()["since"] == fall.since.isoformat()


def test_the_same_log_gives_the_same_alarms() -> None:
    values = np.random.default_rng(6).random(300) < 0.8
    assert heard(values, StreamMean(n=500, mean=0.9)) == heard(values, StreamMean(n=500, mean=0.9))


def test_longer_answers_ring_and_are_told_in_tokens() -> None:
    rng = np.random.default_rng(7)
    before, now = rng.lognormal(5.0, 0.6, 2000), rng.lognormal(5.3, 0.6, 800)
    scale = float(np.median(before))
    reference = StreamMean(n=2000, mean=float((before / (before + scale)).mean()), scale=scale)
    found = heard(now / (now + scale), reference, kind="answer_length", scale=scale)
    assert found["rise"].rings
    assert found["rise"].reference == pytest.approx(np.exp(5.0), rel=0.05)
    assert found["rise"].current == pytest.approx(np.exp(5.3), rel=0.1)
    assert "tokens" in found["rise"].text


def test_the_limit_grows_with_the_pace_and_with_the_number_of_alarms() -> None:
    values = np.ones(200)
    slow = heard(values, StreamMean(n=500, mean=0.9), per_day=10)["fall"].limit
    fast = heard(values, StreamMean(n=500, mean=0.9), per_day=100)["fall"].limit
    assert fast == pytest.approx(10 * slow, rel=0.02)
    both = [stream(values), Stream("quality", "large", stream(values).ts, values)]
    means = {"small": StreamMean(n=500, mean=0.9), "large": StreamMean(n=500, mean=0.9)}
    assert listen(both, {"quality": means})[0].limit == 2 * heard(values, means["small"])["fall"].limit


@pytest.mark.parametrize(
    "references", [{}, {"quality": {}}, {"quality": {"small": StreamMean(n=49, mean=0.9)}}], ids=["", "tier", "few"]
)
def test_without_a_reference_nobody_listens(references: dict) -> None:
    assert listen([stream(np.zeros(500))], references) == ()


def test_a_length_in_another_scale_is_not_compared() -> None:
    reference = StreamMean(n=500, mean=0.5, scale=100.0)
    one = stream(np.ones(300), kind="answer_length", scale=120.0)
    assert listen([one], {"answer_length": {"small": reference}}) == ()


def test_a_perfect_or_hopeless_reference_is_listened_to_where_it_can_change() -> None:
    found = heard(np.zeros(300), StreamMean(n=1000, mean=1.0))
    assert found["fall"].rings
    assert not found["rise"].rings
    found = heard(np.ones(300), StreamMean(n=1000, mean=0.0))
    assert found["rise"].rings
    assert not found["fall"].rings


def test_the_table_shows_what_rings_first() -> None:
    text = alarms_text(tuple(heard(np.zeros(300), StreamMean(n=1000, mean=0.9)).values()))
    assert text.splitlines()[2].startswith("rings  quality of small falls")


@pytest.mark.slow
def test_nights_that_differ_from_days_do_not_ring(world: Any) -> None:
    # 2,000 requests a day, of which 11 % escalate by day and 29 % by night: in the order they came, most weeks rang.
    rng, n, rung = np.random.default_rng(8), 14_000, 0
    row = world.dataset(1, policy="chain").rows(np.zeros(n, np.int64))
    for _ in range(5):
        ts = START + np.sort(rng.random(n)) * 7 * DAY
        night = rng.random(n) < 0.2 + 0.09 * np.cos(2 * np.pi * ts / DAY)
        escalated = np.stack([np.zeros(n, np.bool_), night], axis=1)
        week = replace(row, ts=ts, group=rng.integers(-(2**62), 2**62, n), escalated=escalated)
        streams = [one for one in streams_of(week) if one.kind == "escalation"]
        alarms = listen(streams, {"escalation": {"small": StreamMean(n=56_000, mean=0.2)}})
        assert len(alarms) == 2
        rung += any(alarm.rings for alarm in alarms)
    assert rung == 0
