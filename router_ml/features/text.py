"""Dense block: cheap statistics of the text that is asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import log1p

from router_ml.features.scan import WORD_KIND, CharClass, bucket_of
from router_ml.features.view import RequestView

__all__ = ["COLUMNS", "WORD_KIND", "compute"]

# Words that mark a kind of work. They are matched by hash, so a list costs nothing at run time.
_CUES: Mapping[str, str] = {
    "reasoning": (
        "why prove proof derive explain compare evaluate analyse analyze reason therefore infer calculate compute "
        "solve steps because warum beweise berechne erkläre vergleiche pourquoi démontrer expliquer calculer comparer "
        "explica calcula demuestra compara"
    ),
    "constraint": (
        "must exactly only unless except never without least most between each every not cannot should required "
        "muss genau nur außer ohne mindestens doit exactement seulement sauf sans debe exactamente solo excepto sin"
    ),
    "transform": (
        "translate summarize summarise classify extract rewrite rephrase format list convert label tag shorten "
        "übersetze fasse klassifiziere traduire traduis résume classer extraire traduce resume clasifica extrae"
    ),
    "code": (
        "def class function return import select from where code python javascript sql java bug error exception "
        "compile algorithm regex api json xml html"
    ),
    "formal": (
        "pursuant clause contract liability herein legal law statute court agreement party plaintiff regulation "
        "vertrag haftung gesetz contrat clause loi contrato ley"
    ),
}

_CLASSES = {
    "space": CharClass.SPACE,
    "newline": CharClass.NEWLINE,
    "digit": CharClass.DIGIT,
    "upper": CharClass.UPPER,
    "punctuation": CharClass.PUNCTUATION,
    "operator": CharClass.OPERATOR,
    "bracket": CharClass.BRACKET,
    "ideograph": CharClass.IDEOGRAPH,
    "letter": CharClass.LETTER,
}
_KINDS = tuple(_CLASSES.values())
_COUNTED = {"question_marks": "?", "code_fences": "```", "bullets": "\n-", "quotes": '"', "backslashes": "\\"}
_MARKS = tuple(_COUNTED.values())

COLUMNS: tuple[str, ...] = (
    "log_chars",
    "log_words",
    "mean_word_chars",
    "longest_word_chars",
    "distinct_word_share",
    *(f"{name}_share" for name in _CLASSES),
    *(f"log_{name}" for name in _COUNTED),
    *(f"log_{name}_cues" for name in _CUES),
)


def compute(view: RequestView) -> list[float]:
    """Return one value per column; shares are per character, counts are log(1 + count)."""
    scan, asked = view.scan, view.asked
    n_words, counts = len(scan.lengths), scan.counts
    per_char = 1.0 / max(scan.n_chars, 1)
    buckets = scan.word_buckets
    return [
        log1p(scan.n_chars),
        log1p(n_words),
        *_of_words(scan.lengths, len(set(buckets))),
        *[counts[kind] * per_char for kind in _KINDS],
        *[log1p(asked.count(mark)) for mark in _MARKS],
        *map(log1p, _cues(buckets)),
    ]


def _of_words(lengths: list[int], n_distinct: int) -> tuple[float, float, float]:
    n_words = len(lengths)
    if n_words == 0:
        return 0.0, 0.0, 0.0
    return sum(lengths) / n_words, float(min(max(lengths), 60)), n_distinct / n_words


def _cues(buckets: list[int]) -> list[int]:
    counted = [0] * (len(_CUES) + 1)
    # Few words are cues: what says so is asked without leaving C.
    for place in filter(None, map(_cue_table().get, buckets)):
        counted[place] += 1
    return counted[1:]


@cache
def _cue_table() -> dict[int, int]:
    """The place in `_CUES`, from 1, of every bucket that one of its words falls into."""
    groups = enumerate(_CUES.values(), start=1)
    return {bucket_of(word, WORD_KIND): place for place, words in groups for word in words.split()}
