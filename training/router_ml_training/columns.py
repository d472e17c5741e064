"""Rows gathered one at a time into arrays: a long log needs the memory of its numbers, not of its objects."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

__all__ = ["Bags", "Columns"]

Numbers: TypeAlias = NDArray[Any]

_PACKED = 4096


@dataclass(slots=True)
class Columns:
    """Gathers rows of numbers or equal-shaped arrays, and gives them back column by column."""

    _rows: list[tuple[Any, ...]] = field(default_factory=list)
    _packs: list[tuple[Numbers, ...]] = field(default_factory=list)

    def add(self, *row: Any) -> None:
        """Append a row; every row has as many values, of the same types and shapes."""
        self._rows.append(row)
        if len(self._rows) == _PACKED:
            self._pack()

    def arrays(self) -> Iterator[Numbers]:
        """Yield the columns, (n, ...) each; nothing when no row was added."""
        if self._rows:
            self._pack()
        for parts in zip(*self._packs, strict=True):
            yield np.concatenate(parts)

    def _pack(self) -> None:
        self._packs.append(tuple(np.array(values) for values in zip(*self._rows, strict=True)))
        self._rows.clear()


@dataclass(slots=True)
class Bags:
    """Gathers bags of ids with weights as the rows of a sparse matrix, in buffers that grow in place."""

    # Arrays of the standard library hold the values side by side and numpy reads them where they are.
    _ids: array[int] = field(default_factory=lambda: array("i"))
    _weights: array[float] = field(default_factory=lambda: array("f"))
    _ends: array[int] = field(default_factory=lambda: array("q", [0]))

    def add(self, ids: NDArray[np.int64], weights: NDArray[np.float32]) -> None:
        """Append a bag: its distinct ids in [0, 2**31), in rising order, and as many weights."""
        self._ids.frombytes(ids.astype(np.int32).tobytes())
        self._weights.frombytes(weights.astype(np.float32).tobytes())
        self._ends.append(len(self._ids))

    def matrix(self, width: int) -> csr_array:
        """Return the bags as float32 rows, (n, width), in the memory they are in: add nothing afterwards."""
        parts = (self._weights, np.float32), (self._ids, np.int32), (self._ends, np.int64)
        values, ids, ends = (np.frombuffer(memory, kind) for memory, kind in parts)
        # Ids stay narrow only as long as the ends are.
        ends = ends.astype(np.int32) if len(ids) < 2**31 else ends
        return csr_array((values, ids, ends), shape=(len(ends) - 1, width))
