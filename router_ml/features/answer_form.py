"""Answer block: how the answer ended, how long it is, how it is laid out, how much it repeats itself."""

# ruff: noqa: RUF001 - other scripts end sentences with other characters

from __future__ import annotations

import zlib
from collections.abc import Mapping
from math import log, log1p, nan

import numpy as np
from numpy.typing import NDArray

from router_ml.checks import CHECKS
from router_ml.features.answer_view import AnswerView
from router_ml.features.scan import CharClass, TextScan, hash_pairs

__all__ = ["COLUMNS", "compute"]

_FINISHES = ("stop", "length", "tool_calls", "content_filter")
_CLASSES = {
    "space": CharClass.SPACE,
    "digit": CharClass.DIGIT,
    "upper": CharClass.UPPER,
    "punctuation": CharClass.PUNCTUATION,
    "operator": CharClass.OPERATOR,
    "bracket": CharClass.BRACKET,
    "ideograph": CharClass.IDEOGRAPH,
    "letter": CharClass.LETTER,
}
_COUNTED: Mapping[str, str] = {
    "lines": "\n",
    "paragraphs": "\n\n",
    "bullets": "\n-",
    "stars": "\n*",
    "bold": "**",
    "fences": "```",
    "tables": "|",
    "latex": "\\",
    "questions": "?",
    "exclamations": "!",
    "commas": ",",
    "colons": ":",
}
# Where a sentence may end in any of the scripts.
_STOPS = (". ", ".\n", "。", "! ", "? ", "！", "？", "।")
_CLOSED = frozenset(".!?。！？।…)]}\"'`»”*|")
_COMPRESSED_BYTES = 3000
_CHECKS = tuple(CHECKS)

COLUMNS: tuple[str, ...] = (
    *(f"finish_{name}" for name in _FINISHES),
    "finish_unknown",
    "log_chars",
    "log_words",
    "log_tokens",
    "log_tokens_over_expected",
    "log_limit_over_tokens",
    "mean_word_chars",
    *(f"{name}_share" for name in _CLASSES),
    *(f"log_{name}" for name in _COUNTED),
    "log_sentences",
    "words_per_sentence",
    "ends_open",
    "open_brackets",
    "distinct_word_share",
    "distinct_pair_share",
    "distinct_triple_share",
    "repeated_line_share",
    "compressed_share",
    "tool_calls",
    "has_logprobs",
    "mean_logprob",
    "lowest_logprob",
    "unsure_token_share",
    *(f"check_{name}" for name in _CHECKS),
)


def compute(view: AnswerView) -> list[float]:
    """Return one value per column; NaN where the answer does not say (no token count, no log-probabilities)."""
    text, found, counts = view.text, view.scan, view.scan.class_counts.tolist()
    finish = view.answer.finish_reason
    per_char = 1.0 / max(found.n_chars, 1)
    n_words = len(found.words)
    sentences = 1 + sum(text.count(stop) for stop in _STOPS)
    values = [float(finish == name) for name in _FINISHES]
    values += [float(finish not in _FINISHES), log1p(view.chars), log1p(n_words), *_lengths(view)]
    values.append(float(found.word_lengths.sum()) / n_words if n_words else 0.0)
    values += [counts[kind] * per_char for kind in _CLASSES.values()]
    values += [log1p(text.count(mark)) for mark in _COUNTED.values()]
    ending = text.rstrip()[-1:]
    opened = sum(text.count(mark) for mark in "([{") - sum(text.count(mark) for mark in ")]}")
    values += [log1p(sentences), n_words / sentences, float(ending not in _CLOSED), float(max(min(opened, 9), -9))]
    values += [*_repetition(found), *_lines_and_bytes(text), float(min(len(view.answer.tool_calls), 20))]
    return [*values, *_logprobs(view), *_checked(view)]


def _lengths(view: AnswerView) -> tuple[float, float, float]:
    tokens = view.answer.output_tokens
    if tokens is None:
        return nan, nan, nan
    known = log1p(max(tokens, 0))
    limit = view.asked.request.max_tokens
    expected = view.expected_tokens
    return (
        known,
        known - log(expected) if expected > 0 else nan,
        log1p(min(max(limit, 0), 10_000_000)) - known if limit is not None else nan,
    )


def _repetition(found: TextScan) -> tuple[float, float, float]:
    pairs = hash_pairs(found.words)
    return _distinct(found.words), _distinct(pairs), _distinct(hash_pairs(pairs))


def _distinct(hashes: NDArray[np.uint64]) -> float:
    n = len(hashes)
    if n < 2:
        return 1.0
    ordered = np.sort(hashes)
    return (1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))) / n


def _lines_and_bytes(text: str) -> tuple[float, float]:
    lines = [line for line in text.split("\n") if line.strip()]
    repeated = 1.0 - len(set(lines)) / len(lines) if lines else 0.0
    raw = text.encode("utf-8", "surrogatepass")[:_COMPRESSED_BYTES]
    return repeated, len(zlib.compress(raw, 1)) / len(raw) if raw else 1.0


def _logprobs(view: AnswerView) -> tuple[float, float, float, float]:
    found = view.answer.logprobs
    if found is None:
        return 0.0, nan, nan, nan
    return 1.0, found.mean, found.lowest, found.unsure_share


def _checked(view: AnswerView) -> list[float]:
    if view.passed:
        return [0.0] * len(_CHECKS)
    request, answer = view.asked.request, view.answer
    return [float(CHECKS.load(name)(request, answer) is not None) for name in _CHECKS]
