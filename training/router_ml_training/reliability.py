"""How far each source of verdicts can be believed, measured where people or checks judged the same answer.

A judge or a thumb is believed like a person until enough answers were judged by both; then its verdicts count as what
they are, evidence that may be wrong. A verifier's verdict is the router's own opinion and never a label: it says why a
request was escalated, no more. Nor is it one that somebody asked again. Silence says nothing. What a rule refuses is
thinned in `labels`, as retries are, and corrected here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.schema import VerdictSource

__all__ = ["HINTS", "NOISY_SOURCES", "SILENT", "Reliability", "measure_reliability", "soften"]

F64: TypeAlias = NDArray[np.float64]
Opinions: TypeAlias = NDArray[np.int8]

# From the least to the most believed; people and checks are the truth that these are measured against.
NOISY_SOURCES: tuple[VerdictSource, ...] = ("rule", "verifier", "retry", "user", "judge")
# Evidence, never an outcome: whatever else is known of an answer comes first.
HINTS: frozenset[VerdictSource] = frozenset({"verifier", "retry"})
SILENT = -1
_RULE, _RETRY = NOISY_SOURCES.index("rule"), NOISY_SOURCES.index("retry")
_IS_HINT = np.array([source in HINTS for source in NOISY_SOURCES])
# P(says good given good) and P(says bad given bad) before anything is measured, worth this many judged answers each.
# Asking again is rare, twice as likely after a bad answer as after a good one, and so worth odds of 2 to 1.
_TRUST_GOOD = np.array([0.98, 0.75, 0.95, 0.98, 0.98])
_TRUST_BAD = np.array([0.98, 0.75, 0.10, 0.98, 0.98])
_TRUST_ROWS = 10.0
# With fewer answers judged by both, good and bad together, a source is believed as it always was.
_MIN_OVERLAP = 30


@dataclass(frozen=True, slots=True)
class Reliability:
    """By source: `sensitivity` P(says good given good), `specificity` P(says bad given bad), (5,) each.

    `measured` (5,) is true where they come from answers that people or checks judged too, `overlap` (5,) of them. A
    rule only ever refuses: its sensitivity is how seldom it refuses a good answer, its specificity how often a bad one.
    So with retries, of which `overlap` counts those that were followed by a judgement.
    """

    sensitivity: F64
    specificity: F64
    measured: NDArray[np.bool_]
    overlap: NDArray[np.int64]

    def likelihood(self, opinions: Opinions) -> F64:
        """Return P(all that was said given good), as a share of itself and P(all that was said given bad).

        Args:
            opinions: 1 says good, 0 says bad, -1 says nothing; any shape (..., 5).

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
        opinions: 1, 0 or -1 by answer and source, (n, K, 5).
        truth: What people or checks said, (n, K), NaN where they said nothing; only plain yes and no are compared.
        answered: Whether the tier answered, (n, K).
    """
    plain = answered & ((truth == 0.0) | (truth == 1.0))
    said, good = opinions[plain], truth[plain] == 1.0
    # A rule looks at every answer, and everybody could ask again: where they do not, they have let the answer pass.
    said = said.copy()
    one_sided = [_RULE, _RETRY]
    said[:, one_sided] = np.where(said[:, one_sided] == 0, 0, 1)
    heard = said != SILENT
    right_good = (heard & good[:, None] & (said == 1)).sum(axis=0)
    right_bad = (heard & ~good[:, None] & (said == 0)).sum(axis=0)
    n_good, n_bad = (heard & good[:, None]).sum(axis=0), (heard & ~good[:, None]).sum(axis=0)
    overlap = np.asarray(n_good + n_bad, np.int64)
    # A rule that refused nothing that was checked is not measured by what it let pass.
    overlap[_RULE] = 0 if not (said[:, _RULE] == 0).any() else overlap[_RULE]
    overlap[_RETRY] = (said[:, _RETRY] == 0).sum()
    measured = overlap >= _MIN_OVERLAP
    sensitivity = (right_good + _TRUST_GOOD * _TRUST_ROWS) / (n_good + _TRUST_ROWS)
    specificity = (right_bad + _TRUST_BAD * _TRUST_ROWS) / (n_bad + _TRUST_ROWS)
    if not measured[_RETRY]:  # a handful among thousands of silences would look like certainty
        sensitivity[_RETRY], specificity[_RETRY] = _TRUST_GOOD[_RETRY], _TRUST_BAD[_RETRY]
    return Reliability(sensitivity, specificity, measured, overlap)


def soften(quality: F64, settled: NDArray[np.bool_], opinions: Opinions, reliability: Reliability) -> F64:
    """Return what noisy opinions are worth: likelihoods of "adequate" (n, K), NaN where the outcome needs none.

    A cell needs none when people or checks have settled it, when nobody said anything, or when the most believed source
    that spoke was never measured and is no hint.

    Args:
        quality: Outcomes as the most believed source gave them, (n, K), NaN where there is none.
        settled: Whether people or checks gave them, (n, K).
        opinions: As for `measure_reliability`, (n, K, 5).
        reliability: What the sources are worth.
    """
    spoke = opinions != SILENT
    labels = spoke.copy()
    labels[..., _IS_HINT] = False
    best = len(NOISY_SOURCES) - 1 - np.argmax(labels[..., ::-1], axis=-1)
    labelled = labels.any(axis=-1) & ~np.isnan(quality)
    noisy = np.where(labelled, reliability.measured[best], spoke[..., _IS_HINT].any(axis=-1)) & ~settled
    # A label that was thinned away is no evidence either.
    noisy &= labelled | ~labels.any(axis=-1)
    return np.where(noisy, reliability.likelihood(opinions), np.nan)
