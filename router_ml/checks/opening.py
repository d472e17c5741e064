"""Finding a phrase where it speaks for the whole answer: at the beginning of a short one, outside quotation marks."""

# ruff: noqa: RUF001 - other languages use other characters

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Phrases", "opens_with", "phrases"]

# How much may stand before the phrase ("I'm sorry, but thank you for asking. ..."), all on the first line.
_LEAD_CHARS = 90
# No phrase is longer: what lies beyond need not be read.
_PHRASE_CHARS = 400
# Chinese and Japanese say in one character what takes others about three.
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_WIDE_CHARS = 3
# A colon or a quotation mark before the phrase: it is being quoted, translated or drafted, not said.
_QUOTING = re.compile(r"[:：\"“”„«»「『‹›\n]|(?:^|\s)'")
_APOSTROPHES = str.maketrans("’‘ʼ`´", "'''''")
_DECORATION = "*_#>- \t\r\n"


@dataclass(frozen=True, slots=True)
class Phrases:
    """Phrases of one language, and what each of them contains: without any of `signs` there is none to look for.

    Nearly every answer is let off by its signs, at a hundredth of what the expression would take.
    """

    signs: tuple[str, ...]
    pattern: re.Pattern[str]


def phrases(signs: tuple[str, ...], patterns: tuple[str, ...]) -> Phrases:
    """Compile alternatives, written in lower case with straight apostrophes.

    Args:
        signs: Every match of every pattern contains at least one of these.
        patterns: What is looked for.
    """
    return Phrases(signs, re.compile("|".join(f"(?:{pattern})" for pattern in patterns)))


def opens_with(text: str, languages: tuple[Phrases, ...], *, max_chars: int) -> bool:
    """Return whether a short answer begins with a phrase.

    Args:
        text: The answer.
        languages: What to look for, from `phrases`.
        max_chars: A longer answer (a Chinese or Japanese character counts as three) has something to say, whatever
            it begins with.
    """
    if len(text) > 4 * max_chars:  # do not scan a book to learn that it is long
        return False
    plain = text.strip(_DECORATION)
    wide = 0
    if plain.isascii():
        plain = plain.replace("`", "'").lower()
    else:
        plain = plain.translate(_APOSTROPHES).lower()
        wide = len(_WIDE.findall(plain))
    if len(plain) + (_WIDE_CHARS - 1) * wide > max_chars:
        return False
    head = plain[: _LEAD_CHARS + _PHRASE_CHARS]
    for one in languages:  # plain loops: this is looked at for every answer, and generators take three times as long
        for sign in one.signs:
            if sign in head:
                if _begins(head, one.pattern):
                    return True
                break
    return False


def _begins(head: str, pattern: re.Pattern[str]) -> bool:
    found = pattern.search(head)
    return found is not None and found.start() <= _LEAD_CHARS and _QUOTING.search(head, 0, found.start()) is None
