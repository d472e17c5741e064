"""A graph run for one request at a time, through buffers that stay bound to it.

Handing arrays over anew costs more than running a small graph does. Words are padded with id 0 and weight 0 to a few
lengths, so that a few sets of buffers serve every request.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scorer"]

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]

# Texts are cut before they have more words than this in any spaced script; longer bags are handed over as they are.
_SHORTEST, _LONGEST = 64, 4096


class Scorer:
    """Scores single requests with an opened graph; several threads may use one.

    Args:
        session: An `onnxruntime.InferenceSession` with the inputs and outputs of `router_ml.graph`.
        n_dense: Columns of `dense`.
        n_tiers: Columns of both outputs.
        bag: False where the graph reads neither `ids` nor `counts`, which are then not looked at.
    """

    def __init__(
        self, session: Any, n_dense: int, n_tiers: int, *, bag: bool = True
    ) -> None:  # Any: onnxruntime ships no types
        self._session = session
        self._bag = bag
        self._shape = (n_dense, n_tiers)
        # By length; a set of buffers is taken out while it is in use, so that no two threads share one.
        self._free: dict[int, list[_Buffers]] = {}

    def run(self, dense: F32, ids: I64, counts: F32) -> tuple[F64, F64]:
        """Score one request.

        Args:
            dense: Columns, (D,).
            ids: Buckets, (L,).
            counts: Their weights, (L,).

        Returns:
            Adequacy and expected output tokens, (K,) each.
        """
        n = len(ids) if self._bag else 0
        if n > _LONGEST:
            feed = {"dense": dense[None], "ids": ids[None], "counts": counts[None]}
            adequacy, tokens = self._session.run(["adequacy", "output_tokens"], feed)
            return adequacy[0].astype(np.float64), tokens[0].astype(np.float64)
        length = _SHORTEST if n <= _SHORTEST else 1 << (n - 1).bit_length()
        free = self._free.setdefault(length, [])
        try:
            buffers = free.pop()
        except IndexError:
            buffers = _Buffers(self._session, length, *self._shape)
        buffers.dense[:] = dense
        if self._bag:
            buffers.fill(ids, counts, n)
        self._session.run_with_iobinding(buffers.binding)
        scored = buffers.adequacy.astype(np.float64), buffers.tokens.astype(np.float64)
        free.append(buffers)
        return scored


class _Buffers:
    """Arrays of one row each, and what binds their memory to the inputs and outputs of a graph."""

    def __init__(self, session: Any, length: int, n_dense: int, n_tiers: int) -> None:
        self.dense = np.zeros(n_dense, np.float32)
        self.ids = np.zeros(length, np.int64)
        self.counts = np.zeros(length, np.float32)
        self.adequacy = np.zeros(n_tiers, np.float32)
        self.tokens = np.zeros(n_tiers, np.float32)
        self.binding = session.io_binding()
        self._used = 0
        for name, taken in (("dense", self.dense), ("ids", self.ids), ("counts", self.counts)):
            self.binding.bind_input(name, "cpu", 0, taken.dtype.type, (1, len(taken)), taken.ctypes.data)
        for name, given in (("adequacy", self.adequacy), ("output_tokens", self.tokens)):
            self.binding.bind_output(name, "cpu", 0, np.float32, (1, n_tiers), given.ctypes.data)

    def fill(self, ids: I64, counts: F32, n: int) -> None:
        self.ids[:n] = ids
        self.counts[:n] = counts
        if n < self._used:
            self.ids[n : self._used] = 0
            self.counts[n : self._used] = 0.0
        self._used = n
