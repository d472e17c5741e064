"""Scaling: fitted without outcomes, the same numbers in numpy and in the graph, absurd values cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from router_ml.features import N_TEXT_BUCKETS
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import Encoder, fit_encoder
from router_ml_training.onnx_graph import GraphBuilder


@pytest.fixture(scope="module")
def data(world: Any) -> Dataset:
    made: Dataset = world.dataset(150)
    return made


def drawn(encoder: Encoder, data: Dataset, key: str) -> np.ndarray:
    graph = GraphBuilder()
    encoder.define(graph)
    tensor = graph.named(key)
    tiers = tuple(map(str, range(data.dense.shape[1])))
    if key == "weights":  # as wide as the longest request: summed here, to have a shape
        tensor = graph.add("ReduceSum", tensor, graph.constant(np.array([1])), keepdims=1)
        tiers = ("a",)
    session = ort.InferenceSession(graph.model({"out": tensor}, tiers), providers=["CPUExecutionProvider"])
    batch = data.features(range(len(data)))
    feed = {"dense": batch.dense, "ids": batch.ids, "counts": batch.counts}
    return np.asarray(session.run(["out"], feed)[0])


def test_scaled_columns_have_mean_zero_and_deviation_one_or_are_switched_off(data: Dataset) -> None:
    scaled = fit_encoder(data).encode(data).scaled
    varying = data.dense.std(axis=0) > 1e-6
    np.testing.assert_allclose(scaled[:, varying].mean(axis=0), 0, atol=0.1)  # the cut at 4 moves it a little
    assert (scaled[:, varying].std(axis=0) > 0.5).all()
    np.testing.assert_allclose(scaled[:, ~varying], 0, atol=1e-5)
    assert varying.any()
    assert (~varying).any()


def test_the_words_of_a_text_have_length_one_together(data: Dataset) -> None:
    words = fit_encoder(data).encode(data).words
    text = words[:, :N_TEXT_BUCKETS]
    np.testing.assert_allclose(np.sqrt((text * text).sum(axis=1)), 1.0, rtol=1e-5)
    assert set(np.unique(words[:, N_TEXT_BUCKETS:].data)) == {np.float32(0.5)}


def test_rare_words_weigh_more_than_common_ones_and_unseen_ones_most(data: Dataset) -> None:
    idf = fit_encoder(data).idf
    seen = np.bincount(data.text.indices, minlength=len(idf))[:N_TEXT_BUCKETS]
    common, rare = int(seen.argmax()), int(np.flatnonzero(seen == 1)[0])
    unseen = int(np.flatnonzero(seen == 0)[0])
    assert 1.0 <= idf[common] < idf[rare] < idf[unseen]
    assert idf[rare] == pytest.approx(np.log(151 / 2) + 1)
    assert not idf[N_TEXT_BUCKETS:].any()


def test_outcomes_do_not_change_the_encoder(data: Dataset) -> None:
    one, other = fit_encoder(data), fit_encoder(replace(data, quality=1 - data.quality))
    for name in ("idf", "mean", "scale"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


def test_the_graph_computes_the_same_columns_also_for_nan_and_extremes(data: Dataset) -> None:
    encoder = fit_encoder(data)
    dense = data.dense.copy()
    dense[0::5] = np.nan
    dense[1::5] = 3e38
    dense[2::5] = -3e38
    odd = replace(data, dense=dense)
    expected = encoder.encode(odd).scaled
    assert np.isfinite(expected).all()
    assert np.abs(expected).max() == 4.0
    np.testing.assert_allclose(drawn(encoder, odd, "scaled"), expected, atol=1e-6)


def test_the_graph_weighs_words_alike_and_padding_not_at_all(data: Dataset) -> None:
    encoder = fit_encoder(data)
    expected = np.asarray(encoder.encode(data).words.sum(axis=1)).reshape(-1, 1)
    np.testing.assert_allclose(drawn(encoder, data, "weights"), expected, rtol=1e-5)


def test_rows_are_taken_together(data: Dataset) -> None:
    design = fit_encoder(data).encode(data)
    some = design.rows(np.array([5, 2]))
    assert len(some) == 2
    assert some.dense.tobytes() == data.dense[[5, 2]].tobytes()
    assert (some.words[[0]] != design.words[[5]]).nnz == 0
