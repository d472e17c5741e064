"""The verifier's graph is the trained verifier: same numbers for ordinary, missing and extreme values, any tier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from router_ml.errors import BundleMismatch, ParityError
from router_ml.features.answer import AnswerFeatures
from router_ml.verifier import open_verifier
from router_ml_training.dataset import Dataset
from router_ml_training.verifier import VerifierModel, cross_fit_verifier
from router_ml_training.verifier_graph import check_verifier, posterior_by_graph, verifier_to_onnx

NAMES = ("small", "medium", "large")


@pytest.fixture(scope="module")
def three(judged_world: Dataset) -> Dataset:
    """Two tiers of answers, one with trees and one that shares the common head; the dearest known after failures."""
    small, large = judged_world.quality.T
    quality = np.column_stack((small, small, np.where(small < 0.5, large, np.nan)))
    escalated = np.zeros(quality.shape, np.bool_)
    escalated[:, 2] = True
    answers = replace(judged_world.answers, tier=np.where(np.arange(600) < 520, 0, 1))
    cost = np.tile([1e-4, 3e-4, 1e-3], (600, 1))
    return replace(judged_world, tiers=NAMES, quality=quality, cost_usd=cost, escalated=escalated, answers=answers)


@pytest.fixture(scope="module")
def model(three: Dataset, before: np.ndarray) -> VerifierModel:
    found = cross_fit_verifier(three, before, seed=0)
    assert found is not None
    assert found.model.transfers[0, 2].given_failure
    return found.model


@pytest.fixture(scope="module")
def before() -> np.ndarray:
    return np.sort(np.random.default_rng(1).uniform(0.0, 1.0, (600, 3)), axis=1)


def test_the_graph_passes_its_gate(three: Dataset, model: VerifierModel, before: np.ndarray) -> None:
    graph = verifier_to_onnx(model)
    assert check_verifier(graph, model, three.answers, before, np.random.default_rng(0)) < 1e-5


def test_heads_of_pairs_are_drawn_beside_those_of_tiers(three: Dataset, before: np.ndarray) -> None:
    # The medium tier's answers are too few for heads of a pair, so one pair of two has them.
    rng = np.random.default_rng(2)
    quality = (rng.random((600, 3)) < [0.4, 0.6, 0.9]).astype(float)
    quality[:, 0] = three.quality[:, 0]
    known = replace(three, quality=quality, escalated=np.zeros(quality.shape, np.bool_))
    found = cross_fit_verifier(known, before, seed=0)
    assert found is not None
    assert {pair[0] for pair in found.model.gains} == {0}
    graph = verifier_to_onnx(found.model)
    assert check_verifier(graph, found.model, three.answers, before, np.random.default_rng(0)) < 1e-5
    silent = replace(found.model, gains={})
    with pytest.raises(ParityError, match="not the trained one"):
        check_verifier(graph, silent, three.answers, before, np.random.default_rng(0))


def test_another_verifier_does_not_pass(three: Dataset, model: VerifierModel, before: np.ndarray) -> None:
    other = replace(model, mixes=tuple(replace(mix, shift=mix.shift + 0.1) for mix in model.mixes))
    with pytest.raises(ParityError, match="not the trained one"):
        check_verifier(verifier_to_onnx(other), model, three.answers, before, np.random.default_rng(0))


def test_one_answer_is_judged_as_it_is_among_others(three: Dataset, model: VerifierModel, before: np.ndarray) -> None:
    verifier = open_verifier(verifier_to_onnx(model), NAMES, "verifier.onnx")
    together = posterior_by_graph(verifier, three.answers, before)
    for i in (0, 599):
        one = three.answers.text[[i]]
        features = AnswerFeatures(three.answers.dense[i], one.indices.astype(np.int64), one.data)
        alone = verifier.posterior(features, before[i], int(three.answers.tier[i]))
        assert alone == pytest.approx(together[i], abs=1e-6)
    assert np.array_equal(verifier.posterior(features, before[0], 2), before[0].astype(np.float32).astype(float))


def test_no_words_at_all_are_judged_too(model: VerifierModel, three: Dataset) -> None:
    verifier = open_verifier(verifier_to_onnx(model), NAMES, "verifier.onnx")
    nothing = AnswerFeatures(three.answers.dense[0], np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert np.isfinite(verifier.posterior(nothing, np.array([0.2, 0.5, 0.9]), 0)).all()


def test_the_same_verifier_is_the_same_bytes(model: VerifierModel) -> None:
    assert verifier_to_onnx(model) == verifier_to_onnx(model)


def test_a_graph_for_other_tiers_is_refused(
    judged_world: Dataset, chances: Callable[[Dataset], np.ndarray], model: VerifierModel
) -> None:
    with pytest.raises(BundleMismatch, match="made for the tiers"):
        open_verifier(verifier_to_onnx(model), ("a", "b", "c"), "verifier.onnx")
