"""Names of decisions: ULIDs, which sort by time and cannot be guessed; feedback is given by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

__all__ = ["DecisionIds"]

# Crockford's base 32; two characters at a time are looked up.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # pragma: allowlist secret
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_TEN_BITS = 1023
_ENTROPY_BYTES = 10
# Asking the operating system costs a microsecond or more, and the interpreter's lock: it is asked once for so many.
_POOLED = 256


class DecisionIds:
    """Makes ULIDs of 48 bits of time and 80 of randomness; for one thread.

    Args:
        now_s: The time of day in seconds since 1970.
        entropy: Returns so many random bytes, from the operating system.

    Source: the ULID specification, https://github.com/ulid/spec
    """

    def __init__(self, now_s: Callable[[], float] = time.time, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._now_s = now_s
        self._entropy = entropy
        self._pool = b""
        self._used = 0

    def next(self) -> str:
        """Return a new one: 26 characters."""
        if self._used == len(self._pool):
            self._pool, self._used = self._entropy(_ENTROPY_BYTES * _POOLED), 0
        drawn = self._pool[self._used : self._used + _ENTROPY_BYTES]
        self._used += _ENTROPY_BYTES
        number = (int(self._now_s() * 1e3) & ((1 << 48) - 1)) << 80 | int.from_bytes(drawn, "big")
        return "".join([_PAIRS[number >> shift & _TEN_BITS] for shift in range(120, -1, -10)])
