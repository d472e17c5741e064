"""Hashes of words: what is remembered is what would be computed, however many words are new and however long."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.features import hashing
from router_ml.features.hashing import MAX_CHARS, ascii_buckets, ascii_hashes, buckets_of, range_hashes, to_buckets

BASE = 0x9E3779B97F4A7C15
WORDS = st.lists(st.text("abcxyz019_", min_size=1, max_size=40).map(str.encode), max_size=60)


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_REMEMBERED", {})
    monkeypatch.setattr(hashing, "_REMEMBERED_BUCKETS", {})


def slow_hash(word: bytes) -> int:
    return int(sum((char + 1) * BASE**i for i, char in enumerate(word)) % 2**64)


@given(WORDS)
def test_a_word_has_the_same_hash_the_first_time_and_later(words: list[bytes]) -> None:
    expected = [slow_hash(word) for word in words]
    assert ascii_hashes(words).tolist() == expected
    assert ascii_hashes(words).tolist() == expected
    assert ascii_hashes(words[::-1]).tolist() == expected[::-1]


@given(WORDS)
def test_a_word_has_the_bucket_of_its_hash_the_first_time_and_later(words: list[bytes]) -> None:
    expected = to_buckets(ascii_hashes(words), 1).tolist()
    assert ascii_buckets(words) == expected
    assert ascii_buckets(words) == expected
    assert ascii_buckets(words[::-1]) == expected[::-1]


def test_a_text_of_new_words_only_is_hashed_at_once_and_as_it_would_be_word_by_word() -> None:
    words = [f"w{i:04d}".encode() for i in range(MAX_CHARS // 5)]
    assert ascii_hashes(words).tolist() == [slow_hash(word) for word in words]
    whole = np.frombuffer(b"".join(words), np.uint8).astype(np.uint64) + np.uint64(1)
    starts = np.arange(0, len(whole), 5)
    np.testing.assert_array_equal(range_hashes(whole, starts, starts + 5), ascii_hashes(words))


def test_what_is_remembered_is_bounded_in_number_and_length() -> None:
    for start in range(0, 60_000, 1000):
        ascii_buckets([f"{i}".encode() for i in range(start, start + 1000)])
    assert 0 < len(hashing._REMEMBERED) <= 16_384
    assert 0 < len(hashing._REMEMBERED_BUCKETS) <= 16_384
    long = b"x" * 1000
    assert ascii_hashes([long]).tolist() == [slow_hash(long)]
    assert ascii_buckets([long]) == to_buckets(ascii_hashes([long]), 1).tolist()
    assert not {long} & {*hashing._REMEMBERED, *hashing._REMEMBERED_BUCKETS}


def test_threads_that_forget_for_each_other_still_read_right() -> None:
    texts = [[f"{i * j}".encode() for j in range(1, 900)] for i in range(60)]
    expected = [[slow_hash(word) for word in words] for words in texts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda words: ascii_hashes(words).tolist(), texts))
    assert found == expected


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40))
def test_the_buckets_of_a_text_are_those_of_its_words_and_then_of_its_pairs(hashes: list[int]) -> None:
    words = np.array(hashes, np.uint64)
    pairs = hashing.hash_pairs(words)
    expected = [*to_buckets(words, 1).tolist(), *to_buckets(pairs, 2).tolist()]
    assert buckets_of(words).tolist() == expected
