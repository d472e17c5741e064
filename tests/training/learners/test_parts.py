"""Heads drawn together: the logits of each head, whatever the mixture of heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from router_ml_training.encoder import Design, Encoder, fit_encoder
from router_ml_training.learners import LEARNERS
from router_ml_training.learners.parts import HasParts, LinearParts, draw_logits
from router_ml_training.learners.protocol import Fit
from router_ml_training.onnx_graph import GraphBuilder


@dataclass(frozen=True)
class World:
    encoder: Encoder
    design: Design
    feed: dict[str, Any]
    heads: dict[str, Any]


@pytest.fixture(scope="module")
def fitted(world: Any) -> World:
    data = world.dataset(300)
    encoder = fit_encoder(data, latent=False)
    design = encoder.encode(data)
    quality = data.quality[:, 0]
    fit = Fit(design, np.nan_to_num(quality, nan=0.5), np.ones(len(data)), data.group, 0)
    batch = data.features(range(len(data)))
    feed = {"dense": batch.dense, "ids": batch.ids, "counts": batch.counts}
    names = ("constant", "length", "linear", "gbdt")
    return World(encoder, design, feed, {name: LEARNERS.load(name)(fit) for name in names})


def drawn(world: World, parts: list[LinearParts], **changes: Any) -> np.ndarray:
    graph = GraphBuilder()
    world.encoder.define(graph)
    tensor = draw_logits(graph, world.encoder, parts)
    model = graph.model({"logits": tensor}, [f"t{i}" for i in range(len(parts))])
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {**world.feed, **changes})[0])


@pytest.mark.parametrize(
    "names", [("constant",), ("length", "linear"), ("linear", "linear"), ("gbdt", "constant", "linear", "gbdt")]
)
def test_the_logits_of_all_heads_are_those_of_each(fitted: World, names: tuple[str, ...]) -> None:
    heads = [fitted.heads[name] for name in names]
    assert all(isinstance(head, HasParts) for head in heads)
    expected = np.stack([head.logit(fitted.design) for head in heads], axis=1)
    np.testing.assert_allclose(drawn(fitted, [head.parts() for head in heads]), expected, atol=2e-5)


def test_calibration_is_part_of_the_coefficients(fitted: World) -> None:
    head = fitted.heads["gbdt"]
    calibrated = head.parts().calibrated(1.7, -0.3)
    np.testing.assert_allclose(drawn(fitted, [calibrated])[:, 0], 1.7 * head.logit(fitted.design) - 0.3, atol=4e-5)


def test_a_request_without_words_and_padding_add_nothing(fitted: World) -> None:
    parts = [fitted.heads["linear"].parts()]
    n = len(fitted.feed["dense"])
    empty = drawn(fitted, parts, ids=np.zeros((n, 1), np.int64), counts=np.zeros((n, 1), np.float32))
    assert np.isfinite(empty).all()
    wider = {name: np.pad(fitted.feed[name], ((0, 0), (0, 70))) for name in ("ids", "counts")}
    np.testing.assert_allclose(drawn(fitted, parts, **wider), drawn(fitted, parts), atol=1e-5)


def test_a_pair_of_linear_heads_takes_few_nodes(fitted: World) -> None:
    graph = GraphBuilder()
    fitted.encoder.define(graph)
    draw_logits(graph, fitted.encoder, [fitted.heads["linear"].parts()] * 2)
    assert len(graph._nodes) <= 26
