"""The decision: highest utility by brute force, exact propensities, the safe tier, a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.bundle import Scores
from router_ml.constraints import Context, Needs
from router_ml.ladder import Ladder, Tier
from router_ml.policy import Choice, Knobs, decide

NEEDS = Needs(input_tokens=1000, output_tokens=300)


def ladder(k: int) -> Ladder:
    tiers = [
        Tier(name=f"t{i}", model=f"m{i}", input_usd_per_mtok=0.1 * 2**i, output_usd_per_mtok=0.4 * 2**i)
        for i in range(k)
    ]
    return Ladder.of(tiers)


def knobs(k: int, **changes: Any) -> Knobs:
    base = {"quality": 0.97, "shadow_price": 100.0, "explore_up": 0.0, "max_attempts": 2}
    return Knobs(**{**base, "safe_tier": f"t{k - 1}", "best_tier": f"t{k - 1}", **changes})


def choose(adequacy: list[float], *, seed: int = 0, usual: bool = True, unhealthy: Any = (), **changes: Any) -> Choice:
    k = len(adequacy)
    scores = Scores(np.array(adequacy), np.full(k, 300.0), 1000.0)
    context = Context(unhealthy=frozenset(unhealthy))
    rng = np.random.default_rng(seed)
    return decide(scores, ladder(k), knobs(k, **changes), NEEDS, context, rng, in_distribution=usual)


adequacies = st.lists(st.floats(0, 1), min_size=2, max_size=10)


@given(adequacies, st.floats(0, 1e6), st.data())
def test_the_tier_with_the_highest_utility_answers_and_ties_go_to_the_cheaper(
    adequacy: list[float], price: float, data: st.DataObject
) -> None:
    k = len(adequacy)
    names = [f"t{i}" for i in range(k)]
    unhealthy = data.draw(st.frozensets(st.sampled_from(names), max_size=k - 1))
    choice = choose(adequacy, shadow_price=price, unhealthy=unhealthy)
    costs = [tier.cost_usd(1000, 300) for tier in ladder(k)]
    best, best_utility = None, -float("inf")
    for i, (p, cost) in enumerate(zip(adequacy, costs, strict=True)):
        if names[i] not in unhealthy and p - price * cost > best_utility:
            best, best_utility = i, p - price * cost
    assert choice.index == best or choice.utility[choice.index] == pytest.approx(best_utility, rel=1e-9)
    assert choice.eligible.tolist() == [name not in unhealthy for name in names]


@given(adequacies, st.floats(0, 1), st.booleans(), st.integers(0, 1000))
def test_propensities_sum_to_one_and_never_point_down(adequacy: list[float], up: float, usual: bool, seed: int) -> None:
    planned = choose(adequacy, usual=usual, seed=seed)
    choice = choose(adequacy, explore_up=up, usual=usual, seed=seed)
    assert choice.propensity.sum() == pytest.approx(1.0)
    assert not choice.propensity[: planned.index].any()
    assert choice.propensity[choice.index] > 0
    assert choice.explored == (choice.index != planned.index)


@given(adequacies, st.integers(0, 1000))
def test_equal_arguments_and_seed_give_equal_decisions(adequacy: list[float], seed: int) -> None:
    one, two = (choose(adequacy, explore_up=0.5, seed=seed) for _ in range(2))
    assert (one.index, one.escalate_to, one.reason) == (two.index, two.escalate_to, two.reason)
    assert np.array_equal(one.propensity, two.propensity)


def test_exact_ties_go_to_the_cheaper_tier() -> None:
    assert choose([0.9, 0.9, 0.9], shadow_price=0.0).index == 0


def test_without_a_shadow_price_the_most_adequate_tier_answers() -> None:
    assert choose([0.5, 0.6, 0.9], shadow_price=0.0).index == 2


def test_the_plan_jumps_to_the_best_dearer_tier_not_to_the_next() -> None:
    choice = choose([0.9, 0.2, 0.8, 0.81], shadow_price=100.0)
    assert (choice.index, choice.escalate_to) == (0, 2)


@pytest.mark.parametrize(
    ("adequacy", "changes"),
    [([0.1, 0.9], {"shadow_price": 0.0}), ([0.9, 0.9], {"max_attempts": 1}), ([0.9, 0.9], {"unhealthy": ["t1"]})],
)
def test_nobody_is_next_after_the_dearest_eligible_or_with_one_attempt(
    adequacy: list[float], changes: dict[str, Any]
) -> None:
    assert choose(adequacy, **changes).escalate_to is None


def test_what_is_out_of_distribution_goes_to_the_safe_tier_and_the_reason_says_so() -> None:
    choice = choose([0.99, 0.5, 0.5], usual=False, safe_tier="t1")
    assert (choice.index, choice.escalate_to) == (1, 2)
    assert "safe tier" in choice.reason
    assert "out of distribution" in choice.reason


def test_the_best_tier_stands_in_for_an_unhealthy_safe_tier_and_the_dearest_for_both() -> None:
    assert choose([0.9] * 3, usual=False, safe_tier="t0", best_tier="t2", unhealthy=["t0"]).index == 2
    assert choose([0.9] * 3, usual=False, safe_tier="t0", best_tier="t2", unhealthy=["t0", "t2"]).index == 1


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_goes_to_the_safe_tier_with_finite_figures(score: float) -> None:
    choice = choose([0.9, score, 0.9])
    assert choice.index == 2
    assert "no usable score" in choice.reason
    for figures in (choice.adequacy, choice.expected_cost_usd, choice.utility, choice.propensity):
        assert np.isfinite(figures).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"adequacy": [0.9, 0.91]},
            "t0 is expected to be adequate with probability 0.90 at 0.00022 USD, enough to keep",
        ),
        ({"adequacy": [0.1, 0.91]}, "t1 is expected to be adequate with probability 0.91 at 0.00044 USD, worth its"),
        ({"adequacy": [0.9, 0.1], "unhealthy": ["t1"]}, "only t0 may answer (health excludes t1)"),
        ({"adequacy": [0.9, 0.1], "explore_up": 1.0}, "exploring: t1 answers instead of t0"),
    ],
)
def test_the_reason_is_one_line_with_the_facts(arguments: dict[str, Any], words: str) -> None:
    reason = choose(**arguments).reason
    assert reason.startswith(words)
    assert "\n" not in reason
