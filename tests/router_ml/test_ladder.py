"""Tiers, prices and costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router_ml.errors import ConfigError, UnknownName
from router_ml.ladder import CATALOGUE, Ladder, Price, Tier, price_of

tokens = st.integers(0, 1_000_000)
prices = st.floats(0, 1000)


def tier(name: str = "t", **changes: Any) -> Tier:
    base = {"name": name, "model": f"m-{name}", "input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
    return Tier.model_validate({**base, **changes})


@pytest.mark.parametrize(
    ("model", "input_", "output"),
    [
        ("gpt-4o", 2.50, 10.00),
        ("gpt-4o-mini", 0.15, 0.60),
        ("claude-3-5-sonnet", 3.00, 15.00),
        ("claude-3-5-haiku", 0.80, 4.00),
        ("llama-3.1-70b", 0.50, 0.50),
        ("mistral-large", 2.00, 6.00),
    ],
)
def test_the_catalogue_has_the_list_prices(model: str, input_: float, output: float) -> None:
    assert (CATALOGUE[model].input_usd_per_mtok, CATALOGUE[model].output_usd_per_mtok) == (input_, output)


@pytest.mark.parametrize(
    ("model", "listed"),
    [("gpt-4o-2024-08-06", "gpt-4o"), ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"), ("gpt-4o-mini", "gpt-4o-mini")],
)
def test_a_dated_model_has_the_price_of_its_family(model: str, listed: str) -> None:
    assert price_of(model) == CATALOGUE[listed]


def test_a_model_that_only_begins_alike_has_no_price() -> None:
    assert price_of("gpt-4o-audio-preview") is None
    assert price_of("my-model") is None


def test_an_override_wins_over_the_catalogue() -> None:
    mine = Price(input_usd_per_mtok=1, output_usd_per_mtok=1)
    assert price_of("gpt-4o", {"gpt-4o": mine}) is mine
    assert price_of("gpt-4o-2024-08-06", {"gpt-4o": mine}) is mine
    assert price_of("gpt-4o-mini", {"gpt-4o": mine}) == CATALOGUE["gpt-4o-mini"]


def test_the_cost_of_a_known_bill() -> None:
    mini = tier(input_usd_per_mtok=0.15, output_usd_per_mtok=0.60)
    assert mini.cost_usd(812, 40) == pytest.approx(0.0001458)


@given(tokens, tokens, tokens, prices, prices, prices)
def test_cached_tokens_cost_the_cached_price_and_never_count_twice(
    input_: int, output: int, cached: int, fresh: float, out: float, cheap: float
) -> None:
    one = tier(input_usd_per_mtok=fresh, output_usd_per_mtok=out, cached_input_usd_per_mtok=cheap)
    part = min(cached, input_)
    expected = ((input_ - part) * fresh + part * cheap + output * out) / 1e6
    assert one.cost_usd(input_, output, cached) == pytest.approx(expected)
    plain = tier(input_usd_per_mtok=fresh, output_usd_per_mtok=out)
    assert plain.cost_usd(input_, output, cached) == pytest.approx(plain.cost_usd(input_, output))


@given(st.lists(st.tuples(prices, prices), min_size=2, max_size=10))
def test_a_ladder_is_in_order_of_typical_cost_whatever_the_order_given(pairs: list[tuple[float, float]]) -> None:
    tiers = [tier(f"t{i}", input_usd_per_mtok=a, output_usd_per_mtok=b) for i, (a, b) in enumerate(pairs)]
    ladder = Ladder.of(tiers)
    costs = [one.typical_cost_usd for one in ladder]
    assert costs == sorted(costs)
    assert Ladder.of(tiers[::-1]) == ladder
    assert [ladder.index(name) for name in ladder.names] == list(range(len(tiers)))


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_expected_costs_agree_with_the_cost_of_one_call(input_: float, output: float) -> None:
    ladder = Ladder.of([tier("a"), tier("b", input_usd_per_mtok=5.0, output_usd_per_mtok=9.0)])
    costs = ladder.costs_usd(input_, np.array([output, output]))
    assert costs.dtype == np.float64
    expected = [one.cost_usd(int(input_), int(output)) for one in ladder]
    assert costs == pytest.approx(expected, abs=3e-5)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a"], r"2 to 10 tiers, got 1 \(a\)"), ([], r"got 0 \(none\)"), (["a", "b", "a"], "'a' is used 2 times")],
)
def test_a_ladder_needs_two_to_ten_tiers_of_different_names(names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Ladder.of([tier(name) for name in names])
    with pytest.raises(ConfigError, match="got 11"):
        Ladder.of([tier(f"t{i}") for i in range(11)])


def test_tiers_are_found_by_name_and_by_model() -> None:
    ladder = Ladder.of([tier("small"), tier("large", input_usd_per_mtok=9.0)])
    assert ladder.tier("large").name == "large"
    found = ladder.by_model("m-small")
    assert found is not None
    assert found.name == "small"
    assert ladder.by_model("other") is None
    assert len(ladder) == 2
    with pytest.raises(UnknownName, match=r"'lrage' \(did you mean 'large'\?\); the ladder has small, large"):
        ladder.index("lrage")


@pytest.mark.parametrize(
    "changes",
    [{"input_usd_per_mtok": float("nan")}, {"input_usd_per_mtok": -1}, {"name": "a b"}, {"capabilities": ["magic"]}],
)
def test_a_tier_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        tier(**changes)
