"""Which outcomes of a new tier count, and when the longer ladder is not worse."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import FrontierPoint, PolicySpec
from router_ml.errors import DataError
from router_ml.ladder import Ladder, Tier
from router_ml_training.joining import compare_choices, judged_rows
from router_ml_training.scored import Scored

LADDER = Ladder.of(
    [
        Tier(name=name, model=name, input_usd_per_mtok=price, output_usd_per_mtok=price)
        for name, price in (("small", 1.0), ("turbo", 2.0), ("large", 10.0))
    ]
)
PAIR = Ladder.of([LADDER.tier("small"), LADDER.tier("large")])
FRONTIER = (FrontierPoint(quality=0.97, shadow_price=100.0, saving=0.2),)
OLD = PolicySpec(tiers=PAIR.tiers, best_tier="large", frontier=FRONTIER)
NEW = PolicySpec(tiers=LADDER.tiers, best_tier="large", frontier=FRONTIER)


def joined_of(world: Any, n: int, *, turbo: float, believed: float) -> Any:
    """Three tiers on n rows: small is poor, large is good, turbo's quality is `turbo` and the model says `believed`."""
    rng = np.random.default_rng(0)
    quality = (rng.random((n, 3)) < [0.3, turbo, 0.9]).astype(float)
    data = world.dataset(n)
    cost = np.tile([1e-4, 2e-4, 1e-3], (n, 1))
    wide = replace(data, tiers=LADDER.names, quality=quality, escalated=np.zeros((n, 3), bool), cost_usd=cost)
    scored = Scored(wide, np.tile([0.3, believed, 0.9], (n, 1)), cost)
    return SimpleNamespace(name="turbo", ladder=LADDER, scored=scored, solved=SimpleNamespace(policy=NEW))


def test_a_good_and_cheap_tier_passes(world: Any) -> None:
    verdict = compare_choices(joined_of(world, 300, turbo=0.88, believed=0.88), OLD, quality=0.97)
    assert verdict.passed
    assert verdict.reason.startswith("not worse: on 300 requests quality 0.8")
    assert "at 0.20 of the cost" in verdict.reason


def test_a_tier_that_is_overrated_does_not(world: Any) -> None:
    verdict = compare_choices(joined_of(world, 300, turbo=0.5, believed=0.88), OLD, quality=0.97)
    assert not verdict.passed
    assert "its choices are worth" in verdict.reason
    assert "below the 0.97 asked for" in verdict.reason


def test_a_tier_that_is_never_chosen_changes_nothing(world: Any) -> None:
    verdict = compare_choices(joined_of(world, 300, turbo=0.1, believed=0.1), OLD, quality=0.97)
    assert verdict.passed
    assert "at 1.00 of the cost" in verdict.reason


def test_money_counts_alike_where_the_price_is_per_typical_usd(world: Any) -> None:
    joined = joined_of(world, 300, turbo=0.5, believed=0.88)
    said = compare_choices(joined, OLD, quality=0.97).reason
    joined.solved.policy = NEW.model_copy(update={"price_unit": "typical"})
    assert compare_choices(joined, OLD, quality=0.97).reason == said


@pytest.mark.parametrize("times", [0.01, 1.0, 100.0])
def test_a_policy_of_other_prices_is_compared_at_those_of_today(world: Any, times: float) -> None:
    tiers = tuple(
        Tier(name=name, model=name, input_usd_per_mtok=price * times, output_usd_per_mtok=price * times)
        for name, price in (("small", 1.0), ("large", 10.0))
    )
    frontier = (FrontierPoint(quality=0.97, shadow_price=100.0 / times, saving=0.2),)
    old = PolicySpec(tiers=tiers, best_tier="large", price_unit="typical", frontier=frontier)
    joined = joined_of(world, 300, turbo=0.88, believed=0.88)
    assert compare_choices(joined, old, quality=0.97).reason == compare_choices(joined, OLD, quality=0.97).reason


def test_too_few_complete_rows_decide_nothing(world: Any) -> None:
    verdict = compare_choices(joined_of(world, 49, turbo=0.9, believed=0.9), OLD, quality=0.97)
    assert not verdict.passed
    assert verdict.n_rows == 49


def test_escalated_outcomes_teach_nothing_about_a_tier(world: Any) -> None:
    data = joined_of(world, 120, turbo=0.7, believed=0.7).scored.dataset
    assert len(judged_rows(data, "turbo")) == 120
    escalated = np.zeros((120, 3), bool)
    escalated[:80, 1] = True
    with pytest.raises(DataError, match=r"only 40 of 120 interactions have an outcome of 'turbo'"):
        judged_rows(replace(data, escalated=escalated), "turbo")


@pytest.mark.parametrize(("value", "said"), [(1.0, "adequate"), (0.0, "inadequate"), (0.5, "the same")])
def test_outcomes_that_are_all_alike_are_refused(world: Any, value: float, said: str) -> None:
    data = joined_of(world, 120, turbo=0.7, believed=0.7).scored.dataset
    quality = data.quality.copy()
    quality[:, 1] = value
    with pytest.raises(DataError, match=f"all 120 outcomes of 'turbo' are {said}:"):
        judged_rows(replace(data, quality=quality), "turbo")
