"""Rows of cached parts as a dataset: facts of all of them, words and answers of those that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from router_ml.features import N_BUCKETS
from router_ml_training.answers import Answers, below, common_ceiling, joined_answers, no_answers
from router_ml_training.blocks import RowBlock
from router_ml_training.corpus.parts import let_go
from router_ml_training.dataset import Dataset, facts_of

__all__ = ["Corpus", "Stretch", "corpus_of"]

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A block of which only some rows count: `rows` (m,) int64, rising."""

    block: RowBlock
    rows: I64

    def keys_of_answers(self) -> I64:
        """Return the keys of the rows of all answers that could be looked at, a row as often as it has them."""
        owner = self.block.material.rows
        return np.asarray(self.block.key[owner[self.places(owner) >= 0]])

    def places(self, row: I64) -> I64:
        """Return the places in `rows` of rows of the block, (m,); -1 for those that do not count."""
        if not len(self.rows):
            return np.full(len(row), -1, np.int64)
        place = np.minimum(np.searchsorted(self.rows, row), len(self.rows) - 1)
        return np.where(self.rows[place] == row, place, -1)


@dataclass(frozen=True, slots=True)
class Corpus:
    """`n_rows` interactions over the tiers, in the order of the logs.

    `digest` is that of the dataset that they are: it is the same however the rows came into the cache.
    """

    tiers: tuple[str, ...]
    digest: str
    n_rows: int
    _facts: Dataset
    _stretches: tuple[Stretch, ...]
    _ceiling: int

    @property
    def ceiling(self) -> int:
        """Below which answers are part of the corpus; see `AnswerMaterial`."""
        return self._ceiling

    def facts(self) -> Dataset:
        """Return all rows without words and answers: `text` has no entries, `answers` none."""
        return self._facts

    def gather(self, rows: I64) -> Dataset:
        """Return some rows with their words and answers, as those rows of one dataset of everything would be.

        Args:
            rows: Numbers of rows, in any order.
        """
        rows = np.asarray(rows, np.int64)
        answers = self._answers().of_rows(rows, self.n_rows)
        gathered = replace(self._facts.rows(rows), text=self._text(rows), answers=answers)
        _let_go(self._stretches)
        return gathered

    def _text(self, rows: I64) -> csr_array:
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        pieces = [block.text[index] for block, index in self._located(wanted)]
        text = _stacked(pieces)
        if np.array_equal(rows, wanted):
            return text
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return text[place]

    def _located(self, rows: I64) -> Iterator[tuple[RowBlock, I64]]:
        start = 0
        for stretch in self._stretches:
            first, end = np.searchsorted(rows, (start, start + len(stretch.rows)))
            if end > first:
                yield stretch.block, stretch.rows[rows[first:end] - start]
            start += len(stretch.rows)

    def _answers(self) -> Answers:
        found, start = [no_answers()], 0
        for stretch in self._stretches:
            answers = stretch.block.material.answers
            place = stretch.places(answers.row)
            index = np.flatnonzero((place >= 0) & below(stretch.block.key[answers.row], self._ceiling))
            found.append(replace(answers.take(index), row=place[index] + start))
            start += len(stretch.rows)
        return replace(joined_answers(*found), unread=np.flatnonzero(~below(self._facts.key, self._ceiling)))


def corpus_of(stretches: Sequence[Stretch], tiers: Sequence[str]) -> Corpus:
    """Return the corpus of these rows.

    Args:
        stretches: In the order of the logs.
        tiers: Tier names, cheapest first.

    Raises:
        DataError: When there is no row, or none says anything about any tier.
    """
    facts = facts_of([one.block.of_rows(one.rows) for one in stretches], tiers)
    ceiling = common_ceiling(np.concatenate([one.keys_of_answers() for one in stretches]))
    _let_go(stretches)
    return Corpus(tuple(tiers), facts.digest, len(facts), facts, tuple(stretches), ceiling)


def _let_go(stretches: Sequence[Stretch]) -> None:
    # Everything that was taken is a copy.
    for one in stretches:
        let_go(one.block)


def _stacked(pieces: Sequence[csr_array]) -> csr_array:
    """Return the rows of all pieces; each is dropped when it is copied, so that words are never twice in memory."""
    ends = np.concatenate([[0], *(np.diff(piece.indptr) for piece in pieces)]).cumsum()
    values: NDArray[Any] = np.empty(ends[-1], np.float32)
    ids = np.empty(ends[-1], np.int32)
    place = 0
    for piece in pieces:
        values[place : place + piece.nnz], ids[place : place + piece.nnz] = piece.data, piece.indices
        place += piece.nnz
    narrow = np.int32 if len(ids) < 2**31 else np.int64
    return csr_array((values, ids, ends.astype(narrow)), shape=(len(ends) - 1, N_BUCKETS))
