"""Source `store`: the event store of the service, feedback merged in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from router_ml.errors import DataError
from router_ml.schema import Interaction
from router_ml.store import open_store
from router_ml_training.sources import Reject, SourceOptions
from router_ml_training.sources.rows import Place

__all__ = ["read"]

_FILE_SCHEME = "sqlite:///"


def read(location: str, options: SourceOptions) -> Iterator[Interaction | Reject]:
    """Stream interactions from a store URL (`sqlite:///router_ml.db`) or the path of a SQLite file; see `Source`."""
    url = location if "://" in location else f"{_FILE_SCHEME}{location}"
    if url.startswith(_FILE_SCHEME) and not Path(url.removeprefix(_FILE_SCHEME)).exists():
        # Opening would create it, and the mistake would look like an empty log.
        raise DataError(f"{location}: no such event store; the service creates it when it records its first request")
    place = Place(location.rpartition("@")[2], None)  # a URL may hold a password
    rejected: list[Reject] = []
    with open_store(url) as store:
        for interaction in store.scan(on_reject=lambda key, reason: rejected.append(place.reject(reason, key))):
            yield from rejected
            rejected.clear()
            yield place.admit(interaction, options)
        yield from rejected
