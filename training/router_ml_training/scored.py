"""Rows with what a model says about them, whether it is freshly trained or a bundle from the shelf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import Bundle
from router_ml.errors import DataError
from router_ml.ladder import Ladder
from router_ml.manifest import PriceUnit
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.frontier import expected_cost, filled_outcomes
from router_ml_training.tasks import AdequacyModel, TokenModel

__all__ = ["Scored", "score_with_bundle", "score_with_models"]

F64: TypeAlias = NDArray[np.float64]

_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows with adequacy (n, K) and expected cost (n, K, USD), as the policy decides with them."""

    dataset: Dataset
    adequacy: F64
    cost_usd: F64

    def cost_in(self, unit: PriceUnit) -> F64:
        """Return the expected cost in the unit that a policy's shadow price is meant in, (n, K)."""
        if unit == "usd":
            return self.cost_usd
        largest = self.cost_usd.max(axis=1, keepdims=True)
        return self.cost_usd / np.where(largest > 0, largest, 1.0)

    def outcomes(self) -> tuple[Outcomes, NDArray[np.int64]]:
        """Return what every tier did on the rows it is known for, and those rows; see `filled_outcomes`."""
        return filled_outcomes(self.dataset, self.adequacy, self.cost_usd)


def score_with_models(dataset: Dataset, model: AdequacyModel, tokens: TokenModel, ladder: Ladder) -> Scored:
    """Score rows with freshly trained models."""
    design = model.encoder.encode(dataset)
    return Scored(dataset, model.predict(design), expected_cost(dataset, tokens.predict(design), ladder))


def score_with_bundle(dataset: Dataset, bundle: Bundle, ladder: Ladder) -> Scored:
    """Score rows with a bundle, through its graph, as the service would.

    Args:
        dataset: Rows over the bundle's tiers.
        bundle: A loaded bundle.
        ladder: Prices to expect costs at; its tiers are the bundle's.

    Raises:
        DataError: When the rows are about other tiers than the bundle.
    """
    if dataset.tiers != bundle.ladder.names:
        raise DataError(
            f"{bundle.version} routes between {', '.join(bundle.ladder.names)}, the log is about "
            f"{', '.join(dataset.tiers)}: measure it on a log of its own tiers, or train a bundle for these"
        )
    adequacy, tokens = np.empty(dataset.quality.shape), np.empty(dataset.quality.shape)
    for start in range(0, len(dataset), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(dataset)))
        adequacy[rows], tokens[rows] = bundle.score_many(dataset.features(rows))
    return Scored(dataset, adequacy, expected_cost(dataset, tokens, ladder))
