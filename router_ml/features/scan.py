"""Turn a text into classes of characters and hashed words in a fixed number of passes; any script, bounded time.

A word is a run of letters with their marks, digits and underscores. Scripts that put no spaces between words
(Chinese, Japanese, Thai, ...) are read as single characters instead.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.features.hashing import (
    MAX_CHARS,
    N_TEXT_BUCKETS,
    WORD_KIND,
    ascii_buckets,
    ascii_hashes,
    bucket_of,
    buckets_of,
    code_points,
    hash_pairs,
    range_hashes,
    to_buckets,
)

__all__ = [
    "MAX_CHARS",
    "N_TEXT_BUCKETS",
    "WORD_KIND",
    "CharClass",
    "TextScan",
    "bucket_of",
    "hash_pairs",
    "scan",
    "to_buckets",
]

U64: TypeAlias = NDArray[np.uint64]
I64: TypeAlias = NDArray[np.int64]

_TABLED = 0x3040  # code points below have their class tabled; above, scripts are told apart by range


class CharClass:
    """Classes of code points; the values index `TextScan.class_counts`."""

    OTHER, SPACE, NEWLINE, DIGIT, LOWER, UPPER, PUNCTUATION, OPERATOR, BRACKET, IDEOGRAPH, LETTER = range(11)
    COUNT = 11


# No ASCII character is of the two last classes; lower case, the most frequent one, is what is left.
_COUNTED_BELOW, _COUNTED_ABOVE = range(CharClass.LOWER), range(CharClass.LOWER + 1, CharClass.IDEOGRAPH)


class TextScan:
    """What one pass over a text found.

    `n_chars` is the length in code points, `counts` that of every class of them, `lengths` those of the words in
    characters. What not every reader looks at is computed when it is asked for first: hashes, buckets.

    Args:
        n_chars: As above.
        counts: As above.
        lengths: As above.
        words: The words' hashes where they are known; else they are those of `found`.
        found: The words of an ASCII text, lower case.
    """

    __slots__ = ("_buckets", "_found", "_words", "counts", "lengths", "n_chars")

    def __init__(
        self,
        n_chars: int,
        counts: list[int],
        lengths: list[int],
        *,
        words: U64 | None = None,
        found: Sequence[bytes] = (),
    ) -> None:
        self.n_chars = n_chars
        self.counts = counts
        self.lengths = lengths
        self._found = found
        self._words = words
        self._buckets: I64 | None = None

    @property
    def words(self) -> U64:
        """One 64-bit hash per word, in order, shape (w,)."""
        if self._words is None:
            self._words = ascii_hashes(self._found)
        return self._words

    @property
    def buckets(self) -> I64:
        """The text bucket of every word and then of every two neighbouring words, repeats included: 2 w - 1 of them."""
        if self._buckets is None:
            self._buckets = buckets_of(self.words)
        return self._buckets

    @property
    def word_buckets(self) -> list[int]:
        """The first w of `buckets`: at half the price where nobody asks for the others."""
        if self._buckets is not None:
            found: list[int] = self._buckets[: len(self.lengths)].tolist()
        elif self._words is None:
            found = ascii_buckets(self._found)
        else:
            found = to_buckets(self._words, WORD_KIND).tolist()
        return found

    @property
    def class_counts(self) -> I64:
        """`counts` as an array, shape (CharClass.COUNT,)."""
        return np.array(self.counts, np.int64)

    @property
    def word_lengths(self) -> I64:
        """`lengths` as an array, shape (w,)."""
        return np.array(self.lengths, np.int64)


def scan(text: str) -> TextScan:
    """Read a text of at most `MAX_CHARS` characters.

    Args:
        text: Any string, lone surrogates and the empty string included; the case is folded for the words only.

    Returns:
        Counts and word hashes; equal texts give equal bytes.
    """
    if not text.isascii():
        counts, folded, starts, ends = _read_any(text)
        words = range_hashes(folded, starts, ends)
        return TextScan(len(text), counts.tolist(), (ends - starts).tolist(), words=words)
    raw = text.encode()
    classes, folds = _ascii_tables()
    found = raw.translate(folds).split()
    return TextScan(len(raw), _count_classes(raw.translate(classes)), list(map(len, found)), found=found)


def _count_classes(classes: bytes) -> list[int]:
    count = classes.count
    counts = [*map(count, _COUNTED_BELOW), 0, *map(count, _COUNTED_ABOVE), 0, 0]
    counts[CharClass.LOWER] = len(classes) - sum(counts)
    return counts


def _read_any(text: str) -> tuple[I64, U64, I64, I64]:
    points = code_points(text)
    classes = _classes(points)
    counts = np.bincount(classes, minlength=CharClass.COUNT)
    lowered = text.lower()
    if lowered != text:
        points = code_points(lowered)[:MAX_CHARS]
        classes = _classes(points)
    return counts, points + np.uint64(1), *_word_bounds(classes)


def _word_bounds(classes: NDArray[np.uint8]) -> tuple[I64, I64]:
    flags = np.zeros(len(classes) + 2, np.bool_)
    np.take(_word_table(), classes, out=flags[1:-1])
    inside, ideograph = flags[1:-1], classes == CharClass.IDEOGRAPH
    # An edge lies wherever "inside a spaced word" changes, and around every ideograph.
    starts = (inside & ~flags[:-2] | ideograph).nonzero()[0]
    ends = (inside & ~flags[2:] | ideograph).nonzero()[0] + 1
    return starts, ends


@cache
def _ascii_tables() -> tuple[bytes, bytes]:
    """For each of 256 bytes: its class; its lower case where it is part of a word, else a space (past ASCII unused)."""
    classes = _class_table()[:256]
    inside = _word_table()[classes].tolist()
    folds = bytes(ord(chr(point).lower()) % 256 if inside[point] else 0x20 for point in range(256))
    return classes.tobytes(), folds


@cache
def _word_table() -> NDArray[np.bool_]:
    table = np.zeros(CharClass.COUNT, np.bool_)
    table[[CharClass.DIGIT, CharClass.LOWER, CharClass.UPPER, CharClass.LETTER]] = True
    return table


def _classes(points: NDArray[np.uint32]) -> NDArray[np.uint8]:
    classes = _class_table()[np.minimum(points, _TABLED)]
    high = points >= _TABLED
    if high.any():
        beyond = points[high]
        hangul = (beyond >= 0xAC00) & (beyond <= 0xD7A3)
        ideograph = (beyond <= 0x9FFF) | ((beyond >= 0xF900) & (beyond <= 0xFAFF)) | (beyond >= 0x20000)
        kinds = np.where(hangul, CharClass.LETTER, np.where(ideograph, CharClass.IDEOGRAPH, CharClass.OTHER))
        classes[high] = kinds.astype(np.uint8)
    return classes


@cache
def _class_table() -> NDArray[np.uint8]:
    table = np.array([_class_of(chr(point)) for point in range(_TABLED + 1)], np.uint8)
    # Thai and Lao, Burmese, Khmer: written without spaces.
    for first, last in ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF)):
        table[first : last + 1] = CharClass.IDEOGRAPH
    table[0x2E80:0x3000] = CharClass.IDEOGRAPH
    return table


# The first that applies. One after the other: thousands of characters are tabled before a service is ready.
_RULES: tuple[tuple[Callable[[str], bool], int], ...] = (
    ("\n\r".__contains__, CharClass.NEWLINE),
    (str.isspace, CharClass.SPACE),
    (str.isdecimal, CharClass.DIGIT),
    ("+-*/=<>^%|&~".__contains__, CharClass.OPERATOR),
    ("()[]{}".__contains__, CharClass.BRACKET),
    (str.isupper, CharClass.UPPER),
    (str.islower, CharClass.LOWER),
    ("_".__eq__, CharClass.LOWER),
    (str.isalnum, CharClass.LETTER),
    # Vowel signs and accents are marks of their own in many scripts: they belong to the word they stand in.
    (lambda char: unicodedata.category(char).startswith("M"), CharClass.LETTER),
    (str.isprintable, CharClass.PUNCTUATION),
)


def _class_of(char: str) -> int:
    for applies, kind in _RULES:
        if applies(char):
            return kind
    return CharClass.OTHER
