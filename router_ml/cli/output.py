"""How commands print: a result as text or, with --json, as one JSON document; and plain text tables."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["emit", "table"]


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
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    numeric = [
        bool(rows) and all(cell is None or isinstance(cell, int | float) or _is_number(str(cell)) for cell in column)
        for column in (zip(*rows, strict=True) if rows else [()] * len(headers))
    ]
    lines = [headers, ["-" * width for width in widths], *cells]
    return "\n".join(_line(line, widths, numeric) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    )
    return "  ".join(padded).rstrip()


def _is_number(cell: str) -> bool:
    try:
        float(cell.rstrip("% ").lstrip("$").replace(",", ""))
    except ValueError:
        return False
    return True
