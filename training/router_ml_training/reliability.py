"""How far each source of verdicts can be believed, measured where people or checks judged the same answer.

A judge or a thumb is believed like a person until enough answers were judged by both; then its verdicts count as what
they are, evidence that may be wrong. A verifier's verdict is the router's own opinion and never a label: it says why a
request was escalated, no more. Silence says nothing. What a rule refuses is thinned in `labels`, and corrected here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.schema import VerdictSource

__all__ = ["NOISY_SOURCES", "SILENT", "Reliability", "measure_reliability", "soften"]

F64: TypeAlias = NDArray[np.float64]
Opinions: TypeAlias = NDArray[np.int8]

# From the least to the most believed; people and checks are the truth that these are measured against.
NOISY_SOURCES: tuple[VerdictSource, ...] = ("rule", "verifier", "user", "judge")
SILENT = -1
_RULE, _VERIFIER = NOISY_SOURCES.index("rule"), NOISY_SOURCES.index("verifier")
# P(says good given good) and P(says bad given bad) before anything is measured, worth this many judged answers each.
_TRUST = np.array([0.98, 0.75, 0.98, 0.98])
_TRUST_ROWS = 10.0
# With fewer answers judged by both, good and bad together, a source is believed as it always was.
_MIN_OVERLAP = 30


@dataclass(frozen=True, slots=True)
class Reliability:
    """By source: `sensitivity` P(says good given good), `specificity` P(says bad given bad), (4,) each.

    `measured` (4,) is true where they come from answers that people or checks judged too, `overlap` (4,) of them. A
    rule only ever refuses: its sensitivity is how seldom it refuses a good answer, its specificity how often a bad one.
    """

    sensitivity: F64
    specificity: F64
    measured: NDArray[np.bool_]
    overlap: NDArray[np.int64]

    def likelihood(self, opinions: Opinions) -> F64:
        """Return P(all that was said given good), as a share of itself and P(all that was said given bad).

        Args:
            opinions: 1 says good, 0 says bad, -1 says nothing; any shape (..., 4).

        Source: conditionally independent raters, Dawid and Skene 1979.
        """
        good = np.where(opinions == 1, self.sensitivity, 1.0 - self.sensitivity)
        bad = np.where(opinions == 1, 1.0 - self.specificity, self.specificity)
        silent = opinions == SILENT
        log_good = np.where(silent, 0.0, np.log(good)).sum(axis=-1)
        log_bad = np.where(silent, 0.0, np.log(bad)).sum(axis=-1)
        share: F64 = 1.0 / (1.0 + np.exp(log_bad - log_good))
        return share


def measure_reliability(opinions: Opinions, truth: F64, answered: NDArray[np.bool_]) -> Reliability:
    """Compare every source with people and checks on the same answers.

    Args:
        opinions: 1, 0 or -1 by answer and source, (n, K, 4).
        truth: What people or checks said, (n, K), NaN where they said nothing; only plain yes and no are compared.
        answered: Whether the tier answered, (n, K).
    """
    plain = answered & ((truth == 0.0) | (truth == 1.0))
    said, good = opinions[plain], truth[plain] == 1.0
    # A rule looks at every answer: where it does not refuse, it has let the answer pass.
    said = said.copy()
    said[:, _RULE] = np.where(said[:, _RULE] == 0, 0, 1)
    heard = said != SILENT
    right_good = (heard & good[:, None] & (said == 1)).sum(axis=0)
    right_bad = (heard & ~good[:, None] & (said == 0)).sum(axis=0)
    n_good, n_bad = (heard & good[:, None]).sum(axis=0), (heard & ~good[:, None]).sum(axis=0)
    overlap = np.asarray(n_good + n_bad, np.int64)
    # A rule that refused nothing that was checked is not measured by what it let pass.
    overlap[_RULE] = 0 if not (said[:, _RULE] == 0).any() else overlap[_RULE]
    return Reliability(
        (right_good + _TRUST * _TRUST_ROWS) / (n_good + _TRUST_ROWS),
        (right_bad + _TRUST * _TRUST_ROWS) / (n_bad + _TRUST_ROWS),
        overlap >= _MIN_OVERLAP,
        overlap,
    )


def soften(quality: F64, settled: NDArray[np.bool_], opinions: Opinions, reliability: Reliability) -> F64:
    """Return what noisy opinions are worth: likelihoods of "adequate" (n, K), NaN where the outcome needs none.

    A cell needs none when people or checks have settled it, when nobody said anything, or when the most believed source
    that spoke was never measured and is not the verifier.

    Args:
        quality: Outcomes as the most believed source gave them, (n, K), NaN where there is none.
        settled: Whether people or checks gave them, (n, K).
        opinions: As for `measure_reliability`, (n, K, 4).
        reliability: What the sources are worth.
    """
    spoke = opinions != SILENT
    labels = spoke.copy()
    labels[..., _VERIFIER] = False
    best = len(NOISY_SOURCES) - 1 - np.argmax(labels[..., ::-1], axis=-1)
    labelled = labels.any(axis=-1) & ~np.isnan(quality)
    noisy = np.where(labelled, reliability.measured[best], spoke[..., _VERIFIER]) & ~settled
    # A label that was thinned away is no evidence either.
    noisy &= labelled | ~labels.any(axis=-1)
    return np.where(noisy, reliability.likelihood(opinions), np.nan)
