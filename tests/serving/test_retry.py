"""When a failed call is tried again: what upstreams ask for is kept to, and a storm of errors is not multiplied."""

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from router_ml.errors import UpstreamError
from router_ml_serving.retry import TRANSIENT, Retries, RetryBudget, retry_after_s

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
longest = Retries(2, lambda _, high: high)


def failed(kind="status", status=None):
    return UpstreamError("it failed", kind=kind, status=status)


def after(**headers):
    return retry_after_s(CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}), lambda: NOON)


@pytest.mark.parametrize("status", sorted(TRANSIENT))
def test_what_may_pass_is_tried_again(status):
    assert longest.pause_s(failed(status=status), tried=0, asked_s=None, left_s=5.0) == 0.25


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 501, 505])
def test_what_will_not_pass_is_final(status):
    assert longest.pause_s(failed(status=status), tried=0, asked_s=0.0, left_s=5.0) is None


@pytest.mark.parametrize(
    ("kind", "pause_s"), [("connect", 0.25), ("timeout", None), ("reset", None), ("protocol", None)]
)
def test_only_work_that_was_never_begun_is_tried_again(kind, pause_s):
    assert longest.pause_s(failed(kind), tried=0, asked_s=None, left_s=5.0) == pause_s


def test_the_tries_are_counted():
    assert longest.pause_s(failed(status=500), tried=2, asked_s=None, left_s=5.0) is None
    assert Retries(0, random.uniform).pause_s(failed("connect"), tried=0, asked_s=None, left_s=5.0) is None


def test_pauses_double_up_to_a_bound():
    many = Retries(10, lambda _, high: high)
    pauses = [many.pause_s(failed("connect"), tried=i, asked_s=None, left_s=100.0) for i in range(7)]
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


@given(asked_s=st.none() | st.floats(0, 10), left_s=st.floats(-1, 10), tried=st.integers(0, 1), seed=st.integers(0, 99))
def test_a_pause_is_never_shorter_than_asked_nor_longer_than_there_is_time(asked_s, left_s, tried, seed):
    rule = Retries(2, random.Random(seed).uniform)
    pause_s = rule.pause_s(failed(status=429), tried=tried, asked_s=asked_s, left_s=left_s)
    if pause_s is None:
        assert left_s <= (asked_s or 0.0)
    else:
        assert (asked_s or 0.0) <= pause_s <= left_s + 1e-9


def test_retries_are_a_bounded_share_of_the_calls():
    budget, taken = RetryBudget(), 0
    for _ in range(1000):
        budget.called()
        taken += budget.take() + budget.take()
    assert 200 <= taken <= 210


def test_a_calm_hour_is_not_saved_up():
    budget = RetryBudget()
    for _ in range(10_000):
        budget.called()
    assert sum(budget.take() for _ in range(100)) == 10


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "3"}, 3.0),
        ({"retry_after": " 2.5 "}, 2.5),
        ({"retry_after": "9", "retry_after_ms": "120"}, 0.12),
        ({"retry_after": "-3"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry_after": "Sun, 22 Nov 2026 12:00:30 -0000"}, 30.0),
        ({"retry_after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
    ],
)
def test_every_spelling_of_retry_after_is_understood(headers, seconds):
    assert after(**headers) == seconds


@given(skew_h=st.integers(-10_000, 10_000), asked_s=st.integers(0, 10_000))
def test_a_wrong_clock_does_not_change_a_date(skew_h, asked_s):
    theirs = NOON + timedelta(hours=skew_h)
    until = format_datetime(theirs + timedelta(seconds=asked_s), usegmt=True)
    assert after(retry_after=until, date=format_datetime(theirs, usegmt=True)) == asked_s


@given(said=st.text(max_size=40), date=st.text(max_size=40))
def test_no_header_is_an_error(said, date):
    seconds = after(retry_after=said, date=date)
    assert seconds is None or seconds >= 0.0
