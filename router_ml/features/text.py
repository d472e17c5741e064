"""Dense block: cheap statistics of the text that is asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import log1p

import numpy as np
from numpy.typing import NDArray

from router_ml.features.scan import N_TEXT_BUCKETS, WORD_KIND, CharClass, bucket_of
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
_CUE_GROUPS = tuple(range(1, len(_CUES) + 1))

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
    n_words, counts = len(scan.words), scan.counts
    per_char = 1.0 / max(scan.n_chars, 1)
    buckets = scan.buckets[:n_words]
    cues = _cue_table()[buckets].tobytes()
    return [
        log1p(scan.n_chars),
        log1p(n_words),
        *_of_words(scan.lengths, buckets),
        *[counts[kind] * per_char for kind in _KINDS],
        *[log1p(asked.count(mark)) for mark in _MARKS],
        *[log1p(cues.count(group)) for group in _CUE_GROUPS],
    ]


def _of_words(lengths: list[int], buckets: NDArray[np.int64]) -> tuple[float, float, float]:
    n_words = len(lengths)
    if n_words == 0:
        return 0.0, 0.0, 0.0
    return sum(lengths) / n_words, float(min(max(lengths), 60)), len(set(buckets.tolist())) / n_words


@cache
def _cue_table() -> NDArray[np.uint8]:
    table = np.zeros(N_TEXT_BUCKETS, np.uint8)
    for group, words in zip(_CUE_GROUPS, _CUES.values(), strict=True):
        table[[bucket_of(word, WORD_KIND) for word in words.split()]] = group
    return table
