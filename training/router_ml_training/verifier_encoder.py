"""Fitted scaling of answer features, and what the verifier's heads see of one answer; outcomes are not looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from router_ml.features.answer import N_ANSWER_BUCKETS, N_ANSWER_TEXT_BUCKETS
from router_ml_training.answers import Answers

__all__ = ["CLIP", "CUT", "METADATA_WEIGHT", "AnswerDesign", "AnswerEncoder", "fit_answer_encoder", "logits_of"]

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]

# The same numbers as for requests: a text as a whole has length 1, one metadata fact weighs as much as a salient word.
METADATA_WEIGHT = 0.5
CLIP = 4.0
# Chances nearer to 0 or 1 than this say no more than this.
CUT = 1e-4


@dataclass(frozen=True, slots=True)
class AnswerDesign:
    """Encoded answers, m rows.

    `raw` (m, A) as featurised, NaN for unknown; `scaled` (m, A) standardised, 0 for unknown, and `missing` (m, A) says
    where; `words` (m, N_ANSWER_BUCKETS) are weighted.
    """

    raw: F32
    scaled: F32
    missing: F32
    words: csr_array

    def __len__(self) -> int:
        return len(self.raw)

    def rows(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> AnswerDesign:
        """Return the rows of that index or mask."""
        return AnswerDesign(self.raw[index], self.scaled[index], self.missing[index], self.words[index])


@dataclass(frozen=True, slots=True)
class AnswerEncoder:
    """`idf` (N_ANSWER_BUCKETS,) is 0 on metadata buckets; `mean` and `scale` have shape (A,)."""

    idf: F32
    mean: F32
    scale: F32

    def encode(self, answers: Answers) -> AnswerDesign:
        """Encode every answer."""
        with np.errstate(over="ignore"):
            scaled = np.nan_to_num((answers.dense - self.mean) / self.scale, nan=0.0, posinf=CLIP, neginf=-CLIP)
        missing = np.isnan(answers.dense).astype(np.float32)
        clipped = np.clip(scaled, -CLIP, CLIP).astype(np.float32)
        return AnswerDesign(answers.dense, clipped, missing, self._words(answers.text))

    def _words(self, text: csr_array) -> csr_array:
        values = text.data * self.idf[text.indices]
        squares = csr_array((values * values, text.indices, text.indptr), shape=text.shape)
        norms = np.sqrt(np.maximum(np.asarray(squares.sum(axis=1)).ravel(), 1e-12)).astype(np.float32)
        per_value = np.repeat(norms, np.diff(text.indptr))
        is_text = text.indices < N_ANSWER_TEXT_BUCKETS
        weights = np.where(is_text, values / per_value, text.data * np.float32(METADATA_WEIGHT))
        return csr_array((weights.astype(np.float32), text.indices, text.indptr), shape=text.shape)


def fit_answer_encoder(answers: Answers) -> AnswerEncoder:
    """Fit the scaling on the answers to learn from; a column that never varies, or is never known, is switched off.

    Source: smoothed inverse document frequency, ln((1 + n) / (1 + df)) + 1.
    """
    seen = np.bincount(answers.text.indices, minlength=N_ANSWER_BUCKETS)
    idf = np.log((1 + len(answers)) / (1 + seen)) + 1
    idf[N_ANSWER_TEXT_BUCKETS:] = 0.0
    known = ~np.isnan(answers.dense)
    count = np.maximum(known.sum(axis=0), 1)
    values = np.where(known, answers.dense, 0.0).astype(np.float64)
    mean = values.sum(axis=0) / count
    deviation = np.sqrt(np.where(known, (values - mean) ** 2, 0.0).sum(axis=0) / count)
    scale = np.where(deviation > 1e-6, deviation, 1e6)
    return AnswerEncoder(idf.astype(np.float32), mean.astype(np.float32), scale.astype(np.float32))


def logits_of(adequacy: F64) -> F64:
    """Return log odds of chances, cut to [1e-4, 1 - 1e-4]."""
    p = np.clip(np.asarray(adequacy, np.float32).astype(np.float64), CUT, 1.0 - CUT)
    odds: F64 = np.log(p) - np.log1p(-p)
    return odds
