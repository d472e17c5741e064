"""Where an archive is kept, a folder or a prefix on object storage: its days are read, compared and written whole."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from router_ml.config import ObjectSettings
from router_ml.errors import DataError, UsageError
from router_ml.objects import ObjectStore, is_object_url, open_objects
from router_ml_training.archive_lock import Clock, Renew, lease, lock
from router_ml_training.frames import read_batches
from router_ml_training.sources.objects import Objects, frames_of

__all__ = ["PART", "Place", "open_place"]

PART = "part-0.parquet"
_DAY = re.compile(rf"day=\d{{4}}-\d{{2}}-\d{{2}}/{re.escape(PART)}")
_NOW: Clock = partial(datetime.now, UTC)


class Place(Protocol):
    """Where days are kept: a folder, or a prefix on object storage."""

    def held(self) -> AbstractContextManager[Renew]:
        """Keep every other archive run from writing here until the end of the block."""
        ...

    def days(self) -> list[str]:
        """Return the keys of all days, oldest first."""
        ...

    def name(self, key: str) -> str:
        """Return where an object is, for people."""
        ...

    def frames(self, key: str) -> Iterator[pl.DataFrame]:
        """Stream the rows of an object; none when it is not there."""
        ...

    def rows(self, key: str) -> int:
        """Return how many rows an object has, as its footer says."""
        ...

    def same(self, key: str, file: Path) -> bool:
        """Return whether an object has the content of a file."""
        ...

    def put(self, key: str, file: Path) -> None:
        """Write an object from a file, whole or not at all."""
        ...


def open_place(to: str, settings: ObjectSettings, clock: Clock = _NOW) -> Place:
    """Return the place that `s3://bucket/prefix`, or the path of a folder, stands for."""
    return _Bucket(open_objects(to, settings, os.environ), clock) if is_object_url(to) else _Folder(Path(to))


@dataclass(frozen=True, slots=True)
class _Folder:
    directory: Path

    @contextmanager
    def held(self) -> Iterator[Renew]:
        with lock(self.directory) as renew:
            self._sweep()
            yield renew

    def _sweep(self) -> None:
        # Of runs that were killed: they hold rows that an archive may have been told to forget.
        for left in self.directory.glob(f"day=*/.{PART}.tmp"):
            try:
                left.unlink(missing_ok=True)
            except OSError as error:
                raise UsageError(f"{left}: cannot be deleted ({error.strerror}); check its rights") from error

    def days(self) -> list[str]:
        found = (file.relative_to(self.directory).as_posix() for file in self.directory.glob(f"day=*/{PART}"))
        return sorted(key for key in found if _DAY.fullmatch(key))

    def name(self, key: str) -> str:
        return str(self.directory / key)

    def frames(self, key: str) -> Iterator[pl.DataFrame]:
        if (self.directory / key).exists():
            yield from read_batches(self.directory / key)

    def rows(self, key: str) -> int:
        return _rows_in(self.directory / key, self.name(key))

    def same(self, key: str, file: Path) -> bool:
        return _same(self.directory / key, file)

    def put(self, key: str, file: Path) -> None:
        final = self.directory / key
        hidden = final.with_name(f".{final.name}.tmp")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as source, hidden.open("wb") as target:
                while piece := source.read(2**20):
                    target.write(piece)
                target.flush()
                os.fsync(target.fileno())
            hidden.replace(final)
        except OSError as error:
            with suppress(OSError):
                hidden.unlink()
            raise UsageError(f"{final}: cannot be written ({error.strerror}); choose another folder") from error


@dataclass(frozen=True, slots=True)
class _Bucket:
    objects: ObjectStore
    clock: Clock

    def held(self) -> AbstractContextManager[Renew]:
        return lease(self.objects, self.clock)

    def days(self) -> list[str]:
        return sorted(item.key for item in self.objects.list() if _DAY.fullmatch(item.key))

    def name(self, key: str) -> str:
        return self.objects.url_of(key)

    def frames(self, key: str) -> Iterator[pl.DataFrame]:
        for item in self.objects.list(key.rpartition("/")[0]):
            if item.key == key:
                yield from frames_of(Objects(self.objects, (item,)), item)

    def rows(self, key: str) -> int:
        for item in self.objects.list(key.rpartition("/")[0]):
            if item.key == key:
                with self.objects.open(item) as file:
                    return _rows_in(file, self.name(key))
        return 0

    def same(self, key: str, file: Path) -> bool:
        for item in self.objects.list(key.rpartition("/")[0]):
            if item.key == key and item.size == file.stat().st_size:
                with self.objects.open(item) as there, file.open("rb") as here:
                    return _equal(there.read, here.read)
        return False

    def put(self, key: str, file: Path) -> None:
        self.objects.replace(key, file)


def _rows_in(file: Any, name: str) -> int:
    try:
        return int(pq.ParquetFile(file).metadata.num_rows)
    except (pa.ArrowException, FileNotFoundError) as error:
        raise DataError(f"{name}: cannot be read back as Parquet: {error}") from error


def _same(there: Path, here: Path) -> bool:
    if not there.exists() or there.stat().st_size != here.stat().st_size:
        return False
    with there.open("rb") as one, here.open("rb") as other:
        return _equal(one.read, other.read)


def _equal(one: Callable[[int], bytes], other: Callable[[int], bytes]) -> bool:
    while True:
        left, right = one(2**20), other(2**20)
        if left != right:
            return False
        if not left:
            return True
