"""One retraining at a time: a lock that the system takes back when its holder dies, with the holder's name inside.

On one machine it holds for sure. On a file system that several machines share it holds where that file system passes
`flock` on, as NFS version 4 does.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from router_ml.errors import RouterError

__all__ = ["held"]


@contextmanager
def held(path: Path, *, now: datetime) -> Iterator[None]:
    """Hold the lock until the end of the block, or of the process.

    Args:
        path: The lock file; it stays, and says who held it last.
        now: When the run began, for whoever comes meanwhile.

    Raises:
        RouterError: When another run holds it, or the file cannot be written.
    """
    try:
        file = path.open("a+b")
    except OSError as error:
        raise RouterError(
            f"{path}: cannot be written ({error.strerror}); check the rights of the bundles' folder"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RouterError(
                f"another retraining is at work: {_holder(file)}. Wait for it, or end that process; "
                "a later run takes up what it left"
            ) from error
        except OSError as error:
            raise RouterError(
                f"{path}: cannot be locked ({error.strerror}); the bundles' folder has to be on a file system that "
                "passes flock on"
            ) from error
        _name_holder(file, now)
        yield


def _name_holder(file: BinaryIO, now: datetime) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now.astimezone(UTC).isoformat()}
    try:
        file.truncate(0)
        file.write(json.dumps(holder).encode())
        file.flush()
    except OSError as error:
        message = f"{file.name}: cannot be written ({error.strerror}); free some space and run again"
        raise RouterError(message) from error


def _holder(file: BinaryIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "it has not said who it is"
