"""Slices of the traffic that a certificate looks at one by one: what kind of request, by its features alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.features import DENSE_NAMES
from router_ml_training.dataset import Dataset

__all__ = ["SLICES", "slices_of"]

Mask: TypeAlias = NDArray[np.bool_]
Columns: TypeAlias = Mapping[str, NDArray[np.float64]]

# About a paragraph, and about two pages; as the feature counts them, log(1 + characters).
_SHORT, _LONG = float(np.log1p(300)), float(np.log1p(3000))
# A fifth of the characters makes a text Chinese or Japanese, whatever names and code it quotes.
_IDEOGRAPHS = 0.2

SLICES: Mapping[str, Callable[[Columns], Mask]] = {
    "short prompts": lambda x: x["text.log_chars"] < _SHORT,
    "long prompts": lambda x: x["text.log_chars"] > _LONG,
    "code": lambda x: (x["text.log_code_fences"] > 0) | (x["text.log_code_cues"] > 0),
    "Chinese or Japanese": lambda x: x["text.ideograph_share"] > _IDEOGRAPHS,
    "follow-ups": lambda x: x["structure.is_follow_up"] > 0,
    "with tools": lambda x: x["structure.log_tools"] > 0,
    "JSON answers": lambda x: x["structure.wants_json"] > 0,
    "with attachments": lambda x: (x["structure.log_images"] > 0) | (x["structure.log_other_attachments"] > 0),
}


def slices_of(dataset: Dataset) -> dict[str, Mask]:
    """Return which rows belong to each slice, (n,); slices may overlap, and those without a row are left out."""
    columns = {name: dataset.dense[:, i].astype(np.float64) for i, name in enumerate(DENSE_NAMES)}
    found = {name: np.asarray(rule(columns), np.bool_) for name, rule in SLICES.items()}
    return {name: mask for name, mask in found.items() if mask.any()}
