"""Request -> features: the one implementation that training and serving share.

A request becomes a fixed vector (`dense`) and a bag of hashed ids with weights (`ids`, `counts`). A new block is one
file and one line below; order, names and versions enter `SCHEMA_HASH`, and a bundle made for another hash is refused.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.errors import DataError
from router_ml.features import metadata, ngrams, structure, text
from router_ml.features.metadata import N_METADATA_BUCKETS
from router_ml.features.scan import MAX_CHARS, N_TEXT_BUCKETS
from router_ml.features.view import RequestView, text_of, view_of
from router_ml.records import record
from router_ml.schema import Request, StoredFeatures

__all__ = [
    "DENSE_NAMES",
    "N_BUCKETS",
    "N_TEXT_BUCKETS",
    "SCHEMA_HASH",
    "FeatureBatch",
    "Features",
    "featurize",
    "from_stored",
    "stack",
    "text_of",
    "to_stored",
]

F32: TypeAlias = NDArray[np.float32]
I64: TypeAlias = NDArray[np.int64]

# Raise it with every change of what a block computes: models trained on the old values are then refused.
_VERSION = 2
_DENSE_BLOCKS = {"text": text, "structure": structure}
_COMPUTE_DENSE = tuple(block.compute for block in _DENSE_BLOCKS.values())

DENSE_NAMES: tuple[str, ...] = tuple(
    f"{name}.{column}" for name, block in _DENSE_BLOCKS.items() for column in block.COLUMNS
)
N_BUCKETS = N_TEXT_BUCKETS + N_METADATA_BUCKETS
SCHEMA_HASH = hashlib.sha256(
    "\n".join(
        (f"version {_VERSION}", f"ngrams {N_TEXT_BUCKETS}", f"metadata {N_METADATA_BUCKETS}", *DENSE_NAMES)
    ).encode()
).hexdigest()[:16]


@record
class Features:
    """One request in numbers.

    `dense` has shape (D,), float32, finite. `ids` (L,), int64, sorted and distinct, are buckets of words, word pairs
    and metadata; `counts` (L,), float32, are their weights 1 + ln(count): both empty where the bag was not asked for.
    `input_tokens` is an estimate with what is asked in canonical form, which prices are weighed by; `sent_tokens` one
    of what was sent, padding included, which has to fit a tier (0: not known to be more).
    """

    dense: F32
    ids: I64
    counts: F32
    input_tokens: float
    sent_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Several requests: `dense` (n, D); `ids` and `counts` (n, L), padded with id 0 and weight 0."""

    dense: F32
    ids: I64
    counts: F32
    input_tokens: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.dense)


def featurize(request: Request, *, view: RequestView | None = None, bag: bool = True) -> Features:
    """Turn one request into features; pure, and bounded in time whatever the length of the request.

    Args:
        request: Any request, with empty, list-type or missing content.
        view: The request as `view_of` reads it, where the caller has that already.
        bag: False leaves `ids` and `counts` empty, for a graph that reads neither: a fifth of a decision.

    Returns:
        The same bytes for the same request, alone or among others.
    """
    view = view_of(request) if view is None else view
    # The bag comes first: the dense columns then look at the same words.
    ids, counts = _bag(ngrams.compute(view), metadata.compute(view)) if bag else _no_bag()
    values: list[float] = []
    for compute in _COMPUTE_DENSE:
        values += compute(view)
    return Features(np.array(values, np.float32), ids, counts, view.input_tokens, view.sent_tokens)


def _bag(words: I64, meta: list[int]) -> tuple[I64, F32]:
    """Return distinct ids in order, and their weights; metadata ids lie above all text ids and weigh 1 each."""
    ordered = np.concatenate((words, np.array(list(set(meta)), np.int64)))
    ordered.sort()
    is_first = np.empty(len(ordered) + 1, np.bool_)
    is_first[0] = is_first[-1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:-1])
    first = is_first.nonzero()[0]
    begins = first[:-1]
    return ordered[begins], _weights()[first[1:] - begins]


@cache
def _no_bag() -> tuple[I64, F32]:
    ids, counts = np.zeros(0, np.int64), np.zeros(0, np.float32)
    ids.flags.writeable = counts.flags.writeable = False
    return ids, counts


@cache
def _weights() -> F32:
    """1 + ln(count) for every count that a text of bounded length can have; index 0 is not used."""
    repeats = np.arange(2 * MAX_CHARS)
    repeats[0] = 1
    return np.float32(1) + np.log(repeats).astype(np.float32)


def stack(features: Sequence[Features]) -> FeatureBatch:
    """Pad features into one batch, as wide as the longest of them (and at least one id wide)."""
    width = max((len(one.ids) for one in features), default=0) or 1
    ids = np.zeros((len(features), width), np.int64)
    counts = np.zeros((len(features), width), np.float32)
    for i, one in enumerate(features):
        ids[i, : len(one.ids)] = one.ids
        counts[i, : len(one.ids)] = one.counts
    dense = np.stack([one.dense for one in features]) if features else np.zeros((0, len(DENSE_NAMES)), np.float32)
    return FeatureBatch(dense, ids, counts, np.array([one.input_tokens for one in features], np.float64))


def to_stored(features: Features) -> StoredFeatures:
    """Return features as they are logged when the text is not kept."""
    return StoredFeatures(
        schema_hash=SCHEMA_HASH,
        dense=tuple(features.dense.tolist()),
        ids=tuple(features.ids.tolist()),
        counts=tuple(features.counts.tolist()),
    )


def from_stored(stored: StoredFeatures) -> Features:
    """Return logged features.

    Raises:
        DataError: When they were made by another version of the feature code, or by none.
    """
    if stored.schema_hash != SCHEMA_HASH:
        raise DataError(
            f"stored features have the schema {stored.schema_hash}, this release makes {SCHEMA_HASH}; "
            "rows without text cannot be converted: leave them out, or use the release that wrote them"
        )
    fault = _fault(stored)
    if fault:
        raise DataError(f"stored features: {fault}; leave this row out")
    dense = np.array(stored.dense, np.float32)
    tokens = float(np.expm1(dense[DENSE_NAMES.index("structure.log_input_tokens")]))
    return Features(dense, np.array(stored.ids, np.int64), np.array(stored.counts, np.float32), tokens)


def _fault(stored: StoredFeatures) -> str | None:
    # What no release can have written, and what would end as a wrong row of a matrix.
    if len(stored.dense) != len(DENSE_NAMES):
        return f"{len(stored.dense)} dense values, expected {len(DENSE_NAMES)}"
    if len(stored.ids) != len(stored.counts):
        return f"{len(stored.ids)} ids and {len(stored.counts)} counts, expected as many"
    if not np.isfinite(np.array((*stored.dense, *stored.counts))).all():
        return "a value is not finite"
    if any(later <= earlier for earlier, later in itertools.pairwise((-1, *stored.ids, N_BUCKETS))):
        return f"ids must rise within [0, {N_BUCKETS})"
    return None
