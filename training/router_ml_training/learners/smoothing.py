"""A head that averages what came out near landmarks of the encoder's map, the nearer the heavier.

Nearness enters by a kernel, not by the k nearest: no ties, and no neighbour that onnxruntime's rounding swaps in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit as logit_of

from router_ml_training.encoder import Design
from router_ml_training.learners.protocol import Fit
from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["SmoothHead", "smooth"]

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]

_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class SmoothHead:
    """`places` (P, k) float32 are landmarks, `value` (P,) float32 shrunken means, `bias` (P,) float32 log masses.

    The weight of a landmark is exp(sharpness * cosine + bias), over the sum of all.
    """

    places: F32
    value: F32
    bias: F32
    sharpness: float

    def logit(self, design: Design) -> F64:
        """Return the logit of the weighted mean, shape (n,)."""
        return np.asarray(logit_of(self.mean(design.latent)), np.float64)

    def mean(self, latent: F32) -> F64:
        """Return the weighted mean at coordinates (n, k), shape (n,), within (0, 1)."""
        out = np.empty(len(latent))
        places = (self.sharpness * self.places.astype(np.float64)).T
        for start in range(0, len(latent), _CHUNK):
            part = slice(start, start + _CHUNK)
            score = latent[part].astype(np.float64) @ places + self.bias
            weight = np.exp(score - score.max(axis=1, keepdims=True))
            out[part] = weight @ self.value.astype(np.float64) / weight.sum(axis=1)
        return out

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add a product, a softmax, a product, and the logit."""
        places = (self.sharpness * self.places.astype(np.float64)).T.astype(np.float32)
        score = graph.add(
            "Add", graph.add("MatMul", graph.named("latent"), graph.constant(places)), graph.constant(self.bias)
        )
        weight = graph.add("Softmax", score, axis=1)
        mean = graph.add("MatMul", weight, graph.constant(self.value[:, None]))
        odds = graph.add("Div", mean, graph.add("Sub", graph.scalar(1.0), mean))
        return graph.add("Log", odds)


def smooth(fit: Fit, places: F32, sharpness: float, *, prior_rows: float, by_mass: bool) -> SmoothHead:
    """Give each landmark the shrunken mean of the rows that are nearest to it.

    Args:
        fit: Rows with coordinates, targets and weights; not all weight on one side.
        places: Landmarks, (P, k).
        sharpness: How fast a landmark's weight falls with the cosine.
        prior_rows: Weight of the overall mean in each landmark's mean.
        by_mass: Whether a landmark weighs as much as the rows behind it (a kernel mean over rows), or all alike.
    """
    nearest = _nearest(fit.design.latent, places)
    mass = np.bincount(nearest, fit.weight, len(places))
    hits = np.bincount(nearest, fit.weight * fit.target, len(places))
    mean = float(hits.sum() / mass.sum())
    value = (hits + prior_rows * mean) / (mass + prior_rows)
    bias = np.log(mass + prior_rows) if by_mass else np.zeros(len(places))
    return SmoothHead(places, value.astype(np.float32), bias.astype(np.float32), sharpness)


def _nearest(latent: F32, places: F32) -> NDArray[np.int64]:
    out = np.empty(len(latent), np.int64)
    for start in range(0, len(latent), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = np.argmax(latent[part] @ places.T, axis=1)
    return out
