"""What is learned: adequacy per tier before the call, and how long the answer will be.

A tier whose outcome was seen whatever the cheaper ones did gets a *marginal* head, P(ok). A tier that was seen only
because a cheaper one had failed gets a *chained* head, P(ok given the cheaper failed); its adequacy is then
P(cheaper ok) (1 - slip) + P(cheaper fails) P(ok given the cheaper failed), where `slip` is the rate at which a dearer
tier fails although the cheaper one does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml_training.dataset import Dataset
from router_ml_training.encoder import Design, Encoder
from router_ml_training.learners.calibration import Platt, fit_platt
from router_ml_training.learners.protocol import Fit, Head, Learner
from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["AdequacyModel", "TierModel", "TokenModel", "cross_fit_adequacy", "fit_adequacy", "fit_tokens", "forms"]

F64: TypeAlias = NDArray[np.float64]
F32: TypeAlias = NDArray[np.float32]
Form: TypeAlias = Literal["marginal", "chained"]

# A tier with fewer freely observed outcomes than this, and than a quarter of its escalated ones, is chained.
_MIN_MARGINAL_ROWS = 200
_MIN_MARGINAL_SHARE = 0.25
# Failure of the dearer tier where the cheaper one succeeds was 8 to 11 % on public pairs: worth 20 observations.
_PRIOR_SLIP = 0.08
_PRIOR_SLIP_ROWS = 20.0


@dataclass(frozen=True, slots=True)
class TierModel:
    """One tier's calibrated head; `slip` is used by the chained form only."""

    form: Form
    head: Head
    platt: Platt
    slip: float = 0.0


@dataclass(frozen=True, slots=True)
class AdequacyModel:
    """Calibrated P(adequate) per tier, cheapest first."""

    tiers: tuple[str, ...]
    encoder: Encoder
    models: tuple[TierModel, ...]

    def predict(self, design: Design) -> F64:
        """Return adequacy, shape (n, K)."""
        return self.adequacy_of(self.logits(design))

    def logits(self, design: Design) -> F64:
        """Return the heads' uncalibrated logits, shape (n, K)."""
        return np.stack([model.head.logit(design) for model in self.models], axis=1)

    def adequacy_of(self, logits: F64) -> F64:
        """Return the adequacy that logits (n, K) stand for: calibrated, and chained where the form says so."""
        columns: list[F64] = []
        for t, model in enumerate(self.models):
            p = model.platt.probability(logits[:, t])
            if model.form == "chained":
                cheaper = columns[-1]
                p = cheaper * (1.0 - model.slip) + (1.0 - cheaper) * p
            columns.append(p)
        return np.stack(columns, axis=1)

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add all heads, their calibration and the chain; return the tensor (n, K)."""
        self.encoder.define(graph)
        columns: list[str] = []
        for model in self.models:
            p = model.platt.add_to_graph(graph, model.head.add_to_graph(graph))
            if model.form == "chained":
                cheaper = columns[-1]
                kept = graph.add("Mul", cheaper, graph.scalar(1.0 - model.slip))
                gained = graph.add("Mul", graph.add("Sub", graph.scalar(1.0), cheaper), p)
                p = graph.add("Add", kept, gained)
            columns.append(p)
        return graph.add("Concat", *columns, axis=1)


@dataclass(frozen=True, slots=True)
class TokenModel:
    """Expected answer tokens per tier: exp(linear in the standardised columns) times a smearing factor.

    `weights` (D, K) and `intercept` (K,) are float32 and already hold the logarithm of the factor.
    """

    weights: F32
    intercept: F32

    def predict(self, design: Design) -> F64:
        """Return expected tokens, shape (n, K)."""
        tokens: F64 = np.exp(design.scaled.astype(np.float64) @ self.weights + self.intercept)
        return np.minimum(tokens, _MAX_TOKENS)

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add one product, one sum and the exponential; return the tensor (n, K)."""
        product = graph.add("MatMul", graph.named("scaled"), graph.constant(self.weights))
        tokens = graph.add("Exp", graph.add("Add", product, graph.constant(self.intercept)))
        return graph.add("Min", tokens, graph.scalar(_MAX_TOKENS))


_MAX_TOKENS = 16_384.0
_RIDGE = 10.0


def fit_adequacy(
    train: Dataset, tune: Dataset, encoder: Encoder, learner: Learner, *, seed: int, num_threads: int = 1
) -> AdequacyModel:
    """Fit one head per tier on the train rows and calibrate it on the tune rows.

    Args:
        train: Rows to learn from; at least one known outcome per tier.
        tune: Rows to calibrate on; a tier unknown there keeps its raw probabilities.
        encoder: Fitted on the same train rows.
        learner: The learner of every head.
        seed: For whatever the learner draws.
        num_threads: Threads the learner may use.
    """
    work = _Work(train, encoder, encoder.encode(train), learner, _forms(train), seed, num_threads)
    model = work.fit(np.arange(len(train)))
    return _calibrated(model, model.logits(encoder.encode(tune)), tune)


def cross_fit_adequacy(
    data: Dataset, fold: NDArray[np.int64], encoder: Encoder, learner: Learner, *, seed: int, num_threads: int = 1
) -> tuple[AdequacyModel, F64]:
    """Fit on all rows, and calibrate on scores that every row got from models that had not seen it.

    Args:
        data: Rows to learn from.
        fold: Fold of each row, (n,); rows that belong together share one.
        encoder: Fitted on the same rows.
        learner: The learner of every head.
        seed: For whatever the learner draws.
        num_threads: Threads the learner may use.

    Returns:
        The model, and the calibrated held-out adequacy of every row, (n, K).
    """
    work = _Work(data, encoder, encoder.encode(data), learner, _forms(data), seed, num_threads)
    logits = np.zeros((len(data), len(data.tiers)))
    for number in np.unique(fold):
        unseen = np.flatnonzero(fold == number)
        logits[unseen] = work.fit(np.flatnonzero(fold != number)).logits(work.design.rows(unseen))
    model = _calibrated(work.fit(np.arange(len(data))), logits, data)
    return model, model.adequacy_of(logits)


@dataclass(frozen=True, slots=True)
class _Work:
    """One learning problem: encoded rows, and how each tier is to be modelled."""

    data: Dataset
    encoder: Encoder
    design: Design
    learner: Learner
    forms: tuple[Form, ...]
    seed: int
    num_threads: int

    def fit(self, index: NDArray[np.int64]) -> AdequacyModel:
        """Fit uncalibrated heads on some of the rows."""
        part = self.data.rows(index)
        models: list[TierModel] = []
        for t, form in enumerate(self.forms):
            rows = _rows(part, t, form)
            fit = Fit(
                self.design.rows(index[rows]),
                part.quality[rows, t],
                np.ones(len(rows)),
                part.group[rows],
                self.seed + t,
                self.num_threads,
            )
            slip = _slip(self.data, t) if form == "chained" else 0.0
            models.append(TierModel(form, self.learner(fit), Platt(1.0, 0.0), slip))
        return AdequacyModel(self.data.tiers, self.encoder, tuple(models))


def _calibrated(model: AdequacyModel, logits: F64, held_out: Dataset) -> AdequacyModel:
    models = []
    for t, one in enumerate(model.models):
        rows = _rows(held_out, t, one.form)
        models.append(replace(one, platt=fit_platt(logits[rows, t], held_out.quality[rows, t])))
    return replace(model, models=tuple(models))


def fit_tokens(train: Dataset, encoder: Encoder) -> TokenModel:
    """Fit answer lengths per tier by ridge regression on the logarithm; unseen tiers get the overall average.

    Source of the smearing factor: Duan 1983, the mean of exp(residual).
    """
    scaled = encoder.encode(train).scaled.astype(np.float64)
    seen = train.output_tokens[~np.isnan(train.output_tokens)]
    default = float(np.log(max(seen.mean(), 1.0))) if len(seen) else float(np.log(300.0))
    n_columns, n_tiers = scaled.shape[1], len(train.tiers)
    weights, intercept = np.zeros((n_columns, n_tiers)), np.full(n_tiers, default)
    for t in range(n_tiers):
        rows = ~np.isnan(train.output_tokens[:, t])
        if rows.sum() < 2 * n_columns:
            if rows.any():
                intercept[t] = np.log(max(train.output_tokens[rows, t].mean(), 1.0))
            continue
        x, y = scaled[rows], np.log1p(train.output_tokens[rows, t])
        centre = x.mean(axis=0)
        gram = (x - centre).T @ (x - centre) + _RIDGE * np.eye(n_columns)
        weights[:, t] = np.linalg.solve(gram, (x - centre).T @ (y - y.mean()))
        residual = y - y.mean() - (x - centre) @ weights[:, t]
        intercept[t] = y.mean() - centre @ weights[:, t] + np.log(np.mean(np.exp(residual)))
    return TokenModel(weights.astype(np.float32), intercept.astype(np.float32))


def forms(model: AdequacyModel) -> Mapping[str, str]:
    """Return tier name to the form of its head, for reports."""
    return {name: one.form for name, one in zip(model.tiers, model.models, strict=True)}


def _forms(data: Dataset) -> tuple[Form, ...]:
    return tuple(_form(data, t) for t in range(len(data.tiers)))


def _form(data: Dataset, t: int) -> Form:
    if t == 0:
        return "marginal"
    known = ~np.isnan(data.quality[:, t])
    escalated = int((known & data.escalated[:, t]).sum())
    free = int(known.sum()) - escalated
    enough = free >= min(_MIN_MARGINAL_ROWS, max(escalated, 1)) or free >= _MIN_MARGINAL_SHARE * escalated
    return "marginal" if enough else "chained"


def _rows(data: Dataset, t: int, form: str) -> NDArray[np.int64]:
    known = ~np.isnan(data.quality[:, t])
    if form == "marginal":
        return np.flatnonzero(known & ~data.escalated[:, t])
    failed = np.nan_to_num(data.quality[:, t - 1], nan=1.0) < 0.5
    return np.flatnonzero(known & (data.escalated[:, t] | failed))


def _slip(data: Dataset, t: int) -> float:
    # Only rows on which both were run whatever came out can tell.
    both = ~np.isnan(data.quality[:, t]) & ~np.isnan(data.quality[:, t - 1]) & ~data.escalated[:, t]
    fine = both & (np.nan_to_num(data.quality[:, t - 1]) >= 0.5)
    failures = float((1.0 - data.quality[fine, t]).sum())
    return (failures + _PRIOR_SLIP * _PRIOR_SLIP_ROWS) / (float(fine.sum()) + _PRIOR_SLIP_ROWS)
