"""One row of a log, wherever it came from: an interaction that can be used, or a Reject that says why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router_ml.errors import RecordError
from router_ml.ladder import Ladder
from router_ml.registry import did_you_mean
from router_ml.schema import Interaction, parse_interaction
from router_ml_training.sources import Reject, SourceOptions

__all__ = ["Place"]

_RAW_CHARACTERS = 500
_LARGEST_INTEGER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: its file (or other location), and its number from 1 (None: it has none)."""

    file: Path | str
    line: int | None

    def read(self, data: bytes | Mapping[str, Any], raw: object, options: SourceOptions) -> Interaction | Reject:
        """Return the interaction of this row, or why there is none.

        Args:
            data: A line of JSON, or what it would hold.
            raw: What to show of the row when it is rejected.
            options: With the ladder to hold it against.
        """
        try:
            interaction = parse_interaction(data)
        except RecordError as error:
            return self.reject(str(error), raw)
        except OverflowError as error:  # a time that leaves the calendar when it is moved to UTC
            return self.reject(f"ts: {error}", raw)
        fault = _fault(interaction, options.ladder)
        return self.reject(fault, raw) if fault else interaction

    def admit(self, interaction: Interaction, options: SourceOptions) -> Interaction | Reject:
        """Return an interaction that was read elsewhere, or why it cannot be used."""
        fault = _fault(interaction, options.ladder)
        return self.reject(fault, interaction.to_json()) if fault else interaction

    def reject(self, reason: str, raw: object) -> Reject:
        """Return a Reject with the first 500 characters of what was read."""
        # A character has at most four bytes: this is enough, and no more than enough, of a very long line.
        text = raw[: 4 * _RAW_CHARACTERS].decode(errors="replace") if isinstance(raw, bytes) else str(raw)
        return Reject(line=self.line, reason=reason, raw=text[:_RAW_CHARACTERS], file=str(self.file))


def _fault(interaction: Interaction, ladder: Ladder | None) -> str | None:
    for name, value in _integers(interaction):
        if value is not None and not -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER:
            return f"{name}: {value} does not fit into 64 bits"
    return None if ladder is None else _unknown_tier(interaction, ladder)


def _integers(interaction: Interaction) -> Iterator[tuple[str, int | None]]:
    yield "request.max_tokens", interaction.request.max_tokens
    for attempt in interaction.attempts:
        yield "attempts.input_tokens", attempt.input_tokens
        yield "attempts.cached_tokens", attempt.cached_tokens
        yield "attempts.output_tokens", attempt.output_tokens
    if interaction.features is not None and interaction.features.ids:
        yield "features.ids", max(interaction.features.ids, key=abs)


def _unknown_tier(interaction: Interaction, ladder: Ladder) -> str | None:
    named = {
        **{attempt.tier: "attempts" for attempt in interaction.attempts},
        **dict.fromkeys(interaction.candidates, "candidates"),
        **dict.fromkeys(interaction.propensity, "propensity"),
        **{item.tier: "feedback" for item in interaction.feedback if item.tier is not None},
    }
    for tier, where in named.items():
        if tier not in ladder.names:
            hint = did_you_mean(tier, list(ladder.names))
            return f"{where}: no tier is called '{tier}'{hint}; the ladder has {', '.join(ladder.names)}"
    return None
