"""What was used last, in bounded memory: the state behind sessions and template memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Recent"]

V = TypeVar("V")


class Recent(Generic[V]):
    """Keeps at most `limit` values, each until `ttl_s` after it was last put; every call takes constant time.

    Keys are hashes: a key that a client makes as long as it likes takes no more room than another.

    Args:
        limit: Values at most; the one that was not used for longest makes room.
        ttl_s: How long a value lasts.
        clock: Monotonic seconds.
    """

    def __init__(self, limit: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._ttl_s = ttl_s
        self._clock = clock
        self._kept: OrderedDict[int, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: int) -> V | None:
        """Return the value of a key, or None when there is none any more."""
        found = self._kept.get(key)
        if found is None:
            return None
        if self._clock() > found[0]:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return found[1]

    def put(self, key: int, value: V) -> None:
        """Keep a value from now on."""
        self._kept[key] = (self._clock() + self._ttl_s, value)
        self._kept.move_to_end(key)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)
