"""The graph builder: numeric nodes become a checked model that knows its feature schema and its tiers."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from router_ml.features import DENSE_NAMES, SCHEMA_HASH
from router_ml_training.onnx_graph import GraphBuilder

DENSE = np.arange(2 * len(DENSE_NAMES), dtype=np.float32).reshape(2, -1)
FEED = {"dense": DENSE, "ids": np.zeros((2, 1), np.int64), "counts": np.zeros((2, 1), np.float32)}


def doubled(graph: GraphBuilder) -> str:
    return graph.add("Mul", "dense", graph.scalar(2.0))


def first_two(graph: GraphBuilder, tensor: str) -> str:
    return graph.add("Gather", tensor, graph.constant(np.array([0, 1])), axis=1)


def test_a_model_computes_what_its_nodes_say_and_carries_its_facts() -> None:
    graph = GraphBuilder()
    model = graph.model({"adequacy": first_two(graph, doubled(graph))}, ("small", "large"))
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(["adequacy"], FEED)[0], 2 * DENSE[:, :2])
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["feature_schema_hash"] == SCHEMA_HASH
    assert json.loads(facts["tiers"]) == ["small", "large"]


def test_the_same_nodes_give_the_same_bytes() -> None:
    def build() -> bytes:
        graph = GraphBuilder()
        return graph.model({"adequacy": first_two(graph, doubled(graph))}, ("a", "b"))

    assert build() == build()


def test_a_defined_tensor_is_drawn_once_and_only_when_somebody_asks_for_it() -> None:
    graph = GraphBuilder()
    drawn: list[str] = []

    def draw() -> str:
        drawn.append("once")
        return doubled(graph)

    graph.define("doubled", draw)
    assert not drawn
    assert graph.named("doubled") == graph.named("doubled")
    assert drawn == ["once"]


def test_a_tensor_that_nobody_defined_is_a_fault_of_the_programmer() -> None:
    with pytest.raises(KeyError, match="scaled"):
        GraphBuilder().named("scaled")


def test_a_graph_that_does_not_hold_together_is_refused_before_it_is_bytes() -> None:
    graph = GraphBuilder()
    with pytest.raises(onnx.checker.ValidationError):
        graph.model({"adequacy": graph.add("Add", "dense", "nowhere")}, ("a", "b"))
    graph = GraphBuilder()
    with pytest.raises(onnx.shape_inference.InferenceError):
        graph.model({"adequacy": doubled(graph)}, ("a", "b"))  # as wide as the features, not as the ladder
