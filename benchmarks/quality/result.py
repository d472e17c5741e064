"""What a protocol hands back: its table as text, and its rows for results.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.results_file import Row
from router_ml_training.evaluation.metrics import Figure

__all__ = ["Result", "lower_end", "row_of"]


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that one run measured.

    Args:
        protocols: The protocols whose rows these are; a run replaces all that results.json held of them.
        text: The tables, ready to be printed.
        rows: One per figure; a headline carries its must and its aim.
    """

    protocols: tuple[str, ...]
    text: str
    rows: tuple[Row, ...]


def row_of(
    protocol: str,
    metric: str,
    figure: Figure,
    n: int,
    *,
    must: float | None = None,
    aim: float | None = None,
    better: Literal["higher", "lower"] = "higher",
) -> Row:
    """Return the row of a figure measured on n rows; an undefined figure has no value."""
    return Row(protocol, metric, figure.value, figure.low, figure.high, n, must, aim, better)


def lower_end(
    protocol: str, metric: str, figure: Figure, n: int, *, must: float | None = None, aim: float | None = None
) -> Row:
    """Return the row of a must that is judged on the lower end of an interval: that end is its value."""
    return Row(protocol, f"{metric}, lower end", figure.low, None, None, n, must, aim)
