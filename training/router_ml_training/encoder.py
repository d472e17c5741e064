"""Fitted feature scaling: inverse document frequencies for the words, mean and deviation for the dense columns.

It is fitted once per training run without looking at any outcome, and drawn into the graph, so that the service
hands over raw counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from router_ml.features import N_BUCKETS, N_TEXT_BUCKETS
from router_ml_training.bumps import Bumps, fit_bumps
from router_ml_training.dataset import Dataset
from router_ml_training.landmarks import MAX_ROWS, sampled
from router_ml_training.latent import Latent, fit_latent
from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["METADATA_WEIGHT", "SHORTEST_TEXT", "Design", "Encoder", "fit_encoder"]

F32: TypeAlias = NDArray[np.float32]

# A whole text has length 1 after scaling; one metadata fact weighs as much as a salient word of a short text.
METADATA_WEIGHT = 0.5
# The length that a text without a known word is divided by.
SHORTEST_TEXT = 1e-6
# Standardised columns are cut here, so that one absurd value cannot outvote everything else.
_CLIP = 4.0


@dataclass(frozen=True, slots=True)
class Design:
    """Encoded rows, all float32.

    `dense` (n, D) as featurised, `scaled` (n, D) standardised, `words` (n, N_BUCKETS) weighted, `curved` (n, R) smooth
    bumps over the scaled columns, `latent` (n, k) coordinates on the encoder's map. An encoder without bumps or without
    a map leaves theirs with no columns.
    """

    dense: F32
    scaled: F32
    words: csr_array
    curved: F32
    latent: F32
    encoder: Encoder

    def __len__(self) -> int:
        return len(self.dense)

    def rows(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Design:
        """Return the rows of that index or mask."""
        taken = {name: getattr(self, name)[index] for name in ("dense", "scaled", "words", "curved", "latent")}
        return replace(self, **taken)


@dataclass(frozen=True, slots=True)
class Encoder:
    """`idf` (N_BUCKETS,) is 0 on metadata buckets; `mean` and `scale` have shape (D,).

    `bumps` and `latent` are None where no learner asks for them.
    """

    idf: F32
    mean: F32
    scale: F32
    bumps: Bumps | None = None
    latent: Latent | None = None

    def encode(self, dataset: Dataset) -> Design:
        """Encode every row of a dataset."""
        scaled, words, empty = self._scaled(dataset), self._words(dataset.text), np.zeros((len(dataset), 0), np.float32)
        curved = empty if self.bumps is None else self.bumps.features(scaled)
        latent = empty if self.latent is None else self.latent.vectors(words)
        return Design(dataset.dense, scaled, words, curved, latent, self)

    def define(self, graph: GraphBuilder) -> None:
        """Name the tensors that heads use.

        `scaled` (n, D) are the standardised columns, NaN standing for the mean; `weights` (n, L) are the word and
        metadata weights, aligned with `ids`; `kernel` (n, R) are the bumps, `curved` (n, R) their features and `latent`
        (n, k) the coordinates.
        """
        bumps, latent = self.bumps, self.latent
        graph.define("scaled", lambda: self._draw_scaled(graph))
        graph.define("weights", lambda: self._draw_weights(graph))
        if bumps is not None:
            graph.define("kernel", lambda: bumps.draw_kernel(graph, graph.named("scaled")))
            graph.define("curved", lambda: graph.add("MatMul", graph.named("kernel"), graph.constant(bumps.mix)))
        if latent is not None:
            graph.define("latent", lambda: latent.draw(graph, graph.named("weights")))

    def _scaled(self, dataset: Dataset) -> F32:
        with np.errstate(over="ignore"):  # an absurd value ends at the clip, as it does in the graph
            scaled = np.nan_to_num((dataset.dense - self.mean) / self.scale, nan=0.0, posinf=_CLIP, neginf=-_CLIP)
        clipped: F32 = np.clip(scaled, -_CLIP, _CLIP).astype(np.float32)
        return clipped

    def _words(self, text: csr_array) -> csr_array:
        is_text = text.indices < N_TEXT_BUCKETS
        values = text.data * self.idf[text.indices]
        squares = csr_array((values * values, text.indices, text.indptr), shape=text.shape)
        norms = np.sqrt(np.maximum(np.asarray(squares.sum(axis=1)).ravel(), SHORTEST_TEXT**2)).astype(np.float32)
        per_value = np.repeat(norms, np.diff(text.indptr))
        weights = np.where(is_text, values / per_value, text.data * np.float32(METADATA_WEIGHT))
        return csr_array((weights.astype(np.float32), text.indices, text.indptr), shape=text.shape)

    def _draw_scaled(self, graph: GraphBuilder) -> str:
        factors = (1.0 / self.scale.astype(np.float64)).astype(np.float32)
        scaled = graph.add("Scaler", "dense", domain="ai.onnx.ml", offset=self.mean.tolist(), scale=factors.tolist())
        missing = {"imputed_value_floats": [0.0], "replaced_value_float": float("nan")}
        known = graph.add("Imputer", scaled, domain="ai.onnx.ml", **missing)
        return graph.add(
            "Clip", known, graph.constant(np.array(-_CLIP, np.float32)), graph.constant(np.array(_CLIP, np.float32))
        )

    def _draw_weights(self, graph: GraphBuilder) -> str:
        values = graph.add("Mul", "counts", graph.add("Gather", graph.constant(self.idf), "ids"))
        axis = graph.constant(np.array([1], np.int64))
        norm = graph.add("Max", graph.add("ReduceL2", values, axis, keepdims=1), graph.scalar(SHORTEST_TEXT))
        is_metadata = graph.add("GreaterOrEqual", "ids", graph.constant(np.array([N_TEXT_BUCKETS], np.int64)))
        metadata = graph.add("Mul", "counts", graph.scalar(METADATA_WEIGHT))
        return graph.add("Where", is_metadata, metadata, graph.add("Div", values, norm))


def fit_encoder(dataset: Dataset, *, curved: bool = True, latent: bool = True, seed: int = 0) -> Encoder:
    """Fit the scaling on training rows; outcomes are not looked at.

    Args:
        dataset: Training rows.
        curved: Whether to fit bumps over the dense columns.
        latent: Whether to fit the map of what requests are about.
        seed: For the landmarks of both.

    Source: smoothed inverse document frequency, ln((1 + n) / (1 + df)) + 1.
    """
    seen = np.bincount(dataset.text.indices, minlength=N_BUCKETS)
    idf = np.log((1 + len(dataset)) / (1 + seen)) + 1
    idf[N_TEXT_BUCKETS:] = 0.0
    deviation = np.nanstd(dataset.dense.astype(np.float64), axis=0)
    mean = np.nanmean(dataset.dense.astype(np.float64), axis=0)
    # A column that never varied in training says nothing later either: it is switched off.
    scale = np.where(deviation > 1e-6, deviation, 1e6)
    plain = Encoder(idf.astype(np.float32), mean.astype(np.float32), scale.astype(np.float32))
    some = dataset.rows(sampled(len(dataset), MAX_ROWS, seed=seed))
    return replace(
        plain,
        bumps=fit_bumps(plain._scaled(some), seed=seed) if curved else None,
        latent=fit_latent(plain._words(some.text), seed=seed) if latent else None,
    )
