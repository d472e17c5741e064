"""Text in five languages, put together from fragments: documents, questions, answers, and answers that fail visibly."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import ceil
from typing import Any

from numpy.random import Generator

__all__ = ["Voice", "voice_of"]


@dataclass(frozen=True, slots=True)
class Voice:
    """One language: its fragments, and how many characters make a token (an estimate)."""

    language: str
    chars_per_token: float
    space: str
    documents: tuple[str, ...]
    answers: tuple[str, ...]
    openers: tuple[str, ...]
    hedges: tuple[str, ...]
    dont_know: tuple[str, ...]
    refusal: tuple[str, ...]
    topics: tuple[str, ...]
    context: str
    easy: tuple[str, ...]
    constraints: tuple[str, ...]
    hops: tuple[str, ...]
    asks: dict[str, tuple[str, ...]]

    def tokens(self, text: str) -> int:
        """Estimate the tokens of a text in this language."""
        return ceil(len(text) / self.chars_per_token)

    def document(self, tokens: int, rng: Generator) -> str:
        """Write about that many tokens of business prose, in paragraphs."""
        return self._prose(self.documents, tokens, rng, paragraph=6)

    def answer(self, tokens: int, rng: Generator) -> str:
        """Write about that many tokens of answer."""
        opener = self.openers[rng.integers(len(self.openers))]
        return self.space.join((opener, self._prose(self.answers, tokens - self.tokens(opener), rng, paragraph=5)))

    def ask(self, kind: str, rng: Generator) -> str:
        """Write the question of a feature about a random topic and number."""
        asks = self.asks[kind]
        topic = self.topics[rng.integers(len(self.topics))]
        return asks[rng.integers(len(asks))].format(topic=topic, n=int(rng.integers(10_000, 9_999_999)))

    def _prose(self, sentences: tuple[str, ...], tokens: int, rng: Generator, *, paragraph: int) -> str:
        target = tokens * self.chars_per_token
        average = sum(map(len, sentences)) / len(sentences) + len(self.space)
        picks = rng.integers(len(sentences), size=max(1, int(target / average * 1.2) + 2))
        parts: list[str] = []
        size = 0.0
        for i, pick in enumerate(picks, start=1):
            if size + average / 2 >= target and parts:
                break
            parts.append(sentences[pick])
            parts.append("\n\n" if i % paragraph == 0 else self.space)
            size += len(parts[-2]) + len(parts[-1])
        return "".join(parts[:-1])


@cache
def voice_of(language: str) -> Voice:
    """Read the fragments of a language, such as "de"."""
    source = resources.files("router_ml_training.simulate") / "phrases" / f"{language}.toml"
    raw = tomllib.loads(source.read_text(encoding="utf-8"))
    wording, answers = raw["wording"], raw["answers"]
    return Voice(
        language=language,
        chars_per_token=raw["chars_per_token"],
        space=raw["space"],
        documents=_sentences(raw, raw["documents"], ("subjects", "predicates", "tails"), raw["space"]),
        answers=_sentences(raw, answers, ("points", "reasons"), ", " if raw["space"] else "，"),  # noqa: RUF001
        openers=tuple(answers["openers"]),
        hedges=tuple(answers["hedges"]),
        dont_know=tuple(answers["dont_know"]),
        refusal=tuple(answers["refusal"]),
        topics=tuple(wording["topics"]),
        context=wording["context"],
        easy=tuple(wording["easy"]),
        constraints=tuple(wording["constraints"]),
        hops=tuple(wording["hops"]),
        asks={name: tuple(asks) for name, asks in raw["asks"].items()},
    )


def _sentences(raw: dict[str, Any], parts: dict[str, list[str]], names: tuple[str, ...], glue: str) -> tuple[str, ...]:
    stop = "." if raw["space"] else "。"
    made = [""]
    for name in names:
        made = [f"{head}{glue}{part}" if head else part[:1].upper() + part[1:] for head in made for part in parts[name]]
    return tuple(f"{sentence}{stop}" for sentence in made)
