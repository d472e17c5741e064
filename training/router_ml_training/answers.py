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

__all__ = ["MAX_ANSWERS", "AnswerCollector", "Answers", "joined_answers", "no_answers", "stack_answers"]

F32: TypeAlias = NDArray[np.float32]
I64: TypeAlias = NDArray[np.int64]

# About 150 MB of features; more answers than this teach a verifier little, and cost minutes.
MAX_ANSWERS = 40_000
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


def joined_answers(first: Answers, second: Answers) -> Answers:
    """Return the answers of two datasets whose rows follow each other; the second's are numbered accordingly."""
    parts = (first, second)
    return Answers(
        np.concatenate([one.row for one in parts]),
        np.concatenate([one.tier for one in parts]),
        np.concatenate([one.dense for one in parts]),
        vstack([one.text for one in parts], format="csr"),
        np.concatenate([one.unread for one in parts]),
    )


class AnswerCollector:
    """Keeps the answers of a stream of interactions that a verifier can learn from, at most `limit` of them.

    When there are more, those of the interactions with the smallest keys are kept: a fair sample, the same one
    whenever the same interactions are read. The dearest tier's answers are not kept, for nobody is dearer to jump to.

    Args:
        tiers: Tier names, cheapest first.
        limit: How many answers to keep.
    """

    def __init__(self, tiers: Sequence[str], limit: int = MAX_ANSWERS) -> None:
        self._position = {name: i for i, name in enumerate(tiers[:-1])}
        self._limit = limit
        self._ceiling = 2**64
        self._places = array("Q")
        self._kept: list[tuple[int, int, int, AnswerFeatures]] = []

    def add(self, key: int, item: Interaction, known: NDArray[np.bool_]) -> None:
        """Look at the next interaction, the one of the dataset's next row.

        Args:
            key: A stable number of it, spread evenly over all of int64.
            item: The interaction.
            known: Whether anything is known of the tier's outcome, (K,).
        """
        row, place = len(self._places), key + 2**63
        self._places.append(place)
        if place >= self._ceiling:
            return
        last: dict[int, AnswerFeatures] = {}
        request = item.to_request()
        for attempt in item.attempts:
            tier = self._position.get(attempt.tier)
            if tier is None or attempt.error is not None or not known[tier]:
                continue
            features = _features(request, attempt)
            if features is not None:
                last[tier] = features
        self._kept += [(row, tier, place, features) for tier, features in sorted(last.items())]
        while len(self._kept) > self._limit:
            self._ceiling //= 2
            self._kept = [one for one in self._kept if one[2] < self._ceiling]

    def collected(self) -> Answers:
        """Return what was kept, by row."""
        kept = sorted(self._kept, key=lambda one: one[:2])
        answers = stack_answers([one[0] for one in kept], [one[1] for one in kept], [one[3] for one in kept])
        places = np.frombuffer(self._places, np.uint64) if self._places else np.zeros(0, np.uint64)
        # The ceiling itself is one more than a place can be.
        return replace(answers, unread=np.flatnonzero(places > np.uint64(self._ceiling - 1)))


def _features(request: Request, attempt: Attempt) -> AnswerFeatures | None:
    """Return the features of an attempt's answer, None where the log has neither the text nor usable features."""
    if attempt.features is not None:
        return answer_from_stored(attempt.features)
    if not request.messages or (attempt.response is None and not attempt.tool_calls):
        return None
    return featurize_answer(request, answer_of_attempt(attempt))
