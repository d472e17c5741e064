"""The map: like requests lie together, outcomes do not move it, and the graph computes the same coordinates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from router_ml_training.dataset import Dataset
from router_ml_training.encoder import Encoder, fit_encoder
from router_ml_training.latent import N_COORDINATES, fit_latent
from router_ml_training.onnx_graph import GraphBuilder


@pytest.fixture(scope="module")
def data(world: Any) -> Dataset:
    made: Dataset = world.dataset(400)
    return made


@pytest.fixture(scope="module")
def encoder(data: Dataset) -> Encoder:
    return fit_encoder(data)


def test_no_coordinate_vector_is_longer_than_one_and_landmarks_are_on_the_map(data: Dataset, encoder: Encoder) -> None:
    assert encoder.latent is not None
    vectors = encoder.encode(data).latent
    assert vectors.shape == (400, N_COORDINATES)
    assert np.sqrt((vectors**2).sum(axis=1)).max() < 1 + 1e-5
    assert np.sqrt((encoder.latent.clusters**2).sum(axis=1)).max() < 1 + 1e-5


def test_requests_that_share_their_words_lie_nearer_than_others(world: Any, data: Dataset, encoder: Encoder) -> None:
    vectors = encoder.encode(data).latent
    bags = data.text > 0
    shared = (bags.astype(np.float32) @ bags.astype(np.float32).T).toarray()
    near = vectors @ vectors.T
    apart = ~np.eye(400, dtype=bool)
    assert np.corrcoef(shared[apart], near[apart])[0, 1] > 0.2


def test_outcomes_do_not_move_the_map_and_a_seed_fixes_it(data: Dataset, encoder: Encoder) -> None:
    again = fit_encoder(replace(data, quality=1 - data.quality))
    assert encoder.latent is not None
    assert again.latent is not None
    for name in ("table", "centre", "clusters", "prototypes"):
        assert getattr(encoder.latent, name).tobytes() == getattr(again.latent, name).tobytes()


def test_the_graph_finds_the_same_coordinates(data: Dataset, encoder: Encoder) -> None:
    graph = GraphBuilder()
    encoder.define(graph)
    tiers = tuple(map(str, range(N_COORDINATES)))
    model = graph.model({"out": graph.named("latent")}, tiers)
    batch = data.features(range(len(data)))
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run(["out"], {"dense": batch.dense, "ids": batch.ids, "counts": batch.counts})
    np.testing.assert_allclose(found, encoder.encode(data).latent, atol=3e-6)


@pytest.mark.parametrize("n", [0, 1, 2, 9])
def test_hardly_any_rows_give_a_map_all_the_same(data: Dataset, n: int) -> None:
    latent = fit_latent(data.rows(np.arange(n)).text)
    found = latent.vectors(data.text)
    assert found.shape == (400, N_COORDINATES)
    assert np.isfinite(found).all()
