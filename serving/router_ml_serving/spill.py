"""A file for what the event store cannot take right now: JSON Lines, on the disk before a call returns.

Interactions are written as they are (the file can be read like any log of interactions); feedback as
`{"decision_id": …, "feedback": {…}}`. Several processes may share one file: it is written under a lock, and renamed
before it is read back, so nobody appends to what is being read. Reading a part twice is harmless, as the store counts
every id once. File locks and renaming open files make this POSIX only.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from router_ml.errors import RecordError
from router_ml.schema import Feedback, Interaction, parse_interaction

__all__ = ["Chunk", "Spill", "feedback_line", "read_chunk"]

_FEEDBACK_START = b'{"decision_id":'


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some lines read back: what they held, and the lines that could not be read."""

    interactions: tuple[Interaction, ...]
    feedback: tuple[tuple[str, Feedback], ...]
    unreadable: tuple[bytes, ...]
    end: int | None  # offset of the next line; None at the end of the part


class Spill:
    """One spill file, with the parts set aside for reading back beside it.

    Args:
        path: The file; it and its folder are made when needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, lines: Iterable[str]) -> None:
        """Add lines, on the disk when this returns.

        Raises:
            OSError: When they could not be written; none of them is then in the file.
        """
        data = "".join(f"{line}\n" for line in lines).encode()
        _append(self.path, data)

    def set_aside(self) -> Path | None:
        """Return a part to read back: one left from before, else the file itself under a new name; None if empty."""
        left = self._parts()
        if left:
            return left[0]
        try:
            with _locked(self.path, create=False) as file:
                if os.fstat(file).st_size == 0:
                    return None
                part = self.path.with_name(f"{self.path.name}.part-{time.time_ns():020d}-{os.getpid()}")
                self.path.rename(part)
                return part
        except FileNotFoundError:
            return None

    def reject(self, lines: Iterable[bytes]) -> None:
        """Keep unreadable lines in `<name>.rejected`, for a person to look at."""
        _append(self.path.with_name(f"{self.path.name}.rejected"), b"".join(line + b"\n" for line in lines))

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{glob.escape(self.path.name)}.part-*"))


def read_chunk(part: Path, offset: int, limit: int) -> Chunk:
    """Read up to `limit` lines of a part, from a byte offset on.

    Raises:
        OSError: When the part cannot be read; FileNotFoundError when another process has finished it.
    """
    interactions: list[Interaction] = []
    feedback: list[tuple[str, Feedback]] = []
    unreadable: list[bytes] = []
    with part.open("rb") as file:
        file.seek(offset)
        for _ in range(limit):
            raw = file.readline()
            line = raw.strip()
            if not raw:
                break
            if not line:
                continue
            try:
                if line.startswith(_FEEDBACK_START):
                    feedback.append(_parse_feedback(line))
                else:
                    interactions.append(parse_interaction(line))
            except (RecordError, ValueError, KeyError, TypeError):
                unreadable.append(line)
        end = file.tell() if file.tell() < os.fstat(file.fileno()).st_size else None
    return Chunk(tuple(interactions), tuple(feedback), tuple(unreadable), end)


def feedback_line(decision_id: str, feedback: Feedback) -> str:
    """Return the line that stands for feedback in a spill file."""
    # The id comes first: the reader tells the two kinds of line apart by their first key.
    return f'{{"decision_id":{json.dumps(decision_id)},"feedback":{feedback.model_dump_json()}}}'


def _parse_feedback(line: bytes) -> tuple[str, Feedback]:
    data = json.loads(line)
    return str(data["decision_id"]), Feedback.model_validate(data["feedback"])


def _append(path: Path, data: bytes) -> None:
    with _locked(path, create=True) as file:
        start = os.fstat(file).st_size
        # A process killed while writing leaves half a line: what follows must not be glued to it.
        if start and os.pread(file, 1, start - 1) != b"\n":
            data = b"\n" + data
        try:
            _write_all(file, data)
            os.fsync(file)
        except OSError:
            os.ftruncate(file, start)
            raise
        if not start:
            _sync_folder(path.parent)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


@contextmanager
def _locked(path: Path, *, create: bool) -> Iterator[int]:
    # The file may be renamed between opening and locking; then it is opened again.
    while True:
        file = os.open(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0), 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(path, file):
                yield file
                return
        finally:
            os.close(file)


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    # A new file survives a power cut only when its folder is on the disk too.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
