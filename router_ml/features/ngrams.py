"""Id block: hashed words and word pairs of the text that is asked, with their counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from router_ml.features.scan import hash_pairs, to_buckets
from router_ml.features.text import WORD_KIND
from router_ml.features.view import RequestView

__all__ = ["compute"]

_PAIR_KIND = 2


def compute(view: RequestView) -> NDArray[np.int64]:
    """Return the text bucket of every word and of every two neighbouring words, repeats included."""
    words = view.scan.words
    return np.concatenate((to_buckets(words, WORD_KIND), to_buckets(hash_pairs(words), _PAIR_KIND)))
