"""Folding a graph: fewer nodes, the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from router_ml.features import DENSE_NAMES
from router_ml_training.folding import folded
from router_ml_training.onnx_graph import GraphBuilder

D = len(DENSE_NAMES)
RNG = np.random.default_rng(0)
DENSE = RNG.normal(0.0, 3.0, (200, D)).astype(np.float32)
DENSE[::7, ::3] = np.nan
DENSE[1::9, ::5] = 3e38


def scaled(graph: GraphBuilder) -> str:
    """Columns as every learner takes them: bounded, and known."""
    centred = graph.add("Sub", "dense", graph.constant(RNG.normal(size=D).astype(np.float32)))
    known = graph.add("Where", graph.add("IsNaN", centred), graph.scalar(0.0), centred)
    return graph.add("Clip", known, *(graph.constant(np.array(edge, np.float32)) for edge in (-5.0, 5.0)))


def column(graph: GraphBuilder, tensor: str, place: int) -> str:
    return graph.add("Gather", tensor, graph.constant(np.array([place])), axis=1)


def calibrated(graph: GraphBuilder, tensor: str) -> str:
    tilted = graph.add("Mul", graph.scalar(0.7), graph.add("Sub", tensor, graph.scalar(0.2)))
    return graph.add("Add", graph.scalar(0.1), graph.add("Div", tilted, graph.scalar(1.7)))


def weighted(graph: GraphBuilder, tensor: str) -> str:
    return graph.add("MatMul", tensor, graph.constant(RNG.normal(size=(D, 1)).astype(np.float32)))


def two_heads(graph: GraphBuilder) -> tuple[str, str]:
    columns = scaled(graph)
    heads = [calibrated(graph, column(graph, columns, 3)), calibrated(graph, weighted(graph, columns))]
    tokens = graph.add("Exp", graph.add("Concat", *(column(graph, columns, i) for i in (1, 2)), axis=1))
    return graph.add("Concat", *(graph.add("Sigmoid", head) for head in heads), axis=1), tokens


def one_linear_head(graph: GraphBuilder) -> tuple[str, str]:
    columns = scaled(graph)
    both = graph.constant(RNG.normal(size=(D, 2)).astype(np.float32))
    score = graph.add("MatMul", columns, both)
    return score, graph.add("Exp", score)


def two_clips(graph: GraphBuilder) -> tuple[str, str]:
    columns = scaled(graph)
    first = graph.add("Add", column(graph, columns, 0), graph.scalar(1.0))
    edges = [graph.constant(np.array(edge, np.float32)) for edge in (-1.0, 1.0)]
    again = graph.add("Clip", first, *edges)
    pair = graph.add("Concat", again, column(graph, columns, 1), axis=1)
    return pair, graph.add("Mul", pair, pair)


def unbounded(graph: GraphBuilder) -> tuple[str, str]:
    pair = graph.add("Gather", "dense", graph.constant(np.array([0, 1])), axis=1)
    return graph.add("Mul", pair, graph.scalar(2.0)), graph.add("Add", pair, graph.scalar(1.0))


def drawn(draw: Callable[[GraphBuilder], tuple[str, str]]) -> bytes:
    graph = GraphBuilder()
    adequacy, tokens = draw(graph)
    return graph.model({"adequacy": adequacy, "output_tokens": tokens}, ("small", "large"))


def run(model: bytes) -> list[np.ndarray]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    n = len(DENSE)
    feed = {"dense": DENSE, "ids": np.zeros((n, 1), np.int64), "counts": np.zeros((n, 1), np.float32)}
    found: list[np.ndarray] = session.run(["adequacy", "output_tokens"], feed)
    return found


def kinds(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


@pytest.mark.parametrize("draw", [two_heads, one_linear_head, two_clips, unbounded])
def test_a_folded_graph_says_the_same_of_odd_rows_too(draw: Callable[[GraphBuilder], tuple[str, str]]) -> None:
    before = drawn(draw)
    for old, new in zip(run(before), run(folded(before)), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-6)


def test_heads_that_look_at_the_same_columns_become_one_product() -> None:
    before = drawn(two_heads)
    assert len(kinds(before)) > 20
    assert sorted(kinds(folded(before))) == sorted(
        ["Sub", "IsNaN", "Where", "Clip", "Gemm", "Split", "Exp", "Sigmoid", "Identity", "Identity"]
    )


def test_columns_without_bounds_are_left_alone() -> None:
    # Nought times an infinity is no number: one odd column would spoil the others.
    assert kinds(folded(drawn(unbounded))) == kinds(drawn(unbounded))


def test_facts_inputs_and_outputs_stay() -> None:
    before = drawn(two_heads)
    old, new = (onnx.load_from_string(model) for model in (before, folded(before)))
    assert list(old.metadata_props) == list(new.metadata_props)
    assert list(old.graph.input) == list(new.graph.input)
    assert [one.name for one in old.graph.output] == [one.name for one in new.graph.output]
    assert folded(before) == folded(before)
