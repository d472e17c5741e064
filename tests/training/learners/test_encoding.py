"""Target encoding: means by hand, nothing of a row's own or of later rows in its feature, the same in the graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from scipy.sparse import csr_array

from router_ml.features import N_BUCKETS, N_TEXT_BUCKETS
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import fit_encoder
from router_ml_training.learners.encoding import _PRIOR_ROWS, encode_targets
from router_ml_training.learners.protocol import Fit
from router_ml_training.onnx_graph import GraphBuilder


def with_facts(data: Dataset, facts: np.ndarray) -> Dataset:
    """The same rows, each with the words it has and one metadata bucket."""
    ids = csr_array(
        (np.ones(len(facts), np.float32), N_TEXT_BUCKETS + 7 + facts, np.arange(len(facts) + 1)),
        shape=(len(facts), N_BUCKETS),
    )
    words = data.text[:, :N_TEXT_BUCKETS]
    words.resize(ids.shape)
    return replace(data, text=csr_array(words + ids))


def problem(data: Dataset, target: np.ndarray, ts: np.ndarray | None = None) -> Fit:
    encoder = fit_encoder(data, curved=False, latent=False)
    return Fit(encoder.encode(data), target, np.ones(len(data)), np.arange(len(data)), seed=3, ts=ts)


@pytest.fixture(scope="module")
def data(world: Any) -> Dataset:
    n = 400
    return with_facts(world.dataset(n), np.random.default_rng(0).integers(0, 5, n))


def facts_of(data: Dataset) -> np.ndarray:
    return np.array([data.text[[i]].indices.max() for i in range(len(data))]) - N_TEXT_BUCKETS - 7


def test_the_table_holds_shrunken_means_and_a_row_without_facts_gets_zero(data: Dataset) -> None:
    target = np.random.default_rng(1).random(len(data))
    table, _ = encode_targets(problem(data, target))
    facts = facts_of(data)
    for fact in range(5):
        mine = facts == fact
        surplus = (target[mine] - target.mean()).sum() / (mine.sum() + _PRIOR_ROWS)
        assert table.table[7 + fact] == pytest.approx(surplus, abs=1e-6)
    assert table.table[0] == 0
    bare: Any = csr_array((2, N_BUCKETS), dtype=np.float32)
    assert table.column(bare).tolist() == [0, 0]


def test_an_ordered_encoding_is_what_a_slow_loop_over_earlier_rows_finds(data: Dataset) -> None:
    rng = np.random.default_rng(2)
    target, ts = rng.random(len(data)), rng.integers(0, 60, len(data)).astype(float)
    _, column = encode_targets(problem(data, target, ts))
    facts = facts_of(data)
    for i in range(0, len(data), 7):
        earlier = ts < ts[i]
        overall = (target[earlier].sum() + 0.5) / (earlier.sum() + 1)
        mine = earlier & (facts == facts[i])
        expected = (target[mine] - overall).sum() / (mine.sum() + _PRIOR_ROWS)
        assert column[i] == pytest.approx(expected / np.sum(data.text[[i]].indices >= N_TEXT_BUCKETS), abs=1e-9)


@pytest.mark.parametrize("dated", [True, False])
def test_a_row_never_sees_its_own_outcome(data: Dataset, dated: bool) -> None:
    ts = np.arange(len(data)).astype(float) if dated else None
    target = np.random.default_rng(4).random(len(data))
    _, before = encode_targets(problem(data, target, ts))
    for i in (0, 57, 399):
        changed = target.copy()
        changed[i] = 1.0 - changed[i]
        _, after = encode_targets(problem(data, changed, ts))
        assert after[i] == pytest.approx(before[i], abs=1e-12)
        assert (np.abs(after - before).max() > 1e-9) == (i < 399 or not dated)


def test_no_row_sees_a_later_one(data: Dataset) -> None:
    ts, target = np.arange(len(data)).astype(float), np.random.default_rng(4).random(len(data))
    _, whole = encode_targets(problem(data, target, ts))
    cut = np.arange(250)
    _, start = encode_targets(problem(data.rows(cut), target[cut], ts[cut]))
    np.testing.assert_allclose(whole[:250], start, atol=1e-12)


@pytest.mark.parametrize("dated", [True, False])
def test_facts_that_occur_once_teach_the_training_rows_nothing(world: Any, dated: bool) -> None:
    data = with_facts(world.dataset(300), np.arange(300))
    target = np.random.default_rng(5).integers(0, 2, 300).astype(float)
    _, column = encode_targets(problem(data, target, np.arange(300.0) if dated else None))
    assert abs(np.corrcoef(column + np.random.default_rng(0).normal(0, 1e-9, 300), target)[0, 1]) < 0.2


def test_the_graph_looks_up_the_same_column(data: Dataset) -> None:
    table, _ = encode_targets(problem(data, np.random.default_rng(1).random(len(data))))
    graph = GraphBuilder()
    session = ort.InferenceSession(graph.model({"out": table.draw(graph)}, ("a",)), providers=["CPUExecutionProvider"])
    batch = data.features(range(len(data)))
    (found,) = session.run(["out"], {"dense": batch.dense, "ids": batch.ids, "counts": batch.counts})
    expected = table.column(fit_encoder(data, curved=False, latent=False).encode(data).words)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)
