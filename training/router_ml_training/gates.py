"""The gates before promotion: each is one line that passed or did not, with its figure and its limit."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GateLine"]


@dataclass(frozen=True, slots=True)
class GateLine:
    """One gate: whether the challenger passed it, and by what.

    `value` and `limit` are None where the gate has no number; a gate that is not `required` warns only.
    """

    name: str
    passed: bool
    detail: str
    value: float | None = None
    limit: float | None = None
    required: bool = True
