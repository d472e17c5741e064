"""Which files a location stands for, and their lines, compressed or not, in bounded memory."""

from __future__ import annotations

import glob
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from router_ml.errors import DataError
from router_ml.objects import is_object_url

__all__ = ["MAX_LINE_BYTES", "find_files", "lines_of", "read_lines"]

# A longer line is not an interaction; reading it whole could take all memory.
MAX_LINE_BYTES = 64 * 2**20
_BOM = b"\xef\xbb\xbf"


def find_files(location: str, suffixes: Sequence[str]) -> list[Path]:
    """Return the files a location stands for, in order of name.

    A folder stands for all files below it with one of the suffixes, hidden ones and `*.rejects.jsonl` left out.

    Args:
        location: File, folder or glob pattern (`logs/**/*.jsonl`).
        suffixes: File name endings that can be read, such as ".jsonl".

    Raises:
        DataError: When there is no such file, or none that can be read.
    """
    if is_object_url(location):
        raise DataError(f"{location}: only logs in our own format are read from object storage; download it first")
    path = Path(location)
    known = ", ".join(suffixes)
    if path.is_dir():
        names = (file.relative_to(path).parts for file in path.rglob("*") if file.is_file())
        found = [path.joinpath(*parts) for parts in names if not any(part.startswith(".") for part in parts)]
        found = [file for file in found if _readable(file, suffixes) and not file.name.endswith(".rejects.jsonl")]
        if not found:
            raise DataError(f"{location}: the folder holds no file to read; expected {known}")
        return sorted(found)
    matches = [path] if path.exists() else sorted(map(Path, glob.glob(location, recursive=True)))  # noqa: PTH207
    if not matches:
        raise DataError(f"{location}: no such file or folder, and no file matches it as a pattern")
    unreadable = next((file for file in matches if not _readable(file, suffixes)), None)
    if unreadable is not None:
        raise DataError(f"{unreadable}: the name does not say a format that can be read; expected {known}")
    return matches


def read_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number from 1, line) for every line that is not blank; None stands for one over `MAX_LINE_BYTES`.

    Args:
        path: Text in UTF-8; compressed when the name ends in .gz or .zst.

    Raises:
        DataError: When the file cannot be read to its end, as when it is truncated.
    """
    try:
        with path.open("rb") as file:
            yield from lines_of(file, str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read to its end: {error}") from error


def lines_of(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes | None]]:
    """Yield the lines of an open file as `read_lines` does.

    Args:
        file: Text in UTF-8; compressed when `name` ends in .gz or .zst.
        name: For messages.

    Raises:
        DataError: When it cannot be read to its end, as when it is truncated.
    """
    try:
        with _decompressed(file, name) as text_file:
            number = 0
            while line := text_file.readline(MAX_LINE_BYTES):
                number += 1
                whole = len(line) < MAX_LINE_BYTES or line.endswith(b"\n")
                while not whole:
                    rest = text_file.readline(MAX_LINE_BYTES)
                    whole = len(rest) < MAX_LINE_BYTES or rest.endswith(b"\n")
                    line = b""
                if not line:
                    yield number, None
                elif text := (line.removeprefix(_BOM) if number == 1 else line).strip():
                    yield number, text
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: cannot be read to its end: {error}") from error


def _readable(path: Path, suffixes: Sequence[str]) -> bool:
    return path.name.lower().endswith(tuple(suffixes))


def _decompressed(file: BinaryIO, name: str) -> BinaryIO:
    if name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(file, "rb"))
    if name.lower().endswith(".zst"):
        # Through Python's own buffer, which reads lines of any length.
        return cast(BinaryIO, io.BufferedReader(pa.input_stream(file, compression="zstd"), 2**20))
    return file
