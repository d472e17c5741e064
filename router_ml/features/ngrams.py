"""Id block: hashed words and word pairs of the text that is asked, with their counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from router_ml.features.view import RequestView

__all__ = ["compute"]


def compute(view: RequestView) -> NDArray[np.int64]:
    """Return the text bucket of every word and of every two neighbouring words, repeats included; not to be changed."""
    return view.scan.buckets
