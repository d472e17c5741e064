"""Fitted models -> one ONNX graph, and the parity gate that it has to pass before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.errors import ParityError
from router_ml.features import FeatureBatch
from router_ml.graph import OUTPUTS, open_graph
from router_ml.ladder import Ladder
from router_ml.manifest import PriceUnit
from router_ml_training.dataset import Dataset
from router_ml_training.folding import folded
from router_ml_training.frontier import expected_cost
from router_ml_training.learners.ensemble import StackedHead
from router_ml_training.learners.gbdt import BoostedHead
from router_ml_training.learners.trees import Trees
from router_ml_training.onnx_graph import GraphBuilder
from router_ml_training.scored import Scored
from router_ml_training.tasks import AdequacyModel
from router_ml_training.tokens import TokenModel

__all__ = ["TOLERANCE", "ParityReport", "check_parity", "to_onnx"]

F64: TypeAlias = NDArray[np.float64]
F32: TypeAlias = NDArray[np.float32]

N_ROWS = 10_000
TOLERANCE = 1e-5
_CHUNK = 500
# Between tiers worth the same to six digits rounding may take either, and nobody loses: that is no flipped decision.
_TIE = 1e-6
# Largest value that a feature may take (features are finite by contract; this is beyond all of them).
_EXTREME = 3e38


@dataclass(frozen=True, slots=True)
class ParityReport:
    """How far the graph is from the trained model: rows compared, largest difference, decisions that flipped."""

    n_rows: int
    max_difference: float
    n_flipped: int
    max_token_difference: float


def to_onnx(adequacy: AdequacyModel, tokens: TokenModel) -> bytes:
    """Draw both models into one graph: `adequacy` (n, K) and `output_tokens` (n, K)."""
    graph = GraphBuilder()
    columns = adequacy.add_to_graph(graph)
    return folded(graph.model({"adequacy": columns, "output_tokens": tokens.add_to_graph(graph)}, adequacy.tiers))


def check_parity(
    graph: bytes,
    adequacy: AdequacyModel,
    tokens: TokenModel,
    dataset: Dataset,
    *,
    ladder: Ladder,
    shadow_price: float,
    rng: np.random.Generator,
    price_unit: PriceUnit = "usd",
    n_rows: int = N_ROWS,
) -> ParityReport:
    """Score the same rows with the trained model and with the graph.

    The rows are the dataset's, replayed; where it has fewer than `n_rows`, the rest are perturbed copies; on top come
    rows with values on and one step beside tree thresholds, with NaN and with extreme values.

    Args:
        graph: The serialised graph.
        adequacy: The trained model.
        tokens: The trained answer-length model.
        dataset: Rows to replay.
        ladder: Prices, to compare decisions and not only numbers.
        shadow_price: The price at which the decisions are taken.
        rng: For the perturbations.
        price_unit: What the shadow price is per.
        n_rows: Ordinary rows to compare.

    Raises:
        ParityError: When a probability differs by more than 1e-5, or a decision flips.
    """
    session = open_graph(graph, "the exported graph")
    largest = token_gap = 0.0
    flipped = total = 0
    replay = _replayed(dataset, _thresholds(adequacy, tokens), n_rows, rng)
    for start in range(0, len(replay), _CHUNK):
        part = replay.rows(np.arange(start, min(start + _CHUNK, len(replay))))
        design = adequacy.encoder.encode(part)
        expected, lengths = adequacy.predict(design), tokens.predict(design)
        got, got_lengths = _run(session, part.features(np.arange(len(part))))
        largest = max(largest, _gap(expected, got))
        token_gap = max(token_gap, _gap(np.log(lengths), np.log(got_lengths)))
        worth, again = (
            p - shadow_price * Scored(part, p, expected_cost(part, length, ladder)).cost_in(price_unit)
            for p, length in ((expected, lengths), (got, got_lengths))
        )
        flipped += _flips(worth, again)
        total += len(part)
    report = ParityReport(total, largest, flipped, token_gap)
    if flipped or largest > TOLERANCE or token_gap > 1e-3:
        raise ParityError(
            f"the exported graph is not the trained model: over {total} rows {flipped} decisions flip, adequacy "
            f"differs by up to {largest:.1e} (allowed {TOLERANCE:.0e}) and log token counts by up to {token_gap:.1e}; "
            "nothing was written. This is a fault of the exporter: report it with the learner's name"
        )
    return report


def _run(session: Any, batch: FeatureBatch) -> tuple[F64, F64]:
    feed = {"dense": batch.dense, "ids": batch.ids, "counts": batch.counts}
    adequacy, tokens = session.run(list(OUTPUTS), feed)
    return np.asarray(adequacy, np.float64), np.asarray(tokens, np.float64)


def _gap(a: F64, b: F64) -> float:
    difference = np.abs(a - b)
    return float("inf") if np.isnan(difference).any() else float(difference.max(initial=0.0))


def _flips(worth: F64, got: F64) -> int:
    everyone = np.arange(len(worth))
    lost = worth.max(axis=1) - worth[everyone, np.argmax(got, axis=1)]
    return int((lost > _TIE * (1.0 + np.abs(worth).max(axis=1))).sum())


def _replayed(dataset: Dataset, thresholds: list[tuple[int, float]], n_rows: int, rng: np.random.Generator) -> Dataset:
    n = len(dataset)
    replayed = rng.permutation(n)[:n_rows]
    repeats = rng.integers(0, n, max(n_rows - n, 0))
    odd = rng.integers(0, n, max(n_rows // 10, 100))
    rows = dataset.rows(np.concatenate((replayed, repeats, odd)))
    dense = rows.dense.copy()
    start = len(replayed)
    noise = rng.normal(0.0, 0.3, (len(repeats), dense.shape[1])) * dataset.dense.std(axis=0)
    dense[start : start + len(repeats)] += noise.astype(np.float32)
    _make_odd(dense[start + len(repeats) :], thresholds, rng)
    return replace(rows, dense=_contract(dense))


def _make_odd(dense: F32, thresholds: list[tuple[int, float]], rng: np.random.Generator) -> None:
    # In place: a third of the rows get values on or one step beside a threshold, a third NaN, a third extremes.
    n, width = dense.shape
    for i in range(n):
        columns = rng.integers(0, width, 3)
        if i % 3 == 0 and thresholds:
            feature, threshold = thresholds[int(rng.integers(len(thresholds)))]
            step = np.float32(rng.choice([-np.inf, np.inf]))
            beside = np.nextafter(np.float32(threshold), step)
            dense[i, feature] = np.float32(threshold) if rng.random() < 0.5 else beside
        elif i % 3 == 1:
            dense[i, columns] = np.nan
        else:
            dense[i, columns] = rng.choice(np.array([-_EXTREME, -1e6, 0.0, 1e6, _EXTREME], np.float32), 3)


def _contract(dense: F32) -> F32:
    # The feature contract: no infinities, and nothing so small that LightGBM takes it for zero and ONNX does not.
    dense = np.clip(dense, -_EXTREME, _EXTREME)
    dense[np.abs(dense) < 1e-30] = 0.0
    return dense


def _thresholds(adequacy: AdequacyModel, tokens: TokenModel) -> list[tuple[int, float]]:
    ensembles: list[Trees] = [one.trees for one in tokens.grown if one is not None]
    for model in adequacy.models:
        if isinstance(model.head, BoostedHead):
            ensembles.append(model.head.trees)
        elif isinstance(model.head, StackedHead):
            ensembles.extend(model.head.trees)
    return [split for trees in ensembles for split in trees.thresholds]
