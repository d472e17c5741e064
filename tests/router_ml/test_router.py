"""The router: request in, decision out; the same for the same seed, and within a millisecond."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router_ml.bundle import load_bundle
from router_ml.config import ExplorationSettings, PolicySettings, UseCase, load_config
from router_ml.constraints import Circumstances
from router_ml.errors import ConfigError, RequestError
from router_ml.exploration import Background
from router_ml.features import DENSE_NAMES, featurize
from router_ml.ladder import Ladder
from router_ml.router import Router
from router_ml.schema import Answer, Decision, Request

Make = Callable[..., Path]
Build = Callable[..., Any]

SHORT = Request(messages=[{"role": "user", "content": "hi"}])
LONG = Request(messages=[{"role": "user", "content": "Compare these two contracts clause by clause. " * 200}])
NO_EXPLORATION = ExplorationSettings(up=0.0)


def router_of(path: Path, **changes: Any) -> Router:
    parts = {"policy": PolicySettings(), "exploration": NO_EXPLORATION, "use_cases": {}, **changes}
    return Router(load_bundle(path), **parts)


def route(router: Router, request: Request, seed: int = 0, **changes: Any) -> Decision:
    return router.route(request, decision_id="d1", rng=np.random.default_rng(seed), **changes)


def test_an_easy_request_goes_to_the_cheap_tier_and_a_hard_one_to_the_dear_one(make_bundle: Make) -> None:
    router = router_of(make_bundle())
    easy, hard = route(router, SHORT, quality=0.9), route(router, LONG)
    assert (easy.tier, easy.model, easy.plan.escalate_to) == ("small", "mini", "medium")
    assert (hard.tier, hard.model, hard.plan.escalate_to) == ("large", "maxi", None)
    assert hard.expected_cost_usd["large"] > easy.expected_cost_usd["large"]


def test_for_an_error_of_the_dearest_tier_another_stands_by(make_bundle: Make) -> None:
    path = make_bundle()
    hard = route(router_of(path), LONG)
    assert (hard.plan.first, hard.plan.escalate_to, hard.planned) == ("large", None, None)
    assert hard.plan.on_error in ("small", "medium")
    exploring = router_of(path, policy=PolicySettings(quality=0.5), exploration=ExplorationSettings(up=1.0))
    explored = next(one for one in (route(exploring, SHORT, seed) for seed in range(50)) if one.tier == "large")
    assert (explored.planned, explored.plan.on_error) == ("small", "small")


def test_a_decision_is_complete(make_bundle: Make) -> None:
    decision = route(router_of(make_bundle("v7")), SHORT)
    assert (decision.decision_id, decision.policy_version, decision.explored) == ("d1", "v7", False)
    assert (decision.quality, decision.threshold) == (0.97, 20.0)
    for figures in (decision.adequacy, decision.expected_cost_usd, decision.propensity):
        assert list(figures) == ["small", "medium", "large"]
        assert all(isinstance(value, float) for value in figures.values())
    assert sum(decision.propensity.values()) == pytest.approx(1)
    assert decision.plan.first == decision.tier
    assert decision.overhead_ms > 0


@pytest.fixture
def explorer(make_bundle: Make) -> Router:
    return router_of(make_bundle(), exploration=ExplorationSettings(up=0.5))


@given(text=st.text(max_size=200), seed=st.integers(0, 10_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_request_policy_and_seed_give_the_same_decision(explorer: Router, text: str, seed: int) -> None:
    router = explorer
    request = Request(messages=[{"role": "user", "content": text}])
    one, two = (replace(route(router, request, seed), overhead_ms=0.0) for _ in range(2))
    assert one == two


def test_the_quality_asked_for_sets_the_shadow_price(make_bundle: Make) -> None:
    router = router_of(make_bundle())
    thresholds = {quality: route(router, SHORT, quality=quality).threshold for quality in (1.0, 0.98, 0.97, 0.95, 0.5)}
    assert thresholds == {1.0: 0.0, 0.98: 0.0, 0.97: 20.0, 0.95: 20.0, 0.5: 200.0}
    assert route(router, SHORT, quality=0.5).quality == 0.5
    assert route(router, LONG, quality=1.0).tier == "large"


@pytest.mark.parametrize("quality", [0.97, 0.5])
def test_a_typical_price_follows_the_ladder_and_one_in_usd_does_not(
    make_bundle: Make, build_policy: Build, quality: float
) -> None:
    bundle = load_bundle(make_bundle(policy=build_policy(price_unit="typical")))
    prices = ("input_usd_per_mtok", "output_usd_per_mtok")
    dearer = Ladder.of(
        [tier.model_copy(update={name: 10 * getattr(tier, name) for name in prices}) for tier in bundle.ladder]
    )
    for settings_, asked in ((PolicySettings(quality=quality), {}), (PolicySettings(), {"quality": quality})):
        here, there = (Router(bundle, settings_, NO_EXPLORATION, {}, one) for one in (bundle.ladder, dearer))
        for request in (SHORT, LONG):
            before, after = route(here, request, **asked), route(there, request, **asked)
            assert after.threshold == pytest.approx(before.threshold / 10)
            assert after.utility == pytest.approx(before.utility)
            assert after.tier == before.tier


@pytest.mark.parametrize(("quality", "message"), [(97, "did you mean 0.97?"), (0, "got 0"), (float("nan"), "got nan")])
def test_a_quality_that_is_no_share_is_refused(make_bundle: Make, quality: float, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        route(router_of(make_bundle()), SHORT, quality=quality)
    assert message in str(caught.value)
    assert caught.value.param == "quality"


def test_exploration_takes_its_share_upwards(make_bundle: Make) -> None:
    router = router_of(make_bundle(), policy=PolicySettings(quality=0.5), exploration=ExplorationSettings(up=0.2))
    rng = np.random.default_rng(1)
    decisions = [router.route(SHORT, decision_id="x", rng=rng) for _ in range(2000)]
    explored = [decision for decision in decisions if decision.explored]
    assert decisions[0].propensity == pytest.approx({"small": 0.8, "medium": 0.1, "large": 0.1})
    assert len(explored) / len(decisions) == pytest.approx(0.2, abs=0.03)
    assert {decision.tier for decision in explored} == {"medium", "large"}
    assert all(decision.reason.startswith("exploring") for decision in explored)


def bounds(max_outside: int) -> dict[str, Any]:
    dense = featurize(SHORT).dense.astype(float)
    return {"low": (dense - 0.01).tolist(), "high": (dense + 0.01).tolist(), "max_outside": max_outside}


def test_a_request_unlike_the_training_data_goes_to_the_safe_tier(make_bundle: Make, build_policy: Build) -> None:
    cheap = PolicySettings(quality=0.5)
    router = router_of(make_bundle(policy=build_policy(bounds=bounds(2))), policy=cheap)
    strange = Request(messages=[{"role": "user", "content": "∀x: ∃y > x? { } < > " * 50}])
    assert route(router, SHORT).tier == "small"
    decision = route(router, strange)
    assert decision.tier == "large"
    assert "out of distribution" in decision.reason
    safe = replace_safe(router, "medium", cheap)
    assert route(safe, strange).tier == "medium"


def replace_safe(router: Router, tier: str, policy: PolicySettings) -> Router:
    return Router(router.bundle, policy.model_copy(update={"safe_tier": tier}), NO_EXPLORATION, {})


def test_up_to_max_outside_features_may_stray(make_bundle: Make, build_policy: Build) -> None:
    features = featurize(SHORT)
    strayed = features.dense.copy()
    strayed[:3] += 5
    strayed[3] = np.nan
    router = router_of(make_bundle(policy=build_policy(bounds=bounds(3))))
    assert router.in_distribution(features)
    assert not router.in_distribution(replace(features, dense=strayed))
    strayed[3] = features.dense[3]
    assert router.in_distribution(replace(features, dense=strayed))


def test_a_use_case_limits_tiers_and_time(make_bundle: Make) -> None:
    cases = {"cheap": UseCase(tiers=("small", "medium")), "fast": UseCase(ttft_ms=700), "both": UseCase(total_ms=400)}
    router = router_of(make_bundle(), use_cases=cases)
    assert route(router, LONG).tier == "large"
    assert route(router, replace(LONG, use_case="cheap")).propensity["large"] == 0
    fast = route(router, replace(LONG, use_case="fast"))
    assert fast.constraints_applied == ("latency_budget excludes large",)
    assert route(router, replace(LONG, use_case="both")).tier == "small"
    assert route(router, replace(LONG, use_case="unheard-of")).tier == "large"


def test_an_unhealthy_tier_does_not_answer(make_bundle: Make) -> None:
    decision = route(router_of(make_bundle()), LONG, circumstances=Circumstances(unhealthy=frozenset({"large"})))
    assert decision.tier != "large"
    assert decision.constraints_applied == ("health excludes large",)


def test_configured_prices_and_models_replace_the_bundles(make_bundle: Make) -> None:
    path = make_bundle()
    tiers = {tier.name: tier for tier in load_bundle(path).ladder}
    small = tiers["small"].model_copy(update={"model": "my-finetune", "input_usd_per_mtok": 0.3})
    router = router_of(path, ladder=Ladder.of([small, tiers["medium"], tiers["large"]]))
    decision, before = (route(one, SHORT, quality=0.5) for one in (router, router_of(path)))
    assert (before.model, decision.model) == ("mini", "my-finetune")
    assert decision.expected_cost_usd["small"] > before.expected_cost_usd["small"]
    assert decision.adequacy == before.adequacy


def test_scores_stay_with_their_tier_when_prices_reorder_the_ladder(make_bundle: Make) -> None:
    path = make_bundle()
    tiers = {tier.name: tier for tier in load_bundle(path).ladder}
    dear = tiers["small"].model_copy(update={"input_usd_per_mtok": 50.0})
    router = router_of(path, ladder=Ladder.of([dear, tiers["medium"], tiers["large"]]))
    decision = route(router, LONG)
    assert list(decision.adequacy) == ["medium", "large", "small"]
    assert decision.adequacy == pytest.approx(dict(route(router_of(path), LONG).adequacy))
    assert decision.expected_cost_usd["small"] > decision.expected_cost_usd["large"]


def test_other_tiers_than_the_bundles_are_refused_with_both_lists(make_bundle: Make) -> None:
    path = make_bundle()
    small, _, large = load_bundle(path).ladder.tiers
    with pytest.raises(ConfigError, match=r"tiers small, large, the bundle v1 was trained for small, medium, large"):
        router_of(path, ladder=Ladder.of([small, large]))


def test_a_safe_tier_that_the_bundle_does_not_have_is_refused(make_bundle: Make) -> None:
    with pytest.raises(ConfigError, match="no tier 'huge'"):
        router_of(make_bundle(), policy=PolicySettings(safe_tier="huge"))


def test_a_use_case_whose_tiers_the_bundle_does_not_have_is_refused(make_bundle: Make) -> None:
    with pytest.raises(ConfigError, match=r"use_cases\.chat\.tiers: .* has no tier 'smal' \(did you mean 'small'\?\)"):
        router_of(make_bundle(), use_cases={"chat": UseCase(tiers=("smal",))})


def test_judging_tells_what_a_rule_found_and_nothing_else(make_bundle: Make) -> None:
    router = router_of(make_bundle())
    verdict = router.judge(SHORT, Answer("", "stop"))
    assert verdict is not None
    assert (verdict.adequate, verdict.source, verdict.reason) == (False, "rule", "empty: the answer is empty")
    assert router.judge(SHORT, Answer("A fine answer.", "stop")) is None


def test_loading_takes_the_champion_or_the_named_bundle(make_bundle: Make, tmp_path: Path) -> None:
    path = make_bundle("v1")
    make_bundle("v2")
    (tmp_path / "models" / "champion").write_text("v2\n")
    config = load_config(None, {}).model_copy(update={"models_dir": tmp_path / "models"})
    assert Router.load(config).bundle.version == "v2"
    assert Router.load(config, path).bundle.version == "v1"


def test_a_decision_takes_little_more_than_its_features(make_bundle: Make) -> None:
    router = router_of(make_bundle())
    rng = np.random.default_rng(0)
    assert len(featurize(SHORT).dense) == len(DENSE_NAMES)
    best = min(router.route(SHORT, decision_id="x", rng=rng).overhead_ms for _ in range(300))
    assert best < 1.0


def test_what_runs_beside_an_answer_obeys_every_rule_but_the_time_that_nobody_waits_for(make_bundle: Make) -> None:
    cases = {"quick": UseCase(total_ms=1.0), "private": UseCase(tiers=("small", "large"))}
    router = router_of(make_bundle(), use_cases=cases)
    audit, shadow = Background("audit", 0.02, 0.0), Background("shadow", 0.1, 0.9)
    assert router.beside(SHORT, "large", audit) == (("small", "medium", "large"), {})
    assert router.beside(SHORT, "large", shadow) == (("medium",), {"small": 0.5, "medium": 0.5})
    assert router.beside(SHORT, "small", shadow) == ((), {})
    quick, private = (replace(SHORT, use_case=name) for name in cases)
    assert router.beside(quick, "large", audit)[0] == ("small", "medium", "large")
    assert router.beside(private, "large", audit)[0] == ("small", "large")
    assert router.beside(private, "large", shadow) == (("small",), {"small": 1.0})


def test_circumstances_reach_the_decision(make_bundle: Make) -> None:
    router = router_of(make_bundle(), use_cases={"quick": UseCase(total_ms=1000.0)})
    floor = route(router, SHORT, quality=0.9, circumstances=Circumstances(floor="large", floor_reason="session"))
    assert floor.propensity == {"small": 0.0, "medium": 0.0, "large": 1.0}
    assert floor.constraints_applied == ("floor excludes small, medium (session)",)
    only = route(router, LONG, circumstances=Circumstances(allowed=frozenset({"medium"})))
    assert (only.tier, only.plan.escalate_to) == ("medium", None)
    slow = Circumstances(latency_ms=(10.0, 20.0, 5000.0))
    assert route(router, replace(LONG, use_case="quick"), circumstances=slow).propensity["large"] == 0.0
    assert route(router, LONG, circumstances=slow).tier == "large"


def test_a_decision_holds_what_it_was_made_from_and_does_not_show_it(make_bundle: Make) -> None:
    router = router_of(make_bundle())
    decision = route(router, LONG)
    basis: Any = decision.basis
    view, features, scores = basis
    assert view.request is LONG
    assert features.dense.tolist() == featurize(LONG).dense.tolist()
    assert dict(zip(router.bundle.ladder.names, scores.adequacy, strict=True)) == decision.adequacy
    assert "contracts" not in repr(decision)
    assert decision == replace(decision, basis=None)


def test_background_calls_leave_out_what_is_forbidden_or_failing(make_bundle: Make) -> None:
    router = router_of(make_bundle())
    now = Circumstances(unhealthy=frozenset({"medium"}), allowed=frozenset({"small", "medium"}), floor="large")
    tiers, _ = router.beside(SHORT, "small", Background("audit", 0.02, 0.5), circumstances=now)
    assert tiers == ("small",)


def test_a_quality_asked_for_again_gives_the_same_decision(make_bundle: Make) -> None:
    router = router_of(make_bundle())
    first, again = (replace(route(router, SHORT, quality=0.9), overhead_ms=0.0) for _ in range(2))
    assert first == again
    assert route(router, SHORT).quality == 0.97
