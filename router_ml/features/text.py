"""Dense block: cheap statistics of the text that is asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import log1p

import numpy as np
from numpy.typing import NDArray

from router_ml.features.scan import N_TEXT_BUCKETS, CharClass, bucket_of, to_buckets
from router_ml.features.view import RequestView

__all__ = ["COLUMNS", "WORD_KIND", "compute"]

WORD_KIND = 1

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
_COUNTED = {"question_marks": "?", "code_fences": "```", "bullets": "\n-", "quotes": '"', "backslashes": "\\"}

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
    scan = view.scan
    n_words = len(scan.words)
    per_char = 1.0 / max(scan.n_chars, 1)
    lengths = scan.word_lengths
    buckets = to_buckets(scan.words, WORD_KIND)
    cues = np.bincount(_cue_table()[buckets], minlength=len(_CUES) + 1)
    return [
        log1p(scan.n_chars),
        log1p(n_words),
        float(lengths.sum()) / n_words if n_words else 0.0,
        float(min(lengths.max(), 60)) if n_words else 0.0,
        len(np.unique(buckets)) / n_words if n_words else 0.0,
        *(int(scan.class_counts[kind]) * per_char for kind in _CLASSES.values()),
        *(log1p(view.asked.count(mark)) for mark in _COUNTED.values()),
        *(log1p(int(count)) for count in cues[1:]),
    ]


@cache
def _cue_table() -> NDArray[np.uint8]:
    table = np.zeros(N_TEXT_BUCKETS, np.uint8)
    for group, words in enumerate(_CUES.values(), start=1):
        table[[bucket_of(word, WORD_KIND) for word in words.split()]] = group
    return table
