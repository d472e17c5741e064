"""Interactions -> blocks of rows: all that a dataset needs to know of each row, whatever the other rows are.

What depends on other rows (which rule refusals count, what an opinion is worth, which answers are looked at) is decided
when blocks become a dataset: a block can be kept, and is as good beside tomorrow's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from router_ml.features import DENSE_NAMES, N_BUCKETS, featurize, from_stored, text_of
from router_ml.schema import Interaction
from router_ml_training.answers import EVERY_PLACE, AnswerCollector, AnswerMaterial
from router_ml_training.columns import Bags, Columns
from router_ml_training.labels import Evidence, evidence_of
from router_ml_training.reliability import NOISY_SOURCES

__all__ = ["PER_ROW", "BlockBuilder", "RowBlock", "Stratum"]

F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]
# Policy version and mode: what runs in the background is judged by others, and at another rate, than what clients see.
Stratum: TypeAlias = tuple[str | None, str]

# Columns with a value per row, without words, evidence and answers.
PER_ROW = (
    "dense",
    "input_tokens",
    "group",
    "key",
    "ts",
    "stratum",
    "action",
    "propensity",
    "beside",
    "share",
    "simulated",
    "assigned",
    "calls",
    "broken",
)
_EVIDENCE = tuple(field.name for field in fields(Evidence))
_NOT_WORD = re.compile(r"\W+")
# What the pattern and lower-casing do to a character, for every byte; only ASCII is read through it.
_ASCII_WORDS = bytes(ord(char.lower()) if char.isalnum() or char == "_" else ord(" ") for char in map(chr, range(128)))
_ASCII_WORDS += bytes(128)


@dataclass(frozen=True, slots=True)
class RowBlock:
    """n interactions over K tiers as arrays, in the order they came.

    `text` (n, N_BUCKETS) are the words, `evidence` has (n, K, ...) in every field, `material` the answers. `stratum`
    (n,) is a place in `strata`. `simulated` and `assigned` (n,) say whose row or time was made up, `calls` and `broken`
    (n,) count attempts and those that ended in an error. The other columns are those of `Dataset`.
    """

    dense: NDArray[np.float32]
    input_tokens: F64
    group: I64
    key: I64
    ts: F64
    stratum: I64
    action: I64
    propensity: F64
    beside: I64
    share: F64
    simulated: NDArray[np.bool_]
    assigned: NDArray[np.bool_]
    calls: I64
    broken: I64
    text: csr_array
    evidence: Evidence
    material: AnswerMaterial
    strata: tuple[Stratum, ...]

    def __len__(self) -> int:
        return len(self.key)

    def of_rows(self, index: I64) -> RowBlock:
        """Return some rows, rising, without their words and answers."""
        evidence = Evidence(*(getattr(self.evidence, name)[index] for name in _EVIDENCE))
        taken = {name: getattr(self, name)[index] for name in PER_ROW}
        return replace(self, evidence=evidence, **taken)


class BlockBuilder:
    """Turns interactions into a block, one at a time.

    Args:
        tiers: Tier names, cheapest first.
        ceiling: Answers of rows whose place is not below it are not looked at; see `AnswerMaterial`.
    """

    def __init__(self, tiers: Sequence[str], *, ceiling: int = EVERY_PLACE) -> None:
        self._tiers = tuple(tiers)
        self._bags, self._columns = Bags(), Columns()
        self._answers = AnswerCollector(tiers, ceiling=ceiling)
        self._strata: dict[Stratum, int] = {}
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def add(self, item: Interaction) -> None:
        """Append a row; one without text must carry its features."""
        features = from_stored(item.features) if item.features else featurize(item.to_request())
        self._bags.add(features.ids, features.counts)
        evidence = evidence_of(item, self._tiers)
        stratum = self._strata.setdefault((item.policy_version, item.mode), len(self._strata))
        key = _stable_number(item.id)
        self._answers.add(key, item, ~np.isnan(evidence.quality))
        self._columns.add(
            features.dense,
            features.input_tokens,
            _stable_number(_group_key(item)),
            key,
            item.ts.timestamp(),
            stratum,
            *_first_draw(item, self._tiers),
            *_ran_beside(item),
            bool(item.tags.get("simulated")),
            bool(item.tags.get("ts_assigned")),
            len(item.attempts),
            sum(attempt.error is not None for attempt in item.attempts),
            *(getattr(evidence, name) for name in _EVIDENCE),
        )
        self._n += 1

    def built(self) -> RowBlock:
        """Return the block; nothing is added afterwards."""
        columns = list(self._columns.arrays()) or list(_no_columns(len(self._tiers)))
        row: dict[str, Any] = dict(zip(PER_ROW, columns, strict=False))
        said = columns[len(PER_ROW) :]
        return RowBlock(
            **row,
            text=self._bags.matrix(N_BUCKETS),
            evidence=Evidence(*said),
            material=self._answers.material(),
            strata=tuple(self._strata),
        )


def _no_columns(k: int) -> tuple[NDArray[Any], ...]:
    # As an empty block of `Columns` would have them.
    real, whole, true = np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    by_tier, flags = np.zeros((0, k)), np.zeros((0, k), np.bool_)
    row = np.zeros((0, len(DENSE_NAMES)), np.float32), real, whole, whole, real, whole, whole, by_tier, whole, real
    evidence = by_tier, flags, flags, flags, by_tier, by_tier, flags, np.zeros((0, k, len(NOISY_SOURCES)), np.int8)
    return *row, true, true, whole, whole, *evidence


def _first_draw(item: Interaction, tiers: Sequence[str]) -> tuple[int, list[float]]:
    """Return the tier that the log's policy drew (-1: none) and the probability it gave each tier (NaN: unknown)."""
    # A client that asked for one tier by name left the policy nothing to draw.
    drawn = item.mode == "live" and item.attempts and len(item.candidates) != 1
    first = item.attempts[0].tier if drawn else None
    known = first in tiers and bool(item.propensity)
    return (
        tiers.index(first) if first in tiers else -1,
        [item.propensity.get(name, 0.0) if known else float("nan") for name in tiers],
    )


def _ran_beside(item: Interaction) -> tuple[int, float]:
    """Return the key of the decision that an audit ran beside (0: none), and the probability of the audit."""
    live, share = item.tags.get("beside"), item.tags.get("share")
    if item.mode != "audit" or not isinstance(live, str):
        return 0, float("nan")
    chance = float(share) if isinstance(share, (int, float)) and 0.0 < share <= 1.0 else float("nan")
    return _stable_number(live), chance


def _group_key(item: Interaction) -> str:
    if item.session_id is not None:
        return f"session {item.session_id}"
    for message in reversed(item.request.messages):
        if message.get("role") == "user":
            words = _words(text_of(message.get("content")))
            if not words:  # a picture alone: equal words would say nothing
                break
            return "prompt " + hashlib.sha256(words).hexdigest()[:16]
    return f"id {item.id}"


def _words(text: str) -> bytes:
    """Return the words in lower case, single spaces between them."""
    if text.isascii():  # the same, at a tenth of the cost
        return b" ".join(text.encode("ascii").translate(_ASCII_WORDS).split())
    return _NOT_WORD.sub(" ", text.lower()).strip().encode("utf-8", "surrogatepass")


def _stable_number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big", signed=True)
