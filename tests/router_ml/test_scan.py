"""One pass over a text: the fast hashes are the slow ones, words are what a reader calls words, any script works."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router_ml.features.scan import MAX_CHARS, N_TEXT_BUCKETS, CharClass, bucket_of, hash_pairs, scan, to_buckets

BASE = 0x9E3779B97F4A7C15
ANYTHING = st.text(st.characters(exclude_categories=()), max_size=200)
# Letters of spaced scripts, digits and ASCII punctuation: here a word is what a regular expression calls one.
SPACED = st.text(st.sampled_from("abzABZ09_ .,-+?'\n\tàéßÅñœΩωжЯשلخ"), max_size=200)


def slow_hash(word: str) -> int:
    return int(sum((ord(char) + 1) * BASE**i for i, char in enumerate(word)) % 2**64)


@given(SPACED)
def test_words_and_their_hashes_are_those_of_a_slow_reading(text: str) -> None:
    found, words = scan(text), re.findall(r"\w+", text.lower())
    assert found.words.tolist() == [slow_hash(word) for word in words]
    assert found.word_lengths.tolist() == [len(word) for word in words]


@given(ANYTHING)
@example("\ud800 lone \udfff surrogates")
@example("İstanbul " * 650)  # grows when its case is folded
def test_any_text_is_scanned_and_every_character_has_one_class(text: str) -> None:
    found = scan(text)
    assert found.n_chars == len(text) == found.class_counts.sum()
    assert len(found.words) == len(found.word_lengths)
    assert (found.word_lengths >= 1).all()
    assert found.words.dtype == np.uint64
    again = scan(text)
    assert found.words.tobytes() == again.words.tobytes()


@given(ANYTHING)
def test_the_buckets_of_words_are_the_first_of_all_buckets_whichever_is_asked_for_first(text: str) -> None:
    alone, after = scan(text), scan(text)
    n_words = len(after.lengths)
    assert alone.word_buckets == after.buckets[:n_words].tolist() == after.word_buckets
    assert alone.buckets.tolist() == after.buckets.tolist()


@given(st.text(st.sampled_from("abc 文ก"), max_size=50), st.sampled_from(["cat", "x1_y", "Ünïcode"]))
def test_the_hash_of_a_word_does_not_depend_on_where_it_stands(before: str, word: str) -> None:
    assert scan(f"{before} {word}").words[-1] == scan(word).words[0] == scan(f"{word}, {before}").words[0]


def test_a_word_at_the_far_end_of_a_long_text_has_the_hash_of_a_word_at_its_start() -> None:
    filler = "ab " * ((MAX_CHARS - 10) // 3)
    assert scan(filler + "needle").words[-1] == slow_hash("needle")


@given(SPACED)
def test_case_is_folded_for_words_and_still_counted(text: str) -> None:
    upper, lower = scan(text.lower().upper()), scan(text.lower().upper().lower())
    assert upper.words.tolist() == lower.words.tolist()
    assert lower.class_counts[CharClass.UPPER] == 0


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("你好 世界", [1, 1, 1, 1]),
        ("ひらがなカタカナ", [1] * 8),
        ("สวัสดี", [1] * 6),
        ("မြန်မာ", [1] * 6),
        ("ភាសាខ្មែរ", [1] * 9),
        ("안녕하세요 세계", [5, 2]),
        ("مرحبا بالعالم", [5, 7]),
        ("مَرحَبًا", [8]),
        ("हिन्दी भाषा", [6, 4]),
        ("été e\u0301te\u0301", [3, 5]),
        ("naïve_snake9", [12]),
        ("GPT-4 vs gpt4", [3, 1, 2, 4]),
        ("漢字kanji漢", [1, 1, 5, 1]),
        ("𠮷野家", [1, 1, 1]),
        ("😀👍🏽 🇩🇪", []),
        ("\ud800", []),
        ("", []),
    ],
)
def test_words_of_many_scripts(text: str, lengths: list[int]) -> None:
    assert scan(text).word_lengths.tolist() == lengths


@pytest.mark.parametrize(
    ("char", "kind"),
    [
        (" ", CharClass.SPACE),
        ("\u00a0", CharClass.SPACE),
        ("\n", CharClass.NEWLINE),
        ("7", CharClass.DIGIT),
        ("٣", CharClass.DIGIT),
        ("a", CharClass.LOWER),
        ("_", CharClass.LOWER),
        ("É", CharClass.UPPER),
        ("?", CharClass.PUNCTUATION),
        ("=", CharClass.OPERATOR),
        ("{", CharClass.BRACKET),
        ("ع", CharClass.LETTER),
        ("\u0301", CharClass.LETTER),
        ("한", CharClass.LETTER),
        ("界", CharClass.IDEOGRAPH),
        ("ก", CharClass.IDEOGRAPH),
        ("😀", CharClass.OTHER),
        ("\x00", CharClass.OTHER),
        ("\ud83d", CharClass.OTHER),
    ],
)
def test_classes_of_characters(char: str, kind: int) -> None:
    assert np.flatnonzero(scan(char).class_counts).tolist() == [kind]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_a_pair_is_hashed_from_its_two_words_in_order(words: list[int]) -> None:
    pairs = hash_pairs(np.array(words, np.uint64))
    assert pairs.tolist() == [(a * BASE + b) % 2**64 for a, b in itertools.pairwise(words)]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50), st.integers(0, 5))
def test_buckets_stay_in_range(hashes: list[int], kind: int) -> None:
    buckets = to_buckets(np.array(hashes, np.uint64), kind)
    assert ((buckets >= 0) & (buckets < N_TEXT_BUCKETS)).all()


def test_buckets_are_spread_evenly_and_differently_for_each_kind() -> None:
    hashes = scan(" ".join(f"word{i}" for i in range(600))).words
    one, two = to_buckets(hashes, 1), to_buckets(hashes, 2)
    assert len(np.unique(one)) >= 595
    assert (one == two).sum() <= 2


@given(st.sampled_from(["cat", "Straße".lower(), "a_b9", "ω"]), st.integers(1, 3))
def test_a_single_word_taken_whole_has_the_bucket_it_has_in_a_text(word: str, kind: int) -> None:
    assert bucket_of(word, kind) == to_buckets(scan(f"some {word} here").words[[1]], kind)[0]


@given(ANYTHING)
def test_any_string_has_a_bucket(text: str) -> None:
    assert 0 <= bucket_of(text, 3) < N_TEXT_BUCKETS


def test_a_string_longer_than_the_tables_has_the_bucket_of_its_head() -> None:
    assert bucket_of("x" * (MAX_CHARS + 500), 3) == bucket_of("x" * MAX_CHARS, 3)
