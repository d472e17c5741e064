"""Champion against challenger: a worse one is refused with numbers, an equal one passes, few rows decide nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import Bundle, FrontierPoint, PolicySpec
from router_ml.ladder import Ladder
from router_ml.shelf import Shelf
from router_ml_training.dataset import Dataset
from router_ml_training.gate import MIN_ROWS, GateReport, compare
from router_ml_training.pipeline import Run, train_bundle
from router_ml_training.scored import Scored, score_with_bundle
from router_ml_training.settings import TrainingSettings

NOW = datetime(2026, 2, 1, tzinfo=UTC)
PRICE = 60.0


@pytest.fixture(scope="module")
def train(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    shelf = Shelf(tmp_path_factory.mktemp("models"))
    settings = TrainingSettings(learners=("linear",))

    def run(data: Dataset) -> Run:
        return train_bundle(data, world.ladder, settings, shelf, quality=0.97, now=NOW, description="made up")

    return run


@pytest.fixture(scope="module")
def champion(train: Callable[..., Run], world: Any) -> Bundle:
    return train(world.dataset(900, 1)).bundle


def priced(ladder: Ladder, price: float = PRICE) -> PolicySpec:
    point = FrontierPoint(quality=0.97, shadow_price=price, saving=0.0)
    return PolicySpec(tiers=ladder.tiers, best_tier=ladder.names[-1], frontier=(point,))


def judged(run: Run, champion: Bundle | None, ladder: Ladder) -> GateReport:
    return compare(run.trained.test, priced(ladder), champion, ladder, quality=0.97)


def test_a_challenger_that_learned_from_shuffled_labels_is_refused_with_its_numbers(
    train: Callable[..., Run], champion: Bundle, world: Any
) -> None:
    data = world.dataset(900, 2)
    shuffled = np.random.default_rng(0).permutation(data.quality)
    split = int(0.6 * 900)
    lied_to = replace(data, quality=np.concatenate((shuffled[:split], data.quality[split:])))
    report = judged(train(lied_to), champion, world.ladder)
    assert not report.passed
    assert report.champion == champion.version
    assert report.n_rows == 180
    assert report.loss is not None
    assert report.loss.worse
    assert report.loss.mean > report.loss.standard_error > 0
    assert report.reason.startswith(f"worse than {champion.version} on 180 held-out rows: its log loss is 0.")


def test_the_champion_itself_is_not_worse_than_the_champion(champion: Bundle, world: Any) -> None:
    data = world.dataset(300, 3)
    same = score_with_bundle(data, champion, world.ladder)
    report = compare(same, champion.policy, champion, world.ladder, quality=0.97)
    assert report.passed
    assert report.loss is not None
    assert report.regret is not None
    assert report.loss.mean == report.regret.mean == 0.0
    assert report.reason == f"not worse than {champion.version} on 300 held-out rows (log loss +0.0000)"


def test_a_better_one_passes(train: Callable[..., Run], world: Any) -> None:
    noise = world.dataset(900, 1)
    poor = train(replace(noise, quality=np.random.default_rng(0).permutation(noise.quality))).bundle
    report = judged(train(world.dataset(900, 2)), poor, world.ladder)
    assert report.passed
    assert report.loss is not None
    assert report.loss.mean < 0


def test_better_probabilities_do_not_excuse_worse_choices(champion: Bundle, world: Any) -> None:
    data = world.dataset(400, 5)
    theirs = score_with_bundle(data, champion, world.ladder)
    # Right about every outcome, and blind to what the small tier costs: everything goes to the large one.
    cost = theirs.cost_usd.copy()
    cost[:, 0] += 1.0
    report = compare(
        Scored(data, theirs.adequacy, cost), priced(world.ladder, 200.0), champion, world.ladder, quality=0.97
    )
    assert not report.passed
    assert report.loss is not None
    assert not report.loss.worse
    assert "its choices are worth" in report.reason


def test_requests_of_one_session_count_as_one(train: Callable[..., Run], champion: Bundle, world: Any) -> None:
    run = train(world.dataset(900, 5))
    test = run.trained.test
    alone, together = (
        compare(
            replace(test, dataset=replace(test.dataset, group=group)),
            priced(world.ladder),
            champion,
            world.ladder,
            quality=0.97,
        )
        for group in (np.arange(len(test.dataset)), np.argsort(np.argsort(test.adequacy[:, 0])) // 20)
    )
    assert alone.loss is not None
    assert together.loss is not None
    assert together.loss.mean == alone.loss.mean
    assert together.loss.standard_error != pytest.approx(alone.loss.standard_error, rel=0.02)


def test_too_few_judged_rows_keep_the_champion(champion: Bundle, world: Any) -> None:
    few = score_with_bundle(world.dataset(MIN_ROWS - 1, 4), champion, world.ladder)
    report = compare(few, priced(world.ladder), champion, world.ladder, quality=0.97)
    assert not report.passed
    assert report.reason.startswith("only 49 held-out rows have a known outcome, 50 are needed")
    data = world.dataset(200, 4)
    silent = replace(data, quality=np.full_like(data.quality, np.nan))
    assert compare(replace(few, dataset=silent), priced(world.ladder), champion, world.ladder, quality=0.97).n_rows == 0


def test_without_a_champion_the_first_one_passes(train: Callable[..., Run], world: Any) -> None:
    report = judged(train(world.dataset(200, 2)), None, world.ladder)
    assert (report.passed, report.champion) == (True, None)
    assert report.reason == "there is no champion yet"


def test_a_champion_of_another_ladder_has_nothing_to_say(champion: Bundle, world: Any) -> None:
    tiers = [tier.model_copy(update={"name": f"new-{tier.name}"}) for tier in world.ladder]
    scored = score_with_bundle(world.dataset(100, 3), champion, world.ladder)
    report = compare(scored, priced(Ladder.of(tiers)), champion, Ladder.of(tiers), quality=0.97)
    assert report.passed
    assert report.reason == "the champion routes between small, large, not this ladder"


def test_a_pessimist_about_escalated_tiers_is_not_preferred(train: Callable[..., Run], world: Any) -> None:
    # In a chain log the large tier is seen on hard requests only. Who takes that for the whole truth predicts those
    # rows best, and would never be replaced if they counted.
    chain = world.dataset(900, 6, policy="chain")
    naive = train(replace(chain, escalated=np.zeros_like(chain.escalated))).bundle
    right = train(chain)
    report = judged(right, naive, world.ladder)
    assert report.loss is not None
    assert report.loss.mean == pytest.approx(0.0, abs=1e-6)  # the small tier's heads are the same
    assert report.passed
