"""The held-out result: figures agree with their definitions, null has a reason, JSON holds everything."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import PolicySpec
from router_ml_training.assessment import Assessment, assess, headline
from router_ml_training.frontier import solve_frontier
from router_ml_training.scored import Scored

N = 600


def scored(world: Any, *, policy: str = "audit", seed: int = 0, knows: bool = True) -> Scored:
    """Rows scored by a model that knows the truth, or one that knows nothing."""
    data = world.dataset(N, seed, policy=policy)
    difficulty = world.draw(N, np.random.default_rng(seed)).difficulty
    if not knows:
        difficulty = np.random.default_rng(1).permutation(difficulty)
    adequacy = np.stack([world.p_small[difficulty], world.p_large[difficulty]], axis=1)
    cost = np.tile([0.00008, 0.0018], (N, 1))
    return Scored(data, adequacy, cost)


def measured(world: Any, test: Scored, *, quality: float = 0.97, draws: int = 100) -> Assessment:
    outcomes, rows = test.outcomes()
    policy = PolicySpec(
        tiers=tiers_of(world),
        best_tier="large",
        frontier=solve_frontier(test.adequacy[rows], test.cost_usd[rows], outcomes),
    )
    return assess(test, policy, quality=quality, n_train=99, rng=np.random.default_rng(0), draws=draws)


def tiers_of(world: Any) -> Any:
    return world.ladder.tiers


@pytest.fixture(scope="module")
def known(world: Any) -> Assessment:
    return measured(world, scored(world))


def test_constants_are_the_means_of_their_columns(known: Assessment, world: Any) -> None:
    data = world.dataset(N)
    by_name = {one.name: one for one in known.strategies}
    assert list(by_name) == ["router", "always small", "always large", "random mix at the same cost", "oracle"]
    assert by_name["always small"].quality == pytest.approx(data.quality[:, 0].mean())
    assert by_name["always large"].cost_usd == pytest.approx(data.cost_usd[:, 1].mean())
    assert by_name["oracle"].quality == pytest.approx(data.quality.max(axis=1).mean())
    assert known.router is known.strategies[0]


def test_the_router_keeps_what_was_asked_and_beats_the_random_mix(known: Assessment) -> None:
    kept = known.router.quality_kept
    assert kept.value is not None
    assert kept.value >= 0.97
    mix = known.strategies[3]
    assert known.router.quality > mix.quality
    assert (known.figures["apgr"].value or 0) > 0.6
    assert known.vacuous is None


def test_a_model_that_knows_nothing_has_the_apgr_of_a_coin(world: Any) -> None:
    found = measured(world, scored(world, knows=False), draws=0)
    assert found.figures["apgr"].value == pytest.approx(0.5, abs=0.06)


def test_a_calibrated_model_has_a_small_calibration_error_and_a_distorted_one_a_large(world: Any) -> None:
    honest = scored(world)
    distorted = replace(honest, adequacy=1 - honest.adequacy)
    assert (measured(world, honest, draws=0).ece or 0) < 0.06
    assert (measured(world, distorted, draws=0).ece or 0) > 0.2


def test_intervals_hold_their_value_and_no_draws_leave_them_out(known: Assessment, world: Any) -> None:
    figure = known.figures["apgr"]
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low <= (figure.value or 0) <= figure.high
    assert measured(world, scored(world), draws=0).figures["apgr"].low is None


def test_the_headline_is_json_and_has_what_a_script_wants(known: Assessment) -> None:
    found = json.loads(json.dumps(headline(known), allow_nan=False))
    wanted = (
        "n_train n_test quality saving_at_97 apgr random_saving_at_97 oracle_saving_at_97 ece quality_gap cost_ratio"
    )
    assert set(wanted.split()) <= set(found)
    assert set(found["quality"]) == {"always_small", "always_large", "routed"}
    assert (found["n_train"], found["n_test"]) == (99, N)
    assert found["oracle_saving_at_97"] >= found["saving_at_97"] >= found["random_saving_at_97"]
    assert found["operating_point"]["quality_asked"] == 0.97
    assert sum(found["operating_point"]["share"].values()) == pytest.approx(1.0)
    assert found["reasons"] == {}
    assert not found["estimated"]


def test_where_the_cheap_tier_is_best_figures_are_null_with_a_reason(world: Any) -> None:
    test = scored(world)
    data = replace(test.dataset, quality=test.dataset.quality[:, ::-1].copy())
    swapped = replace(test, dataset=data, adequacy=test.adequacy[:, ::-1].copy())
    found = json.loads(json.dumps(headline(measured(world, swapped)), allow_nan=False))
    assert found["apgr"] is None
    assert "no gap to recover" in found["reasons"]["apgr"]
    assert found["vacuous"] is not None


def test_a_chain_log_is_estimated_and_says_so(world: Any) -> None:
    found = measured(world, scored(world, policy="chain"), draws=0)
    assert found.estimated
    assert found.n_known == 0
    assert found.n_test == N


def test_calibration_leaves_escalated_outcomes_out(world: Any) -> None:
    found = measured(world, scored(world, policy="chain"), draws=0)
    assert set(found.calibration) == {"small"}
    assert set(found.reliability) == {"small"}


def test_the_same_seed_gives_the_same_figures(known: Assessment, world: Any) -> None:
    assert measured(world, scored(world)).figures == known.figures


def test_more_tiers_are_measured_too(world: Any) -> None:
    test = scored(world)
    middle = world.ladder.tiers[0].model_copy(
        update={"name": "medium", "input_usd_per_mtok": 0.8, "output_usd_per_mtok": 4.0}
    )

    def widen(table: np.ndarray) -> np.ndarray:
        return np.insert(table, 1, table.mean(axis=1), axis=1)

    names = ("quality", "escalated", "cost_usd", "output_tokens")
    wide: dict[str, Any] = {name: widen(getattr(test.dataset, name)) for name in names}
    data = replace(test.dataset, tiers=("small", "medium", "large"), **wide)
    wider = Scored(data, widen(test.adequacy), widen(test.cost_usd))
    tiers = (world.ladder.tiers[0], middle, world.ladder.tiers[1])
    policy = PolicySpec(tiers=tiers, best_tier="large")
    found = headline(assess(wider, policy, quality=0.97, n_train=1, rng=np.random.default_rng(0), draws=20))
    assert found["apgr"] is None
    assert found["saving_at_97"] is not None
    json.dumps(found, allow_nan=False)


def test_a_judged_policy_is_measured_as_it_runs(world: Any) -> None:
    test = scored(world)
    n = len(test.dataset)
    posterior = np.repeat(test.adequacy[:, None], 2, axis=1)
    ok = np.nan_to_num(test.dataset.quality[:, 0], nan=0.5)
    posterior[:, 0, 0] += 0.9 * (ok - test.adequacy[:, 0])
    judged = replace(test, posterior=posterior)
    outcomes, rows = judged.outcomes()
    plans = judged.judged("usd")
    assert plans is not None
    frontier = solve_frontier(judged.adequacy[rows], judged.cost_usd[rows], outcomes, judged=plans.rows(rows))
    policy = PolicySpec(tiers=tiers_of(world), best_tier="large", frontier=frontier, plans=plans.spec())
    found = assess(judged, policy, quality=0.97, n_train=99, rng=np.random.default_rng(0), draws=20)
    alone = measured(world, test, draws=20)
    assert policy.operating(0.97)[1]
    assert found.n_test <= n
    assert found.router.escalation_rate is not None
    assert found.router.saving.value > alone.router.saving.value  # type: ignore[operator]
    assert found.figures["apgr"].value == alone.figures["apgr"].value
    assert found.figures["cs_97"].value > alone.figures["cs_97"].value  # type: ignore[operator]
