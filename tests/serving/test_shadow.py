"""Audits and shadows: run beside the answer, never shown, never waited for, bounded, billed, recorded by themselves."""

import asyncio
import time

import numpy as np
import pytest

from router_ml.exploration import draw_background
from router_ml.schema import Attempt, Verdict
from router_ml.store import open_store
from router_ml_serving.cascade import AttemptResult
from router_ml_serving.journal import BESIDE, SHARE, beside_id
from router_ml_serving.shadow import BackgroundCalls, run_beside
from router_ml_training.dataset import build_dataset

TIERS = ("small", "large")


def wait_for(condition, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def stored(service):
    with open_store(f"sqlite:///{service.home / 'events.db'}") as store:
        return list(store.scan())


@pytest.fixture(scope="module")
def audited(start_service):
    return start_service(exploration={"audit": 1.0})


@pytest.fixture(scope="module")
def shadowed(start_service):
    return start_service(exploration={"shadow": 1.0})


def test_an_audit_runs_every_tier_whole_and_records_it_beside_the_answer(audited, upstream):
    upstream.calls()
    reply = audited.ask("Hello [mini=idk]", stream=True, stream_options={"include_usage": True})
    decision_id = reply.headers["x-router-decision-id"]
    audit = audited.recorded(beside_id(decision_id, "audit"))
    assert (audit.mode, audit.candidates, audit.propensity, audit.explored) == ("audit", TIERS, {}, False)
    assert (audit.tags[BESIDE], audit.tags[SHARE]) == (decision_id, 1.0)
    assert [one.tier for one in audit.attempts] == ["small", "large"]
    assert [one.verdicts != () for one in audit.attempts] == [True, False]
    assert all(one.cost_usd > 0 for one in audit.attempts)
    calls = upstream.calls()
    assert [call["model"] for call in calls[:2]] == ["mini", "maxi"]  # the live chain, streamed
    assert all(call["body"]["stream"] for call in calls[:2])
    assert sorted(call["model"] for call in calls[2:]) == ["maxi", "mini"]
    assert all("stream" not in call["body"] and "stream_options" not in call["body"] for call in calls[2:])
    live = audited.recorded(decision_id)
    assert (live.mode, [one.tier for one in live.attempts]) == ("live", ["small", "large"])
    assert sum(live.propensity.values()) == 1.0


def test_a_shadow_asks_the_cheaper_tier_and_the_client_sees_none_of_it(shadowed, upstream):
    upstream.calls()
    reply = shadowed.ask("Hello", model="router-1")
    assert reply.json["model"] == "maxi"
    assert reply.headers["x-router-attempts"] == "1"
    assert "mini" not in reply.body.decode()
    decision_id = reply.headers["x-router-decision-id"]
    shadow = shadowed.recorded(beside_id(decision_id, "shadow"))
    assert (shadow.mode, shadow.propensity) == ("shadow", {"small": 1.0})
    assert [(one.tier, one.response) for one in shadow.attempts] == [("small", "The answer of mini is 42.")]
    assert [one.tier for one in shadowed.recorded(decision_id).attempts] == ["large"]


def test_no_shadow_where_the_cheapest_tier_answers_and_none_for_a_tier_that_was_asked_for(shadowed, audited, upstream):
    upstream.calls()
    shadowed.ask("Hello")
    shadowed.ask("Hello", model="large")
    audited.ask("Hello", model="large")
    time.sleep(0.3)
    assert [call["model"] for call in upstream.calls()] == ["mini", "maxi", "maxi"]


def test_a_background_call_that_is_slow_or_fails_delays_and_breaks_no_answer(shadowed):
    started = time.monotonic()
    slow = shadowed.ask("Hello [mini=slow]", model="router-1")
    assert time.monotonic() - started < 1.0
    failing = shadowed.ask("Hello [mini=500]", model="router-1")
    assert (slow.status, failing.status) == (200, 200)
    shadow = shadowed.recorded(beside_id(failing.headers["x-router-decision-id"], "shadow"))
    assert (shadow.attempts[0].error, shadow.attempts[0].cost_usd) == ("status 500", 0.0)


def test_what_is_too_much_at_once_is_dropped_and_counted(start_service):
    service = start_service(exploration={"shadow": 1.0}, background=1)
    replies = [service.ask("Hello [mini=slow]", model="router-1") for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert service.metric('router_ml_background_total{mode="shadow",result="dropped"}') == 2


def test_calls_that_run_at_shutdown_are_cancelled_recorded_and_billed(start_service):
    service = start_service(exploration={"shadow": 1.0})
    reply = service.ask("Hello [mini=slow]", model="router-1")
    assert service.process.stop() == 0
    shadow = service.recorded(beside_id(reply.headers["x-router-decision-id"], "shadow"))
    assert (shadow.attempts[0].error, shadow.attempts[0].finish_reason) == ("cancelled", "cancelled")
    assert shadow.attempts[0].cost_usd > 0


def test_without_text_the_background_keeps_none_either(start_service):
    service = start_service(exploration={"audit": 1.0}, toml="", env={"ROUTER_ML_STORE__TEXT": "false"})
    decision_id = service.ask("Where is the red bicycle?").headers["x-router-decision-id"]
    audit = service.recorded(beside_id(decision_id, "audit"))
    assert audit.features is not None
    assert "bicycle" not in audit.to_json()
    assert "42" not in "".join(one.response or "" for one in audit.attempts)


def test_feedback_by_id_and_tier_makes_an_audit_complete_and_a_shadow_never(audited, shadowed, call):
    """From the client's request to the arrays that are learned from, through the real service."""
    prompt, ids = "What is the capital of Peru?", []
    for service, fields, mode in ((audited, {}, "audit"), (shadowed, {"model": "router-1"}, "shadow")):
        decision_id = service.ask(prompt, **fields).headers["x-router-decision-id"]
        service.recorded(beside_id(decision_id, mode))
        ids.append(decision_id)
        judged = [(beside_id(decision_id, mode), "small")]
        judged.append((beside_id(decision_id, "audit"), "large") if mode == "audit" else (decision_id, "large"))
        for to, tier in judged:
            body = {"decision_id": to, "tier": tier, "source": "judge", "adequate": tier == "large"}
            assert call(f"{service.url}/v1/feedback", body).json["recorded"]
    rows = [one for service in (audited, shadowed) for one in stored(service)]
    log = [one for one in rows if one.id.split("-")[0] in ids]
    data = build_dataset(log, TIERS)
    assert len(log) == 4
    assert [one.mode for one, is_complete in zip(log, data.complete, strict=True) if is_complete] == ["audit"]
    assert np.isnan(data.propensity).all(axis=1).sum() == 2  # the two that ran in the background
    shadow = next(i for i, one in enumerate(log) if one.mode == "shadow")
    assert data.quality[shadow].tolist()[0] == 0.0
    assert not data.escalated.any()
    assert len(set(data.group.tolist())) == 1


class Exchange:
    """Calls that take a moment and are billed when they are cancelled."""

    async def beside(self, name, trail):
        try:
            await asyncio.sleep(0.01 if name == "small" else 60)
        except asyncio.CancelledError:
            trail.append(AttemptResult(Attempt(tier=name, error="cancelled", cost_usd=0.1)))
            raise
        trail.append(AttemptResult(Attempt(tier=name, cost_usd=0.2, verdicts=(Verdict(source="rule"),))))


def test_closing_cancels_and_records_once_and_nothing_starts_afterwards():
    recorded, failures = [], []

    async def fails():
        raise ZeroDivisionError

    async def main():
        calls = BackgroundCalls(2)
        assert calls.start(lambda: run_beside(Exchange(), TIERS, recorded.append))
        assert calls.start(fails, on_error=lambda: failures.append(1))
        assert not calls.start(fails)
        await asyncio.sleep(0.1)
        assert len(calls) == 1
        await calls.close()
        assert not calls.start(fails)
        assert len(calls) == 0

    asyncio.run(main())
    assert [(one.tier, one.error, one.cost_usd) for one in recorded[0]] == [
        ("small", None, 0.2),
        ("large", "cancelled", 0.1),
    ]
    assert (len(recorded), failures) == (1, [1])


def test_draws_do_not_depend_on_the_requests_that_come_between():
    one, two = np.random.default_rng(3), np.random.default_rng(3)
    assert [draw_background(0.1, 0.5, one) for _ in range(50)] == [draw_background(0.1, 0.5, two) for _ in range(50)]


def test_a_draw_with_nobody_to_ask_is_counted_as_such(start_service):
    service = start_service(exploration={"shadow": 1.0})
    service.ask("Hello")
    wait_for(lambda: service.metric('router_ml_background_total{mode="shadow",result="none"}') == 1)
    assert service.metric('router_ml_background_total{mode="shadow",result="run"}') == 0
    service.ask("Hello", model="router-1")
    wait_for(lambda: service.metric('router_ml_background_total{mode="shadow",result="run"}') == 1)


class Breaking:
    """One call fails in a way that nobody foresaw, before or after it was answered; the other takes a moment."""

    def __init__(self, *, answered):
        self.answered = answered

    async def beside(self, name, trail):
        if name == "large":
            await asyncio.sleep(0.01)
        if name == "large" or self.answered:
            trail.append(AttemptResult(Attempt(tier=name, cost_usd=0.2)))
        if name == "small":
            raise ZeroDivisionError


@pytest.mark.parametrize(("answered", "error"), [(False, "ZeroDivisionError"), (True, None)])
def test_one_call_that_breaks_leaves_the_others_alone_and_both_are_recorded(answered, error):
    recorded = []
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run_beside(Breaking(answered=answered), TIERS, recorded.append))
    assert [(one.tier, one.error) for one in recorded[0]] == [("small", error), ("large", None)]
