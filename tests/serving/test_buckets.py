"""Allowances: what they tell is what was taken since, and what they hear replaces what they thought."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml_serving.buckets import Bucket, Report, Share


def test_a_bucket_refills_steadily_and_may_be_overdrawn():
    bucket = Bucket(60.0)
    bucket.take(90.0, 100.0)
    assert bucket.left(100.0) == pytest.approx(-30.0)
    assert bucket.wait_s(1.0, 100.0) == pytest.approx(31.0)
    assert bucket.left(145.0) == pytest.approx(15.0)
    assert bucket.left(9_999.0) == 60.0


def test_what_a_bucket_has_told_it_does_not_tell_again():
    bucket = Bucket(60.0)
    bucket.take(5.0, 100.0)
    bucket.take(-2.0, 100.0)
    assert bucket.report(101.0) == Report("bucket", pytest.approx(2.0), pytest.approx(3.0))
    assert bucket.report(101.0).plus == 0.0


def test_a_bucket_is_idle_when_it_is_full_and_has_nothing_to_tell():
    bucket = Bucket(60.0)
    assert bucket.is_idle(100.0)
    bucket.take(1.0, 100.0)
    assert not bucket.is_idle(200.0)
    bucket.report(100.0)
    assert not bucket.is_idle(100.5)
    assert bucket.is_idle(101.5)


def test_what_is_taken_while_a_bucket_listens_comes_on_top():
    bucket = Bucket(60.0)
    bucket.take(10.0, 100.0)
    bucket.report(100.0)
    bucket.take(4.0, 100.0)
    bucket.hear(25.0, 100.0)  # ten of ours and fifteen of others
    assert bucket.left(100.0) == pytest.approx(60.0 - 29.0)
    assert bucket.report(100.0).plus == pytest.approx(4.0)


def test_what_was_given_back_to_a_full_bucket_pays_for_nothing_that_is_taken_later():
    bucket = Bucket(60.0)
    bucket.take(10.0, 100.0)
    bucket.hear(-30.0, 100.0)
    assert bucket.left(100.0) == pytest.approx(50.0)


def test_a_share_tells_what_was_earned_and_what_was_spent():
    share = Share(0.25)
    for large in (True, False, False, False):
        share.count(large=large)
    assert share.report(0.0) == Report("share", pytest.approx(1.0), 1.0, 1.0, 50.0)
    assert share.is_idle(0.0)
    share.count(large=True)
    share.hear(0.5, 0.0)
    assert share.saved == pytest.approx(-0.25)


@given(st.floats(0.005, 1.0), st.lists(st.booleans(), max_size=300))
def test_of_n_requests_no_more_than_the_share_and_one_have_had_the_dearest_tier(share, wanted):
    counter, calls = Share(share), 0
    for wants in wanted:
        large = wants and counter.allows()
        counter.count(large=large)
        calls += large
    assert calls <= share * len(wanted) + 1 + 1e-6
