"""Results of steps on disk: each is there whole or not at all, verified when it is read, and nobody else's to read.

A value is pickled: these are our own files, in a folder of mode 0700, checked against a checksum before they are read.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router_ml.durable import place_folder
from router_ml.errors import RouterError

__all__ = ["Damaged", "Results", "private_folder"]

_VALUE, _META = "value.pickle", "meta.json"


class Damaged(Exception):
    """A result that is not what was written; the step has to run again."""


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can read, and return it.

    Raises:
        RouterError: When it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise RouterError(f"{path}: cannot be written ({error.strerror}); check the folder and its rights") from error
    return path


@dataclass(frozen=True, slots=True)
class Results:
    """Results under `<directory>/<step>/<key>/`."""

    directory: Path

    def has(self, step: str, key: str) -> bool:
        """Return whether a result is there, and what was written; a damaged one is thrown away."""
        try:
            self._verified(step, key)
        except Damaged:
            shutil.rmtree(self._folder(step, key), ignore_errors=True)
            return False
        return True

    def load(self, step: str, key: str) -> Any:
        """Read a value.

        Raises:
            Damaged: When it is not there, or not what was written.
        """
        data = self._verified(step, key)
        try:
            return pickle.loads(data)  # noqa: S301  our own file, and its checksum was right
        except Exception as error:  # whatever another release's classes cannot be made from
            raise Damaged(f"{step}: {error}") from error

    def save(self, step: str, key: str, value: object) -> None:
        """Write a value, over whatever was there.

        Raises:
            RouterError: When it cannot be written; nothing half-written stays.
        """
        folder = self._folder(step, key)
        data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        meta = {"step": step, "key": key, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        shutil.rmtree(folder, ignore_errors=True)
        try:
            place_folder(folder, {_VALUE: data, _META: json.dumps(meta).encode()}, verify=lambda _: None)
        except OSError as error:
            raise RouterError(
                f"{folder}: the result of the step '{step}' ({len(data) / 1e6:.0f} MB) cannot be written "
                f"({error.strerror}); free some space and run again: what is done is kept"
            ) from error

    def sweep(self) -> None:
        """Remove what a killed run was writing. Only for who holds the lock."""
        for left in self.directory.glob("*/.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)

    def keep(self, keys: Collection[tuple[str, str]]) -> None:
        """Delete all results but those of these steps and keys."""
        for folder in self.directory.glob("*/*"):
            if (folder.parent.name, folder.name) not in keys:
                shutil.rmtree(folder, ignore_errors=True)

    def _verified(self, step: str, key: str) -> bytes:
        folder = self._folder(step, key)
        try:
            meta = json.loads((folder / _META).read_bytes())
            data = (folder / _VALUE).read_bytes()
        except (OSError, ValueError) as error:
            raise Damaged(f"{folder}: {error}") from error
        if not isinstance(meta, dict) or meta.get("sha256") != hashlib.sha256(data).hexdigest():
            raise Damaged(f"{folder}: does not match its checksum")
        return data

    def _folder(self, step: str, key: str) -> Path:
        return self.directory / step / key
