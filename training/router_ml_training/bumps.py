"""Smooth bumps over the dense columns: what a straight line in each column cannot say, and no branch can flip.

Each bump is a Gaussian around a landmark; together they span the requests as a radial kernel does. They are fitted
without outcomes, once per encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml_training.landmarks import landmarks
from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["Bumps", "fit_bumps"]

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]

N_BUMPS = 64
# The square of a distance is divided by twice the number of columns that vary. On training folds of MMLU half and
# double of it tie.
_WIDTH = 0.5
# Directions of the kernel with less than this eigenvalue are left out: they are rounding error by the time they count.
_SMALLEST = 0.01


@dataclass(frozen=True, slots=True)
class Bumps:
    """`centres` (R, D) in standardised columns, `rate` of decay, `mix` (R, R): kernel values to features; float32."""

    centres: F32
    rate: float
    mix: F32

    def features(self, scaled: F32) -> F32:
        """Return features (n, R) of standardised columns (n, D); their inner products are close to the kernel."""
        return (self._kernel(scaled) @ self.mix.astype(np.float64)).astype(np.float32)

    def draw_kernel(self, graph: GraphBuilder, scaled: str) -> str:
        """Add the nodes that compute the kernel's values (n, R); times `mix` they are the features."""
        centres, rate = self.centres.astype(np.float64), self.rate
        theirs = graph.constant((-rate * (centres * centres).sum(axis=1)[None, :]).astype(np.float32))
        cross = graph.add("Gemm", scaled, graph.constant((2.0 * rate * centres.T).astype(np.float32)), theirs)
        # A request's own square, the same for every centre, as one more product: there is no cheaper way in the graph.
        same = graph.constant(np.full(centres.T.shape, -rate, np.float32))
        decay = graph.add("Gemm", graph.add("Mul", scaled, scaled), same, cross)
        return graph.add("Exp", graph.add("Min", decay, graph.scalar(0.0)))

    def _kernel(self, scaled: F32) -> F64:
        x, centres = scaled.astype(np.float64), self.centres.astype(np.float64)
        distance = (x * x).sum(axis=1)[:, None] + (centres * centres).sum(axis=1)[None, :] - 2.0 * x @ centres.T
        kernel: F64 = np.exp(-self.rate * np.maximum(distance, 0.0))
        return kernel


def fit_bumps(scaled: F32, *, seed: int = 0) -> Bumps:
    """Fit landmarks and the mixture that turns kernel values into features.

    Args:
        scaled: Standardised columns of the training rows, (n, D) float32.
        seed: For the landmarks.

    Source: Williams and Seeger 2001, the Nystroem method; k-means landmarks after Zhang, Tsang and Kwok 2008.
    """
    centres = landmarks(scaled, N_BUMPS, seed=seed)
    n_varying = int((scaled.std(axis=0) > 1e-3).sum()) if len(scaled) else 0
    bumps = Bumps(centres, _WIDTH / max(n_varying, 1), np.eye(len(centres), dtype=np.float32))
    values, vectors = np.linalg.eigh(bumps._kernel(centres))
    kept = values > _SMALLEST
    mix = np.where(kept, vectors / np.sqrt(np.maximum(values, _SMALLEST)), 0.0)
    return Bumps(centres, bumps.rate, mix.astype(np.float32))
