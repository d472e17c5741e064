"""Heads that are linear in what the encoder gives, with trees on top or without: those of all tiers are drawn as one.

One product per block of columns instead of one per block and tier: a graph of a third of the nodes, which is what its
running time depends on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from router_ml.features import N_BUCKETS, N_TEXT_BUCKETS
from router_ml_training.encoder import METADATA_WEIGHT, SHORTEST_TEXT, Encoder
from router_ml_training.learners.trees import Trees, draw_trees
from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["HasParts", "LinearParts", "draw_logits"]

F32: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LinearParts:
    """What a logit is the sum of; None: nothing of that kind.

    `words` (N_BUCKETS,) and `dense` (D,) and `curved` (R,) are coefficients; `history`, a number per metadata bucket,
    is averaged over the facts of a request; `factor` multiplies what `trees` give.
    """

    intercept: float
    words: F32 | None = None
    dense: F32 | None = None
    curved: F32 | None = None
    history: F32 | None = None
    trees: Trees | None = None
    factor: float = 1.0

    def calibrated(self, slope: float, shift: float) -> LinearParts:
        """Return the parts of slope times the logit, plus shift."""
        times = np.float32(slope)
        words, dense, curved, history = (
            None if one is None else one * times for one in (self.words, self.dense, self.curved, self.history)
        )
        intercept, factor = slope * self.intercept + shift, slope * self.factor
        return replace(
            self, intercept=intercept, words=words, dense=dense, curved=curved, history=history, factor=factor
        )


@runtime_checkable
class HasParts(Protocol):
    """A head whose logit is a sum of such parts."""

    def parts(self) -> LinearParts:
        """Return the parts."""
        ...


def draw_logits(graph: GraphBuilder, encoder: Encoder, tiers: Sequence[LinearParts]) -> str:
    """Add the nodes that compute the logits of all tiers and return their tensor, (n, K).

    Args:
        graph: The encoder's tensors are defined in it.
        encoder: The one that the heads were fitted with.
        tiers: Parts by tier.
    """
    intercept = np.array([one.intercept for one in tiers], np.float32)
    dense = _columns([one.dense for one in tiers], len(encoder.mean))
    logits = graph.add("Gemm", graph.named("scaled"), graph.constant(dense), graph.constant(intercept))
    if encoder.bumps is not None:
        curved = _columns([one.curved for one in tiers], encoder.bumps.mix.shape[1])
        if curved.any():
            mixed = (encoder.bumps.mix.astype(np.float64) @ curved).astype(np.float32)
            logits = graph.add("Gemm", graph.named("kernel"), graph.constant(mixed), logits)
    words = _columns([one.words for one in tiers], N_BUCKETS)
    history = _columns([one.history for one in tiers], N_BUCKETS - N_TEXT_BUCKETS)
    if words.any() or history.any():
        logits = graph.add("Add", logits, _draw_bag(graph, encoder, words, history))
    if any(one.trees is not None for one in tiers):
        grown = draw_trees(graph, [one.trees for one in tiers], [one.factor for one in tiers])
        logits = graph.add("Add", logits, grown)
    return logits


def _columns(blocks: Sequence[F32 | None], size: int) -> F32:
    none = np.zeros(size, np.float32)
    # A learner that was not given a block has coefficients of no length for it.
    return np.stack([none if one is None or not len(one) else one for one in blocks], axis=1)


def _draw_bag(graph: GraphBuilder, encoder: Encoder, words: F32, history: F32) -> str:
    """Add what words and metadata add to the logits, (n, K), with one look-up for every id.

    A text counts as a whole, divided by its length: the sums of what words give and of the squares that the length is
    the root of are taken with one product. History is the mean over facts; metadata ids have the weight 1.
    """
    k, is_text = words.shape[1], (np.arange(N_BUCKETS) < N_TEXT_BUCKETS)[:, None]
    idf, fact = encoder.idf[:, None] * is_text, (~is_text).astype(np.float32)
    past = np.concatenate((np.zeros((N_TEXT_BUCKETS, k), np.float32), history))
    table = np.concatenate((words * idf, words * fact * np.float32(METADATA_WEIGHT), past, fact, idf * idf), axis=1)
    width = table.shape[1]
    found = graph.add("Gather", graph.constant(table.astype(np.float32)), "ids")
    weights = graph.add("Concat", "counts", graph.add("Mul", "counts", "counts"), axis=1)
    weights = graph.add("Reshape", weights, graph.constant(np.array([0, 2, -1], np.int64)))
    sums = graph.add("Flatten", graph.add("MatMul", weights, found))
    # The squares of the weights are wanted times the squares of the inverse frequencies only, in the last column.
    text, facts, past_sum, n_facts, _, energy = graph.split(sums, [k, k, k, 1, width, 1])
    length = graph.add("Max", graph.add("Sqrt", energy), graph.scalar(SHORTEST_TEXT))
    mean = graph.add("Div", past_sum, graph.add("Max", n_facts, graph.scalar(1.0)))
    return graph.add("Sum", graph.add("Div", text, length), facts, mean)
