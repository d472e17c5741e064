"""Other prices: what carries over exactly, what needs outcomes, and the same answer by brute force."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import FrontierPoint, PolicySpec
from router_ml.errors import DataError, UsageError
from router_ml.ladder import Ladder, Tier
from router_ml.manifest import PlanSpec
from router_ml_training.evaluation.curves import choose
from router_ml_training.frontier import expected_cost
from router_ml_training.repricing import at_prices, carried_over, common_factor, resolved, solved_again
from router_ml_training.scored import Scored


def ladder_at(**prices: float) -> Ladder:
    return Ladder.of(
        [
            Tier(name=name, model=name, input_usd_per_mtok=price, output_usd_per_mtok=3 * price)
            for name, price in prices.items()
        ]
    )


OLD = ladder_at(small=1.0, large=10.0)
POLICY = PolicySpec(
    tiers=OLD.tiers, best_tier="large", frontier=(FrontierPoint(quality=0.97, shadow_price=40.0, saving=0.3),)
)


@pytest.mark.parametrize(
    ("prices", "factor"),
    [
        ({"small": 1.0, "large": 10.0}, 1.0),
        ({"small": 2.0, "large": 20.0}, 2.0),
        ({"small": 1.0, "large": 5.0}, None),
        ({"small": 0.0, "large": 10.0}, None),
    ],
)
def test_prices_have_a_common_factor_or_none(prices: dict[str, float], factor: float | None) -> None:
    assert common_factor(OLD, ladder_at(**prices)) == (None if factor is None else pytest.approx(factor))


def test_tiers_that_are_free_stay_free() -> None:
    free = ladder_at(small=0.0, large=10.0)
    assert common_factor(free, ladder_at(small=0.0, large=5.0)) == pytest.approx(0.5)
    assert common_factor(ladder_at(a=0.0, b=0.0), ladder_at(a=0.0, b=0.0)) == 1.0


def test_a_carried_policy_takes_the_same_decisions() -> None:
    rng = np.random.default_rng(0)
    adequacy, tokens = rng.random((500, 2)), rng.integers(10, 900, (500, 2)).astype(float)
    new = ladder_at(small=0.25, large=2.5)
    carried = carried_over(POLICY, new)
    assert carried.tiers == new.tiers
    before = choose(adequacy, OLD.costs_usd(300.0, tokens), POLICY.shadow_price(0.97))
    after = choose(adequacy, new.costs_usd(300.0, tokens), carried.shadow_price(0.97))
    np.testing.assert_array_equal(after, before)
    relative = carried_over(POLICY.model_copy(update={"price_unit": "relative"}), new)
    assert relative.frontier == POLICY.frontier
    typical = carried_over(POLICY.model_copy(update={"price_unit": "typical"}), new)
    assert typical.frontier == carried.frontier


def test_where_the_order_of_tiers_turns_plans_are_dropped_and_single_attempts_keep_the_quality() -> None:
    def ladder(factor: float) -> Ladder:  # as dear as each other but for rounding
        prices = {"a": (0.05 * factor, 0.2 * factor), "b": (0.08 * factor, 0.1 * factor)}
        return Ladder.of(
            [
                Tier(name=name, model=name, input_usd_per_mtok=given, output_usd_per_mtok=said)
                for name, (given, said) in prices.items()
            ]
        )

    old, new = ladder(1.0), ladder(3.0)
    assert old.names != new.names
    points = (
        FrontierPoint(quality=0.97, shadow_price=60.0, saving=0.3, judged=True, alone_price=30.0),
        FrontierPoint(quality=0.9, shadow_price=90.0, saving=0.4),
    )
    plans = PlanSpec(spread=((0.0, 1.0), (0.0, 0.0)))
    carried = carried_over(PolicySpec(tiers=old.tiers, best_tier="a", frontier=points, plans=plans), new)
    assert carried.plans is None
    assert [point.judged for point in carried.frontier] == [False, False]
    assert [point.shadow_price for point in carried.frontier] == pytest.approx([10.0, 30.0])


def test_prices_that_parted_need_outcomes() -> None:
    with pytest.raises(UsageError, match=r"small not at all, large from 10 and 30 to 5 and 15 USD.*give --log"):
        carried_over(POLICY, ladder_at(small=1.0, large=5.0))


def test_logged_costs_are_those_of_the_new_prices(world: Any) -> None:
    data = world.dataset(50)
    unknown = replace(data, output_tokens=np.where(np.arange(50)[:, None] < 5, np.nan, data.output_tokens))
    priced = at_prices(unknown, ladder_at(small=1.0, large=2.0))
    assert np.isnan(priced.cost_usd[:5]).all()
    np.testing.assert_allclose(
        priced.cost_usd[5:, 1], (data.input_tokens[5:] * 2.0 + data.output_tokens[5:, 1] * 6.0) / 1e6
    )


def test_a_dearer_best_tier_saves_more_at_the_same_quality(world: Any) -> None:
    data = world.dataset(600)
    truth = np.stack([world.p_small, world.p_large], axis=1)[_difficulty(world, 600)]
    lengths = np.full((600, 2), 100.0)
    savings = []
    for large in (2.0, 20.0):
        ladder = ladder_at(small=1.0, large=large)
        priced = at_prices(data, ladder)
        solved = resolved(Scored(priced, truth, expected_cost(priced, lengths, ladder)), ladder, POLICY)
        assert not solved.estimated
        assert (solved.n_rows, solved.n_complete) == (600, 600)
        price = solved.policy.shadow_price(0.95)
        chosen = choose(truth, expected_cost(priced, lengths, ladder), price)
        everyone = np.arange(600)
        assert data.quality[everyone, chosen].mean() >= 0.95 * data.quality[:, 1].mean()
        best = priced.cost_usd[:, 1].mean()
        point = next(point for point in solved.policy.frontier if point.quality == 0.95)
        assert point.saving == pytest.approx(1 - priced.cost_usd[everyone, chosen].mean() / best)
        savings.append(point.saving)
    assert savings[1] > savings[0]


def test_too_few_outcomes_are_refused(world: Any) -> None:
    with pytest.raises(DataError, match="only 30 of 30 interactions have a known outcome"):
        solved_again(None, world.ladder, world.dataset(30))  # type: ignore[arg-type]  # refused before it is asked


def _difficulty(world: Any, n: int) -> np.ndarray:
    found: np.ndarray = world.draw(n, np.random.default_rng(0)).difficulty
    return found
