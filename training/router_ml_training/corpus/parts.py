"""Parts on disk: a block of rows in one file that is there whole or not at all, checked when it is read, mapped.

A part is a header in JSON and the arrays as they are in memory. Numbers, hashed words and names of policies are all it
holds: no text.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import resource
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from router_ml.durable import replace_file
from router_ml.errors import DataError
from router_ml.features import N_BUCKETS
from router_ml.features.answer import N_ANSWER_BUCKETS
from router_ml_training.answers import AnswerMaterial, Answers
from router_ml_training.blocks import PER_ROW, RowBlock
from router_ml_training.labels import Evidence

__all__ = ["Part", "Tally", "allow_parts", "key_of", "let_go", "read_part", "write_part"]

Arrays: TypeAlias = dict[str, NDArray[Any]]

_MAGIC = b"router-ml part 1"
_DIGEST = hashlib.sha256().digest_size
_LENGTH = 8
_START = len(_MAGIC) + _DIGEST + _LENGTH
_ALIGNED = 64
# That libraries, databases and worker processes have open beside the parts.
_OTHER_FILES = 1_000
_EVIDENCE = tuple(field.name for field in fields(Evidence))


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows were read and how many could not be, and why the first of those could not."""

    read: int
    rejected: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A block with the count of what was read for it; `last` says that no further part of the same unit follows."""

    block: RowBlock
    tally: Tally
    last: bool


def write_part(path: Path, part: Part, key: str) -> None:
    """Write a part; one that is there is replaced.

    Args:
        path: The file; its folder must exist.
        part: What to keep.
        key: Says what it was made from and how; who asks for another key does not get it.

    Raises:
        DataError: When it cannot be written.
    """
    arrays = _arrays(part.block)
    table, place = {}, 0
    for name, array in arrays.items():
        table[name] = (array.dtype.str, array.shape, place)
        place += -(-array.nbytes // _ALIGNED) * _ALIGNED
    header = {
        "key": key,
        "read": part.tally.read,
        "rejected": part.tally.rejected,
        "reason": part.tally.reason,
        "last": part.last,
        "strata": part.block.strata,
        "ceiling": part.block.material.ceiling,
        "arrays": table,
    }
    said = json.dumps(header).encode()
    said += b" " * (-(_START + len(said)) % _ALIGNED)
    pieces = [said]
    for array in arrays.values():
        pieces += [array.tobytes(), b"\0" * (-array.nbytes % _ALIGNED)]
    content = b"".join(pieces)
    front = _MAGIC + hashlib.sha256(content).digest() + len(said).to_bytes(_LENGTH, "little")
    try:
        replace_file(path, front + content)
        path.chmod(0o600)  # names of tenants are hashed in it, and can be guessed
    except OSError as error:
        raise DataError(
            f"{path}: this part of the log cannot be kept ({error.strerror or error}): free some disk space, or let "
            "the cache lie elsewhere"
        ) from error


def read_part(path: Path, key: str) -> Part | None:
    """Return a part, its arrays mapped from the file; None when it is missing, damaged, or of another key.

    Args:
        path: The file.
        key: What the part must have been written with.

    Raises:
        DataError: When this process has too many files open.
    """
    try:
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
            raise DataError(
                f"{path}: too many parts of logs for the files that one process may have open: raise that limit "
                "(`ulimit -n`), or let the log be in fewer, larger files"
            ) from error
        return None
    header = _header(memory, key)
    if header is None:
        return None
    start = _START + int.from_bytes(memory[_START - _LENGTH : _START], "little")
    arrays = {name: _array(memory, start, *entry) for name, entry in header["arrays"].items()}
    strata = tuple((version, mode) for version, mode in header["strata"])
    tally = Tally(header["read"], header["rejected"], header["reason"])
    block = _block(arrays, strata, header["ceiling"])
    let_go(block)  # the checksum has looked at all of it
    return Part(block, tally, header["last"])


def let_go(block: RowBlock) -> None:
    """Give back the memory that a mapped block takes; what is looked at afterwards is read from the file again."""
    base: Any = block.key
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def allow_parts(n: int) -> None:
    """Raise this process's limit of open files, so far as it may, to what `n` parts need: each keeps one open."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = n + _OTHER_FILES if most == resource.RLIM_INFINITY else min(n + _OTHER_FILES, most)
    if allowed != resource.RLIM_INFINITY and needed > allowed:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


def key_of(path: Path) -> str | None:
    """Return the key that a part was written with; None when it is no part. The rest of the file is not looked at."""
    try:
        with path.open("rb") as file:
            front = file.read(_START)
            said = file.read(int.from_bytes(front[-_LENGTH:], "little")) if front.startswith(_MAGIC) else b""
        key = json.loads(said)["key"]
    except (OSError, ValueError, MemoryError):
        return None
    return str(key)


def _header(memory: mmap.mmap, key: str) -> dict[str, Any] | None:
    if memory[: len(_MAGIC)] != _MAGIC or len(memory) < _START:
        return None
    end = _START + int.from_bytes(memory[_START - _LENGTH : _START], "little")
    # The key first: a stale part need not be read to its end.
    try:
        header: dict[str, Any] = json.loads(memory[_START:end])
    except ValueError:
        return None
    if header.get("key") != key:
        return None
    with memoryview(memory) as view, view[_START:] as content:
        found = hashlib.sha256(content).digest()
    return header if found == memory[len(_MAGIC) : len(_MAGIC) + _DIGEST] else None


def _array(memory: mmap.mmap, start: int, kind: str, shape: list[int], place: int) -> NDArray[Any]:
    count = int(np.prod(shape, dtype=np.int64))
    if count == 0:
        return np.zeros(shape, kind)
    return np.frombuffer(memory, kind, count, start + place).reshape(shape)


def _arrays(block: RowBlock) -> Arrays:
    arrays = {name: getattr(block, name) for name in PER_ROW}
    arrays |= {f"evidence.{name}": getattr(block.evidence, name) for name in _EVIDENCE}
    answers = block.material.answers
    arrays |= {
        "material": block.material.rows,
        "answers.row": answers.row,
        "answers.tier": answers.tier,
        "answers.dense": answers.dense,
        **_bags("answers.text", answers.text),
        **_bags("text", block.text),
    }
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _block(arrays: Arrays, strata: tuple[tuple[str | None, str], ...], ceiling: int) -> RowBlock:
    answers = Answers(
        row=arrays["answers.row"],
        tier=arrays["answers.tier"],
        dense=arrays["answers.dense"],
        text=_matrix("answers.text", arrays, N_ANSWER_BUCKETS),
    )
    return RowBlock(
        **{name: arrays[name] for name in PER_ROW},
        text=_matrix("text", arrays, N_BUCKETS),
        evidence=Evidence(*(arrays[f"evidence.{name}"] for name in _EVIDENCE)),
        material=AnswerMaterial(arrays["material"], ceiling, answers),
        strata=strata,
    )


def _bags(name: str, matrix: csr_array) -> Arrays:
    return {
        f"{name}.ids": matrix.indices.astype(np.int32),
        f"{name}.weights": matrix.data.astype(np.float32),
        # Narrow, as the ids are: scipy takes them as they lie there only when they agree.
        f"{name}.ends": matrix.indptr.astype(np.int32),
    }


def _matrix(name: str, arrays: Arrays, width: int) -> csr_array:
    parts = arrays[f"{name}.weights"], arrays[f"{name}.ids"], arrays[f"{name}.ends"]
    return csr_array(parts, shape=(len(parts[2]) - 1, width))
