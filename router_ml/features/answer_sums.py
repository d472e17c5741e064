"""Arithmetic that an answer does in plain sight: find "a op b = c" and work it out again.

Nothing is executed: an expression is a list of numbers and operators with a small evaluator of its own. Words between
a number and the next operator ("12 eggs * 2 = 24") are read over; anything else ends the expression.
"""

# ruff: noqa: RUF001 - other signs for minus and times

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite
from typing import NamedTuple

__all__ = ["Sum", "sums_of"]

_TOKEN = re.compile(
    r"\d{1,15}(?:,\d{3}){0,6}(?:\.\d{1,12})?|\.\d{1,12}"
    r"|\*\*|[-+*/×·÷^()=≈%−]|\\times|\\cdot|\\div|\\approx|(?<=[\d)] )[xX](?= ?[\d(])"
)
_MEANING = {"**": "^", "×": "*", "·": "*", "\\times": "*", "\\cdot": "*", "x": "*", "X": "*"} | {
    "÷": "/",
    "\\div": "/",
    "−": "-",
    "≈": "=",
    "\\approx": "=",
}
_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 3}
# Between two parts of one expression at most a few words may stand, and no end of a sentence.
_MAX_GAP = 24
_ENDS = re.compile(r"[.,;:!?\n\"] |\n|\\n|<<|>>|[\[\]{};]")
_BREAK = ""
_MAX_TERMS = 40
_MAX_SUMS = 60
_TOO_LARGE = 1e15
# Rounded operands make rounded results; whole operands under + - * do not.
_SLACK = 0.006


class Sum(NamedTuple):
    """One calculation: operands and operators, the result that is written, and the result that it has."""

    operands: tuple[float, ...]
    operators: str
    written: float
    computed: float
    wrong: bool


def sums_of(text: str) -> tuple[Sum, ...]:
    """Return the calculations of a text in order, at most 60 of them."""
    found: list[Sum] = []
    if "=" not in text and "≈" not in text and "\\approx" not in text:
        return ()
    left: list[str] | None = None
    side: list[str] = []
    for piece in _pieces(text):
        if piece == ")" and side and side[-1] == "(":  # "4 (apples)": only words stood between them
            side.pop()
            continue
        if piece not in ("=", _BREAK):
            side.append(piece)
            continue
        if left is not None:
            _add(left, side, found)
        left, side = (side if piece == "=" else None), []
        if len(found) >= _MAX_SUMS:
            break
    return tuple(found)


def _pieces(text: str) -> Iterator[str]:
    end = 0
    for match in _TOKEN.finditer(text):
        start, stop = match.span()
        gap = start - end
        if gap > _MAX_GAP or (gap > 1 and _ENDS.search(text, end, start)) or (gap == 1 and text[end] == "\n"):
            yield _BREAK
        piece = text[start:stop]
        yield _MEANING.get(piece, piece)
        end = stop
    yield _BREAK


def _add(left: list[str], right: list[str], found: list[Sum]) -> None:
    left = _last_run(left)
    if not 3 <= len(left) <= _MAX_TERMS or not right:
        return
    computed = _value(left)
    written = [value for value in (_value(right[:_MAX_TERMS]), _leading(right)) if value is not None]
    if computed is None or not written or not abs(computed) < _TOO_LARGE:
        return
    if "%" in left or "%" in right:  # "20 / 50 = 40 %" and "0.4 * 100 % = 40" stand for the same share
        written += [value * scale for value in written for scale in (100.0, 0.01)]
    # "39 - 15 = 24 / 4 = 6" is loose, not wrong: of what may be meant the nearest is.
    meant = min(written, key=lambda value: abs(value - computed))
    operands = tuple(_number(piece) for piece in left if piece[0].isdigit() or piece[0] == ".")
    operators = "".join(piece for piece in left if piece in _BINDS)
    found.append(Sum(operands, operators, meant, computed, abs(meant - computed) > _slack(left, right, computed)))


def _last_run(pieces: list[str]) -> list[str]:
    """Return what follows the last place where a number stands right behind another: words lay between the two."""
    start = 0
    for i in range(1, len(pieces)):
        before, here = pieces[i - 1], pieces[i]
        if (here[0].isdigit() or here[0] == ".") and (before[0].isdigit() or before[0] in ".%)"):
            start = i
    return pieces[start:]


def _slack(left: list[str], right: list[str], computed: float) -> float:
    """Return how far the written result may be off for its own rounding, and for that of the operands."""
    exact = not any(piece in "/^%" or "." in piece for piece in left)
    shown = right[0].partition(".")[2]
    slack = 1e-9 if exact and not shown else 0.51 * 10.0 ** -len(shown)
    return slack if exact else max(slack, _SLACK * abs(computed))


def _number(piece: str) -> float:
    return float(piece.replace(",", ""))


def _leading(pieces: list[str]) -> float | None:
    for piece in pieces:
        if piece[0].isdigit() or piece[0] == ".":
            return _number(piece)
        if piece not in "(-":
            return None
    return None


def _value(pieces: list[str]) -> float | None:
    """Work out an expression with the usual precedence; None when it is none."""
    try:
        value, rest = _expression(pieces, 0, 1)
    except (IndexError, ValueError, OverflowError, ZeroDivisionError):
        return None
    return value if rest == len(pieces) and isinstance(value, float) and isfinite(value) else None


def _expression(pieces: list[str], at: int, binds: int) -> tuple[float, int]:
    value, at = _term(pieces, at)
    while at < len(pieces):
        operator = pieces[at]
        if operator == "%":
            value, at = value / 100.0, at + 1
            continue
        if operator == "(":  # "4 (Science)" loses its word on the way here, "3 (4 + 5)" multiplies
            operator, step = "*", 0
        else:
            step = 1
        strength = _BINDS.get(operator, 0)
        if strength < binds:
            break
        right, at = _expression(pieces, at + step, strength + 1)
        value = _apply(operator, value, right)
    return value, at


def _term(pieces: list[str], at: int) -> tuple[float, int]:
    piece = pieces[at]
    if piece == "-":
        value, at = _term(pieces, at + 1)
        return -value, at
    if piece == "(":
        value, at = _expression(pieces, at + 1, 1)
        if pieces[at] != ")":
            raise ValueError(piece)
        return value, at + 1
    return _number(piece), at + 1


def _apply(operator: str, left: float, right: float) -> float:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if operator == "/":
        return left / right
    if abs(right) > 30 or abs(left) > 1e6:
        raise OverflowError
    result = left**right
    if isinstance(result, complex):  # a root of a negative number
        raise OverflowError
    return float(result)
