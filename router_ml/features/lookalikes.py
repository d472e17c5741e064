"""Letters of other scripts that look like Latin ones: written in Latin where they can only be meant as that."""

# ruff: noqa: RUF001 - other scripts' characters are what this is about

from __future__ import annotations

import re
import unicodedata

__all__ = ["without_lookalikes"]

# Unicode's confusables (UTS 39) of the two scripts that share most letters with Latin.
_CYRILLIC = dict(zip("АВЕЅІЈКМНОРСТУХҮԌԚԜӀаеёѕіїјорсухһԁԛԝѵӏ", "ABESIJKMHOPCTYXYGQWIaeësiïjopcyxhdqwvl", strict=True))
_GREEK = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαγινορυ", "ABEZHIKMNOPTYXayivopu", strict=True))
_LATIN = str.maketrans(_CYRILLIC | _GREEK)
# Letters of phonetic notations that write English in another dress.
_DRESSED = dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢɑɡ", "abcdefghijklmnoprstuvwyzag", strict=True))
_DRESS = re.compile(f"[{''.join(_DRESSED)}]")

_LATIN_LETTERS, _CYRILLIC_LETTERS, _GREEK_LETTERS = "A-Za-zÀ-ÖØ-öø-ʯḀ-ỿ", "Ѐ-ҁҊ-ԯ", "Ͱ-ͳͶ-ͽͿ-Ͼἀ-ῼ"
_MARKS = "\u0300-\u036f\u0483-\u0489"
_ALIKE = "".join((*_CYRILLIC, *_GREEK))
_ANY = f"{_LATIN_LETTERS}{_CYRILLIC_LETTERS}{_GREEK_LETTERS}{_MARKS}"
_OTHER_SCRIPT = re.compile(f"[{_ALIKE}]")
_A_LATIN_LETTER = re.compile(f"[{_LATIN_LETTERS}]")
_A_GREEK_LETTER = re.compile(f"[{_GREEK_LETTERS}]")
# A word of which every letter is Latin or looks so, and one at least only looks so.
_DISGUISED = re.compile(
    f"(?<![{_ANY}])[{_LATIN_LETTERS}{_MARKS}]*[{_ALIKE}][{_LATIN_LETTERS}{_MARKS}{_ALIKE}]*(?![{_ANY}])"
)
# A word in letters of one script of which one at least looks like no Latin letter. What was taken is not given back:
# a long word would take half a second with that.
_GENUINE_CYRILLIC, _GENUINE_GREEK = (
    re.compile(
        f"(?<![{_ANY}])[{''.join(alike)}{_MARKS}]*+[{letters}][{letters}{_MARKS}]*+(?![{_ANY}])",
    )
    for letters, alike in ((_CYRILLIC_LETTERS, _CYRILLIC), (_GREEK_LETTERS, _GREEK))
)
# One or two of these are a symbol more often than a word; letters that cannot be told from Latin ones are nobody's.
_A_SYMBOL = re.compile("[αγινρυ]")
_SYMBOL_LETTERS = 2


def without_lookalikes(text: str) -> str:
    """Write the Cyrillic and Greek letters of a Latin word as Latin ones.

    A word is Latin when it has a Latin letter and no letter that looks like none; also when all its letters only look
    so, in a text that has Latin words and no word that is certainly of their script.

    Args:
        text: In the form NFKC.

    Returns:
        A text in that form again.
    """
    plain = _DRESS.sub(lambda found: _DRESSED[found.group()], text)
    if _OTHER_SCRIPT.search(plain) and _A_LATIN_LETTER.search(plain):
        genuine = (_GENUINE_CYRILLIC.search(plain) is not None, _GENUINE_GREEK.search(plain) is not None)
        plain = _DISGUISED.sub(lambda found: _in_latin(found.group(), *genuine), plain)
    return text if plain == text else unicodedata.normalize("NFKC", plain)


def _in_latin(word: str, genuine_cyrillic: bool, genuine_greek: bool) -> str:
    if _A_SYMBOL.search(word) and sum(char.isalpha() for char in word) <= _SYMBOL_LETTERS:
        return word
    greek = _A_GREEK_LETTER.search(word) is not None
    if (genuine_greek if greek else genuine_cyrillic) and not _A_LATIN_LETTER.search(word):
        return word
    return word.translate(_LATIN)
