"""Source `store`: the event store of the service, feedback merged in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from router_ml.errors import DataError
from router_ml.schema import Interaction
from router_ml.store import Bounds, EventStore, open_store
from router_ml.store.reading import read_row
from router_ml_training.sources import Reject, SourceOptions
from router_ml_training.sources.rows import Place

__all__ = ["open_log", "read", "read_slice"]

_FILE_SCHEME = "sqlite:///"


def read(location: str, options: SourceOptions) -> Iterator[Interaction | Reject]:
    """Stream interactions from a store URL (`sqlite:///router_ml.db`) or the path of a SQLite file; see `Source`."""
    place = _place(location)
    rejected: list[Reject] = []
    with open_log(location) as store:
        for interaction in store.scan(
            options.since, on_reject=lambda key, reason: rejected.append(place.reject(reason, key))
        ):
            yield from rejected
            rejected.clear()
            yield place.admit(interaction, options)
        yield from rejected


def read_slice(location: str, bounds: Bounds, options: SourceOptions) -> Iterator[Interaction | Reject]:
    """Stream the interactions of one slice of a store as `read` would, and its rejects.

    Args:
        location: As for `read`.
        bounds: Of the slice.
        options: What else the source needs to know.
    """
    place = _place(location)
    rejected: list[Reject] = []
    with open_log(location) as store:
        for page in store.pages(bounds=bounds):
            for key, body, feedback in page:
                found = read_row(key, body, feedback, lambda key, reason: rejected.append(place.reject(reason, key)))
                yield from rejected
                rejected.clear()
                if found is not None:
                    yield place.admit(found, options)


def open_log(location: str) -> EventStore:
    """Open the event store at a location.

    Raises:
        DataError: When there is no such file.
        StoreError: When it cannot be opened.
    """
    url = location if "://" in location else f"{_FILE_SCHEME}{location}"
    if url.startswith(_FILE_SCHEME) and not Path(url.removeprefix(_FILE_SCHEME)).exists():
        # Opening would create it, and the mistake would look like an empty log.
        raise DataError(f"{location}: no such event store; the service creates it when it records its first request")
    return open_store(url)


def _place(location: str) -> Place:
    return Place(location.rpartition("@")[2], None)  # a URL may hold a password
