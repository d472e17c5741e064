"""File descriptors: as many as the system gives, and connections that stop before the last one is gone."""

from __future__ import annotations

import logging
import resource
from contextlib import suppress

__all__ = ["Room", "raise_limit"]

log = logging.getLogger(__name__)

# For the store, the bundles, the spill file, upstreams and the event loop itself.
_SPARE = 64
# An episode is over when there is room again, not at the first connection that goes.
_ROOM_AGAIN = 0.9


class Room:
    """Says whether one more connection can be held; a crowd is logged once, when it begins.

    Args:
        descriptors: How many files and connections the process may have open.
    """

    def __init__(self, descriptors: int) -> None:
        self.places = max(descriptors - _SPARE, descriptors // 2)
        self._crowded = False

    def has_place(self, connections: int) -> bool:
        """Say whether so many connections, the new one included, are not too many."""
        if connections <= self.places:
            if self._crowded and connections < _ROOM_AGAIN * self.places:
                self._crowded = False
            return True
        if not self._crowded:
            self._crowded = True
            log.warning("too_many_connections", extra={"connections": connections, "places": self.places})
        return False


def raise_limit() -> int:
    """Allow this process as many descriptors as the system lets it have.

    Returns:
        How many that are.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems have a lower limit that they do not tell
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return 2**31 if soft == resource.RLIM_INFINITY else soft
