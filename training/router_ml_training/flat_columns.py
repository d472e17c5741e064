"""Flat values of many rows as polars columns of lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

__all__ = ["fields_of", "list_column"]


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
    items = (
        flat
        if isinstance(flat, pl.Series)
        else pl.DataFrame({name: flat[name] for name in inner.to_schema()}).to_struct()
    )
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)
    # The newest types are those of polars itself: no text is copied.
    values = items.cast(inner).to_arrow(compat_level=pl.CompatLevel.newest())
    column = pa.LargeListArray.from_arrays(pa.array(offsets), values)
    return pl.Series(pl.from_arrow(column), dtype=shape)
