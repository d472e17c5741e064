"""Answers that fit a known outcome: good ones, ones that are wrong but look right, and ones that fail visibly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from numpy.random import Generator

from router_ml_training.simulate.company import Feature
from router_ml_training.simulate.voice import Voice

__all__ = ["AnswerKind", "Written", "answer_kind", "max_tokens_of", "response_format_of", "write_answer"]

AnswerKind: TypeAlias = Literal["good", "wrong", "dont_know", "refusal", "empty", "truncated", "broken_json"]

# Which way a visible failure goes; what JSON features break most is JSON.
_VISIBLE: dict[bool, tuple[tuple[AnswerKind, float], ...]] = {
    False: (("dont_know", 0.40), ("refusal", 0.20), ("truncated", 0.30), ("empty", 0.10)),
    True: (("broken_json", 0.60), ("truncated", 0.20), ("dont_know", 0.15), ("empty", 0.05)),
}
# Wrong answers hedge more often and are a little shorter: a weak trace, as in real ones.
_HEDGED = {"good": 0.15, "wrong": 0.40}
_TOKENS = {"prose": (230, 760), "json": (230, 380), "code": (240, 600)}
_MAX_TOKENS = {"prose": 800, "json": 500, "code": 800}
_JSON_SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "record",
        "schema": {
            "type": "object",
            "properties": {
                "label": {"type": "string"},
                "reference": {"type": "integer"},
                "amount": {"type": "number"},
                "evidence": {"type": "string"},
            },
            "required": ["label", "reference", "amount", "evidence"],
        },
    },
}
_LABELS = ("billing", "delivery", "returns", "access", "contract", "product", "appointment", "other")
_CODE = """```python
def load_record(record_id: int, source: dict[int, Record]) -> Record:
    \"\"\"Return the record of that id, or raise KeyError with the id in its message.\"\"\"
    try:
        return source[record_id]
    except KeyError as error:
        raise KeyError(f"no record {record_id}") from error
```"""


@dataclass(frozen=True, slots=True)
class Written:
    """An answer's text, its estimated tokens, and why it ended."""

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"] = "stop"


def max_tokens_of(feature: Feature) -> int:
    """Return the limit that the feature's requests set."""
    return _MAX_TOKENS[feature.shape]


def response_format_of(feature: Feature) -> dict[str, Any] | None:
    """Return the output format that the feature's requests ask for: a schema, any JSON object, or none."""
    if feature.shape != "json":
        return None
    return _JSON_SCHEMA if feature.asks == "extract" else {"type": "json_object"}


def answer_kind(good: bool, feature: Feature, visible_share: float, rng: Generator) -> AnswerKind:
    """Draw the way in which an answer is good or bad; `visible_share` of the bad ones can be seen to be bad."""
    draw, turn = rng.random(2)
    if good:
        return "good"
    if draw >= visible_share:
        return "wrong"
    for kind, share in _VISIBLE[feature.shape == "json"]:
        turn -= share
        if turn < 0:
            return kind
    return "empty"


def write_answer(kind: AnswerKind, feature: Feature, voice: Voice, rng: Generator) -> Written:
    """Write an answer of that kind to a request of that feature."""
    if kind == "empty":
        return Written("", 0)
    if kind in ("dont_know", "refusal"):
        phrases = voice.dont_know if kind == "dont_know" else voice.refusal
        text = phrases[rng.integers(len(phrases))]
        return Written(text, voice.tokens(text))
    limit = max_tokens_of(feature)
    if kind == "truncated":
        text = _body(feature, voice, limit + 60, "good", rng)[: int(limit * voice.chars_per_token)].rstrip()
        return Written(text, limit, "length")
    low, high = _TOKENS[feature.shape]
    target = int(rng.integers(low, high))
    if kind == "broken_json":
        text = _body(feature, voice, target, "wrong", rng)
        text = text[: int(len(text) * rng.uniform(0.6, 0.95))]
    else:
        text = _body(feature, voice, max(low, int(target * 0.9)) if kind == "wrong" else target, kind, rng)
    return Written(text, voice.tokens(text))


def _body(feature: Feature, voice: Voice, tokens: int, kind: str, rng: Generator) -> str:
    hedge = voice.hedges[rng.integers(len(voice.hedges))] if rng.random() < _HEDGED[kind] else ""
    if feature.shape == "code":
        return f"{_CODE}\n\n{voice.answer(tokens - voice.tokens(_CODE), rng)}\n{hedge}".rstrip()
    if feature.shape == "prose":
        return f"{voice.answer(tokens, rng)}{voice.space}{hedge}".rstrip()
    record = {
        "label": _LABELS[rng.integers(len(_LABELS))],
        "reference": int(rng.integers(10_000, 9_999_999)),
        "amount": round(float(rng.uniform(5, 5000)), 2),
        "evidence": voice.answer(tokens - 25, rng) + hedge,
    }
    return json.dumps(record, ensure_ascii=False)
