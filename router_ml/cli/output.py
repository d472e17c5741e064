"""How commands print: a result as text or, with --json, as one JSON document; and plain text tables."""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["emit", "table", "width_of"]


def emit(args: argparse.Namespace, record: Mapping[str, Any], text: str) -> None:
    """Print one result to stdout.

    Args:
        args: The command's arguments; `args.json` chooses the form.
        record: The result for machines: anything JSON can hold, plus dates and paths.
        text: The result for people.
    """
    out = json.dumps(record, indent=2, ensure_ascii=False, default=str) if getattr(args, "json", False) else text
    sys.stdout.write(out.rstrip("\n") + "\n")


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a plain text table: columns of numbers aligned right, others left.

    Args:
        headers: One name per column.
        rows: As many cells each; None is shown as "-".
    """
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(width_of, column)) for column in zip(headers, *cells, strict=True)]
    numeric = [
        bool(rows) and all(cell is None or isinstance(cell, int | float) or _is_number(str(cell)) for cell in column)
        for column in (zip(*rows, strict=True) if rows else [()] * len(headers))
    ]
    lines = [headers, ["-" * width for width in widths], *cells]
    return "\n".join(_line(line, widths, numeric) for line in lines)


def width_of(text: str) -> int:
    """Return the columns that a text takes on a terminal: two for a Chinese character, none for a lone accent."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = (
        " " * (width - width_of(cell)) + cell if right else cell + " " * (width - width_of(cell))
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    )
    return "  ".join(padded).rstrip()


def _is_number(cell: str) -> bool:
    try:
        float(cell.rstrip("% ").lstrip("$").replace(",", ""))
    except ValueError:
        return False
    return True
