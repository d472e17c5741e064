"""Answers of a log as arrays, for the verifier: a bounded number of them, whatever the size of the log."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from router_ml.features.answer import (
    ANSWER_NAMES,
    N_ANSWER_BUCKETS,
    AnswerFeatures,
    answer_from_stored,
    answer_of_attempt,
    featurize_answer,
)
from router_ml.schema import Attempt, Interaction, Request

__all__ = [
    "EVERY_PLACE",
    "MAX_ANSWERS",
    "AnswerCollector",
    "AnswerMaterial",
    "Answers",
    "below",
    "common_ceiling",
    "joined_answers",
    "no_answers",
    "stack_answers",
]

F32: TypeAlias = NDArray[np.float32]
I64: TypeAlias = NDArray[np.int64]

# About 150 MB of features; more answers than this teach a verifier little, and cost minutes.
MAX_ANSWERS = 40_000
# One more than the place of any key.
EVERY_PLACE = 2**64
_CHECKED = [i for i, name in enumerate(ANSWER_NAMES) if name.startswith("form.check_")]


@dataclass(frozen=True, slots=True)
class Answers:
    """m answers to rows of a dataset, by row.

    `row` (m,) int64 is the row of the dataset, rising; `tier` (m,) the ladder position of the tier that answered;
    `dense` (m, A) float32 and `text` (m, N_ANSWER_BUCKETS) sparse float32 are the features. `unread`, rising, are the
    rows of the dataset whose answers were not looked at because there were too many: a random part of all rows.
    """

    row: I64
    tier: I64
    dense: F32
    text: csr_array
    unread: I64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: I64 | NDArray[np.bool_]) -> Answers:
        """Return the answers of that index or mask; their rows stay numbered as they were."""
        return Answers(self.row[index], self.tier[index], self.dense[index], self.text[index], self.unread)

    def of_rows(self, rows: I64 | NDArray[np.bool_], n_rows: int) -> Answers:
        """Return the answers to some of the dataset's rows, numbered as those rows will be.

        Args:
            rows: Index, in any order and with repeats, or mask of the dataset's rows.
            n_rows: How many rows the dataset has.
        """
        index = np.arange(n_rows)[rows]
        first, end = np.searchsorted(self.row, index), np.searchsorted(self.row, index, side="right")
        counts = end - first
        row = np.repeat(np.arange(len(index)), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = np.repeat(first, counts) + within
        unread = np.flatnonzero(np.isin(index, self.unread))
        return Answers(row, self.tier[kept], self.dense[kept], self.text[kept], unread)

    def refused(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return whose answers a response check refuses, of the shape (n, K) of the dataset's outcomes."""
        refused = np.zeros(shape, np.bool_)
        fired = (self.dense[:, _CHECKED] > 0).any(axis=1)
        refused[self.row[fired], self.tier[fired]] = True
        return refused

    def shifted(self, by: int) -> Answers:
        """Return the same answers with `by` added to every row number."""
        return Answers(self.row + by, self.tier, self.dense, self.text, self.unread + by)


def no_answers() -> Answers:
    """Return the answers of a log that has none."""
    return stack_answers([], [], [])


def stack_answers(rows: Sequence[int], tiers: Sequence[int], features: Sequence[AnswerFeatures]) -> Answers:
    """Turn answers, by rising row, into arrays."""
    pointers = np.concatenate(([0], np.cumsum([len(one.ids) for one in features], dtype=np.int64))).astype(np.int64)
    indices = np.concatenate([one.ids for one in features]) if features else np.zeros(0, np.int64)
    values = np.concatenate([one.counts for one in features]) if features else np.zeros(0, np.float32)
    dense = np.stack([one.dense for one in features]) if features else np.zeros((0, len(ANSWER_NAMES)), np.float32)
    text = csr_array((values, indices, pointers), shape=(len(features), N_ANSWER_BUCKETS))
    return Answers(np.array(rows, np.int64), np.array(tiers, np.int64), dense, text)


def joined_answers(*parts: Answers) -> Answers:
    """Return the answers of datasets whose rows follow each other; those after the first are numbered accordingly."""
    return Answers(
        np.concatenate([one.row for one in parts]),
        np.concatenate([one.tier for one in parts]),
        np.concatenate([one.dense for one in parts]),
        vstack([one.text for one in parts], format="csr"),
        np.concatenate([one.unread for one in parts]),
    )


@dataclass(frozen=True, slots=True)
class AnswerMaterial:
    """The answers of some rows that a verifier could learn from, of which those below a ceiling were looked at.

    `rows` (m,) int64, rising, has a row as often as it has such answers. `answers` are those of the rows whose place is
    below `ceiling`; a row's place is its key, counted from 0.
    """

    rows: I64
    ceiling: int
    answers: Answers


def common_ceiling(keys: I64, limit: int = MAX_ANSWERS) -> int:
    """Return the highest ceiling, 2**64 halved so and so often, with at most `limit` answers below it.

    Args:
        keys: The key of each answer's row, (m,).
        limit: How many answers to keep.
    """
    places, ceiling = np.sort(_places(keys)), EVERY_PLACE
    while np.searchsorted(places, np.uint64(ceiling - 1), side="right") > limit:
        ceiling //= 2
    return ceiling


def below(keys: I64, ceiling: int) -> NDArray[np.bool_]:
    """Return whose place is below a ceiling, (n,), from keys (n,)."""
    # The ceiling itself may be one more than a place can be.
    return np.asarray(_places(keys) <= np.uint64(ceiling - 1), np.bool_)


def _places(keys: I64) -> NDArray[np.uint64]:
    # The same as adding 2**63, which int64 has no room for.
    return np.asarray(keys, np.int64).view(np.uint64) ^ np.uint64(2**63)


class AnswerCollector:
    """Keeps the answers of a stream of interactions that a verifier can learn from, at most `limit` of them.

    When there are more, those of the interactions with the smallest keys are kept: a fair sample, the same one
    whenever the same interactions are read. The dearest tier's answers are not kept, for nobody is dearer to jump to.

    Args:
        tiers: Tier names, cheapest first.
        limit: How many answers to keep.
        ceiling: Answers of keys above it, counted from 0, are not looked at.
    """

    def __init__(self, tiers: Sequence[str], limit: int = MAX_ANSWERS, ceiling: int = EVERY_PLACE) -> None:
        self._position = {name: i for i, name in enumerate(tiers[:-1])}
        self._limit = limit
        self._ceiling = ceiling
        self._keys = array("q")
        self._rows = array("q")
        self._kept: list[tuple[int, int, int, AnswerFeatures]] = []

    def add(self, key: int, item: Interaction, known: NDArray[np.bool_]) -> None:
        """Look at the next interaction, the one of the dataset's next row.

        Args:
            key: A stable number of it, spread evenly over all of int64.
            item: The interaction.
            known: Whether anything is known of the tier's outcome, (K,).
        """
        row, place = len(self._keys), key + 2**63
        self._keys.append(key)
        last = self._readable(item, known)
        self._rows.extend([row] * len(last))
        if place >= self._ceiling or not last:
            return
        request = item.to_request()
        self._kept += [(row, tier, place, _features(request, attempt)) for tier, attempt in sorted(last.items())]
        while len(self._kept) > self._limit:
            self._ceiling //= 2
            self._kept = [one for one in self._kept if one[2] < self._ceiling]

    def material(self) -> AnswerMaterial:
        """Return all that was found, and what was looked at."""
        kept = sorted(self._kept, key=lambda one: one[:2])
        answers = stack_answers([one[0] for one in kept], [one[1] for one in kept], [one[3] for one in kept])
        return AnswerMaterial(np.array(self._rows, np.int64), self._ceiling, answers)

    def collected(self) -> Answers:
        """Return what was kept, by row."""
        keys = np.array(self._keys, np.int64)
        return replace(self.material().answers, unread=np.flatnonzero(~below(keys, self._ceiling)))

    def _readable(self, item: Interaction, known: NDArray[np.bool_]) -> dict[int, Attempt]:
        # Of several answers of one tier, the last.
        has_text = bool(item.request.messages)
        return {
            tier: attempt
            for attempt in item.attempts
            if attempt.error is None
            and (tier := self._position.get(attempt.tier)) is not None
            and known[tier]
            and _is_readable(attempt, has_text=has_text)
        }


def _is_readable(attempt: Attempt, *, has_text: bool) -> bool:
    """Return whether the log has the text of an attempt's answer, or features of it that can be used."""
    if attempt.features is not None:
        return answer_from_stored(attempt.features) is not None
    return has_text and (attempt.response is not None or bool(attempt.tool_calls))


def _features(request: Request, attempt: Attempt) -> AnswerFeatures:
    stored = None if attempt.features is None else answer_from_stored(attempt.features)
    return featurize_answer(request, answer_of_attempt(attempt)) if stored is None else stored
