"""Files and folders that are there whole or not at all, also after a crash or a lost power supply."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["append_line", "place_folder", "replace_file"]


def place_folder(final: Path, contents: Mapping[str, bytes], *, verify: Callable[[Path], object]) -> None:
    """Write a folder beside its place, verify it there, and rename it.

    Args:
        final: Where the folder shall be; its parent is made when it is not there.
        contents: File name to bytes.
        verify: Called with the temporary folder; what it raises stops the writing.

    Raises:
        FileExistsError: When there is something at `final` already.
        OSError: When the folder cannot be written.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent))
    try:
        temporary.chmod(0o755)  # mkdtemp makes it private; the service may run as another user
        for name, data in contents.items():
            _write(temporary / name, data)
        _sync_folder(temporary)
        verify(temporary)
        if final.exists():
            raise FileExistsError(final)
        temporary.rename(final)
        _sync_folder(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file in one step: a reader sees the old content or the new, and of two writers one wins.

    Raises:
        OSError: When it cannot be written; the old content is still there.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        temporary.chmod(0o644)  # mkstemp makes it private; the service may run as another user
        _write(temporary, data)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str, *, mode: int = 0o644) -> None:
    """Append one line in a single write, so that lines of concurrent writers do not mix.

    Args:
        path: The file; made with `mode` when it is not there.
        line: What to add, without its end.
        mode: Permissions of a new file.

    Raises:
        OSError: When it cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode)
    try:
        os.write(descriptor, f"{line}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
