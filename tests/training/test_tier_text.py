"""What `router-ml tiers` says about policies and about tiers that nothing could be learned of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from router_ml.bundle import FrontierPoint, PolicySpec
from router_ml.manifest import PlanSpec
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.joining import Verdict
from router_ml_training.onboarding import CrossFitted, Lengths
from router_ml_training.repricing import Solved
from router_ml_training.tier_text import joined_record, joined_text, kept_table, left_out, quality_record, solved_on


def joined_of(world: Any, *, learned: bool) -> Any:
    """A tier that has joined: 60 outcomes, no answer lengths."""
    policy = PolicySpec(tiers=world.ladder.tiers, best_tier="large")
    loss = 0.5 if learned else 0.7
    return SimpleNamespace(
        name="large",
        ladder=world.ladder,
        fitted=CrossFitted(np.full(60, 0.6), loss, 0.6, 0, 0.55),
        neighbour="small",
        length_of="small",
        lengths=Lengths(0, 1.0, 0),
        quality=Figure(0.6, 0.48, None),
        n_rows=60,
        parity=1e-7,
        solved=Solved(policy, 60, 20, True),
        scored=SimpleNamespace(dataset=world.dataset(60)),
    )


def test_a_tier_of_which_nothing_was_learned_is_said_to_be_a_mean(world: Any) -> None:
    verdict = Verdict(False, "too few", 20)
    text = joined_text(joined_of(world, learned=False), verdict)
    assert "large is tier 2 of 2 (small, large)" in text
    assert "0.600 (0.480 to ?) on 60 requests; in this log small 0." in text
    assert "a guess: no answer's length is known" in text
    assert "the head of large is its mean for now" in text
    assert "60 outcomes are few" in text
    assert "A frontier solved on 60 requests is cautious" in text
    assert "not passed: too few" in text
    assert "its mean for now" not in joined_text(joined_of(world, learned=True), verdict)


def test_the_record_holds_the_same_facts(world: Any) -> None:
    joined = joined_of(world, learned=True)
    record = joined_record(joined, Verdict(True, "not worse", 20))
    assert record["log_loss"] == {"head": 0.5, "mean_alone": 0.6, "neighbour": 0.55, "neighbour_tier": "small"}
    assert record["quality"] == quality_record(joined) == {"value": 0.6, "low": 0.48, "high": None}
    assert record["learned"]
    assert record["gate"]["passed"]


def test_an_estimate_is_called_one() -> None:
    solved = Solved(None, 300, 40, True)  # type: ignore[arg-type]  # what it was solved on is all that is said
    assert "300 requests, of which 40 have every outcome" in solved_on(solved)
    assert "is an estimate" in solved_on(solved)


def test_a_policy_that_promises_nothing_says_so(world: Any) -> None:
    policy = PolicySpec(tiers=world.ladder.tiers, best_tier="large")
    assert "keep the constant model" in kept_table(policy)
    points = (FrontierPoint(quality=0.97, shadow_price=40.0, saving=0.31),)
    assert "31.0 %" in kept_table(policy.model_copy(update={"frontier": points}))


def test_where_the_cheapest_tier_is_the_best_there_is_nothing_to_save(world: Any) -> None:
    points = (FrontierPoint(quality=0.97, shadow_price=2.017e4, saving=0.0),)
    text = kept_table(PolicySpec(tiers=world.ladder.tiers, best_tier="small", frontier=points))
    assert "keep the constant model" in text
    assert "2.017e+04" not in text


def test_what_a_bundle_loses_is_said(world: Any) -> None:
    policy = PolicySpec(tiers=world.ladder.tiers, best_tier="large")
    planned = policy.model_copy(update={"plans": PlanSpec(spread=((0.0, 1.0), (0.0, 0.0)))})
    rich: Any = SimpleNamespace(verifier=object(), policy=planned)
    poor: Any = SimpleNamespace(verifier=None, policy=policy)
    assert left_out(poor, policy, verifier=False) == left_out(rich, planned, verifier=True) == []
    verifier, plans = left_out(rich, policy, verifier=False)
    assert verifier.startswith("The verifier is left out")
    assert plans.startswith("Plans of two attempts are left out")
