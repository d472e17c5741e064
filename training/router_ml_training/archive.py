"""Past days of the event store -> one Parquet object per day, in a folder or on object storage.

`<to>/day=2026-11-22/part-0.parquet` has the interactions of that day (UTC) by (ts, id), each with the feedback it had
by then. A day is written whole: readers see the old object or the new one. What an archived day has and the store has
no more stays in it, so that a day never loses a row, whatever was deleted from the store or arrives late.
"""

from __future__ import annotations

import heapq
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from router_ml.config import ObjectSettings
from router_ml.errors import DataError, RecordError, UsageError
from router_ml.objects import ObjectStore, is_object_url, open_objects
from router_ml.schema import Interaction
from router_ml.store import EventStore
from router_ml_training.frames import from_frame, read_batches, write_parquet
from router_ml_training.learning import Progress
from router_ml_training.sources.objects import Objects, frames_of

__all__ = ["ArchiveReport", "ArchivedDay", "Place", "archive", "open_place"]

PART = "part-0.parquet"
# What runs beside a request is stored a little later, perhaps on the next day, and is deleted with it.
_BESIDE = timedelta(hours=1)
_IDS_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class ArchivedDay:
    """One day: where it is, the rows it has now, and whether its object was written (False: it was the same)."""

    day: str
    location: str
    rows: int
    written: bool


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """What an archive run did; `unreadable` rows of the store are in no archive, and are never deleted."""

    days: tuple[ArchivedDay, ...]
    deleted: int
    unreadable: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON can hold them."""
        return asdict(self)

    def to_text(self) -> str:
        """Return the report for a person."""
        lines = [
            f"{one.day}  {one.rows} interactions  {'written' if one.written else 'unchanged'}  {one.location}"
            for one in self.days
        ]
        lines = lines or ["no day is over yet; nothing was archived"]
        lines += [f"deleted {self.deleted} interactions from the event store"] if self.deleted else []
        lines += [f"{self.unreadable} rows of the event store cannot be read and stay there"] if self.unreadable else []
        return "\n".join(lines)


class Place(Protocol):
    """Where days are kept: a folder, or a prefix on object storage."""

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


def open_place(to: str, settings: ObjectSettings) -> Place:
    """Return the place that `s3://bucket/prefix`, or the path of a folder, stands for."""
    return _Bucket(open_objects(to, settings, os.environ)) if is_object_url(to) else _Folder(Path(to))


def archive(
    store: EventStore,
    place: Place,
    *,
    before: datetime,
    since: datetime | None = None,
    delete: bool = False,
    progress: Progress = lambda _: None,
) -> ArchiveReport:
    """Archive every day that was over before a time; deleting comes last, after every day was read back.

    Args:
        store: Whose interactions.
        place: Where to.
        before: Days that end by then.
        since: Days from that day on; None: all.
        delete: Delete from the store what the archive has, but for its last hour and what got feedback meanwhile.
        progress: Told what is being done.

    Raises:
        StoreError: When the store cannot be read.
        ObjectStoreError: When the storage cannot be read or written; days before that are archived, none is deleted.
        DataError: When an archived day cannot be read, or does not have the rows it was written with.
        UsageError: When the folder cannot be written.
    """
    end = datetime.combine(before.astimezone(UTC).date(), time(), UTC)
    begin = None if since is None else datetime.combine(since.astimezone(UTC).date(), time(), UTC)
    unreadable: list[str] = []
    rows = store.scan(begin, on_reject=lambda key, _reason: unreadable.append(key))
    over = itertools.takewhile(lambda item: item.ts < end, rows)
    days = []
    for day, items in itertools.groupby(over, key=lambda item: item.ts.astimezone(UTC).date()):
        progress(f"archiving {day}")
        days.append(_archive_day(day, items, place))
    deleted = 0
    for archived in days if delete else ():
        progress(f"deleting {archived.day}")
        deleted += _delete_day(archived, store, place, until=end - _BESIDE)
    return ArchiveReport(tuple(days), deleted, len(set(unreadable)))


def _archive_day(day: date, items: Iterable[Interaction], place: Place) -> ArchivedDay:
    key = _key(day)
    with tempfile.TemporaryDirectory(prefix="router-ml-archive-") as folder:
        file = Path(folder) / PART
        try:
            n_rows = write_parquet(file, _merged(_archived(place, key), items))
        except OSError as error:
            raise UsageError(f"{file}: cannot be written ({error.strerror}); TMPDIR names another folder") from error
        written = not place.same(key, file)
        if written:
            place.put(key, file)
    if (found := place.rows(key)) != n_rows:
        raise DataError(f"{place.name(key)}: has {found} rows, {n_rows} were written; nothing was deleted")
    return ArchivedDay(day.isoformat(), place.name(key), n_rows, written)


def _archived(place: Place, key: str) -> Iterator[Interaction]:
    try:
        for frame in place.frames(key):
            yield from from_frame(frame)
    except RecordError as error:
        raise DataError(f"{place.name(key)}: {error}; move it away to archive the day anew") from error


def _merged(old: Iterable[Interaction], new: Iterable[Interaction]) -> Iterator[Interaction]:
    """Yield both by (ts, id); of two with one id the store's, which has the later feedback."""
    ranked = heapq.merge(((item, 1) for item in old), ((item, 0) for item in new), key=_rank)
    for _, same in itertools.groupby(ranked, key=lambda pair: (pair[0].ts, pair[0].id)):
        yield next(same)[0]


def _rank(pair: tuple[Interaction, int]) -> tuple[datetime, str, int]:
    item, age = pair
    return item.ts, item.id, age


def _delete_day(archived: ArchivedDay, store: EventStore, place: Place, *, until: datetime) -> int:
    day = date.fromisoformat(archived.day)
    begin = datetime.combine(day, time(), UTC)
    end = min(begin + timedelta(days=1), until)
    here = itertools.takewhile(lambda item: item.ts < end, store.scan(begin, on_reject=lambda _key, _reason: None))
    ids = _kept_whole(_archived(place, _key(day)), here)
    deleted = 0
    while some := list(itertools.islice(ids, _IDS_AT_ONCE)):
        deleted += store.delete(ids=some)
    return deleted


def _kept_whole(old: Iterable[Interaction], new: Iterable[Interaction]) -> Iterator[str]:
    """Yield the ids that the archive has with all of the store's feedback: some may have come since."""
    ranked = heapq.merge(((item, 1) for item in old), ((item, 0) for item in new), key=_rank)
    for (_, id_), same in itertools.groupby(ranked, key=lambda pair: (pair[0].ts, pair[0].id)):
        feedback = {age: item.feedback for item, age in same}
        if len(feedback) == 2 and feedback[0] == feedback[1]:
            yield id_


def _key(day: date) -> str:
    return f"day={day.isoformat()}/{PART}"


@dataclass(frozen=True, slots=True)
class _Folder:
    directory: Path

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
