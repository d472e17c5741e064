"""Rows with scores: a bundle scores as the models it was made of; costs in the unit a policy's price is meant in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import Bundle, ManifestDraft, PolicySpec, TrainedOn, load_bundle, write_bundle
from router_ml.errors import DataError
from router_ml.features.answer import ANSWER_NAMES
from router_ml.manifest import FrontierPoint, PlanSpec
from router_ml_training.dataset import Dataset
from router_ml_training.frontier import solve_frontier
from router_ml_training.learning import Trained, learn
from router_ml_training.plans import fit_cost_update
from router_ml_training.scored import Scored, reckoned_cost, score_with_bundle, score_with_models
from router_ml_training.settings import TrainingSettings

CHECKED = [i for i, name in enumerate(ANSWER_NAMES) if name.startswith("form.check_")]


@pytest.fixture(scope="module")
def trained(world: Any) -> Trained:
    return learn(world.dataset(300), world.ladder, TrainingSettings(learners=("linear",)))


@pytest.fixture(scope="module")
def bundle(world: Any, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    draft = ManifestDraft(
        version="v1",
        created="2026-01-01T00:00:00Z",
        trained_on=TrainedOn(digest="d", n_interactions=300, description="made up"),
        learner="linear",
    )
    folder: Path = tmp_path_factory.mktemp("shelf")
    return load_bundle(write_bundle(folder, manifest=draft, policy=trained.policy, model=trained.graph))


def test_a_bundle_scores_as_the_models_it_was_made_of(world: Any, trained: Trained, bundle: Bundle) -> None:
    data = world.dataset(1203, 8)  # more than one chunk
    theirs = score_with_bundle(data, bundle, world.ladder)
    model = trained.competition.winner
    mine = score_with_models(data, model, trained.tokens, world.ladder)
    np.testing.assert_allclose(theirs.adequacy, mine.adequacy, atol=1e-5)
    np.testing.assert_allclose(theirs.cost_usd, mine.cost_usd, rtol=1e-4)


def test_a_bundle_of_other_tiers_is_refused(world: Any, bundle: Bundle) -> None:
    other = replace(world.dataset(10), tiers=("large", "small"))
    with pytest.raises(DataError, match="v1 routes between small, large, the log is about large, small"):
        score_with_bundle(other, bundle, world.ladder)


def test_costs_relative_to_the_dearest_answer(world: Any) -> None:
    data = world.dataset(2)
    scored = Scored(data, np.full((2, 2), 0.5), np.array([[0.1, 0.4], [0.0, 0.0]]))
    assert scored.cost_in("usd") is scored.cost_usd
    np.testing.assert_array_equal(scored.cost_in("relative"), [[0.25, 1.0], [0.0, 0.0]])
    np.testing.assert_array_equal(scored.cost_in("typical"), scored.cost_usd)
    elsewhere = replace(scored, price_scale=0.5)
    np.testing.assert_array_equal(elsewhere.cost_in("typical"), scored.cost_usd / 2)
    assert elsewhere.cost_in("usd") is scored.cost_usd
    assert elsewhere.rows(np.array([1])).price_scale == 0.5


def told(world: Any, tells: float, n: int = 600) -> Scored:
    """Rows with an honest verifier that moves its opinion of cheap answers towards the truth by a share `tells`."""
    data = world.dataset(n)
    rng = np.random.default_rng(0)
    cost = np.tile([1e-4, 2e-3], (n, 1))
    quality = np.stack([rng.random(n) < 0.6, rng.random(n) < 0.9], axis=1).astype(float)
    adequacy = np.tile([0.6, 0.9], (n, 1))
    posterior = np.repeat(adequacy[:, None], 2, axis=1)
    posterior[:, 0, 0] += tells * (quality[:, 0] - 0.6)
    rows = replace(data, quality=quality, cost_usd=cost, escalated=np.zeros((n, 2), np.bool_))
    return Scored(rows, adequacy, cost, posterior)


def solved(scored: Scored, ladder: Any) -> PolicySpec:
    outcomes, _ = scored.outcomes()
    judged = scored.judged("usd")
    assert judged is not None
    frontier = solve_frontier(scored.adequacy, scored.cost_usd, outcomes, judged=judged)
    return PolicySpec(tiers=ladder.tiers, best_tier=ladder.names[-1], frontier=frontier, plans=judged.spec())


def test_a_judged_policy_tries_judges_and_pays_for_both(world: Any) -> None:
    scored = told(world, 0.9)
    policy = solved(scored, world.ladder)
    taken = scored.taken(policy, 0.97)
    outcomes, _ = scored.outcomes()
    assert policy.operating(0.97)[1]
    assert 0 < taken.escalated.mean() < 0.6
    assert taken.quality(outcomes).mean() >= 0.97 * outcomes.quality[:, 1].mean()
    assert taken.cost(outcomes).mean() < 0.6 * outcomes.cost[:, 1].mean()


def test_a_judged_policy_makes_one_attempt_where_no_answer_is_known(world: Any) -> None:
    scored = told(world, 0.9)
    policy = solved(scored, world.ladder)
    blind = replace(scored, posterior=None)
    assert not blind.taken(policy, 0.97).escalated.any()
    mostly = scored.posterior.copy()  # type: ignore[union-attr]
    mostly[: len(mostly) * 2 // 3, 0] = np.nan
    assert replace(scored, posterior=mostly).judged("usd", policy.plans) is None


def test_what_is_tried_first_needs_no_answer(world: Any) -> None:
    scored = told(world, 0.9)
    policy = solved(scored, world.ladder)
    judged = scored.taken(policy, 0.97)
    assert (judged.first == 0).all()
    np.testing.assert_array_equal(scored.first(policy, 0.97), judged.first)
    np.testing.assert_array_equal(replace(scored, posterior=None).first(policy, 0.97), judged.first)
    alone = policy.model_copy(
        update={"plans": None, "frontier": (policy.frontier[0].model_copy(update={"judged": False}),)}
    )
    np.testing.assert_array_equal(scored.first(alone, 0.8), scored.taken(alone, 0.8).first)


def test_of_a_long_log_the_rows_that_were_looked_at_are_solved_on(world: Any) -> None:
    scored = told(world, 0.9)
    whole = scored.judged("usd")
    posterior = scored.posterior.copy()  # type: ignore[union-attr]
    unread = np.flatnonzero(np.random.default_rng(5).random(600) < 0.6)
    posterior[unread, 0] = np.nan
    answers = replace(scored.dataset.answers, unread=unread)
    part = replace(scored, posterior=posterior, dataset=replace(scored.dataset, answers=answers))
    judged = part.judged("usd")
    assert judged is not None
    assert whole is not None
    np.testing.assert_allclose(judged.spread, whole.spread, rtol=0.1)
    _, rows = part.outcomes()
    assert sorted([*rows.tolist(), *unread.tolist()]) == list(range(600))
    _, everyone = replace(part, posterior=None).outcomes()
    assert len(everyone) == 600


def test_plans_are_made_on_logs_in_which_the_dear_tier_only_saw_the_hard_requests(world: Any) -> None:
    rng = np.random.default_rng(0)
    n = 4000
    hard = rng.random(n) < 0.4
    chance = np.stack([np.where(hard, 0.4, 0.95), np.where(hard, 0.8, 0.97)], axis=1)
    quality = (rng.random((n, 2)) < chance).astype(float)
    posterior = np.repeat(chance[:, None], 2, axis=1)
    posterior[:, 0, 0] += 0.9 * (quality[:, 0] - chance[:, 0])
    sent = hard ^ (rng.random(n) < 0.05)
    audited = np.arange(n) < 99  # too few to solve on alone
    logged = quality.copy()
    logged[sent & ~audited, 0] = np.nan
    logged[~sent & ~audited, 1] = np.nan
    cost = np.tile([1e-4, 1.5e-3], (n, 1))
    base = world.dataset(n)
    rows = replace(base, quality=logged, cost_usd=cost, escalated=np.zeros((n, 2), np.bool_))
    assert Scored(rows, chance, cost, posterior).judged("usd") is not None


def test_a_replayed_policy_escalates_what_the_checks_refuse(world: Any, judged_world: Dataset) -> None:
    data = judged_world
    n = len(data)
    dense = data.answers.dense.copy()
    dense[:, CHECKED] = 0.0
    dense[5, CHECKED[0]] = 1.0
    rows = replace(data, answers=replace(data.answers, dense=dense))
    adequacy, cost = np.tile([0.9, 0.95], (n, 1)), np.tile([1e-4, 2e-3], (n, 1))
    posterior = np.repeat(adequacy[:, None], 2, axis=1)
    points = {"frontier": (FrontierPoint(quality=0.97, shadow_price=100.0, saving=0.5),)}
    policy = PolicySpec(tiers=world.ladder.tiers, best_tier="large", **points)
    for scored in (Scored(rows, adequacy, cost), Scored(rows, adequacy, cost, posterior)):
        assert np.flatnonzero(scored.taken(policy, 0.97).escalated).tolist() == [5]
    plans = PlanSpec(spread=((0.0, 1.0), (0.0, 0.0)))
    judged = Scored(rows, adequacy, cost, posterior).judged("usd", plans)
    assert judged is not None
    assert judged.refused is not None
    assert np.argwhere(judged.refused).tolist() == [[5, 0]]


def test_while_judging_an_answer_costs_what_the_router_reckons_not_what_was_billed(world: Any) -> None:
    scored = told(world, 0.9)
    tokens = np.exp(np.random.default_rng(1).normal(5.0, 0.5, (600, 2)))
    tokens[:7, 0] = np.nan
    data = replace(scored.dataset, output_tokens=tokens)
    spent = reckoned_cost(data, world.ladder)
    listed = world.ladder.costs_usd(data.input_tokens[:, None], tokens)
    np.testing.assert_array_equal(spent[7:], listed[7:])
    assert (spent[:7, 0] == 1e-4).all()
    expected = np.full((600, 2), 1e-3)
    reckoned = Scored(data, scored.adequacy, expected, scored.posterior, spent)
    judged, billed = reckoned.judged("usd"), replace(reckoned, spent_usd=None).judged("usd")
    assert judged is not None
    assert billed is not None
    update = fit_cost_update(spent, expected)
    np.testing.assert_array_equal(judged.later, update.later(expected, spent, expected))
    assert not np.array_equal(judged.later, billed.later)  # type: ignore[arg-type]  # neither is None
    np.testing.assert_array_equal(reckoned.rows(np.array([9, 3])).spent_usd, spent[[9, 3]])


def test_who_has_seen_an_answer_stands_in_for_what_is_unknown_of_dearer_tiers(world: Any) -> None:
    scored = told(world, 0.9, 50)
    quality = scored.dataset.quality.copy()
    quality[:, 1] = np.nan
    posterior = scored.posterior.copy()  # type: ignore[union-attr]
    posterior[:, 0, 1] = 0.77
    outcomes, rows = replace(scored, dataset=replace(scored.dataset, quality=quality), posterior=posterior).outcomes()
    assert len(rows) == 50
    assert (outcomes.quality[:, 1] == 0.77).all()
