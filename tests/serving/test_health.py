"""Circuits open on failures and close on proof; what is measured of tiers follows what they do."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.ladder import Tier
from router_ml_serving.health import REFUSED, Health


def tier(name, **fields):
    fields = {"base_url": "http://127.0.0.1:9/v1", **fields}
    return Tier(name=name, model=name, input_usd_per_mtok=1.0, output_usd_per_mtok=1.0, **fields)


class Clock:
    s = 1000.0

    def __call__(self):
        return self.s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def changes():
    return []


@pytest.fixture
def health(clock, changes):
    ladder = [tier("small", latency_ms=600.0), tier("large")]
    return Health(ladder, failures=5, open_s=10.0, clock=clock, on_change=lambda *change: changes.append(change))


def fail(health, times=5, name="small", **how):
    for _ in range(times):
        health.failed(name, health.begin(name), **how)


def test_failures_in_a_row_open_a_circuit(health, changes, caplog):
    fail(health, 4)
    assert health.unhealthy() == frozenset()
    fail(health, 1)
    assert health.unhealthy() == {"small"}
    assert health.begin("small") == REFUSED
    assert health.again_s("small") == 10.0
    assert health.begin("large") != REFUSED
    assert changes == [("small", True)]
    assert [record.tier for record in caplog.records if record.message == "circuit_opened"] == ["small"]


def test_a_success_in_between_starts_the_count_again(health):
    fail(health, 4)
    health.succeeded("small", health.begin("small"))
    fail(health, 4)
    assert health.unhealthy() == frozenset()


def test_half_of_many_recent_calls_open_a_circuit(health, clock):
    for _ in range(9):
        health.succeeded("small", health.begin("small"))
        fail(health, 1)
        clock.s += 1.0
    assert health.unhealthy() == frozenset()
    health.succeeded("small", health.begin("small"))
    fail(health, 1)
    assert health.unhealthy() == {"small"}


def test_old_failures_are_forgotten(health, clock):
    for _ in range(30):
        health.succeeded("small", health.begin("small"))
        fail(health, 1)
        clock.s += 4.0
    assert health.unhealthy() == frozenset()


def test_one_probe_decides(health, clock, changes, caplog):
    caplog.set_level(logging.INFO)
    fail(health)
    clock.s += 10.0
    assert health.unhealthy() == frozenset(), "the router may choose it again"
    probe = health.begin("small")
    assert probe != REFUSED
    assert health.begin("small") == REFUSED
    assert health.unhealthy() == {"small"}
    health.succeeded("small", probe, 500.0)
    assert health.unhealthy() == frozenset()
    assert changes == [("small", True), ("small", False)]
    assert [record.message for record in caplog.records][-1] == "circuit_closed"
    fail(health, 4)
    assert health.unhealthy() == frozenset(), "and the count begins anew"


def test_the_first_bytes_of_a_probe_are_enough(health, clock):
    fail(health)
    clock.s += 10.0
    health.first_byte("small", health.begin("small"), 300.0)
    assert health.begin("small") != REFUSED


def test_failed_probes_wait_twice_as_long_up_to_two_minutes(health, clock):
    fail(health)
    waited = []
    for _ in range(6):
        waited.append(health.again_s("small"))
        clock.s += waited[-1]
        health.failed("small", health.begin("small"))
    assert waited == [10.0, 20.0, 40.0, 80.0, 120.0, 120.0]


def test_a_probe_that_its_caller_gave_up_leaves_room_for_the_next(health, clock):
    fail(health)
    clock.s += 10.0
    health.abandoned("small", health.begin("small"))
    assert health.unhealthy() == frozenset()
    probe = health.begin("small")
    assert probe != REFUSED
    clock.s += 11.0
    again = health.begin("small")
    assert again != REFUSED, "nor does a probe that never ends block the tier"
    health.succeeded("small", probe)
    assert health.unhealthy() == frozenset(), "and however late it ends, it is proof"
    health.failed("small", again)
    assert health.is_current("small", health.begin("small"))


def test_calls_from_before_the_opening_decide_nothing(health):
    early = [health.begin("small") for _ in range(8)]
    for ticket in early[:5]:
        health.failed("small", ticket)
    health.succeeded("small", early[5])
    health.first_byte("small", early[6], 1.0)
    health.failed("small", early[7])
    assert health.unhealthy() == {"small"}
    assert health.again_s("small") == 10.0


def test_a_long_retry_after_opens_at_once_and_for_just_that_long(health, clock):
    fail(health, 1, asked_s=9.0)
    assert health.unhealthy() == frozenset(), "a pause shorter than breaker_s is left to the retries"
    fail(health, 1, asked_s=45.0)
    assert health.again_s("small") == 45.0
    clock.s += 44.9
    assert health.begin("small") == REFUSED
    clock.s += 0.1
    health.failed("small", health.begin("small"), asked_s=1e9)
    assert health.again_s("small") == 600.0, "nobody is left alone for ever"


def test_when_all_are_open_each_is_probed_every_second(health, clock):
    fail(health)
    fail(health, name="large")
    assert health.unhealthy() == {"small", "large"}
    assert [health.begin(name) for name in ("small", "large")] == [REFUSED, REFUSED]
    clock.s += 1.0
    probe = health.begin("large")
    assert probe != REFUSED
    assert health.begin("large") == REFUSED
    health.failed("large", probe)
    assert health.again_s("large") == 1.0
    clock.s += 1.0
    health.succeeded("large", health.begin("large"))
    assert health.unhealthy() == {"small"}
    assert health.again_s("small") == 8.0, "the early probes did not put the regular one off"


def test_a_tier_that_cannot_be_called_is_nobody_to_turn_to(clock):
    health = Health([tier("small"), tier("large", base_url=None)], failures=1, open_s=10.0, clock=clock)
    fail(health, 1)
    clock.s += 1.0
    assert health.begin("small") != REFUSED


def test_a_breaker_can_be_switched_off(clock):
    health = Health([tier("small")], failures=0, open_s=10.0, clock=clock)
    fail(health, 100, asked_s=100.0)
    assert health.unhealthy() == frozenset()


def test_speed_is_taken_from_the_ladder_until_it_is_measured(health):
    assert (health.latency_ms(), health.ttft_ms()) == (None, None)
    health.succeeded("small", health.begin("small"), 700.0)
    assert health.latency_ms() == (610.0, 0.0)
    assert health.latency_ms() is health.latency_ms()
    health.succeeded("large", health.begin("large"), 2000.0)
    health.first_byte("large", health.begin("large"), 400.0)
    assert health.latency_ms() == (610.0, 2000.0)
    assert health.ttft_ms() == (0.0, 400.0)


def test_an_estimate_follows_what_a_tier_does(health):
    for _ in range(60):
        health.succeeded("small", health.begin("small"), 1200.0)
    latency_ms = health.latency_ms()
    assert latency_ms is not None
    assert latency_ms[0] == pytest.approx(1200.0, rel=0.01)


def test_another_ladder_keeps_what_is_known(health):
    fail(health)
    health.succeeded("large", health.begin("large"), 50.0)
    health.follow([tier("medium", latency_ms=900.0), tier("large"), tier("small")])
    assert health.unhealthy() == {"small"}
    assert health.latency_ms() == (900.0, 50.0, 600.0)


def test_a_tier_that_keeps_its_callers_waiting_fails(health):
    for _ in range(5):
        health.abandoned("small", health.begin("small"), unanswered_s=5.1)
    assert health.unhealthy() == {"small"}


@pytest.mark.parametrize(
    ("how", "fails"),
    [
        ({}, False),
        ({"unanswered_s": None, "too_late": True}, False),  # it was answering
        ({"unanswered_s": 5.0}, False),
        ({"unanswered_s": 0.3, "too_late": True}, True),
    ],
)
def test_a_client_that_leaves_early_says_nothing(health, how, fails):
    for _ in range(5):
        health.abandoned("small", health.begin("small"), **how)
    assert health.unhealthy() == ({"small"} if fails else frozenset())


def test_a_slow_tier_is_given_four_times_what_it_usually_takes(health):
    health.succeeded("large", health.begin("large"), 3000.0)
    assert health.expected_s("large") == 3.0
    for waited_s, state in ((11.9, frozenset()), (12.1, {"large"})):
        for _ in range(5):
            health.abandoned("large", health.begin("large"), unanswered_s=waited_s)
        assert health.unhealthy() == state


def test_a_probe_that_was_waited_for_in_vain_has_failed(health, clock):
    fail(health)
    clock.s += 10.0
    health.abandoned("small", health.begin("small"), unanswered_s=6.0)
    assert health.again_s("small") == 20.0


def test_one_slow_answer_does_not_count_for_good(health, clock):
    health.succeeded("small", health.begin("small"), 60_000.0)
    health.first_byte("large", health.begin("large"), 9000.0)
    assert health.latency_ms() == (6540.0, 0.0)
    clock.s += 60.0
    assert (health.latency_ms(), health.ttft_ms()) == ((6540.0, 0.0), (0.0, 9000.0))
    clock.s += 60.0
    assert (health.latency_ms(), health.ttft_ms()) == ((600.0, 0.0), (0.0, 0.0))


STEPS = st.lists(st.tuples(st.sampled_from(["good", "bad", "gone", "long"]), st.floats(-30.0, 1e6)), max_size=60)


@given(steps=STEPS)
def test_no_course_of_events_and_no_jump_of_the_clock_locks_a_tier_out(steps):
    clock, changes = Clock(), []
    health = Health(
        [tier("small"), tier("large")], failures=3, open_s=10.0, clock=clock, on_change=lambda *c: changes.append(c)
    )
    for what, later_s in steps:
        clock.s += later_s
        ticket = health.begin("small")
        if ticket == REFUSED:
            assert health.again_s("small") > 0.0
            continue
        if what == "good":
            health.succeeded("small", ticket, 1.0)
        elif what == "gone":
            health.abandoned("small", ticket)
        else:
            health.failed("small", ticket, asked_s=300.0 if what == "long" else None)
    clock.s += health.again_s("small")
    ticket = health.begin("small")
    assert ticket != REFUSED
    health.succeeded("small", ticket)
    assert health.unhealthy() == frozenset()
    assert [is_open for _, is_open in changes] == [i % 2 == 0 for i in range(len(changes))]
