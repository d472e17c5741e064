"""What the answer blocks look at: one answer beside its request, read once, cut to a bounded length."""

# ruff: noqa: RUF001 - other languages use other characters

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

from router_ml.features.canonical import unified
from router_ml.features.scan import MAX_CHARS, TextScan, scan
from router_ml.features.view import RequestView
from router_ml.schema import Answer

__all__ = ["AnswerView", "Number", "numbers_of", "view_answer"]

_HEAD_CHARS = 3500
_TAIL_CHARS = 2500
# What follows the marker of a final answer, or stands at the end of an answer without one.
_CONCLUSION_CHARS = 160
_MAX_NUMBERS = 250
# One number is as long as this at most; ids and hashes that are longer say nothing as numbers.
_NUMBER = re.compile(r"\d{1,15}(?:,\d{3}){0,6}(?:\.\d{1,12})?|\.\d{1,12}")
# Words that announce the final answer, in the languages of the checks; the separator must follow "answer" and its like.
_ANNOUNCED = re.compile(
    r"(?:\"|'|\*\*|:|：|=|\s+(?:is|would be|will be|should be|ist|lautet|est|es|è|é|são|sono|are)\b|是|为|為|は)+"
)
_PLAIN_MARKERS = ("####", "\\boxed{")
_WORD_MARKERS = ("answer", "antwort", "réponse", "respuesta", "risposta", "resposta", "答案", "答え")
# The last few mentions of "answer" are tried; an answer that talks of answers all the time announces none.
_TRIES = 4


class Number(NamedTuple):
    """A number as it is written: its value, its decimals, and where it stands in the text."""

    value: float
    decimals: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class AnswerView:
    """One answer as the blocks see it.

    `text` is the answer, head and tail kept when it is long; `chars` its full length. `announced` is where the marker
    of a final answer starts (-1: there is none), `conclusion` what follows it, else the end of the answer. `given` are
    the numbers of the request, `said` those of the answer. `expected_tokens` is NaN when nobody predicted any;
    `passed` says that no response check fires.
    """

    asked: RequestView
    answer: Answer
    text: str
    chars: int
    scan: TextScan
    announced: int
    conclusion: str
    given: tuple[Number, ...]
    said: tuple[Number, ...]
    expected_tokens: float
    passed: bool


def view_answer(
    asked: RequestView, answer: Answer, expected_tokens: float = float("nan"), *, passed: bool = False
) -> AnswerView:
    """Read an answer beside its request; time is bounded whatever the length of either.

    Args:
        asked: The request, already read.
        answer: What a tier returned.
        expected_tokens: The answer length that was expected of that tier; NaN when unknown.
        passed: Whether the answer is known to have passed the response checks.
    """
    text = answer.text
    if len(text) > _HEAD_CHARS + _TAIL_CHARS:
        text = text[:_HEAD_CHARS] + text[-_TAIL_CHARS:]
    start, end = _announcement(text)
    conclusion = text[end : end + _CONCLUSION_CHARS] if start >= 0 else text.rstrip()[-_CONCLUSION_CHARS:]
    return AnswerView(
        asked=asked,
        answer=answer,
        text=text,
        chars=len(answer.text),
        # Words in the form of the request's; padding stays, as an answer that repeats itself is a poor one.
        scan=scan(unified(text)[:MAX_CHARS]),
        announced=start,
        conclusion=conclusion,
        given=numbers_of(asked.asked),
        said=numbers_of(text),
        expected_tokens=expected_tokens,
        passed=passed,
    )


def numbers_of(text: str) -> tuple[Number, ...]:
    """Return the numbers of a text in order, at most 250 of them; signs and powers are not part of a number."""
    found: list[Number] = []
    for match in _NUMBER.finditer(text):
        written = match.group()
        if "," in written:
            written = written.replace(",", "")
        try:
            value = float(written)
        except ValueError:  # a digit of a script that float() and the pattern disagree about
            continue
        if not isfinite(value):
            continue
        dot = written.find(".")
        found.append(Number(value, 0 if dot < 0 else len(written) - dot - 1, match.start(), match.end()))
        if len(found) == _MAX_NUMBERS:
            break
    return tuple(found)


def _announcement(text: str) -> tuple[int, int]:
    """Return where the last marker of a final answer starts and ends, (-1, -1) when there is none."""
    best = (-1, -1)
    for marker in _PLAIN_MARKERS:
        at = text.rfind(marker)
        best = max(best, (at, at + len(marker)))
    lowered = text.lower()
    if len(lowered) != len(text):  # folding moved characters, and positions with them
        lowered = text
    for word in _present(_WORD_MARKERS, lowered):
        best = max(best, _last_announced(lowered, word))
    return best


def _present(words: Sequence[str], text: str) -> list[str]:
    return [word for word in words if word in text]


def _last_announced(text: str, word: str) -> tuple[int, int]:
    at = len(text)
    for _ in range(_TRIES):
        at = text.rfind(word, 0, at)
        if at < 0:
            break
        found = _ANNOUNCED.match(text, at + len(word))
        if found:
            return at, found.end()
    return -1, -1
