"""policy.json and manifest.json: consistent or refused, and the same bytes for the same content."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router_ml.ladder import Ladder, Tier
from router_ml.manifest import FeatureBounds, FrontierPoint, ManifestDraft, PolicySpec

TIERS = [
    {"name": "small", "model": "mini", "input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.4},
    {"name": "large", "model": "maxi", "input_usd_per_mtok": 2.0, "output_usd_per_mtok": 8.0},
]


def policy(**changes: Any) -> PolicySpec:
    return PolicySpec.model_validate({"tiers": TIERS, "best_tier": "large", **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiers": TIERS[::-1]}, "expected in order of price"),
        ({"tiers": TIERS[:1], "best_tier": "small"}, "2 to 10 tiers"),
        ({"tiers": [TIERS[0], {**TIERS[1], "name": "small"}]}, "used 2 times"),
        ({"best_tier": "huge"}, "no tier is called 'huge'"),
        (
            {"frontier": [{"quality": q, "shadow_price": 1, "saving": 0} for q in (0.9, 0.95)]},
            "points by falling quality",
        ),
        ({"frontier": [{"quality": float("nan"), "shadow_price": 1, "saving": 0}]}, "finite"),
        ({"frontier": [{"quality": 0.9, "shadow_price": -1, "saving": 0}]}, "greater than or equal to 0"),
        ({"bounds": {"low": [0, 0], "high": [1], "max_outside": 0}}, "expected as many"),
        ({"bounds": {"low": [0, 2], "high": [1, 1], "max_outside": 0}}, "dense feature 1"),
        ({"plans": {"spread": [[0, 1], [0]]}}, "a number for every pair"),
        ({"plans": {"spread": [[0, -1], [0, 0]]}}, "greater than or equal to 0"),
        ({"frontier": [{"quality": 0.9, "shadow_price": 1, "saving": 0, "judged": True}]}, "there are no plans"),
        ({"format": 2}, "Input should be 1"),
        ({"lambda": 2}, "Extra inputs"),
    ],
)
def test_an_inconsistent_policy_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        policy(**changes)


points = st.lists(st.tuples(st.floats(0.01, 1.2), st.floats(0, 1e6)), unique_by=lambda point: point[0], max_size=20)


@given(points, st.floats(0.01, 1.0))
def test_the_shadow_price_is_that_of_the_smallest_quality_that_is_enough(
    pairs: list[tuple[float, float]], asked: float
) -> None:
    falling = sorted(pairs, reverse=True)
    spec = policy(frontier=[FrontierPoint(quality=q, shadow_price=price, saving=0) for q, price in falling])
    enough = {q: price for q, price in pairs if q >= asked}
    assert spec.shadow_price(asked) == (enough[min(enough)] if enough else 0.0)


def test_a_judged_point_has_a_price_of_its_own_for_requests_that_allow_one_attempt() -> None:
    frontier = [
        {"quality": 0.99, "shadow_price": 1, "saving": 0, "judged": True},
        {"quality": 0.97, "shadow_price": 5, "saving": 0, "judged": True, "alone_price": 3},
        {"quality": 0.9, "shadow_price": 9, "saving": 0},
    ]
    spec = policy(frontier=frontier, plans={"spread": [[0, 0.3], [0, 0]]})
    assert spec.operating(0.95) == (5.0, True)
    assert spec.operating(0.95, attempts=1) == (3.0, False)
    assert spec.operating(0.98, attempts=1) == (0.0, False)
    assert spec.operating(0.85) == spec.operating(0.85, attempts=1) == (9.0, False)
    assert spec.operating(1.0) == (0.0, False)


def test_a_policy_from_before_there_were_plans_is_read_as_it_was() -> None:
    point = {"quality": 0.97, "shadow_price": 5, "saving": 0}
    spec = policy(frontier=[point])
    assert spec.plans is None
    assert spec.operating(0.97) == (5.0, False)


def test_a_typical_price_means_the_same_share_of_a_typical_answer_at_any_prices() -> None:
    dearer = [
        {**tier, "input_usd_per_mtok": 30.0 * (i + 1), "output_usd_per_mtok": 90.0} for i, tier in enumerate(TIERS)
    ]
    there = policy(tiers=dearer).ladder
    typical = policy(price_unit="typical")
    own, theirs = (one.tiers[-1].typical_cost_usd for one in (typical.ladder, there))
    assert typical.price_scale(there) == pytest.approx(own / theirs)
    assert typical.price_scale(typical.ladder) == 1.0
    for unit in ("usd", "relative"):
        assert policy(price_unit=unit).price_scale(there) == 1.0
    free = [{**tier, "input_usd_per_mtok": 0.0, "output_usd_per_mtok": 0.0} for tier in TIERS]
    assert typical.price_scale(Ladder.of([Tier.model_validate(tier) for tier in free])) == 1.0


def test_the_same_policy_is_the_same_bytes_in_every_process() -> None:
    spec = policy()
    tiers = json.loads(spec.model_dump_json())["tiers"]
    assert tiers[0]["capabilities"] == ["json", "tools", "vision"]
    assert PolicySpec.model_validate_json(spec.model_dump_json()) == spec


def test_the_ladder_is_the_tiers_in_order() -> None:
    assert policy().ladder.names == ("small", "large")


@pytest.mark.parametrize("version", ["", "../up", "a/b", ".hidden", "white space", "x" * 101])
def test_a_version_is_a_plain_folder_name(version: str) -> None:
    trained_on = {"digest": "", "n_interactions": 0, "description": ""}
    draft = {"version": version, "created": "2026-01-01T00:00:00Z", "learner": "x", "trained_on": trained_on}
    with pytest.raises(ValidationError, match="version"):
        ManifestDraft.model_validate(draft)


def test_bounds_may_be_a_single_value() -> None:
    assert FeatureBounds(low=(1.0,), high=(1.0,), max_outside=0).low == (1.0,)
