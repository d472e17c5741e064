"""One writer of an archive at a time: of two that write the same day, the slower one would put back an older one.

A folder is locked by the system, which takes the lock back when its holder dies. Object storage knows no locks: there a
small object says who writes and until when, and is only ever replaced under the condition that it is what was read.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from router_ml.errors import RouterError, UsageError
from router_ml.objects import Found, ObjectConflict, ObjectStore

__all__ = ["LOCK", "Clock", "Renew", "lease", "lock"]

Clock: TypeAlias = Callable[[], datetime]
# Says that this writer is still at work; raises when another one has taken over.
Renew: TypeAlias = Callable[[], None]

# Hidden: what reads an archive leaves it out.
LOCK = ".archive.lock"
# Longer than a day of the store takes; a writer that was killed keeps others away for no longer.
_LEASE = timedelta(hours=1)
# A lease that was given back is over by the clock of any machine.
_ENDED = datetime.fromtimestamp(0, UTC)


@contextmanager
def lock(directory: Path) -> Iterator[Renew]:
    """Hold the lock of a folder until the end of the block, or of the process.

    Raises:
        UsageError: When the folder cannot be written.
        RouterError: When another archive run holds it.
    """
    path = directory / LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RouterError(
                f"{directory}: another archive run is writing there ({error.strerror}); wait for its end"
            ) from error
        yield lambda: None


@contextmanager
def lease(objects: ObjectStore, clock: Clock) -> Iterator[Renew]:
    """Hold the lease of a prefix on object storage until the end of the block; renew it before anything is written.

    Args:
        objects: What is below the prefix.
        clock: The time of day.

    Raises:
        RouterError: When another archive run holds it.
        ObjectStoreError: When the storage cannot be read or written.
    """
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    found = objects.get(LOCK)
    until = _until(found)
    if until > clock():
        said = f"{objects.url_of(LOCK)}: another archive run is writing there, until {until:%Y-%m-%d %H:%M:%S} UTC"
        raise RouterError(f"{said} at most; wait for its end, or delete that object if it was killed")
    held = _taken(objects, found, holder, clock() + _LEASE)

    def renew() -> None:
        nonlocal held
        held = _taken(objects, held, holder, clock() + _LEASE)

    try:
        yield renew
    finally:
        with suppress(RouterError):  # it ends by itself
            _taken(objects, held, holder, _ENDED)


def _taken(objects: ObjectStore, before: Found | None, holder: str, until: datetime) -> Found:
    content = json.dumps({"holder": holder, "until": until.astimezone(UTC).isoformat()}).encode()
    try:
        return Found(content, objects.put(LOCK, content, after=before))
    except ObjectConflict as error:
        message = f"{objects.url_of(LOCK)}: another archive run has begun to write there; wait for its end"
        raise RouterError(message) from error


def _until(found: Found | None) -> datetime:
    if found is None:
        return datetime.min.replace(tzinfo=UTC)
    try:
        return datetime.fromisoformat(json.loads(found.data)["until"]).astimezone(UTC)
    except (ValueError, KeyError, TypeError):
        return datetime.min.replace(tzinfo=UTC)
