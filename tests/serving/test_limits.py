"""Limits: what a minute allows, whatever the pattern; the share of the dearest tier; OpenAI's headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml_serving.auth import Caller
from router_ml_serving.limits import Limits
from router_ml_serving.problems import RateLimited, TierNotAllowed, reply_to
from router_ml_serving.tenants import TenantRules

LADDER = ("small", "mid", "large")


class Clock:
    def __init__(self):
        self.now_s = 1e6

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def limits(clock):
    return Limits(clock)


def caller(tenant="acme", **rules):
    if "tiers" in rules:
        rules["tiers"] = frozenset(rules["tiers"])
    return Caller(tenant, None, TenantRules(f"tenants.{tenant}", **rules))


def admitted(limits, who, **what):
    try:
        limits.admit(who, **what)
    except RateLimited:
        return False
    return True


def test_who_has_no_rules_has_no_limits(limits):
    who = caller()
    assert all(admitted(limits, who, tokens=1e9) for _ in range(1000))
    assert limits.headers(who) == {}
    assert limits.allowed(who, LADDER) is None
    limits.check_named(who, "large", LADDER)


def test_a_minutes_worth_comes_in_and_the_rest_waits(limits, clock):
    who = caller(requests_per_minute=60.0)
    assert [admitted(limits, who) for _ in range(61)] == [True] * 60 + [False]
    clock.now_s += 0.99
    assert not admitted(limits, who)
    clock.now_s += 0.02
    assert [admitted(limits, who) for _ in range(2)] == [True, False]


@given(
    steps=st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(1, 20)), max_size=60),
    per_minute=st.sampled_from([1.0, 7.0, 60.0, 1000.0]),
)
def test_however_requests_arrive_a_minute_gives_no_more_than_a_full_bucket_and_its_refill(steps, per_minute):
    clock = Clock()
    limits, who, times = Limits(clock), caller(requests_per_minute=per_minute), []
    for pause_s, n in steps:
        clock.now_s += pause_s
        times += [clock.now_s for _ in range(n) if admitted(limits, who)]
    for i, first in enumerate(times):
        within = sum(first <= moment < first + 60.0 for moment in times[i:])
        assert within <= 2 * per_minute
        spent = sum(first <= moment <= times[-1] for moment in times[i:])
        assert spent <= per_minute * (1 + (times[-1] - first) / 60.0) + 1e-3


def test_tenants_do_not_use_up_each_others_allowance(limits):
    one, other = caller("one", requests_per_minute=1.0), caller("other", requests_per_minute=1.0)
    assert [admitted(limits, one), admitted(limits, one), admitted(limits, other)] == [True, False, True]


def test_a_rate_below_one_a_minute_lets_the_first_in(limits, clock):
    who = caller(requests_per_minute=0.5)
    assert [admitted(limits, who), admitted(limits, who)] == [True, False]
    clock.now_s += 121.0
    assert admitted(limits, who)


def test_a_batch_counts_as_its_requests(limits, clock):
    who = caller(requests_per_minute=10.0)
    assert [admitted(limits, who, requests=8), admitted(limits, who, requests=8)] == [True, False]
    clock.now_s += 60.0
    assert admitted(limits, who, requests=100)  # larger than the bucket: late, but not impossible
    clock.now_s += 120.0
    assert not admitted(limits, who)


def test_a_refusal_is_openais_and_says_when_to_come_back(limits):
    who = caller(requests_per_minute=2.0)
    limits.admit(who)
    limits.admit(who)
    with pytest.raises(RateLimited) as caught:
        limits.admit(who)
    reply = reply_to(caught.value)
    assert reply.status_code == 429
    assert b'"type":"rate_limit_error"' in reply.body
    assert b'"code":"rate_limit_exceeded"' in reply.body
    assert reply.headers["retry-after"] == "30"
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    assert "tenants.acme.requests_per_minute" in str(caught.value)


def test_a_client_that_waits_as_told_comes_in(limits, clock):
    who = caller(requests_per_minute=7.0)
    while admitted(limits, who):
        pass
    with pytest.raises(RateLimited) as caught:
        limits.admit(who)
    clock.now_s += int(caught.value.headers["retry-after"])
    assert admitted(limits, who)


def test_the_headers_are_those_of_openai(limits):
    who = caller(requests_per_minute=60.0, tokens_per_minute=6000.0)
    assert limits.admit(who, tokens=2000) == 2000
    assert dict(limits.headers(who)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "4000",
        "x-ratelimit-reset-tokens": "20s",
    }


@pytest.mark.parametrize(
    ("tokens", "shown"), [(0, "0s"), (1, "10ms"), (100, "1s"), (101, "1.1s"), (1234, "12.4s"), (6000, "1m0s")]
)
def test_times_are_written_as_openai_writes_them(limits, tokens, shown):
    who = caller(tokens_per_minute=6000.0)
    limits.admit(who, tokens=tokens)
    assert limits.headers(who)["x-ratelimit-reset-tokens"] == shown


def test_what_was_set_aside_gives_way_to_what_was_used(limits):
    who = caller(tokens_per_minute=1000.0)
    aside = limits.admit(who, tokens=900)
    limits.settle(who, aside=aside, used=100)
    assert limits.headers(who)["x-ratelimit-remaining-tokens"] == "900"
    limits.settle(who, aside=limits.admit(who, tokens=10), used=3000)
    with pytest.raises(RateLimited) as caught:
        limits.admit(who, tokens=1)
    assert int(caught.value.headers["retry-after"]) == pytest.approx(126, abs=1)
    assert "tokens_per_minute" in str(caught.value)


def test_a_prompt_longer_than_a_minutes_worth_is_late_and_not_impossible(limits, clock):
    who = caller(tokens_per_minute=1000.0)
    assert limits.admit(who, tokens=50_000) == 1000
    assert not admitted(limits, who, tokens=1)
    clock.now_s += 1.0
    assert admitted(limits, who, tokens=50_000)


def test_a_decision_without_a_call_does_not_wait_for_tokens(limits):
    who = caller(tokens_per_minute=10.0)
    limits.admit(who, tokens=10)
    assert admitted(limits, who)


def test_a_refused_request_takes_nothing(limits, clock):
    who = caller(requests_per_minute=60.0, tokens_per_minute=60.0)
    limits.admit(who, tokens=60)
    for _ in range(100):
        assert not admitted(limits, who, tokens=60)
    assert limits.headers(who)["x-ratelimit-remaining-requests"] == "59"
    clock.now_s += 1.1
    assert admitted(limits, who, tokens=60)


def test_an_allow_list_is_cut_to_the_ladder(limits):
    who = caller(tiers=["small", "large", "gone"])
    assert limits.allowed(who, LADDER) == {"small", "large"}
    assert limits.allowed(who, ("small", "mid")) == {"small"}
    assert limits.allowed(who, ("tiny", "mid")) == {"tiny"}


def wants_large(limits, who, n):
    """Send n requests that each take the dearest tier they may; return how many it answered, request by request."""
    answered = []
    for _ in range(n):
        allowed = limits.allowed(who, LADDER)
        tier = "large" if allowed is None or "large" in allowed else "mid"
        limits.note(who, {tier}, LADDER)
        answered.append(tier == "large")
    return answered


@pytest.mark.parametrize("share", [0.005, 0.1, 0.25, 1 / 3, 0.9, 0.999])
def test_the_dearest_tier_answers_its_share_and_no_more(limits, share):
    answered = wants_large(limits, caller(max_large_share=share), 2000)
    for n in range(1, 2001):
        assert sum(answered[:n]) <= share * n + 1 + 1e-6
    assert sum(answered) >= share * 2000 - 1


def test_the_share_is_spread_and_not_bunched(limits):
    answered = wants_large(limits, caller(max_large_share=0.1), 1000)
    assert all(sum(answered[i : i + 20]) <= 3 for i in range(980))


def test_a_share_of_one_is_no_limit(limits):
    assert limits.allowed(caller(max_large_share=1.0), LADDER) is None


def test_what_was_saved_up_lasts_for_a_window_and_not_for_ever(limits):
    who = caller(max_large_share=0.1)
    for _ in range(10_000):
        limits.note(who, {"small"}, LADDER)
    assert sum(wants_large(limits, who, 20)) == 20
    assert sum(wants_large(limits, who, 20)) <= 4


def test_escalations_and_concurrent_calls_count(limits):
    who = caller(max_large_share=0.1)
    for _ in range(5):  # decided at the same moment, before any of them was over
        assert limits.allowed(who, LADDER) == {"small", "mid", "large"}
    for _ in range(5):
        limits.note(who, {"small", "large"}, LADDER)
    assert sum(wants_large(limits, who, 40)) == 0
    assert sum(wants_large(limits, who, 20)) >= 1


def test_a_named_tier_is_held_to_the_same_rules(limits):
    listed, shared = caller("listed", tiers=["small"]), caller("shared", max_large_share=0.1)
    limits.check_named(listed, "small", LADDER)
    with pytest.raises(TierNotAllowed, match=r"tenants\.listed\.tiers does not list it; ask for 'auto' or small"):
        limits.check_named(listed, "large", LADDER)
    limits.check_named(shared, "large", LADDER)
    limits.note(shared, {"large"}, LADDER)
    limits.check_named(shared, "mid", LADDER)
    with pytest.raises(TierNotAllowed, match=r"tenants\.shared\.max_large_share \(0\.1\) is used up"):
        limits.check_named(shared, "large", LADDER)


def test_the_dearest_tier_alone_still_answers(limits):
    who = caller(tiers=["large"], max_large_share=0.1)
    limits.note(who, {"large"}, LADDER)
    assert limits.allowed(who, LADDER) == {"large"}


def test_callers_without_a_tenant_are_counted_together(limits):
    one, other = (Caller(None, None, TenantRules(requests_per_minute=1.0)) for _ in range(2))
    assert [admitted(limits, one), admitted(limits, other)] == [True, False]
    assert len(limits._accounts) == 1


def test_a_batch_of_several_tenants_comes_in_as_a_whole_or_not_at_all(limits):
    wide, narrow, free = (
        caller("wide", requests_per_minute=300.0),
        caller("narrow", requests_per_minute=3.0),
        caller("free"),
    )
    limits.admit_all([wide, narrow, free, narrow, wide])
    assert [limits.headers(who)["x-ratelimit-remaining-requests"] for who in (wide, narrow)] == ["298", "1"]
    with pytest.raises(RateLimited, match=r"tenants\.narrow\.requests_per_minute"):
        limits.admit_all([wide, free, narrow, narrow])
    assert [limits.headers(who)["x-ratelimit-remaining-requests"] for who in (wide, narrow)] == ["298", "1"]
