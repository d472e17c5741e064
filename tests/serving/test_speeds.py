"""Estimates follow what is measured, and go back to the configuration when nothing is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml_serving.speeds import Speeds


class Clock:
    s = 1000.0

    def __call__(self):
        return self.s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def speeds(clock):
    found = Speeds(clock)
    found.follow({"small": 600.0, "large": 0.0})
    return found


def test_nothing_is_said_before_the_first_measurement(speeds):
    assert speeds.all() is None
    assert (speeds.of("small"), speeds.of("large"), speeds.of("unknown")) == (600.0, 0.0, 0.0)


def test_one_measurement_moves_a_configured_figure_a_little(speeds):
    speeds.note("small", 60_000.0)
    assert speeds.of("small") == 6540.0


def test_without_a_configured_figure_the_first_measurements_are_averaged(speeds):
    for took_ms in (9000.0, 1000.0, 2000.0):
        speeds.note("large", took_ms)
    assert speeds.of("large") == pytest.approx(4000.0)


def test_an_estimate_holds_a_minute_and_fades_within_another(speeds, clock):
    speeds.note("small", 60_000.0)
    speeds.note("large", 9000.0)
    seen = []
    for _ in range(5):
        seen.append(speeds.all())
        clock.s += 30.0
    assert seen[0] == seen[1] == seen[2] == (6540.0, 9000.0)
    assert seen[3] == (pytest.approx(3570.0), 9000.0)
    assert seen[4] == (600.0, 0.0)


def test_a_faded_estimate_is_no_start_for_the_next(speeds, clock):
    for _ in range(50):
        speeds.note("large", 9000.0)
    clock.s += 121.0
    speeds.note("large", 1000.0)
    assert speeds.of("large") == 1000.0


def test_all_is_worked_out_only_when_something_changed(speeds, clock):
    speeds.note("small", 700.0)
    known = speeds.all()
    clock.s += 59.0
    assert speeds.all() is known
    clock.s += 31.0
    fading = speeds.all()
    clock.s += 0.5
    assert speeds.all() is fading
    clock.s += 1000.0
    gone = speeds.all()
    clock.s += 1000.0
    assert speeds.all() is gone == (600.0, 0.0)


def test_another_ladder_keeps_what_was_measured(speeds):
    speeds.note("large", 50.0)
    speeds.follow({"medium": 900.0, "large": 0.0, "small": 0.0})
    assert speeds.all() == (900.0, 50.0, 600.0)


@given(steps=st.lists(st.tuples(st.floats(0.1, 1e5), st.floats(-5.0, 200.0)), min_size=1))
def test_an_estimate_stays_within_what_was_measured_and_configured(steps):
    clock = Clock()
    speeds = Speeds(clock)
    speeds.follow({"small": 600.0})
    for took_ms, later_s in steps:
        speeds.note("small", took_ms)
        clock.s += later_s
        (found,) = speeds.all()
        assert min(600.0, *(took for took, _ in steps)) - 1e-6 <= found
        assert found <= max(600.0, *(took for took, _ in steps)) + 1e-6
