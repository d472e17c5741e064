"""Text -> its canonical form: what looks alike, or cannot be seen, is written in one way before it is read.

Whoever writes a prompt could else change every hashed word of it, or its length, without changing what a reader sees.
What is not ASCII is unified: compatibility forms (NFKC), invisible characters, typographic marks, letters of another
script inside a Latin word. Then padding is shortened: runs of white space, of one character, of a few repeated marks,
and encoded data without spaces. Most prompts are ASCII without padding: seeing that takes about a microsecond.
"""

# ruff: noqa: RUF001 - other scripts' characters are what this is about

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

import numpy as np

from router_ml.features.hashing import code_points
from router_ml.features.lookalikes import without_lookalikes

__all__ = ["canonical", "unified", "visible"]

# Characters without a width or a meaning of their own: controls that are no white space, category Cf, variation
# selectors, fillers, and the stroke that stretches Arabic words, also with a mark on it.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u0600-\u0605\u061c\u0640\u06dd\u070f\u0890\u0891\u08e2"
    "\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufcf2-\ufcf4\ufe00-\ufe0f"
    "\ufe71\ufe77\ufe79\ufe7b\ufe7d\ufe7f\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Marks stand in runs of what is neither a word nor ASCII; no language puts more than four on one letter.
_NO_WORDS = re.compile(r"[^\x00-\x7f\w\s]{5,}")
_MOST_MARKS = 4
_FULL_WIDTH = re.compile("[！-～]+")
_FULL_WIDTH_SHIFT = ord("！") - ord("!")
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
# NFKC would make 52 of 5², and 51/2 of 5½.
_RAISED = re.compile(f"[{_SUPERSCRIPTS}]+")
_LOWERED = {ord(char): str(digit) for digit, char in enumerate(_SUPERSCRIPTS)}
_FRACTION = re.compile(r"(?<=\d)(?=[¼½¾⅐-⅞↉])")
_PLAIN_MARK = {
    **dict.fromkeys("‘’‚‛", "'"),
    **dict.fromkeys("“”„‟", '"'),
    **dict.fromkeys("‐‒–—―−", "-"),
    **dict.fromkeys("⁄∕", "/"),
    **dict.fromkeys("\x85\u2028\u2029", "\n"),
    **dict.fromkeys("\u1680\u3000\xa0", " "),
    "…": "...",
}
_TYPOGRAPHIC = re.compile(f"[{''.join(_PLAIN_MARK)}]")

# Base64 and hexadecimal data, in one piece or in lines of equal length; its beginning stands for it.
_ENCODED = re.compile(r"([A-Za-z0-9+/=_-]{24})[A-Za-z0-9+/=_-]{36,}(?:\s[A-Za-z0-9+/=_-]{60,})*")
_LINE_END = re.compile(r"\r\n?")
_SPACES = re.compile(r"\s{4,}")
# Numbers are what they are, however many zeros they have.
_SAME = re.compile(r"([^\s\d])\1{3,}")
_MANY_MARKS = re.compile(r"[^\w\s]{8}")
_PATTERN = re.compile(r"([^\w\s]{2,4}?)\1{3,}")
_NO_SPACE = b"x" * 60
_ONLY_MARKS = b"." * 8


def canonical(text: str) -> str:
    """Return the canonical form of what is asked.

    Args:
        text: Any string, lone surrogates included. ASCII text without padding comes back as it is.

    Returns:
        A text whose canonical form is itself.
    """
    text = unified(text.strip())
    if not text.isascii():
        return _shortened(text, _EVERYTHING)
    found = _ascii_padding(text.encode())
    if found is None:
        return text.strip()
    return _shortened(visible(text), _EVERYTHING) if found.odd else _shortened(text, found)


def unified(text: str) -> str:
    """Return a text with what looks alike written in one way, and nothing else changed: ASCII comes back as it is."""
    if text.isascii():
        return text
    text = _NO_WORDS.sub(_few_marks, visible(text))
    text = _TYPOGRAPHIC.sub(_plain, _FULL_WIDTH.sub(_usual_width, text))
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", _FRACTION.sub(" ", _RAISED.sub(_power, text)))
        text = _TYPOGRAPHIC.sub(_plain, _NO_WORDS.sub(_few_marks, text))
    return without_lookalikes(text)


def visible(text: str) -> str:
    """Return a text without its invisible characters."""
    return _INVISIBLE.sub("", text)


class _Padding(NamedTuple):
    """What a text may have: characters that are always replaced, equal neighbours, many marks, data without spaces."""

    odd: bool
    runs: bool
    marks: bool
    data: bool


_EVERYTHING = _Padding(True, True, True, True)


def _ascii_padding(raw: bytes) -> _Padding | None:
    """Tell what padding an ASCII text may have, at most more than it has; None where it has none."""
    runs, spaces, marks = _TABLES
    seen = raw.translate(runs)
    # Differences of neighbours, all at once: three zeros in a row are four equal characters.
    number = int.from_bytes(seen, "little")
    has_runs = b"\0\0\0" in (number ^ (number >> 8)).to_bytes(len(seen), "little")
    has_odd, has_marks = b"\1" in seen, _ONLY_MARKS in raw.translate(marks)
    has_data = _NO_SPACE in raw.translate(spaces)
    if has_runs or has_odd or has_marks or has_data:
        return _Padding(has_odd, has_runs, has_marks, has_data)
    return None


def _tables() -> tuple[bytes, bytes, bytes]:
    """For each of 256 bytes: itself, white space as one, and what is always replaced; a space or not; a mark or not."""
    chars = [chr(point) for point in range(256)]
    runs = (b"\1" if char == "\r" or _INVISIBLE.match(char) else b" " if char.isspace() else None for char in chars)
    spaces = (b" " if char.isspace() else b"x" for char in chars)
    marks = (b" " if char.isspace() or char.isalnum() or char == "_" else b"." for char in chars)
    kept = (bytes([point]) if kind is None else kind for point, kind in enumerate(runs))
    return b"".join(kept), b"".join(spaces), b"".join(marks)


_TABLES = _tables()


def _shortened(text: str, padding: _Padding) -> str:
    if padding.odd:
        text = _LINE_END.sub("\n", text)
    if padding.data:
        text = _ENCODED.sub(r"\1 ", text)
    if (padding.runs or padding.data) and _has_runs(text):  # white space may have come in behind data
        text = _SPACES.sub(_gap, text)
        if _has_runs(text):
            text = _SAME.sub(r"\1\1\1", text)
    while padding.marks and _MANY_MARKS.search(text):
        shorter = _PATTERN.sub(r"\1\1\1", text)
        if shorter == text:
            break
        text = shorter  # which can be part of a longer pattern, a level or two deep
    return text.strip()


def _has_runs(text: str) -> bool:
    """Tell whether four neighbours are equal, or are all white space."""
    points = np.maximum(code_points(text), ord(" "))
    return b"\1\1\1" in (points[1:] == points[:-1]).tobytes()


def _gap(found: re.Match[str]) -> str:
    return ("\n" * min(found.group().count("\n"), 2)) or " "


def _few_marks(found: re.Match[str]) -> str:
    kept: list[str] = []
    stacked = 0
    for char in found.group():
        stacked = stacked + 1 if unicodedata.category(char).startswith("M") else 0
        if stacked <= _MOST_MARKS:
            kept.append(char)
    return "".join(kept)


def _usual_width(found: re.Match[str]) -> str:
    return "".join([chr(ord(char) - _FULL_WIDTH_SHIFT) for char in found.group()])


def _power(found: re.Match[str]) -> str:
    return f"^{found.group().translate(_LOWERED)}"


def _plain(found: re.Match[str]) -> str:
    return _PLAIN_MARK[found.group()]
