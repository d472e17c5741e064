"""A log of made-up interactions, written fast: every request has about 200 tokens of new text, and something to learn.

Requests belong to topics with words of their own; topics differ in how often each tier copes, and so do a few hard
words. Three in four interactions are chains (the large tier answers when the small one failed), one in five asked one
tier at random, one in twenty is an audit of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["TIERS", "WORDS", "lines", "prompts", "write_log"]

F64: TypeAlias = NDArray[np.float64]

TIERS = ("small", "large")
# About 1.3 tokens a word.
WORDS = 150
_VOCABULARY, _TOPICS, _TOPIC_WORDS = 30_000, 40, 300
_OF_TOPIC = 0.3
_START = datetime(2026, 1, 1, tzinfo=UTC)
_CHUNK = 5_000
_AUDITS, _SINGLES = 0.05, 0.25


def prompts(n: int, rng: np.random.Generator) -> tuple[list[str], F64]:
    """Return n texts of `WORDS` words, and how likely each tier is to cope with each of them, (n, 2)."""
    words = _vocabulary()
    topic = rng.integers(_TOPICS, size=n)
    # Zipf's law by inversion: rank is exponential in a uniform draw.
    common = np.exp(rng.random((n, WORDS)) * np.log(_VOCABULARY)).astype(np.int64) - 1
    own = (topic[:, None] * _TOPIC_WORDS + rng.integers(_TOPIC_WORDS, size=(n, WORDS))) % _VOCABULARY
    number = np.where(rng.random((n, WORDS)) < _OF_TOPIC, own, common)
    texts = [" ".join(row) for row in words[number].tolist()]
    ease = np.random.default_rng(7).normal(size=_TOPICS)[topic] - 0.3 * (number % 97 == 5).sum(axis=1)
    return texts, np.stack((_sigmoid(1.0 + ease), _sigmoid(2.2 + 0.7 * ease)), axis=1)


def write_log(path: Path, n: int, *, seed: int) -> None:
    """Write a log of n interactions in the project's own format, JSON Lines."""
    rng = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8") as file:
        for first in range(0, n, _CHUNK):
            file.writelines(lines(first, min(_CHUNK, n - first), rng))


def lines(first: int, n: int, rng: np.random.Generator) -> Iterator[str]:
    """Yield n interactions from number `first` on, each as a line of JSON."""
    texts, ease = prompts(n, rng)
    coped = (rng.random(ease.shape) < ease).tolist()
    kind, single = rng.random(n).tolist(), (rng.random(n) < 0.5).tolist()
    lengths = rng.integers(50, 400, size=(n, 2)).tolist()
    tried: tuple[int, ...]
    for i, text in enumerate(texts):
        if kind[i] < _AUDITS:
            mode, tried, propensity = "audit", (0, 1), "{}"
        elif kind[i] < _SINGLES:
            mode, tried, propensity = "live", (int(single[i]),), '{"small": 0.5, "large": 0.5}'
        else:
            mode, tried, propensity = "live", (0,) if coped[i][0] else (0, 1), '{"small": 1.0, "large": 0.0}'
        attempts = ", ".join(_attempt(tier, coped[i][tier], lengths[i][tier]) for tier in tried)
        ts = (_START + timedelta(seconds=first + i)).isoformat()
        yield (
            f'{{"schema": "router_ml.interaction/1", "id": "speed-{first + i:08d}", "ts": "{ts}", "feature": '
            f'"feature-{i % 12}", "request": {{"messages": [{{"role": "user", "content": "{text}"}}]}}, '
            f'"policy_version": "speed", "candidates": ["small", "large"], "propensity": {propensity}, '
            f'"mode": "{mode}", "attempts": [{attempts}]}}\n'
        )


def _attempt(tier: int, coped: bool, tokens: int) -> str:
    usd = (200 * (0.15, 2.5)[tier] + tokens * (0.6, 10.0)[tier]) / 1e6
    return (
        f'{{"tier": "{TIERS[tier]}", "model": "model-{TIERS[tier]}", "input_tokens": 200, "output_tokens": {tokens}, '
        f'"cost_usd": {usd:.8f}, "latency_ms": {300 + 8 * tokens}, "finish_reason": "stop", '
        f'"verdicts": [{{"adequate": {str(coped).lower()}, "source": "check"}}]}}'
    )


def _vocabulary() -> NDArray[np.str_]:
    rng = np.random.default_rng(3)
    syllables = np.array([c + v for c in "bdfgklmnprstvz" for v in "aeiou"])
    count = rng.integers(1, 4, size=_VOCABULARY)
    drawn = syllables[rng.integers(len(syllables), size=(_VOCABULARY, 3))]
    return np.array(["".join(row[:k]) for row, k in zip(drawn.tolist(), count.tolist(), strict=True)])


def _sigmoid(x: F64) -> F64:
    probability: F64 = 1.0 / (1.0 + np.exp(-x))
    return probability
