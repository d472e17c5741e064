"""The decision: highest utility by brute force, exact propensities, the safe tier, a reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.bundle import Scores
from router_ml.constraints import Circumstances, Context, Needs
from router_ml.ladder import Ladder, Tier
from router_ml.plans import plan_values
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


def choose(
    adequacy: list[float], *, seed: int = 0, usual: bool = True, unhealthy: Any = (), now: Any = None, **changes: Any
) -> Choice:
    k = len(adequacy)
    scores = Scores(np.array(adequacy), np.full(k, 300.0), 1000.0)
    context = Context(now=Circumstances(unhealthy=frozenset(unhealthy), **(now or {})))
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
    assert list(choice.eligible) == [name not in unhealthy for name in names]


@given(adequacies, st.floats(0, 1), st.booleans(), st.integers(0, 1000))
def test_propensities_sum_to_one_and_never_point_down(adequacy: list[float], up: float, usual: bool, seed: int) -> None:
    planned = choose(adequacy, usual=usual, seed=seed)
    choice = choose(adequacy, explore_up=up, usual=usual, seed=seed)
    assert sum(choice.propensity) == pytest.approx(1.0)
    assert not any(choice.propensity[: planned.index])
    assert choice.propensity[choice.index] > 0
    assert choice.explored == (choice.index != planned.index)


@given(adequacies, st.integers(0, 1000))
def test_equal_arguments_and_seed_give_equal_decisions(adequacy: list[float], seed: int) -> None:
    one, two = (choose(adequacy, explore_up=0.5, seed=seed) for _ in range(2))
    assert (one.index, one.escalate_to, one.reason) == (two.index, two.escalate_to, two.reason)
    assert one.propensity == two.propensity


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


@pytest.mark.parametrize(
    ("adequacy", "arguments", "index", "on_error"),
    [
        ([0.1, 0.9], {"shadow_price": 0.0}, 1, 0),
        ([0.3, 0.2, 0.9], {"shadow_price": 0.0}, 2, 0),  # whoever is best of the others
        ([0.9, 0.9, 0.9], {"explore_up": 1.0, "unhealthy": ["t1"]}, 2, 0),
        ([0.1, 0.2, 0.9], {"shadow_price": 0.0, "usual": False, "safe_tier": "t2", "best_tier": "t1"}, 2, 1),
        ([0.1, float("nan"), 0.9], {}, 2, 1),  # of no usable scores the dearest other
        ([0.9, 0.9, 0.9], {"now": {"floor": "t2"}}, 2, 0),  # an answer below the floor is better than none
        ([0.9, 0.9], {"now": {"floor": "t1"}, "unhealthy": ["t0"]}, 1, None),
        ([0.9, 0.9], {"now": {"floor": "t1", "allowed": frozenset({"t1"})}}, 1, None),
        ([0.1, 0.9], {"shadow_price": 0.0, "unhealthy": ["t0"]}, 1, None),
        ([0.1, 0.9], {"shadow_price": 0.0, "max_attempts": 1}, 1, None),
        ([0.9, 0.9], {}, 0, None),  # somebody dearer stands by
    ],
)
def test_somebody_stands_by_for_errors_where_nobody_dearer_is_left(
    adequacy: list[float], arguments: dict[str, Any], index: int, on_error: int | None
) -> None:
    choice = choose(adequacy, **arguments)
    assert (choice.index, choice.on_error) == (index, on_error)
    if on_error is not None:
        assert choice.escalate_to is None
        assert not choice.judged
        assert choice.may_hold


@given(adequacies, st.floats(0, 1), st.integers(0, 1000))
def test_an_explored_tier_that_fails_is_replaced_and_propensities_stay(
    adequacy: list[float], up: float, seed: int
) -> None:
    choice = choose(adequacy, explore_up=up, seed=seed)
    assert (choice.escalate_to is None) != (choice.on_error is None)
    assert choice.on_error != choice.index
    if choice.explored and choice.on_error is not None:
        assert choice.on_error == choice.planned
    assert choice.explored == (choice.planned != choice.index)
    alone = choose(adequacy, explore_up=up, seed=seed, max_attempts=1)
    assert (choice.index, choice.propensity) == (alone.index, alone.propensity)


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


def spread_of(k: int, value: float = 0.3) -> Any:
    return tuple(tuple(value if t > s else 0.0 for t in range(k)) for s in range(k))


@given(adequacies, st.floats(0, 1e4), st.floats(0, 0.6), st.data())
def test_the_plan_of_the_highest_worth_is_taken_by_brute_force(
    adequacy: list[float], price: float, spread: float, data: st.DataObject
) -> None:
    k = len(adequacy)
    names = [f"t{i}" for i in range(k)]
    unhealthy = data.draw(st.frozensets(st.sampled_from(names), max_size=k - 1))
    choice = choose(adequacy, shadow_price=price, unhealthy=unhealthy, spread=spread_of(k, spread))
    priced = price * np.array([tier.cost_usd(1000, 300) for tier in ladder(k)])
    values = plan_values(np.array(adequacy), priced, np.array(spread_of(k, spread)))
    able = [i for i in range(k) if names[i] not in unhealthy]
    worth = {s: max(values[s, t] for t in able if t >= s) for s in able}
    assert worth[choice.index] == pytest.approx(max(worth.values()), abs=1e-9)
    assert choice.utility[choice.index] == pytest.approx(worth[choice.index], abs=1e-12)
    assert np.isfinite(choice.utility).all()
    if choice.escalate_to is not None:
        assert choice.escalate_to in able
        assert choice.escalate_to > choice.index


def test_a_verifier_makes_it_worth_trying_the_cheap_tier_first() -> None:
    alone = choose([0.6, 0.9], shadow_price=300.0)
    planned = choose([0.6, 0.9], shadow_price=300.0, spread=spread_of(2, 0.4))
    assert (alone.index, planned.index, planned.escalate_to) == (1, 0, 1)
    assert planned.reason.startswith("t0 is tried first and its answer judged")
    assert planned.judged
    assert planned.utility[0] > planned.adequacy[0] - 300.0 * planned.expected_cost_usd[0]


def test_with_one_attempt_or_out_of_distribution_nothing_is_judged() -> None:
    for changes in ({"max_attempts": 1}, {"usual": False}):
        with_spread = choose([0.6, 0.9], shadow_price=300.0, spread=spread_of(2, 0.4), **changes)
        without = choose([0.6, 0.9], shadow_price=300.0, **changes)
        assert (with_spread.index, with_spread.escalate_to) == (without.index, without.escalate_to)
        assert with_spread.reason == without.reason
        assert not with_spread.judged


@pytest.mark.parametrize(("budget", "first"), [(3000.0, 0), (2900.0, 1)])
def test_both_attempts_of_a_plan_must_fit_the_latency_budget(budget: float, first: int) -> None:
    tiers = [tier.model_copy(update={"latency_ms": 1000.0 * (i + 1)}) for i, tier in enumerate(ladder(2))]
    choice = decide(
        Scores(np.array([0.6, 0.9]), np.full(2, 300.0), 1000.0),
        Ladder.of(tiers),
        knobs(2, shadow_price=300.0, spread=spread_of(2, 0.4)),
        NEEDS,
        Context(total_ms=budget),
        np.random.default_rng(0),
        in_distribution=True,
    )
    assert choice.index == first


@given(adequacies, st.floats(0, 1), st.integers(0, 1000))
def test_propensities_of_plans_are_those_of_the_first_tier(adequacy: list[float], up: float, seed: int) -> None:
    spread = spread_of(len(adequacy))
    planned = choose(adequacy, spread=spread, seed=seed)
    choice = choose(adequacy, spread=spread, explore_up=up, seed=seed)
    assert sum(choice.propensity) == pytest.approx(1.0)
    assert not any(choice.propensity[: planned.index])
    assert choice.propensity[choice.index] > 0


def test_a_request_nobody_needs_to_judge_still_has_somebody_standing_by() -> None:
    choice = choose([1.0, 1.0, 1.0], spread=spread_of(3))
    assert (choice.index, choice.escalate_to) == (0, 1)
    assert "judged" not in choice.reason


def test_what_the_prompt_cache_holds_makes_its_tier_cheaper_and_leaving_it_dearer() -> None:
    def tier(name: str, price: float) -> Tier:
        prices = {"input_usd_per_mtok": price, "cached_input_usd_per_mtok": price / 10, "output_usd_per_mtok": price}
        return Tier.model_validate({"name": name, "model": name, **prices})

    pair = Ladder.of([tier("t0", 1.0), tier("t1", 2.0)])
    scores = Scores(np.array([0.7, 0.75]), np.full(2, 100.0), 10_000.0)

    def chosen(unit: Any, **now: Any) -> Choice:
        price = 0.2 if unit == "relative" else 10.0
        tuned = knobs(2, shadow_price=price, price_unit=unit)
        context = Context(now=Circumstances(**now))
        return decide(scores, pair, tuned, NEEDS, context, np.random.default_rng(0), in_distribution=True)

    for unit in ("usd", "relative", "typical"):
        cold, warm = chosen(unit), chosen(unit, warm="t1", warm_tokens=10_000)
        assert (cold.index, warm.index) == (0, 1)
        assert cold.expected_cost_usd[0] == warm.expected_cost_usd[0]
        assert warm.expected_cost_usd[1] == pytest.approx(pair.tier("t1").cost_usd(10_000, 100, 10_000))
        assert warm.usd_price == cold.usd_price
        assert chosen(unit, warm="t1", warm_tokens=100).index == 0
        assert chosen(unit, warm="gone", warm_tokens=10_000).expected_cost_usd == cold.expected_cost_usd
        assert chosen(unit, warm="t1", warm_tokens=99_999).expected_cost_usd == warm.expected_cost_usd


@given(adequacies, st.integers(0, 1000), st.data())
def test_circumstances_enter_before_the_draw(adequacy: list[float], seed: int, data: st.DataObject) -> None:
    names = [f"t{i}" for i in range(len(adequacy))]
    now = {
        "allowed": data.draw(st.none() | st.frozensets(st.sampled_from(names), min_size=1)),
        "floor": data.draw(st.none() | st.sampled_from(names)),
    }
    choices = [choose(adequacy, explore_up=0.5, seed=seed + i, now=now) for i in range(4)]
    assert all(one.propensity == choices[0].propensity for one in choices)
    assert all(one.eligible[one.index] and one.propensity[one.index] > 0 for one in choices)
    assert sum(choices[0].propensity) == pytest.approx(1)
    assert all(may or p == 0 for may, p in zip(choices[0].eligible, choices[0].propensity, strict=True))


@pytest.mark.parametrize("ttft", [1200.0, 1199.0])
def test_a_stream_is_held_only_where_the_next_tiers_first_token_still_comes_in_time(ttft: float) -> None:
    in_time = ttft >= 1200.0
    now = Circumstances(streaming=True, latency_ms=(1000.0, 5000.0), ttft_ms=(100.0, 200.0))

    def chosen(**changes: Any) -> Choice:
        scores, tuned = Scores(np.array([0.6, 0.9]), np.full(2, 300.0), 1000.0), knobs(2, **changes)
        context = Context(ttft_ms=ttft, now=now)
        return decide(scores, ladder(2), tuned, NEEDS, context, np.random.default_rng(0), in_distribution=True)

    planned = chosen(shadow_price=300.0, spread=spread_of(2, 0.4))
    assert (planned.index, planned.judged) == ((0, True) if in_time else (1, False))
    standing_by = chosen(shadow_price=1e6)
    assert (standing_by.index, standing_by.escalate_to, standing_by.judged) == (0, 1, False)
    assert standing_by.may_hold == in_time


@pytest.mark.parametrize(
    ("adequacy", "ttft", "index"),
    [
        ([0.6, 0.9], 1200.0, 0),  # there is time to hold it
        ([0.6, 0.9], 1199.0, 1),  # there is not: straight to the dearer tier
        ([0.8, 0.9], 1199.0, 0),  # it need not be held
        ([0.6, 0.7], 1199.0, 1),  # nobody could stand by for the dearest
    ],
)
def test_a_stream_that_cannot_be_held_goes_straight_to_the_dearer_tier(
    adequacy: list[float], ttft: float, index: int
) -> None:
    scores = Scores(np.array(adequacy), np.full(2, 300.0), 1000.0)
    usual: dict[str, Any] = {"latency_ms": (1000.0, 5000.0), "ttft_ms": (100.0, 200.0)}

    def chosen(needs: Needs = NEEDS, **now: Any) -> Choice:
        context = Context(ttft_ms=ttft, total_ms=1e6, now=Circumstances(unheld_adequacy=0.8, **usual, **now))
        tuned = knobs(2, shadow_price=1e6, explore_up=0.5)
        rng = np.random.default_rng(1)
        return decide(scores, ladder(2), tuned, needs, context, rng, in_distribution=True)

    found = chosen(streaming=True)
    assert found.eligible == (index == 0, True)
    assert (found.propensity[0] > 0.0) == (index == 0)
    assert any("no time to hold" in phrase for phrase in found.constraints) == (index == 1)
    assert chosen().eligible == (True, True)
    with_tools = replace(NEEDS, capabilities=frozenset({"tools"}))
    assert chosen(with_tools, streaming=True).eligible == (True, True)
