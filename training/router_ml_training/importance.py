"""Which features a router leans on: how much worse it predicts, and how often it decides otherwise, without them.

A part of the features is permuted between held-out rows, so that it keeps its values and loses its meaning. The model
is asked through one function, whatever learned it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.sparse import csr_array

from router_ml.bundle import Bundle, PolicySpec
from router_ml.features import DENSE_NAMES, N_BUCKETS, N_TEXT_BUCKETS
from router_ml_training.candidates import log_loss
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.compare import standard_error
from router_ml_training.evaluation.curves import choose
from router_ml_training.evaluation.figures_review import Importance
from router_ml_training.scored import Scored
from router_ml_training.tasks import AdequacyModel

__all__ = [
    "GROUPS",
    "bundle_chances",
    "feature_parts",
    "importance_of",
    "model_chances",
    "permutation_importance",
]

F64: TypeAlias = NDArray[np.float64]
# Adequacy of every tier, (n, K), for rows of a dataset.
Predict: TypeAlias = Callable[[Dataset], F64]
# Expected cost of every tier on the same rows, (n, K), and the shadow price in its unit.
Priced: TypeAlias = tuple[F64, float]

# Whole blocks of features, which share what their columns tell; the rest are single columns.
GROUPS = ("words", "metadata", "all of text", "all of structure")
# A decision costs some 0.1 ms in bulk, so that this many are seconds, whatever the log.
_PREDICTIONS = 60_000
_MOST_ROWS = 2_000
_CHUNK = 1_000


def feature_parts() -> Mapping[str, tuple[int, ...]]:
    """Return the parts by name with their dense columns; `words` and `metadata` have none, they are hashed ids."""
    blocks = {
        f"all of {name}": tuple(i for i, column in enumerate(DENSE_NAMES) if column.startswith(f"{name}."))
        for name in ("text", "structure")
    }
    return {"words": (), "metadata": (), **blocks, **{name: (i,) for i, name in enumerate(DENSE_NAMES)}}


def permutation_importance(
    dataset: Dataset, predict: Predict, priced: Priced, *, rng: Generator, predictions: int = _PREDICTIONS
) -> tuple[Importance, ...]:
    """Permute each part of the features, and measure what that does to the log loss and to the decisions.

    Outcomes that are known only because a cheaper tier failed are left out. Columns that say the same share what they
    tell, so that each alone looks small: the blocks are measured as a whole, too. Columns that never vary are left out.

    Args:
        dataset: Held-out rows, some of them with a known outcome.
        predict: The model; asked for the rows of a dataset, it must not look at their outcomes.
        priced: Expected cost of every tier on the rows (n, K), and the shadow price per unit of it, as the policy
            decides with them. Costs stay what they are.
        rng: Draws the rows and the permutations.
        predictions: How many rows the model is asked about in all, which bounds the time: fewer rows are then used.

    Returns:
        The parts, the most important first; none where no outcome is known.
    """
    free = dataset.free_quality
    known = np.flatnonzero(~np.isnan(free).all(axis=1))
    parts = {name: columns for name, columns in feature_parts().items() if _varies(dataset.rows(known), name, columns)}
    most = min(len(known), _MOST_ROWS, predictions // (len(parts) + 1))
    if most < 2 or not parts:
        return ()
    index = np.sort(rng.permutation(known)[:most])
    rows, cost, price = dataset.rows(index), priced[0][index], priced[1]
    quality, group = free[index], dataset.group[index]
    before = predict(rows)
    loss, chosen = log_loss(before, quality), choose(before, cost, price)
    found = []
    for name, columns in parts.items():
        after = predict(_permuted(rows, name, columns, rng.permutation(most)))
        risen = log_loss(after, quality) - loss
        mean, error = float(risen.mean()), _error(risen, group)
        moved = float(np.mean(choose(after, cost, price) != chosen))
        found.append(Importance(name, mean, mean - 1.96 * error, mean + 1.96 * error, moved, name in GROUPS))
    return tuple(sorted(found, key=lambda one: -one.loss))


def _error(values: F64, group: NDArray[np.int64]) -> float:
    return standard_error(values, group) if len(np.unique(group)) > 1 else 0.0


def _is_text(ids: NDArray[np.integer]) -> NDArray[np.bool_]:
    return np.asarray(ids < N_TEXT_BUCKETS, np.bool_)


def _varies(rows: Dataset, name: str, columns: tuple[int, ...]) -> bool:
    if columns:
        return bool(len(rows)) and bool((rows.dense[:, columns] != rows.dense[:1, columns]).any())
    side = _is_text(rows.text.indices) == (name == "words")
    return bool(side.any())


def _permuted(rows: Dataset, name: str, columns: tuple[int, ...], order: NDArray[np.int64]) -> Dataset:
    """Return the rows with a part of their features taken from other rows, in that order."""
    if not columns:
        mixed = _side(rows.text[order], words=name == "words") + _side(rows.text, words=name != "words")
        mixed.sort_indices()
        return replace(rows, text=csr_array(mixed, dtype=np.float32))
    dense = rows.dense.copy()
    dense[:, columns] = rows.dense[np.ix_(order, np.array(columns, np.int64))]
    return replace(rows, dense=dense)


def _side(text: csr_array, *, words: bool) -> csr_array:
    """Return the hashed ids of words alone, or of metadata alone, (n, N_BUCKETS)."""
    keep = _is_text(text.indices) == words
    starts = np.concatenate([[0], np.cumsum(keep)])[text.indptr]
    return csr_array((text.data[keep], text.indices[keep], starts), shape=(text.shape[0], N_BUCKETS))


def importance_of(
    scored: Scored, policy: PolicySpec, predict: Predict, *, quality: float, rng: Generator
) -> tuple[Importance, ...]:
    """Return what each part of the features is worth to a policy on held-out rows; see `permutation_importance`.

    Decisions are those of single attempts: what is thought before the call.

    Args:
        scored: The rows, with the costs the policy decides with.
        policy: Its prices.
        predict: The model, such as `bundle_chances` or that of a fresh training run.
        quality: Share of the best tier's quality that the policy is to keep.
        rng: Draws the rows and the permutations.
    """
    price, _ = policy.operating(quality, attempts=1)
    return permutation_importance(scored.dataset, predict, (scored.cost_in(policy.price_unit), price), rng=rng)


def bundle_chances(bundle: Bundle) -> Predict:
    """Return the function that asks a bundle's graph for the adequacy of every tier."""

    def predict(rows: Dataset) -> F64:
        parts = [np.arange(start, min(start + _CHUNK, len(rows))) for start in range(0, len(rows), _CHUNK)]
        return np.concatenate([bundle.score_many(rows.features(part))[0] for part in parts])

    return predict


def model_chances(model: AdequacyModel) -> Predict:
    """Return the function that asks a freshly trained model for the adequacy of every tier."""
    return lambda rows: model.predict(model.encoder.encode(rows))
