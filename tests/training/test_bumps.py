"""Bumps: their inner products are the kernel near the landmarks, absurd rows stay finite, the graph agrees."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from router_ml_training.bumps import fit_bumps
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import fit_encoder
from router_ml_training.onnx_graph import GraphBuilder


@pytest.fixture(scope="module")
def data(world: Any) -> Dataset:
    made: Dataset = world.dataset(800)
    return made


def test_inner_products_at_the_landmarks_are_the_kernel() -> None:
    points = np.random.default_rng(0).normal(0, 2, (400, 4)).astype(np.float32)
    bumps = fit_bumps(points)
    features = bumps.features(bumps.centres).astype(float)
    square = ((bumps.centres[:, None] - bumps.centres[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(features @ features.T, np.exp(-bumps.rate * square), atol=0.03)


def test_features_are_bounded_wherever_a_row_lies(data: Dataset) -> None:
    encoder = fit_encoder(data, latent=False)
    assert encoder.bumps is not None
    far = np.full((3, data.dense.shape[1]), 4.0, np.float32) * np.array([[1], [-1], [0]], np.float32)
    assert np.abs(encoder.bumps.features(far)).max() < 12


def test_the_graph_computes_the_same_features(data: Dataset) -> None:
    encoder = fit_encoder(data, latent=False)
    graph = GraphBuilder()
    encoder.define(graph)
    expected = encoder.encode(data).curved
    model = graph.model({"out": graph.named("curved")}, tuple(map(str, range(expected.shape[1]))))
    batch = data.features(range(len(data)))
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run(["out"], {"dense": batch.dense, "ids": batch.ids, "counts": batch.counts})
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_hardly_any_rows_give_bumps_all_the_same(n: int) -> None:
    bumps = fit_bumps(np.ones((n, 3), np.float32))
    assert np.isfinite(bumps.features(np.zeros((2, 3), np.float32))).all()
