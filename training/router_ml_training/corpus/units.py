"""What a log is read by: slices of a store's days, files; each with a fingerprint that changes when its rows do."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from router_ml.objects import is_object_url
from router_ml.store import Bounds
from router_ml_training.reading import Log
from router_ml_training.sources.native import files_of, objects_of
from router_ml_training.sources.objects import day_of, list_objects
from router_ml_training.sources.store import open_log

__all__ = ["ROWS", "Unit", "folder_of", "units_of"]

# Rows of a part: 50 MB and three seconds' work, so that little is done again, and a year is not ten thousand files.
ROWS = 20_000
# A row of a log is seldom shorter. Too many rows expected costs nothing but that fewer answers are looked at ahead.
_ROW_BYTES = 500
_TABLES = (".parquet", ".csv")


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows of a log that are read together, and read again together.

    `name` is a file name that no other unit of the log has. `fingerprint` tells these rows from others; None when
    nobody can say whether the rows are still the same. `bounds` are those of a slice of a store, whose UTC `day` is
    known; `rows` is about how many there are.
    """

    log: Log
    name: str
    fingerprint: str | None
    rows: int
    bounds: Bounds | None = None
    day: str | None = None


def units_of(log: Log, size: int = ROWS) -> list[Unit]:
    """Return the units of a log, in its order.

    Args:
        log: A store is cut by days, a native log by its files; any other log is one unit.
        size: Rows per slice of a store, at most.

    Raises:
        DataError: When there is no such log.
        StoreError: When a store cannot be read.
    """
    if log.source == "store":
        with open_log(log.location) as store:
            return [
                Unit(log, f"{one.day}.{one.number:04d}", one.fingerprint, one.n, one.bounds, one.day)
                for one in store.slices(size)
            ]
    if log.source == "native" and is_object_url(log.location):
        return list(_of_objects(log))
    if log.source == "native":
        return [_of_files(Log(str(path), log.source), [path]) for path in files_of(log.location)]
    if is_object_url(log.location):  # a table is read as a whole
        items = list_objects(log.location, log.objects, _TABLES)
        marks = "\n".join(f"{item.key} {item.etag} {item.size}" for item in items)
        rows = sum(item.size for item in items) // _ROW_BYTES
        return [Unit(log, hashlib.sha256(str(log).encode()).hexdigest()[:16], marks, rows)]
    return [_of_files(log, sorted(_files_below(log.location)))]


def _of_objects(log: Log) -> Iterator[Unit]:
    found = objects_of(log.location, log.objects)
    for item in found.items:
        one, day = replace(log, location=found.url_of(item)), day_of(item.key)
        name = hashlib.sha256(one.location.encode()).hexdigest()[:16]
        marks = f"{item.etag} {item.size}"
        yield Unit(one, name, marks, item.size // _ROW_BYTES, day=None if day is None else day.isoformat())


def folder_of(log: Log) -> str:
    """Return the name of the folder in which the parts of a log lie."""
    return hashlib.sha256(f"{log.source} {log}".encode()).hexdigest()[:16]


def _of_files(log: Log, paths: Sequence[Path]) -> Unit:
    name = hashlib.sha256(str(log).encode()).hexdigest()[:16]
    if not paths:
        return Unit(log, name, None, ROWS)
    stats = [path.stat() for path in paths]
    marks = "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in zip(paths, stats, strict=True))
    return Unit(log, name, marks, sum(stat.st_size for stat in stats) // _ROW_BYTES)


def _files_below(location: str) -> Iterator[Path]:
    for path in [Path(location)] if Path(location).exists() else map(Path, glob.glob(location, recursive=True)):  # noqa: PTH207
        yield from (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
