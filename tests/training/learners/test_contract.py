"""What every registered learner must keep, also one that is added tomorrow: this suite runs on all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from scipy.special import expit

from router_ml.errors import UnknownName
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import Design, Encoder, fit_encoder
from router_ml_training.evaluation.curves import curve_of, share_sweep
from router_ml_training.evaluation.metrics import apgr
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.learners import LEARNERS, SIMPLICITY
from router_ml_training.learners.constant import ConstantHead
from router_ml_training.learners.ensemble import StackedHead
from router_ml_training.learners.gbdt import BoostedHead
from router_ml_training.learners.length import _COLUMN, LengthHead
from router_ml_training.learners.protocol import Fit, Head
from router_ml_training.onnx_graph import GraphBuilder

ALL = pytest.mark.parametrize("name", list(LEARNERS))
N, N_FRESH = 700, 1500


@pytest.fixture(scope="module")
def data(world: Any) -> Dataset:
    made: Dataset = world.dataset(N + N_FRESH)
    return made


@pytest.fixture(scope="module")
def encoder(data: Dataset) -> Encoder:
    return fit_encoder(data.rows(np.arange(N)))


@pytest.fixture(scope="module")
def fit(data: Dataset, encoder: Encoder) -> Fit:
    rows = data.rows(np.arange(N))
    return Fit(encoder.encode(rows), rows.quality[:, 0], np.ones(N), rows.group, seed=7)


@pytest.fixture(scope="module")
def fresh(data: Dataset, encoder: Encoder) -> Design:
    return encoder.encode(data.rows(np.arange(N, N + N_FRESH)))


@pytest.fixture(scope="module")
def heads(fit: Fit) -> dict[str, Head]:
    return {name: LEARNERS.load(name)(fit) for name in LEARNERS}


@ALL
def test_probabilities_are_finite_and_one_per_row(name: str, heads: dict[str, Head], fresh: Design) -> None:
    logit = heads[name].logit(fresh)
    assert logit.shape == (N_FRESH,)
    assert logit.dtype == np.float64
    assert np.isfinite(logit).all()
    assert ((expit(logit) > 0) & (expit(logit) < 1)).all()
    assert heads[name].logit(fresh.rows(np.zeros(0, np.int64))).shape == (0,)


@ALL
def test_the_same_seed_gives_the_same_head_to_the_last_bit(
    name: str, heads: dict[str, Head], fit: Fit, fresh: Design
) -> None:
    again = LEARNERS.load(name)(fit)
    assert again.logit(fresh).tobytes() == heads[name].logit(fresh).tobytes()


@ALL
def test_a_row_is_scored_alike_alone_and_among_others(name: str, heads: dict[str, Head], fresh: Design) -> None:
    every = heads[name].logit(fresh)
    alone = np.concatenate([heads[name].logit(fresh.rows(np.array([i]))) for i in (0, 5, 77)])
    np.testing.assert_allclose(alone, every[[0, 5, 77]], rtol=1e-9, atol=1e-12)


def run_graph(head: Head, encoder: Encoder, data: Dataset) -> np.ndarray:
    graph = GraphBuilder()
    encoder.define(graph)
    model = graph.model({"logit": head.add_to_graph(graph)}, ("one",))
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    batch = data.features(range(len(data)))
    feed = {"dense": batch.dense, "ids": batch.ids, "counts": batch.counts}
    logit = np.asarray(session.run(["logit"], feed)[0])
    assert logit.shape == (len(data), 1)
    assert logit.dtype == np.float32
    return logit[:, 0]


def thresholds(head: Head) -> list[tuple[int, float]]:
    if isinstance(head, StackedHead):
        return [split for trees in head.trees for split in trees.thresholds]
    return head.trees.thresholds if isinstance(head, BoostedHead) else []


@ALL
def test_its_graph_gives_the_same_scores_on_random_nan_extreme_and_threshold_rows(
    name: str, heads: dict[str, Head], encoder: Encoder, data: Dataset
) -> None:
    rng = np.random.default_rng(1)
    rows = data.rows(np.arange(1000))
    dense = rows.dense.copy()
    dense[200:400] += rng.normal(0, 1, (200, dense.shape[1])).astype(np.float32)
    holes = rng.random((200, dense.shape[1])) < 0.3
    dense[400:600][holes] = np.nan
    dense[600:800] = rng.choice(np.array([-3e38, -1e6, 0.0, 1e6, 3e38], np.float32), (200, dense.shape[1]))
    for i, (feature, threshold) in enumerate(thresholds(heads[name])[:200]):
        dense[800 + i, feature] = np.nextafter(np.float32(threshold), np.float32(rng.choice([-np.inf, np.inf])))
    odd = replace(rows, dense=dense)
    expected = heads[name].logit(encoder.encode(odd))
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(expit(run_graph(heads[name], encoder, odd)), expit(expected), atol=1e-5)


@ALL
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_class_gives_a_constant_that_leans_to_it_and_is_not_certain(
    name: str, value: float, fit: Fit, fresh: Design
) -> None:
    head = LEARNERS.load(name)(replace(fit, target=np.full(N, value)))
    assert isinstance(head, ConstantHead)
    p = expit(head.logit(fresh))
    assert len(set(p.tolist())) == 1
    assert abs(p[0] - value) == pytest.approx(0.5 / (N + 1), rel=1e-6)


@ALL
def test_no_rows_give_even_odds(name: str, fit: Fit, fresh: Design) -> None:
    nothing = Fit(fit.design.rows(np.zeros(0, np.int64)), np.zeros(0), np.zeros(0), np.zeros(0, np.int64), seed=0)
    assert set(expit(LEARNERS.load(name)(nothing).logit(fresh)).tolist()) == {0.5}


@ALL
def test_graded_targets_are_learned_from(name: str, fit: Fit, fresh: Design) -> None:
    graded = 0.2 + 0.6 * fit.target
    p = expit(LEARNERS.load(name)(replace(fit, target=graded)).logit(fresh))
    assert p.mean() == pytest.approx(graded.mean(), abs=0.05)
    assert ((p > 0.05) & (p < 0.95)).all()


@ALL
def test_a_weight_of_three_counts_as_three_rows(name: str, fit: Fit, fresh: Design) -> None:
    failed = fit.target < 0.5
    heavy = LEARNERS.load(name)(replace(fit, weight=np.where(failed, 3.0, 1.0)))
    plain = LEARNERS.load(name)(fit)
    odds = np.log(3 * failed.sum() / (~failed).sum()) - np.log(failed.sum() / (~failed).sum())
    moved = plain.logit(fresh).mean() - heavy.logit(fresh).mean()
    assert moved == pytest.approx(odds, rel=0.45)


@ALL
def test_rows_of_a_single_group_are_no_reason_to_fail(name: str, fit: Fit, fresh: Design) -> None:
    head = LEARNERS.load(name)(replace(fit, group=np.zeros(N, np.int64)))
    assert np.isfinite(head.logit(fresh)).all()


def routing_gain(head: Head, fresh: Design, quality: np.ndarray) -> float:
    swept = share_sweep(-head.logit(fresh), rng=np.random.default_rng(0))
    value = apgr(curve_of(swept, Outcomes(quality, np.tile([0.1, 1.0], (len(quality), 1))))).value
    assert value is not None
    return value


@ALL
def test_shuffled_labels_teach_nothing(name: str, fit: Fit, fresh: Design, data: Dataset) -> None:
    shuffled = np.random.default_rng(5).permutation(fit.target)
    head = LEARNERS.load(name)(replace(fit, target=shuffled))
    quality = data.quality[N : N + N_FRESH]
    assert routing_gain(head, fresh, quality) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("name", ["linear", "gbdt", "ensemble"])
def test_true_labels_teach_something(name: str, heads: dict[str, Head], fresh: Design, data: Dataset) -> None:
    assert routing_gain(heads[name], fresh, data.quality[N : N + N_FRESH]) > 0.65


def test_trees_find_what_a_line_cannot(fit: Fit, fresh: Design) -> None:
    column = int(fit.design.scaled.std(axis=0).argmax())

    def edges(design: Design) -> np.ndarray:
        return (np.abs(design.scaled[:, column]) > 0.7).astype(float)

    problem = replace(fit, target=edges(fit.design))
    loss = {
        name: float(np.abs(expit(LEARNERS.load(name)(problem).logit(fresh)) - edges(fresh)).mean())
        for name in ("linear", "gbdt")
    }
    assert loss["gbdt"] < 0.7 * loss["linear"]


def test_length_learns_the_length_and_nothing_else(fit: Fit, fresh: Design) -> None:
    long = (fit.design.scaled[:, _COLUMN] > 0).astype(float)
    head = LEARNERS.load("length")(replace(fit, target=long))
    assert isinstance(head, LengthHead)
    assert head.slope > 1
    same = replace(fresh, scaled=np.tile(fresh.scaled[:1], (len(fresh), 1)))
    assert len(set(head.logit(same).tolist())) == 1


def test_few_rows_are_left_to_the_linear_head(fit: Fit) -> None:
    few = Fit(fit.design.rows(np.arange(100)), fit.target[:100], fit.weight[:100], fit.group[:100], seed=0)
    assert not isinstance(LEARNERS.load("gbdt")(few), BoostedHead)


def test_simplicity_ranks_every_learner_from_the_constant_on() -> None:
    assert set(SIMPLICITY) == set(LEARNERS)
    assert SIMPLICITY[0] == "constant"
    with pytest.raises(UnknownName, match=r"no learner is called 'gbtd' \(did you mean 'gbdt'\?\)"):
        LEARNERS.load("gbtd")
