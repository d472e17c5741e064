"""`watch.json` of a shelf: what the last look at the traffic found; written by training, shown by services."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router_ml.durable import replace_file
from router_ml.errors import BundleError, DataError

__all__ = ["WATCH", "Watch", "WatchedAlarm", "WatchedDrift", "read_watch", "update_watch", "write_watch"]

log = logging.getLogger(__name__)


WATCH = "watch.json"

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WatchedDrift(_Record):
    """How far one property of the traffic is from what it was, and whether that is too far."""

    name: str
    kind: str
    distance: Finite
    limit: Finite
    drifted: bool


class WatchedAlarm(_Record):
    """One alarm that is listened for, and whether it rings: `evidence` reached `limit`."""

    kind: str
    tier: str
    direction: str
    evidence: Finite
    limit: Finite
    rings: bool
    text: str


class Watch(_Record):
    """What was looked at (`n` requests between `since` and `until`, for `bundle`), when, and what was found.

    `sent` says when people were last told, by what they were told of.
    """

    format: Literal[1] = 1
    checked: datetime
    bundle: str
    since: datetime
    until: datetime
    n: Annotated[int, Field(ge=0)]
    drift: tuple[WatchedDrift, ...] = ()
    alarms: tuple[WatchedAlarm, ...] = ()
    sent: dict[str, datetime] = Field(default_factory=dict)


def read_watch(models_dir: Path) -> Watch | None:
    """Read what was last found; None when nobody has looked yet.

    Args:
        models_dir: The folder of all bundles.

    Raises:
        DataError: When the file cannot be read as such.
    """
    path = models_dir / WATCH
    try:
        return Watch.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise DataError(f"{path}: {where}: {first['msg']}; delete it, `router-ml drift` writes it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its rights") from error


def write_watch(models_dir: Path, watch: Watch) -> Path:
    """Write what was found, in one step; return where.

    Raises:
        BundleError: When it cannot be written; what was there before still is.
    """
    path = models_dir / WATCH
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        replace_file(path, watch.model_dump_json(indent=2).encode() + b"\n")
    except OSError as error:
        raise BundleError(f"{path}: cannot be written ({error.strerror}); check the folder and its rights") from error
    return path


def update_watch(models_dir: Path, change: Callable[[Watch | None], Watch]) -> None:
    """Write what was found beside what others found; of several who do so at the same time, each sees the last one's.

    Args:
        models_dir: The folder of all bundles.
        change: What was written down last (None: nothing that can be read) -> what is to be.

    Raises:
        BundleError: When it cannot be written; what was there before still is.
    """
    path = models_dir / "watch.lock"
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise BundleError(f"{path}: cannot be written ({error.strerror}); check the folder and its rights") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            last = read_watch(models_dir)
        except DataError as error:
            log.warning("watch_unreadable", extra={"reason": str(error)})
            last = None
        write_watch(models_dir, change(last))
