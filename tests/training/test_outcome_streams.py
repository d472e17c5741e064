"""Streams of outcomes: audits apart from what a policy chose, each session once a day, lengths in a given scale."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from router_ml_training.outcome_streams import Stream, audited_rows, streams_of, whole_days

START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()


def by_kind(dataset: Any, *args: Any) -> dict[tuple[str, str], Stream]:
    return {(one.kind, one.tier): one for one in streams_of(dataset, *args)}


def test_a_log_of_audits_has_quality_and_length_of_every_tier(world: Any) -> None:
    data = world.dataset(200)
    found = by_kind(data)
    assert set(found) == {(kind, tier) for kind in ("quality", "answer_length") for tier in ("small", "large")}
    assert found["quality", "small"].values.mean() == pytest.approx(data.quality[:, 0].mean())
    assert audited_rows(data).all()


def test_a_chain_has_escalations_and_lengths_of_whom_the_policy_chose(world: Any) -> None:
    data = world.dataset(200, policy="chain")
    found = by_kind(data)
    assert set(found) == {("escalation", "small"), ("chosen_answer_length", "small")}
    assert found["escalation", "small"].values.mean() == pytest.approx(1 - data.quality[:, 0].mean())
    assert not audited_rows(data).any()


def test_times_rise_whatever_the_order_of_the_log(world: Any) -> None:
    data = world.dataset(50)
    shuffled = data.rows(np.random.default_rng(0).permutation(50))
    for one in streams_of(shuffled):
        assert (np.diff(one.ts) > 0).all()
        assert one.values.tolist() == by_kind(data)[one.kind, one.tier].values.tolist()


def test_a_session_counts_once_a_day_by_its_mean(world: Any) -> None:
    data = world.dataset(40)
    together = replace(data, group=np.zeros(40, np.int64))
    quality = by_kind(together)["quality", "small"]
    assert quality.values.tolist() == pytest.approx([data.quality[:, 0].mean()])
    next_day = replace(together, ts=data.ts + np.where(np.arange(40) < 30, 0.0, 86_400.0))
    assert len(by_kind(next_day)["quality", "small"].values) == 2


def test_lengths_are_measured_in_the_median_or_in_what_is_given(world: Any) -> None:
    data = world.dataset(100)
    own = by_kind(data)["answer_length", "large"]
    assert own.scale == np.median(data.output_tokens[:, 1])
    assert np.median(own.values) == pytest.approx(0.5, abs=0.01)
    given = by_kind(data, {"answer_length": {"large": 50.0}})["answer_length", "large"]
    assert given.scale == 50.0
    assert (given.values > own.values).all()


def test_an_empty_part_has_no_streams(world: Any) -> None:
    assert streams_of(world.dataset(20).rows(np.zeros(0, np.int64))) == ()


def test_nights_are_shuffled_into_their_days_and_days_stay_in_order(world: Any) -> None:
    n, days = 2000, 5
    data = world.dataset(n)
    ts = START + np.arange(n) / n * days * 86_400.0
    by_night = np.asarray((ts - START) % 86_400.0 < 43_200.0, float)
    last_day = np.asarray(ts >= START + (days - 1) * 86_400.0, float)
    groups = np.random.default_rng(0).integers(-(2**62), 2**62, n)
    dated = replace(data, ts=ts, group=groups, quality=np.stack([by_night, last_day], axis=1))
    found = by_kind(dated)
    night, late = found["quality", "small"], found["quality", "large"]
    assert (np.diff(night.ts) > 0).all()
    hundreds = night.values.reshape(-1, 100).mean(axis=1)
    assert hundreds.min() > 0.3
    assert hundreds.max() < 0.7
    assert late.values.tolist() == sorted(late.values.tolist())


def test_days_that_are_over_stay_as_they_were(world: Any) -> None:
    n = 900
    groups = np.random.default_rng(1).integers(-(2**62), 2**62, n)
    data = replace(world.dataset(n), ts=START + np.arange(n) / n * 3 * 86_400.0, group=groups)
    full = by_kind(data)["quality", "small"].values.tolist()
    # Read again at another time of the day, from another time on.
    assert by_kind(data.rows(np.arange(750)))["quality", "small"].values.tolist()[:600] == full[:600]
    assert by_kind(data.rows(np.arange(120, n)))["quality", "small"].values.tolist()[180:] == full[300:]


def test_halves_of_days_are_left_out_where_there_is_a_whole_one() -> None:
    hours = np.arange(-12, 60) * 3600.0 + START
    since, until = (datetime.fromtimestamp(float(edge), UTC) for edge in (hours[0], hours[-1]))
    kept = hours[whole_days(hours, since, until)]
    assert (kept[0], kept[-1]) == (START, START + 47 * 3600.0)
    assert whole_days(hours[:20], since, until - timedelta(days=2)).all()
