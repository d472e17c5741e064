"""A head for a tier that joins a trained ladder: few labels, the other tiers' scores, nothing else is touched.

The new tier's adequacy is a logistic function of the logits that the bundle gives the other tiers, and of the
standardised dense columns, both shrunken. While it is fitted, what the other tiers really did on the same rows stands
beside their scores as a control: where the bundle has seen those rows, its scores know part of the outcome, and without
the control the new tier's head would trust them too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit

from router_ml_training.candidates import log_loss
from router_ml_training.learners.calibration import fit_platt
from router_ml_training.splits import group_folds

__all__ = [
    "CLIP",
    "CUT",
    "MAX_TOKENS",
    "Answers",
    "CrossFitted",
    "Lengths",
    "NewTierHead",
    "cross_fit",
    "fit_head",
    "fit_lengths",
    "logits_of",
    "standardised",
]

F64: TypeAlias = NDArray[np.float64]
F32: TypeAlias = NDArray[np.float32]

# Strengths of the Gaussian priors: one over the variance of a coefficient. Chosen on other ladders of public tables and
# inside training rows: slopes of 10 to 30 tie, columns below 100 overfit 300 rows and above 300 do little.
_SLOPE_PRIOR = 30.0
_COLUMN_PRIOR = 200.0
_CONTROL_PRIOR = 3.0
# A success of another tier moves the log odds by about this much on public tables.
_CONTROL_MEAN = 2.0
_SHIFT_PRIOR = 1e-3
# Probabilities are cut here before their logit is taken, so that one sure score cannot outvote the rest.
CUT = 1e-3
CLIP = 4.0
_FOLDS = 5
MAX_TOKENS = 16_384.0
_MIN_LENGTHS = 20


@dataclass(frozen=True, slots=True)
class Answers:
    """What is known about m requests that the new tier has answered, over the K tiers of the bundle.

    `adequacy` (m, K) are the bundle's scores, `known` (m, K) what those tiers really did (NaN: unknown), `dense` (m, D)
    the features, `target` (m,) the new tier's outcomes in [0, 1], `group` (m,) is equal for rows that belong together.
    """

    adequacy: F64
    known: F64
    dense: F32
    target: F64
    group: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.target)

    def rows(self, index: NDArray[np.int64]) -> Answers:
        """Return the rows of that index."""
        return Answers(
            self.adequacy[index], self.known[index], self.dense[index], self.target[index], self.group[index]
        )


@dataclass(frozen=True, slots=True)
class NewTierHead:
    """sigmoid(logits of the other tiers @ `slopes` + standardised columns @ `columns` + `shift`).

    `slopes` (K,), `columns`, `mean` and `scale` (D,) are float32.
    """

    slopes: F32
    columns: F32
    mean: F32
    scale: F32
    shift: float

    def probability(self, adequacy: F64, dense: F32) -> F64:
        """Return the new tier's adequacy, (n,), from the other tiers' (n, K) and the features (n, D)."""
        scaled = standardised(dense, self.mean, self.scale).astype(np.float64)
        p: F64 = expit(logits_of(adequacy) @ self.slopes + scaled @ self.columns + self.shift)
        return p


@dataclass(frozen=True, slots=True)
class CrossFitted:
    """What every row was given by heads that had not seen it, and the log losses (nats) that come of it.

    `probability` has shape (m,); `loss` is the head's, `constant_loss` that of one number for every request,
    `neighbour_loss` that of the best other tier's calibrated scores, whose column is `neighbour`.
    """

    probability: F64
    loss: float
    constant_loss: float
    neighbour: int
    neighbour_loss: float

    @property
    def learned(self) -> bool:
        """Whether the head knows more than the tier's mean."""
        return self.loss < self.constant_loss


@dataclass(frozen=True, slots=True)
class Lengths:
    """Expected answer tokens of the new tier: `ratio` times those of the tier in column `of`; rows it comes from."""

    of: int
    ratio: float
    n_rows: int


def logits_of(adequacy: F64) -> F64:
    """Return the logits of probabilities that are cut at both ends."""
    logits: F64 = logit(np.clip(adequacy, CUT, 1.0 - CUT))
    return logits


def standardised(dense: F32, mean: F32, scale: F32) -> F32:
    """Return dense columns as the graph standardises them: NaN is the mean, and absurd values are cut."""
    with np.errstate(over="ignore"):
        scaled = np.nan_to_num((dense - mean) / scale, nan=0.0, posinf=CLIP, neginf=-CLIP)
    cut: F32 = np.clip(scaled, -CLIP, CLIP).astype(np.float32)
    return cut


def fit_head(answers: Answers, *, learned: bool = True) -> NewTierHead:
    """Fit the head on all rows; with `learned` false it is the tier's mean for every request.

    The controls `outcome - score` of the other tiers are left out of the fitted head: their mean is 0 for a new
    request. Leaving them out flattens a logistic curve, by 1 / sqrt(1 + pi / 8 * variance), and the shift is then set
    so that the head's mean is the tier's observed one.

    Source of the flattening: Zeger, Liang and Albert 1988, section 3.
    """
    width, k = answers.dense.shape[1], answers.adequacy.shape[1]
    dense = answers.dense.astype(np.float64)
    deviation = dense.std(axis=0)
    # A column that does not vary here says nothing later either: it is switched off.
    scale = np.where(deviation > 1e-6, deviation, 1e6).astype(np.float32)
    mean = dense.mean(axis=0).astype(np.float32)
    slopes, columns = np.zeros(k, np.float32), np.zeros(width, np.float32)
    if learned:
        scaled = standardised(answers.dense, mean, scale).astype(np.float64)
        fitted, controls = _regressed(answers, scaled)
        spread = np.mean(np.sum(controls**2 * answers.adequacy * (1.0 - answers.adequacy), axis=1))
        fitted = fitted / np.sqrt(1.0 + np.pi / 8.0 * float(spread))
        slopes, columns = fitted[:k].astype(np.float32), fitted[k:].astype(np.float32)
    head = NewTierHead(slopes, columns, mean, scale, 0.0)
    score = logit(head.probability(answers.adequacy, answers.dense))
    return NewTierHead(slopes, columns, mean, scale, _shift(score, answers.target))


def cross_fit(answers: Answers, *, seed: int) -> CrossFitted:
    """Give every row the probability of a head that was fitted without it and without what belongs to it."""
    fold = group_folds(answers.group, _FOLDS, np.random.default_rng(seed))
    found, constant = np.empty(len(answers)), np.empty(len(answers))
    known = logits_of(answers.adequacy)
    others = np.empty(known.shape)
    for number in np.unique(fold):
        seen, unseen = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        part, rest = answers.rows(seen), answers.rows(unseen)
        found[unseen] = fit_head(part).probability(rest.adequacy, rest.dense)
        constant[unseen] = fit_head(part, learned=False).probability(rest.adequacy, rest.dense)
        for t in range(known.shape[1]):
            others[unseen, t] = fit_platt(known[seen, t], part.target).probability(known[unseen, t])
    losses = [_loss(others[:, t], answers.target) for t in range(known.shape[1])]
    nearest = int(np.argmin(losses))
    loss, constant_loss = _loss(found, answers.target), _loss(constant, answers.target)
    kept = found if loss < constant_loss else constant
    return CrossFitted(kept, loss, constant_loss, nearest, losses[nearest])


def fit_lengths(output_tokens: F64, expected: F64, default: int) -> Lengths:
    """Find the tier whose expected answer lengths the new tier's follow best, and the ratio of the two.

    Args:
        output_tokens: What the new tier wrote, (m,), NaN where unknown.
        expected: What the bundle expects of the other tiers, (m, K).
        default: Column to take, with ratio 1, when fewer than 20 lengths are known.
    """
    rows = np.flatnonzero(output_tokens > 0)
    if len(rows) < _MIN_LENGTHS:
        return Lengths(default, 1.0, len(rows))
    seen, guess = output_tokens[rows], np.maximum(expected[rows], 1.0)
    nearest = int(np.argmin(np.std(np.log(seen)[:, None] - np.log(guess), axis=0)))
    return Lengths(nearest, float(seen.sum() / guess[:, nearest].sum()), len(rows))


def _regressed(answers: Answers, scaled: F64) -> tuple[F64, F64]:
    """Return the coefficients of logits and columns, (K + D,), and those of the controls, (K,)."""
    k = answers.adequacy.shape[1]
    surprise = np.where(np.isnan(answers.known), 0.0, answers.known - answers.adequacy)
    design = np.hstack([logits_of(answers.adequacy), scaled, surprise, np.ones((len(answers), 1))])
    width = scaled.shape[1]
    # Before anything is seen, the new tier is the average of the others.
    prior = np.concatenate([np.full(k, 1.0 / k), np.zeros(width), np.full(k, _CONTROL_MEAN / k), [0.0]])
    strength = np.concatenate(
        [np.full(k, _SLOPE_PRIOR), np.full(width, _COLUMN_PRIOR), np.full(k, _CONTROL_PRIOR), [_SHIFT_PRIOR]]
    )

    def loss(coefficients: F64) -> tuple[float, F64]:
        z = design @ coefficients
        away = coefficients - prior
        value = float(np.sum(np.logaddexp(0.0, z) - answers.target * z) + strength @ away**2 / 2.0)
        return value, design.T @ (expit(z) - answers.target) + strength * away

    found = minimize(loss, prior, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-8}).x
    return found[: k + width], found[k + width : -1]


def _shift(score: F64, target: F64) -> float:
    # One row of each outcome is added, so that a tier that never failed is not taken to be infallible.
    wanted = (float(target.sum()) + 0.5) / (len(target) + 1.0)
    return float(brentq(lambda shift: float(expit(score + shift).mean()) - wanted, -40.0, 40.0, xtol=1e-10))


def _loss(probability: F64, target: F64) -> float:
    return float(log_loss(probability[:, None], target[:, None]).mean())
