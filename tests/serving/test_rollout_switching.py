"""What the roll-out does about an alarm: at once in memory, once on the shelf, again when the shelf was away."""

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from router_ml.errors import BundleError
from router_ml.schema import Decision, Plan, Request
from router_ml.shelf import Shelf
from router_ml_serving.holder import RouterHolder
from router_ml_serving.rollout import Rollout
from router_ml_serving.settings import RolloutSettings
from router_ml_serving.telemetry import Telemetry

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEYS = [f"session-{i}" for i in range(100)]


class Clock:
    s = 100.0

    def __call__(self):
        return self.s


def load(path):
    def route(_, *, decision_id, **__):
        return Decision(
            decision_id=decision_id,
            tier="small",
            model="mini",
            plan=Plan("small"),
            policy_version=path.name,
            adequacy={"small": 0.5},
            expected_cost_usd={"small": 0.1},
            propensity={"small": 1.0},
            quality=1.0,
            threshold=0.0,
            explored=False,
            reason="",
        )

    ladder, bundle = SimpleNamespace(names=("small",)), SimpleNamespace(version=path.name)
    return SimpleNamespace(ladder=ladder, bundle=bundle, route=route)


@pytest.fixture
def shelf(tmp_path, put_bundle):
    for version in ("v1", "v2", "v3"):
        put_bundle(tmp_path, version)
    shelf = Shelf(tmp_path)
    shelf.promote("v1", reason="", now=NOW)
    return shelf


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def start(shelf, clock):
    def make(told=None, **settings):
        return Rollout(
            RouterHolder(shelf, load, Telemetry()),
            shelf,
            RolloutSettings(**settings),
            workers=1,
            clock=lambda: NOW,
            now_s=clock,
            rng=np.random.default_rng(0),
            count=(told if told is not None else []).append,
        )

    return make


def versions(rollout, tenant=None):
    return [rollout.router_for(key, tenant).bundle.version for key in KEYS]


def fail(rollout, version, n=40):
    for _ in range(n):
        rollout.note("v1" if version != "v1" else "v3", error=False)
        rollout.note(version, error=True)


async def watched(rollout, until):
    """Watch the shelf until something has happened, and for two looks more."""
    watch = asyncio.create_task(rollout.watch(0.02))
    async with asyncio.timeout(20):
        while not until():
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch


def test_the_configured_share_holds_until_a_person_sets_another(start, shelf):
    rollout = start(canary_share=0.3)
    assert set(versions(rollout)) == {"v1"}
    shelf.challenge("v2", reason="", now=NOW)
    asyncio.run(rollout.refresh())
    assert 15 <= versions(rollout).count("v2") <= 45
    before = versions(rollout)
    shelf.canary(0.6, reason="", now=NOW)
    asyncio.run(rollout.refresh())
    after = versions(rollout)
    assert all(new == "v2" for old, new in zip(before, after, strict=True) if old == "v2")
    assert after.count("v2") > before.count("v2")
    shelf.withdraw(reason="", now=NOW)
    asyncio.run(rollout.refresh())
    assert set(versions(rollout)) == {"v1"}


def test_only_the_tenants_named_take_part(start, shelf):
    shelf.challenge("v2", reason="", now=NOW, share=0.9)
    rollout = start(canary_tenants=["acme"])
    asyncio.run(rollout.refresh())
    assert set(versions(rollout)) == set(versions(rollout, "other")) == {"v1"}
    assert "v2" in versions(rollout, "acme")


def test_a_challenger_that_fails_gets_no_further_request_even_before_the_shelf_knows(start, shelf):
    told = []
    rollout = start(told, canary_share=0.5)
    shelf.challenge("v2", reason="", now=NOW)
    asyncio.run(rollout.refresh())
    fail(rollout, "v2")
    assert set(versions(rollout)) == {"v1"}
    assert (rollout.state()["barred"], shelf.challenger().version) == ("v2", "v2")
    asyncio.run(watched(rollout, lambda: rollout.state()["barred"] is None))
    assert shelf.challenger() is None
    assert (told, rollout.state()["barred"]) == (["alarm", "withdrawn"], None)
    assert shelf.switches()[-1].evidence["metric"] == "error"
    # A person may try it again.
    shelf.challenge("v2", reason="mended", now=NOW)
    asyncio.run(rollout.refresh())
    assert "v2" in versions(rollout)


def test_a_promoted_bundle_that_fails_is_rolled_back_and_the_old_one_is_not_tried(start, shelf):
    told = []
    rollout = start(told)
    for _ in range(500):
        rollout.note("v1", error=False, escalated=False)
    shelf.promote("v2", reason="", now=NOW)
    assert asyncio.run(rollout.refresh())
    assert rollout.state()["promoted"]["against"] == "v1"
    fail(rollout, "v2")
    asyncio.run(watched(rollout, lambda: rollout.state()["champion"] == "v1"))
    assert (shelf.champion(), rollout.router_for("x").bundle.version) == ("v1", "v1")
    assert told == ["alarm", "rolled_back"]
    assert rollout.state()["promoted"] is None


def test_what_another_worker_did_already_is_not_done_again(start, shelf, caplog):
    rollouts = [start(), start()]
    for rollout in rollouts:
        for _ in range(500):
            rollout.note("v1", error=False)
    shelf.promote("v2", reason="", now=NOW)
    shelf.promote("v3", reason="", now=NOW)
    for rollout in rollouts:
        asyncio.run(rollout.refresh())
        fail(rollout, "v3")
    with caplog.at_level(logging.INFO):
        for rollout in rollouts:
            asyncio.run(watched(rollout, lambda one=rollout: one.state()["champion"] == "v2"))
    assert shelf.champion() == "v2"
    assert [one.action for one in shelf.switches()].count("rollback") == 1
    assert "switch_not_needed" in [record.message for record in caplog.records]


def test_without_automatic_an_alarm_is_only_said(start, shelf, caplog):
    told = []
    rollout = start(told, canary_share=0.5, automatic=False)
    shelf.challenge("v2", reason="", now=NOW)
    asyncio.run(rollout.refresh())
    fail(rollout, "v2", 200)
    asyncio.run(watched(rollout, lambda: told))
    assert "v2" in versions(rollout)
    assert (shelf.challenger().version, told) == ("v2", ["alarm"])
    assert rollout.state()["canary"]["alarm"].startswith("upstream errors: 100.0%")
    assert [record.message for record in caplog.records].count("rollout_alarm") == 1


def test_a_switch_that_fails_is_tried_again_later(start, shelf, clock, monkeypatch):
    told = []
    rollout = start(told, canary_share=0.5)
    shelf.challenge("v2", reason="", now=NOW)
    asyncio.run(rollout.refresh())

    def full(*_, **__):
        raise BundleError("no space left")

    async def away_and_back():
        fail(rollout, "v2")
        with monkeypatch.context() as away:
            away.setattr(Shelf, "withdraw", full)
            await watched(rollout, lambda: "failed" in told)
        assert told == ["alarm", "failed"]
        assert set(versions(rollout)) == {"v1"}
        await watched(rollout, lambda: True)
        assert shelf.challenger() is not None
        clock.s += 31
        await watched(rollout, lambda: shelf.challenger() is None)

    asyncio.run(away_and_back())
    assert told == ["alarm", "failed", "withdrawn"]


def test_the_challenger_decides_for_the_record_where_the_champion_did(start, shelf):
    rollout = start()
    request = Request(messages=())
    decision = load(shelf.directory / "v1").route(request, decision_id="d")
    assert rollout.shadow(request, decision) is None
    shelf.challenge("v2", reason="", now=NOW)
    asyncio.run(rollout.refresh())
    assert rollout.shadow(request, decision)["version"] == "v2"
    assert rollout.shadow(request, load(shelf.directory / "v2").route(request, decision_id="d")) is None
    assert rollout.state()["shadow"]["n"] == 1


def test_the_shadow_can_be_switched_off(start, shelf):
    rollout = start(shadow=False)
    shelf.challenge("v2", reason="", now=NOW)
    asyncio.run(rollout.refresh())
    request = Request(messages=())
    assert rollout.shadow(request, load(shelf.directory / "v1").route(request, decision_id="d")) is None


def test_feedback_of_an_unknown_version_counts_for_nobody(start):
    rollout = start()
    rollout.feedback(None, False)
    rollout.feedback("v1", False)
    assert rollout.state()["lately"]["negative"] == {"n": 1, "bad": 1, "rate": 1.0}


def test_sessions_of_the_same_name_draw_for_each_tenant(start, shelf):
    rollout = start(canary_share=0.5)
    shelf.challenge("v2", reason="", now=NOW)
    asyncio.run(rollout.refresh())
    drawn = [rollout.router_for("main", f"tenant {i}").bundle.version for i in range(200)]
    assert 60 < drawn.count("v2") < 140


def test_a_watch_that_is_ended_when_an_alarm_rings_ends(start, shelf):
    rollout = start(canary_share=0.5)
    shelf.challenge("v2", reason="", now=NOW)

    async def rung_and_ended():
        await rollout.refresh()
        watch = asyncio.create_task(rollout.watch(60.0))
        await asyncio.sleep(0.05)
        fail(rollout, "v2")
        watch.cancel()
        done, _ = await asyncio.wait((watch,), timeout=5)
        assert watch in done

    asyncio.run(rung_and_ended())
