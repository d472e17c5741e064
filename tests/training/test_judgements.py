"""The verifier's decisions against the truth, as the policy makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from router_ml.bundle import PolicySpec
from router_ml.ladder import Tier
from router_ml.manifest import FrontierPoint, PlanSpec
from router_ml_training.dataset import Dataset
from router_ml_training.judgements import judgements_of
from router_ml_training.scored import Scored

TIERS = (
    Tier(name="small", model="mini", input_usd_per_mtok=0.15, output_usd_per_mtok=0.6),
    Tier(name="large", model="maxi", input_usd_per_mtok=2.5, output_usd_per_mtok=10.0),
)


def policy_of(*, judged: bool) -> PolicySpec:
    points = (
        FrontierPoint(quality=0.97, shadow_price=1.0, saving=0.5, judged=judged, alone_price=1.0 if judged else None),
    )
    plans = PlanSpec(spread=((0.0, 2.0), (0.0, 0.0)))
    return PolicySpec(tiers=TIERS, best_tier="large", frontier=points, plans=plans)


@pytest.fixture(scope="module")
def scored(judged_world: Dataset, chances: Callable[[Dataset], np.ndarray]) -> Scored:
    """Rows whose verifier knows the truth of the small tier's answers in nine of ten cases."""
    before = chances(judged_world)
    rng, n = np.random.default_rng(0), len(judged_world)
    right = rng.random(n) < 0.9
    said = np.where(right, judged_world.quality[:, 0], 1 - judged_world.quality[:, 0])
    posterior = np.full((n, 2, 2), np.nan)
    posterior[:, 0, 0] = np.where(said > 0.5, 0.97, 0.03)
    posterior[:, 0, 1] = before[:, 1]
    cost = np.tile([0.001, 0.02], (n, 1))
    return Scored(judged_world, before, cost, posterior)


def test_a_policy_that_judges_is_compared_by_its_own_decisions(scored: Scored) -> None:
    policy = policy_of(judged=True)
    found = judgements_of(scored, policy, quality=0.97)
    assert found is not None
    assert found.rule == "as the policy judges at quality 0.97"
    taken = scored.taken(policy, 0.97)
    first, good = taken.first == 0, scored.dataset.quality[:, 0] > 0.5
    small = found.tiers[0]
    assert small.n == first.sum() > 100
    assert small.rejected_poor == (first & taken.escalated & ~good).sum()
    assert small.accepted_good == (first & ~taken.escalated & good).sum()


def test_a_verifier_that_is_not_used_there_is_compared_by_one_half_and_the_rule_says_so(scored: Scored) -> None:
    found = judgements_of(scored, policy_of(judged=False), quality=0.97)
    assert found is not None
    assert found.rule.startswith("not used at quality 0.97")
    assert found.tiers[0].n == len(scored.dataset)
    assert found.tiers[0].missed.value == pytest.approx(0.1, abs=0.04)


def test_answers_and_outcomes_that_are_not_known_do_not_count(scored: Scored) -> None:
    assert scored.posterior is not None
    posterior, quality = scored.posterior.copy(), scored.dataset.quality.copy()
    posterior[:100] = np.nan
    quality[100:150] = np.nan
    fewer = replace(scored, posterior=posterior, dataset=replace(scored.dataset, quality=quality))
    found = judgements_of(fewer, policy_of(judged=False), quality=0.97)
    assert found is not None
    assert found.tiers[0].n == len(scored.dataset) - 150


def test_without_a_verifier_or_anything_known_there_is_nothing_to_say(scored: Scored) -> None:
    assert judgements_of(replace(scored, posterior=None), policy_of(judged=True), quality=0.97) is None
    silent = replace(scored.dataset, quality=np.full((len(scored.dataset), 2), np.nan))
    assert judgements_of(replace(scored, dataset=silent), policy_of(judged=False), quality=0.97) is None
