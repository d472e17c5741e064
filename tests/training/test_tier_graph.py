"""Graphs that get one more tier, or another order: parity, and not a bit changed elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from router_ml.errors import ParityError
from router_ml.features import DENSE_NAMES, FeatureBatch
from router_ml.graph import OUTPUTS, open_graph
from router_ml_training.onboarding import Lengths, NewTierHead
from router_ml_training.onnx_graph import GraphBuilder
from router_ml_training.tier_graph import check_tier, reordered, tiers_of, with_tier

D = len(DENSE_NAMES)
LENGTHS = Lengths(of=1, ratio=1.5, n_rows=100)


@pytest.fixture
def graph() -> bytes:
    """Two tiers whose scores depend on the columns."""
    rng = np.random.default_rng(0)
    builder = GraphBuilder()
    weights = builder.constant(rng.normal(0.0, 0.1, (D, 2)).astype(np.float32))
    known = builder.add("Where", builder.add("IsNaN", "dense"), builder.scalar(0.0), "dense")
    edges = [builder.constant(np.array(edge, np.float32)) for edge in (-3.0, 3.0)]
    score = builder.add("MatMul", builder.add("Clip", known, *edges), weights)
    outputs = {"adequacy": builder.add("Sigmoid", score), "output_tokens": builder.add("Exp", score)}
    return builder.model(outputs, ("small", "large"))


@pytest.fixture
def head() -> NewTierHead:
    rng = np.random.default_rng(1)
    slopes, columns, mean = (rng.normal(0.0, scale, n).astype(np.float32) for scale, n in ((1, 2), (0.2, D), (1, D)))
    return NewTierHead(slopes, columns, mean, np.abs(mean) + np.float32(0.1), 0.3)


@pytest.fixture
def batch() -> FeatureBatch:
    dense = np.random.default_rng(2).normal(0.0, 1.0, (50, D)).astype(np.float32)
    return FeatureBatch(dense, np.zeros((50, 0), np.int64), np.zeros((50, 0), np.float32), np.ones(50))


def scored(graph: bytes, batch: FeatureBatch) -> list[np.ndarray]:
    feed = {"dense": batch.dense, "ids": np.zeros((50, 1), np.int64), "counts": np.zeros((50, 1), np.float32)}
    found: list[np.ndarray] = open_graph(graph, "test").run(list(OUTPUTS), feed)
    return found


def test_the_new_column_is_the_head_and_the_others_are_the_same_bits(
    graph: bytes, head: NewTierHead, batch: FeatureBatch
) -> None:
    longer = with_tier(graph, "turbo", head, LENGTHS, ("small", "turbo", "large"))
    assert tiers_of(longer) == ("small", "turbo", "large")
    assert check_tier(graph, longer, "turbo", head, LENGTHS, batch) < 1e-5
    (p, tokens), (q, lengths) = scored(graph, batch), scored(longer, batch)
    np.testing.assert_array_equal(q[:, [0, 2]], p)
    np.testing.assert_array_equal(lengths[:, [0, 2]], tokens)
    np.testing.assert_allclose(q[:, 1], head.probability(p.astype(float), batch.dense), atol=1e-5)
    np.testing.assert_allclose(lengths[:, 1], 1.5 * tokens[:, 1], rtol=1e-5)


def test_tiers_can_be_added_again_and_again(graph: bytes, head: NewTierHead, batch: FeatureBatch) -> None:
    names = ["small", "large"]
    for i in range(4):
        names.insert(i, f"t{i}")
        k = len(names) - 1
        wider = replace(head, slopes=np.linspace(0.1, 0.5, k).astype(np.float32))
        longer = with_tier(graph, f"t{i}", wider, LENGTHS, names)
        check_tier(graph, longer, f"t{i}", wider, LENGTHS, batch)
        graph = longer
    assert tiers_of(graph) == tuple(names)


def test_another_order_is_the_same_columns(graph: bytes, batch: FeatureBatch) -> None:
    assert reordered(graph, ("small", "large")) == graph
    turned = reordered(graph, ("large", "small"))
    assert tiers_of(turned) == ("large", "small")
    for before, after in zip(scored(graph, batch), scored(turned, batch), strict=True):
        np.testing.assert_array_equal(after[:, ::-1], before)


def test_a_column_that_is_not_the_head_is_refused(graph: bytes, head: NewTierHead, batch: FeatureBatch) -> None:
    names = ("small", "turbo", "large")
    longer = with_tier(graph, "turbo", head, LENGTHS, names)
    with pytest.raises(ParityError, match="is not the fitted head"):
        check_tier(graph, longer, "turbo", replace(head, shift=head.shift + 0.1), LENGTHS, batch)
    with pytest.raises(ParityError, match="is not the fitted head"):
        check_tier(graph, longer, "turbo", head, replace(LENGTHS, ratio=2.0), batch)
    other = with_tier(reordered(graph, ("large", "small")), "turbo", head, LENGTHS, names)
    swapped = reordered(other, ("large", "turbo", "small"))
    renamed = swapped.replace(b'["large", "turbo", "small"]', b'["small", "turbo", "large"]')
    with pytest.raises(ParityError, match="changed what the graph says of other tiers"):
        check_tier(graph, renamed, "turbo", head, LENGTHS, batch)
