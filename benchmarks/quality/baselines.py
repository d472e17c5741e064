"""Routers to beat: k nearest neighbours, RouteLLM's matrix factorisation, and a rule of key words.

All of them see what the product sees, the hashed words of a request, and are fitted on train rows only; what has to be
chosen (k, the ridge) is chosen on the tune rows. None of them uses the product's encoder or learners.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array, csr_matrix
from scipy.special import expit
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.neighbors import NearestNeighbors

from router_ml.features.scan import WORD_KIND, bucket_of
from router_ml_training.dataset import Dataset, joined

__all__ = ["FACTORS", "KEYWORDS", "NEIGHBOURS", "baseline_adequacy", "keyword_count", "neighbour_means"]

F64: TypeAlias = NDArray[np.float64]

NEIGHBOURS, FACTORS, KEYWORDS = "k-nearest neighbours", "mf-reimpl", "keyword rule"

_KS = (20, 40, 80, 160, 320)
_EMBEDDING = 64
_RANK = 16
_RIDGES = (1e-4, 1e-3, 1e-2)
# Words of requests that take more than looking something up; written down before any table was looked at.
_HARD_WORDS = (
    *(
        "prove",
        "derive",
        "calculate",
        "compute",
        "solve",
        "integral",
        "equation",
        "theorem",
        "probability",
        "algorithm",
    ),
    *("analyze", "analyse", "compare", "evaluate", "explain", "why", "design", "implement", "debug", "optimize"),
    *("must", "exactly", "unless", "except", "not", "assuming", "suppose", "respectively", "both", "most", "least"),
)


def baseline_adequacy(train: Dataset, tune: Dataset, test: Dataset, *, seed: int) -> Mapping[str, F64]:
    """Return what the learned baselines say about each test row and tier, by name, (m, K) each.

    Neighbours give a share of successes, the factorisation a logit; only differences between tiers mean something.

    Args:
        train: Rows to fit on, every outcome known.
        tune: Rows to choose k and the ridge on; then fitted on too.
        test: Rows to score.
        seed: For the decomposition and the starting values.
    """
    learned = joined(train, tune)
    weighting = TfidfTransformer().fit(_bag(learned))
    fitted, held_out, scored = (weighting.transform(_bag(part)) for part in (train, tune, test))
    both = weighting.transform(_bag(learned))
    nearest = _nearest(fitted, held_out, max(_KS))
    k = min(_KS, key=lambda k: _brier(train.quality[nearest[:, :k]].mean(axis=1), tune.quality))
    reduction = TruncatedSVD(_EMBEDDING, n_iter=2, random_state=seed).fit(both)
    embedded = [_unit(reduction.transform(part)) for part in (fitted, held_out, both, scored)]
    start, done = embedded[:2], embedded[2:]
    ridge = min(
        _RIDGES, key=lambda ridge: _loss(_factorise(start[0], train.quality, ridge, seed), start[1], tune.quality)
    )
    model = _factorise(done[0], learned.quality, ridge, seed)
    return {NEIGHBOURS: neighbour_means(both, learned.quality, scored, k), FACTORS: model.scores(done[1])}


def keyword_count(dataset: Dataset) -> F64:
    """Return how many of the words that speak for a hard request each row holds, (n,): a rule without learning."""
    buckets = sorted({bucket_of(word, WORD_KIND) for word in _HARD_WORDS})
    present = csr_matrix(dataset.text)[:, buckets] > 0
    return np.asarray(present.sum(axis=1), np.float64).ravel()


def neighbour_means(known: csr_array, quality: F64, asked: csr_array, k: int) -> F64:
    """Return the mean quality (m, K) of the k rows most similar by cosine to each row asked about.

    Args:
        known: Rows of length 1 with known outcomes, (n, p).
        quality: Their outcomes, (n, K).
        asked: Rows of length 1, (m, p).
        k: How many neighbours count, at most n.
    """
    means: F64 = quality[_nearest(known, asked, k)].mean(axis=1)
    return means


def _nearest(known: csr_array, asked: csr_array, k: int) -> NDArray[np.int64]:
    search = NearestNeighbors(n_neighbors=min(k, known.shape[0]), metric="cosine", algorithm="brute").fit(known)
    nearest: NDArray[np.int64] = search.kneighbors(asked, return_distance=False)
    return nearest


@dataclass(frozen=True, slots=True)
class _Factors:
    """Score of a model t on a request q: w2 . (v_t * (W1 q + b)).

    `models` (K, d) are the v_t, `project` (p, d) is W1, `shift` (d,) is b, `weight` (d,) is w2.
    Source: RouteLLM, arXiv 2406.18665, section 4.1, and the score of its code.
    """

    models: F64
    project: F64
    shift: F64
    weight: F64

    @classmethod
    def unpacked(cls, flat: F64, k: int, p: int) -> _Factors:
        models, project, shift, weight = np.split(flat, np.cumsum((k * _RANK, p * _RANK, _RANK)))
        return cls(models.reshape(k, _RANK), project.reshape(p, _RANK), shift, weight)

    def scores(self, embedded: F64) -> F64:
        """Return the score of each row (m, p) under each model, (m, K)."""
        scores: F64 = (embedded @ self.project + self.shift) @ (self.models * self.weight).T
        return scores


def _factorise(embedded: F64, quality: F64, ridge: float, seed: int) -> _Factors:
    """Fit by L-BFGS on sigmoid(score of the winner - score of the loser); ties say nothing, as in the source."""
    told = quality.max(axis=1) > quality.min(axis=1)
    embedded, quality = embedded[told], quality[told]
    k, p = quality.shape[1], embedded.shape[1]
    rng = np.random.default_rng(seed)
    start = rng.normal(scale=0.3, size=k * _RANK + p * _RANK + 2 * _RANK)
    rows, better, worse, weight = _pairs(quality)

    def objective(flat: F64) -> tuple[float, F64]:
        model = _Factors.unpacked(flat, k, p)
        hidden = embedded @ model.project + model.shift
        scores = hidden @ (model.models * model.weight).T
        margin = scores[rows, better] - scores[rows, worse]
        loss = float(weight @ np.logaddexp(0.0, -margin)) / weight.sum() + ridge * float(flat @ flat)
        pull = -weight * expit(-margin) / weight.sum()
        by_score = np.zeros_like(scores)
        np.add.at(by_score, (rows, better), pull)
        np.add.at(by_score, (rows, worse), -pull)
        by_hidden = by_score @ (model.models * model.weight)
        met = by_score.T @ hidden
        parts = (met * model.weight, embedded.T @ by_hidden, by_hidden.sum(axis=0), (met * model.models).sum(axis=0))
        return loss, np.concatenate([part.ravel() for part in parts]) + 2.0 * ridge * flat

    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 100})
    return _Factors.unpacked(found.x, k, p)


def _pairs(quality: F64) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], F64]:
    """Return every row and pair of models of which one did better: row, better, worse, and by how much."""
    lead = quality[:, :, None] - quality[:, None, :]
    rows, better, worse = np.nonzero(lead > 0)
    return rows, better, worse, lead[rows, better, worse]


def _loss(model: _Factors, embedded: F64, quality: F64) -> float:
    rows, better, worse, weight = _pairs(quality)
    scores = model.scores(embedded)
    return float(weight @ np.logaddexp(0.0, scores[rows, worse] - scores[rows, better]))


def _bag(dataset: Dataset) -> csr_matrix:
    return csr_matrix(dataset.text)


def _unit(rows: F64) -> F64:
    unit: F64 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def _brier(guess: F64, quality: F64) -> float:
    # The difference between tiers is what routing lives on, so it is what k is chosen by.
    return float(np.mean((np.diff(guess, axis=1) - np.diff(quality, axis=1)) ** 2))
