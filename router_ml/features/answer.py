"""Answer -> features: the one implementation that the verifier's training and the service share.

An answer beside its request becomes a fixed vector (`dense`) and a bag of hashed ids with weights, as a request does
in `router_ml.features`. The columns of the request itself come first, so that trees can weigh the answer by what was
asked. Order, names and version enter `ANSWER_SCHEMA_HASH`; a verifier made for another hash is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import isnan, nan
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.features import answer_fit, answer_form, answer_numbers, answer_words, metadata, structure, text
from router_ml.features.answer_view import AnswerView, view_answer
from router_ml.features.metadata import N_METADATA_BUCKETS
from router_ml.features.scan import MAX_CHARS, N_TEXT_BUCKETS, bucket_of, to_buckets
from router_ml.features.view import RequestView, view_of
from router_ml.schema import Answer, Attempt, Request, StoredAnswer

__all__ = [
    "ANSWER_NAMES",
    "ANSWER_SCHEMA_HASH",
    "N_ANSWER_BUCKETS",
    "N_ANSWER_TEXT_BUCKETS",
    "AnswerFeatures",
    "answer_from_stored",
    "answer_of_attempt",
    "answer_to_stored",
    "featurize_answer",
    "with_expected_tokens",
]

F32: TypeAlias = NDArray[np.float32]
I64: TypeAlias = NDArray[np.int64]

# Raise it with every change of what a block computes.
_VERSION = 3
_REQUEST_BLOCKS = {"text": text, "structure": structure}
_ANSWER_BLOCKS = {"form": answer_form, "words": answer_words, "numbers": answer_numbers, "fit": answer_fit}

ANSWER_NAMES: tuple[str, ...] = (
    *(f"asked.{name}.{column}" for name, block in _REQUEST_BLOCKS.items() for column in block.COLUMNS),
    *(f"{name}.{column}" for name, block in _ANSWER_BLOCKS.items() for column in block.COLUMNS),
)
# Answers are fewer than requests and say the same things more often: a quarter of the requests' buckets is enough.
_DROPPED_BITS = 2
N_ANSWER_TEXT_BUCKETS = N_TEXT_BUCKETS >> _DROPPED_BITS
N_ANSWER_BUCKETS = N_ANSWER_TEXT_BUCKETS + N_METADATA_BUCKETS
ANSWER_SCHEMA_HASH = hashlib.sha256(
    "\n".join((f"version {_VERSION}", f"buckets {N_ANSWER_TEXT_BUCKETS} {N_METADATA_BUCKETS}", *ANSWER_NAMES)).encode()
).hexdigest()[:16]
_TOKENS = ANSWER_NAMES.index("form.log_tokens")
_OVER_EXPECTED = ANSWER_NAMES.index("form.log_tokens_over_expected")
_DOMAIN_KIND, _DOMAIN_BASE = 5, np.uint64(0x9FB21C651E98DF25)
# Values are shares, logarithms and small counts; nothing beyond this is meant.
_LARGEST = 1e6


@dataclass(frozen=True, slots=True)
class AnswerFeatures:
    """One answer in numbers: `dense` (A,) float32, finite or NaN; `ids` (L,) int64 sorted, distinct; `counts` (L,)."""

    dense: F32
    ids: I64
    counts: F32


def featurize_answer(
    request: Request,
    answer: Answer,
    *,
    expected_tokens: float = nan,
    asked: RequestView | None = None,
    passed: bool = False,
) -> AnswerFeatures:
    """Turn an answer into features; pure, and bounded in time whatever the length of request and answer.

    Args:
        request: What was asked.
        answer: What came back.
        expected_tokens: How long that tier's answer was expected to be; NaN when unknown.
        asked: The request as `view_of` reads it, where the caller has that already.
        passed: Whether the caller has run the response checks and none fired: they are not run again.

    Returns:
        The same bytes for the same request and answer.
    """
    seen = view_of(request) if asked is None else asked
    view = view_answer(seen, answer, expected_tokens, passed=passed)
    values = [value for block in _REQUEST_BLOCKS.values() for value in block.compute(seen)]
    values += [value for block in _ANSWER_BLOCKS.values() for value in block.compute(view)]
    dense = np.clip(np.array(values, np.float64), -_LARGEST, _LARGEST).astype(np.float32)
    return AnswerFeatures(dense, *_bag(view))


def with_expected_tokens(dense: F32, expected_tokens: NDArray[np.float64]) -> F32:
    """Return answer rows (m, A) with their length set against other expectations (m,), NaN for unknown ones."""
    changed = dense.copy()
    changed[:, _OVER_EXPECTED] = dense[:, _TOKENS] - np.log(np.maximum(expected_tokens, 1.0))
    return changed


def answer_of_attempt(attempt: Attempt) -> Answer:
    """Return an attempt's answer as it was judged; its text may have been dropped."""
    return Answer(
        text=attempt.response or "",
        finish_reason=attempt.finish_reason,
        tool_calls=attempt.tool_calls,
        output_tokens=attempt.output_tokens,
        logprobs=attempt.logprobs,
    )


def answer_to_stored(features: AnswerFeatures) -> StoredAnswer:
    """Return features as they are logged when the text is not kept."""
    return StoredAnswer(
        schema_hash=ANSWER_SCHEMA_HASH,
        dense=tuple(None if isnan(value) else value for value in features.dense.tolist()),
        ids=tuple(features.ids.tolist()),
        counts=tuple(features.counts.tolist()),
    )


def answer_from_stored(stored: StoredAnswer) -> AnswerFeatures | None:
    """Return logged features, None when another version of the feature code made them, or none can have."""
    sized = len(stored.dense) == len(ANSWER_NAMES) and len(stored.ids) == len(stored.counts)
    if stored.schema_hash != ANSWER_SCHEMA_HASH or not sized:
        return None
    if any(later <= earlier for earlier, later in pairwise((-1, *stored.ids, N_ANSWER_BUCKETS))):
        return None
    dense = np.array([nan if value is None else value for value in stored.dense], np.float32)
    return AnswerFeatures(dense, np.array(stored.ids, np.int64), np.array(stored.counts, np.float32))


def _bag(view: AnswerView) -> tuple[I64, F32]:
    buckets = view.scan.buckets
    request = view.asked.request
    if request.use_case or request.feature:
        # Every word once for everybody, and once more for this kind of request (Daume 2007, feature augmentation).
        kind = np.uint64(bucket_of(f"{request.use_case}|{request.feature}", _DOMAIN_KIND))
        buckets = np.concatenate((buckets, to_buckets(view.scan.words * _DOMAIN_BASE + kind, _DOMAIN_KIND)))
    words, repeats = np.unique(buckets >> _DROPPED_BITS, return_counts=True)
    shift = N_TEXT_BUCKETS - N_ANSWER_TEXT_BUCKETS
    facts = np.array(sorted({fact - shift for fact in metadata.compute(view.asked)}), np.int64)
    ids = np.concatenate((words, facts))
    return ids, np.concatenate((_weights()[repeats], np.ones(len(facts), np.float32)))


@cache
def _weights() -> F32:
    repeats = np.arange(2 * MAX_CHARS)
    repeats[0] = 1
    return np.float32(1) + np.log(repeats).astype(np.float32)
