"""Words that steer: looked for one after the other in the vocabulary of the training prompts, by asking the bundle.

The attacker may ask the bundle as often as it likes, which is more than a client can: it sees scores. In a bag of words
what a word does hardly depends on the others, so the words that do most on a few prompts are tried on every one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.attacks import with_words
from router_ml.bundle import Bundle
from router_ml.features import featurize, stack
from router_ml.schema import Request

__all__ = ["Steering", "needs", "search", "vocabulary"]

F64: TypeAlias = NDArray[np.float64]

_WORD = re.compile(r"[a-z]{3,}")
_MOST_WORDS, _KEPT = 2500, 20


@dataclass(frozen=True, slots=True)
class Steering:
    """A vocabulary, and the words of it that lower a bundle's P(large needed) most, and that raise it most."""

    bundle: Bundle
    every: tuple[str, ...]
    lowering: tuple[str, ...]
    raising: tuple[str, ...]

    def words(self, request: Request, n: int, *, lower: bool) -> list[str]:
        """Choose n words for one request, each the best one to put behind those before it.

        Args:
            request: What is asked.
            n: How many.
            lower: Lower the chance that the large tier is needed; else raise it.
        """
        candidates = self.lowering if lower else self.raising
        chosen: list[str] = []
        for _ in range(n):
            found = needs(self.bundle, [with_words(request, (*chosen, word)) for word in candidates])
            chosen.append(candidates[int(np.argmin(found) if lower else np.argmax(found))])
        return chosen


def vocabulary(texts: Iterable[str]) -> list[str]:
    """Return the commonest words of texts, each text counting once."""
    seen = Counter(word for text in texts for word in sorted(set(_WORD.findall(text.lower()))))
    return [word for word, _ in seen.most_common(_MOST_WORDS)]


def search(bundle: Bundle, words: Sequence[str], probes: Sequence[Request]) -> Steering:
    """Find the words that move P(large needed) most, on average over some requests that nothing is measured on."""
    moved = np.zeros(len(words))
    for probe in probes:
        moved += needs(bundle, [with_words(probe, (word,)) for word in words])
    order = np.argsort(moved, kind="stable")
    ranked = [words[i] for i in order]
    return Steering(bundle, tuple(words), tuple(ranked[:_KEPT]), tuple(ranked[: -_KEPT - 1 : -1]))


def needs(bundle: Bundle, requests: Sequence[Request]) -> F64:
    """Return how much dearer tiers are needed: P(dearest adequate) less P(cheapest adequate), (n,)."""
    adequacy, _ = bundle.score_many(stack([featurize(request) for request in requests]))
    gap: F64 = adequacy[:, -1] - adequacy[:, 0]
    return gap
