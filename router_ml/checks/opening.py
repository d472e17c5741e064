"""Finding a phrase where it speaks for the whole answer: at the beginning of a short one, outside quotation marks."""

# ruff: noqa: RUF001 - other languages use other characters

from __future__ import annotations

import re

__all__ = ["opens_with", "phrases"]

# How much may stand before the phrase ("I'm sorry, but thank you for asking. ..."), all on the first line.
_LEAD_CHARS = 90
# Chinese and Japanese say in one character what takes others about three.
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_WIDE_CHARS = 3
# A colon or a quotation mark before the phrase: it is being quoted, translated or drafted, not said.
_QUOTING = re.compile(r"[:：\"“”„«»「『‹›\n]|(?:^|\s)'")
_APOSTROPHES = str.maketrans("’‘ʼ`´", "'''''")
_DECORATION = "*_#>- \t\r\n"


def phrases(*patterns: str) -> re.Pattern[str]:
    """Compile alternatives, written in lower case with straight apostrophes."""
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))


def opens_with(text: str, pattern: re.Pattern[str], *, max_chars: int) -> bool:
    """Return whether a short answer begins with a phrase.

    Args:
        text: The answer.
        pattern: What to look for, from `phrases`.
        max_chars: A longer answer (a Chinese or Japanese character counts as three) has something to say, whatever
            it begins with.
    """
    if len(text) > 4 * max_chars:  # do not scan a book to learn that it is long
        return False
    plain = text.strip(_DECORATION).translate(_APOSTROPHES).lower()
    if len(plain) + (_WIDE_CHARS - 1) * len(_WIDE.findall(plain)) > max_chars:
        return False
    found = pattern.search(plain)
    if found is None or found.start() > _LEAD_CHARS:
        return False
    return _QUOTING.search(plain, 0, found.start()) is None
