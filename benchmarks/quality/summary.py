"""One table of all goals at the end of a run: figure, value, interval, must, aim, verdict."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.quality.result import Result
from benchmarks.results_file import Row, goal_text
from router_ml.cli.output import table

__all__ = ["summary"]


def summary(results: Sequence[Result], order: Sequence[str]) -> str:
    """Return the table of all rows that have a must or an aim, protocols in the order given."""
    rows = [row for result in results for row in result.rows if row.must is not None or row.aim is not None]
    if not rows:
        return "no goal was measured"
    rows.sort(key=lambda row: order.index(row.protocol))
    cells = [
        (f"{row.protocol}: {row.metric}", _number(row.value), _interval(row), _goal(row, row.must), _goal(row, row.aim))
        for row in rows
    ]
    verdicts = [goal_text(row) or None for row in rows]
    return table(
        ("figure", "value", "95 %", "must", "aim", "verdict"),
        [(*cell, verdict) for cell, verdict in zip(cells, verdicts, strict=True)],
    )


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _interval(row: Row) -> str | None:
    if row.low is None and row.high is None:
        return None
    low, high = ("?" if end is None else f"{end:.3f}" for end in (row.low, row.high))
    return f"{low} to {high}"


def _goal(row: Row, bound: float | None) -> str | None:
    if bound is None:
        return None
    return f"{'>=' if row.better == 'higher' else '<='} {bound:g}"
