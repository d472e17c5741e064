"""The competition: judged on unseen rows, simplest within one standard error wins, constants stay where due."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router_ml.errors import DataError, UnknownName
from router_ml_training import candidates
from router_ml_training.candidates import choose, compete, difference_loss, log_loss
from router_ml_training.dataset import Dataset
from router_ml_training.learners import constant, gbdt, linear
from router_ml_training.tasks import AdequacyModel, fit_adequacy

CHEAP = ("constant", "length", "linear")


def parts(world: Any, n: int = 700, policy: str = "audit") -> tuple[Dataset, Dataset]:
    data = world.dataset(n, policy=policy)
    cut = int(0.75 * n)
    return data.rows(np.arange(cut)), data.rows(np.arange(cut, n))


def test_where_words_tell_the_difficulty_the_linear_learner_wins(world: Any) -> None:
    told: list[str] = []
    found = compete(*parts(world), (*CHEAP, "linear"), seed=0, on_start=told.append)
    assert found.choice.name == found.choice.best == "linear"
    assert not found.choice.keep_constant
    assert found.winner is found.models["linear"]
    assert told == list(CHEAP) == list(found.models)


@pytest.mark.parametrize("folded", [True, False])
def test_where_labels_are_shuffled_the_constant_is_kept(
    world: Any, folded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "_FOLD_UP_TO", 20_000 if folded else 0)
    train, tune = parts(world)
    rng = np.random.default_rng(3)
    train, tune = (replace(one, quality=rng.permutation(one.quality)) for one in (train, tune))
    found = compete(train, tune, CHEAP, seed=0)
    assert found.choice.keep_constant
    assert found.choice.verdict.startswith("Keep the constant model")


@pytest.mark.parametrize("folded", [True, False])
def test_losses_are_compared_on_the_same_rows_for_everybody(
    world: Any, folded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "_FOLD_UP_TO", 20_000 if folded else 0)
    found = compete(*parts(world), CHEAP, seed=0)
    loss = {one.name: one.loss for one in found.choice.candidates}
    assert loss["linear"] < loss["length"]
    assert loss["linear"] < loss["constant"] - 0.05


def test_the_same_seed_gives_the_same_competition(world: Any) -> None:
    train, tune = parts(world, 400)
    one, other = (compete(train, tune, CHEAP, seed=4) for _ in range(2))
    assert one.choice == other.choice


def test_a_chain_log_is_no_reason_to_prefer_the_pessimist(world: Any) -> None:
    train, tune = parts(world, 900, "chain")
    found = compete(train, tune, CHEAP, seed=0)
    assert found.choice.name == "linear"
    assert [model.form for model in found.winner.models] == ["marginal", "chained"]


def test_tune_rows_without_outcomes_are_refused(world: Any) -> None:
    train, tune = parts(world, 200)
    silent = replace(tune, quality=np.full_like(tune.quality, np.nan))
    with pytest.raises(DataError, match="only 0 of the 50 interactions kept for tuning have a known outcome"):
        compete(train, silent, CHEAP, seed=0)


def test_an_unknown_learner_is_named(world: Any) -> None:
    with pytest.raises(UnknownName, match="no learner is called 'linaer'"):
        compete(*parts(world, 200), ("constant", "linaer"), seed=0)


def test_a_log_of_one_prompt_group_has_no_folds_and_is_judged_on_the_tune_rows(world: Any) -> None:
    train, tune = parts(world, 300)
    lumped = replace(train, group=np.zeros(len(train), np.int64))
    assert compete(lumped, tune, ("constant", "linear"), seed=0).choice.candidates[0].loss > 0


def test_the_log_loss_is_the_mean_over_what_is_known_of_each_row() -> None:
    adequacy = np.array([[0.8, 0.5], [0.5, 0.9], [0.0, 1.0]])
    quality = np.array([[1.0, np.nan], [0.25, 0.0], [np.nan, 0.0]])
    graded = -(0.25 * np.log(0.5) + 0.75 * np.log(0.5))
    expected = [-np.log(0.8), (graded - np.log(0.1)) / 2, -np.log(1e-6)]
    np.testing.assert_allclose(log_loss(adequacy, quality), expected)


def test_the_difference_loss_is_the_mean_over_pairs_of_known_tiers() -> None:
    adequacy = np.array([[0.2, 0.5, 0.9], [0.2, 0.5, 0.9]])
    quality = np.array([[0.0, 1.0, 1.0], [np.nan, 0.0, 1.0]])
    first = ((1.0 - 0.3) ** 2 + (1.0 - 0.7) ** 2 + (0.0 - 0.4) ** 2) / 3
    np.testing.assert_allclose(difference_loss(adequacy, quality), [first, (1.0 - 0.4) ** 2])


def test_who_is_as_good_by_the_log_loss_but_worse_on_differences_is_not_kept(world: Any) -> None:
    data = world.dataset(1500)
    drawn = world.draw(1500, np.random.default_rng(0)).difficulty
    truth = np.stack([world.p_small[drawn], world.p_large[drawn]], axis=1)
    error = np.random.default_rng(1).choice([-0.9, 0.9], (1500, 1))
    logit = np.log(truth / (1 - truth))
    candidates_ = {
        "constant": np.full((1500, 2), 0.5),
        "length": 1 / (1 + np.exp(-(logit + error * np.array([1, -1])))),  # errors of the tiers that differ
        "linear": 1 / (1 + np.exp(-(logit + error))),  # errors that all tiers share
    }
    found = choose(candidates_, data, ("constant", "length", "linear"))
    by_log_loss = {one.name: one.within for one in found.candidates}
    assert by_log_loss["length"] or found.best == "linear"
    assert found.name == "linear"


def test_few_pairs_leave_the_log_loss_alone(world: Any) -> None:
    data = world.dataset(150)
    near = data.quality.mean(axis=0) * np.ones((150, 1))
    assert choose({"constant": near, "length": near + 0.001}, data, ("constant", "length")).keep_constant


def skewed(world: Any, n: int, seed: int, epsilon: float = 0.05) -> Dataset:
    """One outcome per request: hard ones go to the large tier but for half of epsilon, the others to the small one."""
    hard = (world.draw(n, np.random.default_rng(seed)).difficulty >= 3).astype(np.int64)
    data: Dataset = world.dataset(n, seed)
    everyone = np.arange(n)
    propensity = np.full((n, 2), epsilon / 2)
    propensity[everyone, hard] = 1.0 - epsilon / 2
    action = np.where(np.random.default_rng(seed + 1).random(n) < epsilon / 2, 1 - hard, hard)
    quality = np.full((n, 2), np.nan)
    quality[everyone, action] = data.quality[everyone, action]
    return replace(data, quality=quality, action=action, propensity=propensity)


def test_on_a_log_of_one_outcome_each_the_shared_heads_are_kept(world: Any) -> None:
    log = skewed(world, 2400, 4)
    found = compete(log.rows(np.arange(1800)), log.rows(np.arange(1800, 2400)), (*CHEAP, "gbdt"), seed=0)
    assert found.choice.name == "linear"
    assert [one.form for one in found.winner.models] == ["shared", "shared"]


def test_what_was_drawn_against_the_odds_counts_for_more(world: Any) -> None:
    log = skewed(world, 2000, 5)
    rare = log.propensity[np.arange(len(log)), log.action] < 0.5
    right = np.where(log.quality > 0.5, 0.8, 0.2)
    # Better where the tiers usually answer, ignorant elsewhere.
    usual = np.where(rare[:, None], 0.5, np.where(log.quality > 0.5, 0.83, 0.17))
    candidates_of = {"length": right, "linear": usual}
    assert choose(candidates_of, log, ("length", "linear")).best == "length"
    blind = replace(log, propensity=np.full_like(log.propensity, np.nan))
    assert choose(candidates_of, blind, ("length", "linear")).best == "linear"


@pytest.mark.parametrize("refit", [True, False])
def test_a_refit_of_trees_is_drafted_by_the_linear_head(
    world: Any, refit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts: dict[Any, Any] = {}

    def noted(*arguments: Any, draft: Any, **options: Any) -> AdequacyModel:
        drafts[arguments[3]] = draft
        return fit_adequacy(*arguments, draft=draft, **options)

    monkeypatch.setattr(candidates, "_FOLD_UP_TO", 0)
    monkeypatch.setattr(candidates, "fit_adequacy", noted)
    compete(*parts(world), ("constant", "gbdt"), seed=0, refit=refit)
    assert drafts == {constant.learn: None, gbdt.learn: linear.learn if refit else None}
