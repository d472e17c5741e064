"""Look up what is known about a request by the messages that a client sends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router_ml.features.view import text_of
from router_ml_training.simulate.outcomes import OutcomeTable

__all__ = ["Known", "KnownAnswer", "Truth", "message_key"]


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """What one model answers: text, tokens, cost, quality, and what becomes of the call.

    `error` is the infrastructure error in which the call ends, if any. `feedback_delay_s` is when the user says what
    they think of the answer; None: never.
    """

    model: str
    quality: float
    text: str
    input_tokens: int
    output_tokens: int
    cost_usd: float
    finish_reason: str
    error: str | None
    feedback_delay_s: float | None


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known about one request; `answers` by model."""

    prompt_id: str
    answers: Mapping[str, KnownAnswer]


def message_key(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the SHA-256 of roles and texts of a conversation, however a client writes them.

    Content as a string and as a list of text parts are the same; fields other than role and content do not count.
    """
    turns = [[str(message.get("role")), text_of(message.get("content"))] for message in messages]
    return hashlib.sha256(json.dumps(turns, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


class Truth:
    """The outcomes of a table, by messages.

    Args:
        table: The outcomes. Of two prompts with equal messages, the first is known.
    """

    def __init__(self, table: OutcomeTable) -> None:
        self._table = table
        self._rows: dict[str, int] = {}
        for i, request in enumerate(table.requests):
            self._rows.setdefault(message_key(request.messages), i)
        self._finish_reasons = table.cells("finish_reason")
        self._delays = table.cells("feedback_delay_s")

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def models(self) -> tuple[str, ...]:
        """The models whose answers are known, cheapest first."""
        return self._table.models

    def find(self, messages: Sequence[Mapping[str, Any]]) -> Known | None:
        """Return what is known about a request, or None when the table does not hold it."""
        row = self._rows.get(message_key(messages))
        if row is None:
            return None
        answers = {model: self._answer(row, k, model) for k, model in enumerate(self._table.models)}
        return Known(self._table.prompt_ids[row], answers)

    def _answer(self, row: int, k: int, model: str) -> KnownAnswer:
        table = self._table
        return KnownAnswer(
            model=model,
            quality=float(table.quality[row, k]),
            text=table.responses[row, k] or "",
            input_tokens=int(table.input_tokens[row, k]),
            output_tokens=int(table.output_tokens[row, k]),
            cost_usd=float(table.cost_usd[row, k]),
            finish_reason=self._finish_reasons[row, k] or "stop",
            error=table.errors[row, k],
            feedback_delay_s=self._delays[row, k],
        )
