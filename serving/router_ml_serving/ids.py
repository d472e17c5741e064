"""Names of decisions: ULIDs, which sort by time and cannot be guessed; feedback is given by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np

__all__ = ["DecisionIds"]

# Crockford's base 32: five bits a character.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # pragma: allowlist secret
_LETTERS = np.frombuffer(_ALPHABET.encode(), np.uint8)
_BIT_VALUES = np.array([16, 8, 4, 2, 1], np.uint8)
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_TEN_BITS = 1023
_ENTROPY_BYTES, _ENTROPY_CHARS = 10, 16
# Asking the operating system costs a microsecond or more, and the interpreter's lock; writing its bits out costs more
# than the rest. Both are done at once for so many.
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
        self._pool = ""
        self._used = 0
        # What the names of one second (of 1,024 ms) begin with.
        self._second = -1
        self._head = ""

    def next(self) -> str:
        """Return a new one: 26 characters."""
        if self._used == len(self._pool):
            self._pool, self._used = _written(self._entropy(_ENTROPY_BYTES * _POOLED)), 0
        start = self._used
        self._used = end = start + _ENTROPY_CHARS
        now_ms = int(self._now_s() * 1e3) & ((1 << 48) - 1)
        second = now_ms >> 10
        if second != self._second:
            self._second = second
            self._head = "".join([_PAIRS[second >> shift & _TEN_BITS] for shift in range(30, -1, -10)])
        return f"{self._head}{_PAIRS[now_ms & _TEN_BITS]}{self._pool[start:end]}"


def _written(drawn: bytes) -> str:
    fives = np.unpackbits(np.frombuffer(drawn, np.uint8)).reshape(-1, 5) @ _BIT_VALUES
    letters: bytes = _LETTERS[fives].tobytes()
    return letters.decode()
