"""Values of many rows as checked polars columns, flat or cut into lists; rows with a value that does not fit are noted.

Checks are made a column at a time: what takes microseconds per value in a validator of records takes nanoseconds here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa

__all__ = [
    "Faults",
    "booleans",
    "fields_of",
    "list_column",
    "numbers",
    "of_type",
    "one_of",
    "texts",
    "whole_numbers",
]

T = TypeVar("T")
_NONE = type(None)
_TOO_LARGE = 2**63


class Faults(set[int]):
    """The numbers of rows of which some value is not as it must be."""

    def add_where(self, is_bad: Iterable[bool], owners: Sequence[int]) -> None:
        """Note the rows of bad values.

        Args:
            is_bad: Of every value.
            owners: The row of every value.
        """
        self.update(compress(owners, is_bad))


def texts(values: list[Any], owners: Sequence[int], faults: Faults) -> pl.Series:
    """Return strings and None as a column; a value that is neither is a fault of its row, and None."""
    return pl.Series(_of_types(values, {str, _NONE}, owners, faults), dtype=pl.String)


def numbers(values: list[Any], owners: Sequence[int], faults: Faults, *, most: float = math.inf) -> pl.Series:
    """Return numbers in [0, most] that are finite, and None, as a column; anything else is a fault of its row."""
    found = pl.Series(_of_types(values, {float, int, _NONE}, owners, faults), dtype=pl.Float64, strict=False)
    faults.add_where(((found < 0.0) | (found > most) | ~found.is_finite()).fill_null(False), owners)
    return found


def whole_numbers(values: list[Any], owners: Sequence[int], faults: Faults) -> pl.Series:
    """Return whole numbers in [0, 2**63) and None as a column; anything else is a fault of its row."""
    typed = _of_types(values, {int, _NONE}, owners, faults)
    if any(value is not None and not 0 <= value < _TOO_LARGE for value in typed):
        faults.add_where([value is not None and not 0 <= value < _TOO_LARGE for value in typed], owners)
        typed = [value if value is not None and 0 <= value < _TOO_LARGE else None for value in typed]
    return pl.Series(typed, dtype=pl.Int64)


def booleans(values: list[Any], owners: Sequence[int], faults: Faults, *, needed: bool = False) -> pl.Series:
    """Return true, false and None as a column; anything else, or None where it is `needed`, is a fault of its row."""
    types: set[type] = {bool} if needed else {bool, _NONE}
    return pl.Series(_of_types(values, types, owners, faults), dtype=pl.Boolean)


def one_of(values: list[Any], known: Collection[str], owners: Sequence[int], faults: Faults) -> pl.Series:
    """Return values of which all are among the known ones as a column; any other is a fault of its row."""
    typed = _of_types(values, {str}, owners, faults)
    if not set(typed) <= set(known):
        faults.add_where([value not in known for value in typed], owners)
    return pl.Series(typed, dtype=pl.String)


def of_type(values: list[Any], kind: type[T], faults: Faults, instead: T) -> list[T]:
    """Return the values, one per row; one that is of another type is a fault of its row, and replaced."""
    if set(map(type, values)) <= {kind}:
        return values
    faults.add_where([type(value) is not kind for value in values], range(len(values)))
    return [value if type(value) is kind else instead for value in values]


def fields_of(shape: pl.DataType) -> dict[str, pl.DataType]:
    """Return the fields of a type of lists of structs."""
    return dict(shape.inner.to_schema())  # type: ignore[attr-defined]


def list_column(flat: pl.Series | Mapping[str, pl.Series], lengths: Sequence[int], shape: pl.DataType) -> pl.Series:
    """Return a column of lists.

    Args:
        flat: The items of all rows one after the other; by field, when they are structs.
        lengths: How many items each row has, (n,).
        shape: The type of the column.
    """
    inner = shape.inner  # type: ignore[attr-defined]
    items = flat if isinstance(flat, pl.Series) else pl.DataFrame(dict(flat)).select(*inner.to_schema()).to_struct()
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)
    column = pa.LargeListArray.from_arrays(pa.array(offsets), items.cast(inner).to_arrow())
    return pl.Series(pl.from_arrow(column), dtype=shape)


def _of_types(values: list[Any], types: set[type], owners: Sequence[int], faults: Faults) -> list[Any]:
    if set(map(type, values)) <= types:
        return values
    faults.add_where([type(value) not in types for value in values], owners)
    return [value if type(value) in types else None for value in values]
