"""Who draws the challenger, and what it would have decided."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.constraints import Circumstances
from router_ml.schema import Decision, Plan, Request
from router_ml_serving.canary import ShadowDecisions, is_drawn

REQUEST = Request(messages=({"role": "user", "content": "Hello"},))
CHAMPION = Decision(
    decision_id="d1",
    tier="small",
    model="mini",
    plan=Plan("small", "large"),
    policy_version="v1",
    adequacy={"small": 0.6, "large": 0.9},
    expected_cost_usd={"small": 0.001, "large": 0.011},
    propensity={"small": 1.0, "large": 0.0},
    quality=0.97,
    threshold=0.0,
    explored=False,
    reason="",
)


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


class Larger:
    """A challenger that asks the large tier, and takes its time."""

    def __init__(self, clock: Clock, takes_s: float = 0.001) -> None:
        self.clock, self.takes_s, self.given = clock, takes_s, {}
        self.ladder = SimpleNamespace(names=("small", "large"))

    def route(self, _: Request, **given: Any) -> Decision:
        self.clock.s += self.takes_s
        self.given = given
        return replace(
            CHAMPION,
            tier="large",
            plan=Plan("large"),
            policy_version="v2",
            propensity={"small": 0.25, "large": 0.75},
            expected_cost_usd={"small": 7.0, "large": 8.0},
        )


@given(version=st.text(max_size=20), key=st.text(st.characters(), max_size=40), share=st.floats(0, 1))
def test_the_same_key_draws_the_same_for_one_version(version: str, key: str, share: float) -> None:
    drawn = is_drawn(version, key, share)
    assert drawn == is_drawn(version, key, share)
    assert not is_drawn(version, key, 0.0)
    assert is_drawn(version, key, 1.0)
    if drawn:
        assert is_drawn(version, key, min(share * 1.5, 1.0))


def test_the_share_is_kept_and_another_version_draws_anew() -> None:
    keys = [f"session-{i}" for i in range(20_000)]
    one = np.array([is_drawn("v1", key, 0.3) for key in keys])
    other = np.array([is_drawn("v2", key, 0.3) for key in keys])
    assert one.mean() == pytest.approx(0.3, abs=0.015)
    assert (one & other).mean() == pytest.approx(0.09, abs=0.01)


def test_a_key_that_is_no_text_for_utf_8_draws_too() -> None:
    assert is_drawn("v1", "\ud800", 1.0)


def test_what_the_challenger_would_have_decided_goes_into_the_record() -> None:
    clock = Clock()
    router = Larger(clock)
    shadow = ShadowDecisions(router, np.random.default_rng(0), clock)  # type: ignore[arg-type]
    tags = shadow.decide(REQUEST, CHAMPION, quality=0.9)
    assert tags == {
        "version": "v2",
        "tier": "large",
        "escalate_to": None,
        "explored": False,
        "propensity": {"small": 0.25, "large": 0.75},
    }
    assert (router.given["quality"], router.given["decision_id"]) == (0.9, "d1")


def test_differences_are_told_by_the_champions_estimates() -> None:
    clock = Clock()
    shadow = ShadowDecisions(Larger(clock), np.random.default_rng(0), clock)  # type: ignore[arg-type]
    for decision in (CHAMPION, replace(CHAMPION, tier="large")):
        clock.s += 1.0
        shadow.decide(REQUEST, decision)
    counts = shadow.to_dict()
    assert (counts["n"], counts["dropped"], counts["agreement"]) == (2, 0, 0.5)
    assert counts["tiers"] == {"champion": {"small": 1, "large": 1}, "challenger": {"large": 2}}
    assert counts["expected_cost_usd_difference"] == pytest.approx(0.75 * 0.01)
    assert counts["expected_adequacy_difference"] == pytest.approx(0.75 * 0.3)


def test_decisions_take_no_more_than_their_share_of_the_time() -> None:
    clock = Clock()
    shadow = ShadowDecisions(Larger(clock, 0.01), np.random.default_rng(0), clock)  # type: ignore[arg-type]
    done = 0
    for _ in range(1_000):
        clock.s += 0.001
        done += shadow.decide(REQUEST, CHAMPION) is not None
    assert done * 0.01 <= 0.05 * clock.s + 0.01
    assert done >= 5
    assert shadow.to_dict()["dropped"] == 1_000 - done


def test_a_challenger_with_tiers_in_another_order_is_not_told_latencies() -> None:
    clock = Clock()
    router = Larger(clock)
    shadow = ShadowDecisions(router, np.random.default_rng(0), clock)  # type: ignore[arg-type]
    measured = Circumstances(latency_ms=(100.0, 900.0), floor="large")
    shadow.decide(REQUEST, CHAMPION, circumstances=measured)
    assert router.given["circumstances"] == measured
    clock.s += 1.0
    router.ladder.names = ("large", "small")
    shadow.decide(REQUEST, CHAMPION, circumstances=measured)
    assert router.given["circumstances"] == Circumstances(floor="large")


def test_a_challenger_with_other_tiers_is_no_comparison() -> None:
    router = Larger(Clock())
    router.ladder.names = ("small", "huge")
    shadow = ShadowDecisions(router, np.random.default_rng(0), Clock())  # type: ignore[arg-type]
    assert shadow.decide(REQUEST, CHAMPION) is None
    assert shadow.dropped == 1


def test_before_the_first_decision_nothing_is_claimed() -> None:
    counts = ShadowDecisions(Larger(Clock()), np.random.default_rng(0), Clock()).to_dict()  # type: ignore[arg-type]
    assert (counts["n"], counts["agreement"], counts["expected_cost_usd_difference"]) == (0, None, None)
