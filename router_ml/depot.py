"""The depot: a shelf of bundles on object storage, laid out as the local one.

`<prefix>/<version>/` are the bundles, `champion`, `challenger` and `switches.jsonl` say who serves. A version is there
when its manifest is, which is written last. Nothing is ever written over but the pointers and their record, and these
only on the condition that they are what their writer had read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from router_ml.bundle import MANIFEST, load_bundle
from router_ml.durable import place_folder, replace_file
from router_ml.errors import BundleError, ObjectStoreError, UnknownName
from router_ml.objects import Found, Listed, ObjectConflict, ObjectStore
from router_ml.registry import did_you_mean

__all__ = ["CHALLENGER", "CHAMPION", "RECORD", "Depot", "DepotState"]

CHAMPION = "champion"
CHALLENGER = "challenger"
RECORD = "switches.jsonl"
_GATES = "gates"
# Of versions and of their files, as the manifest has them: what anybody may write into a bucket becomes a path here.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class DepotState:
    """The pointers and the record of switches as they were found; None: never written."""

    champion: Found | None
    challenger: Found | None
    record: Found | None


@dataclass(frozen=True, slots=True)
class Depot:
    """The bundles below one URL."""

    objects: ObjectStore

    def versions(self) -> list[str]:
        """Return every version that is there as a whole, by name.

        Raises:
            ObjectStoreError: When the storage cannot be read.
        """
        keys = (item.key for item in self.objects.list())
        return sorted(
            key.removesuffix(f"/{MANIFEST}") for key in keys if key.count("/") == 1 and key.endswith(MANIFEST)
        )

    def state(self) -> DepotState:
        """Return who serves.

        Raises:
            ObjectStoreError: When the storage cannot be read.
        """
        # The record first: it is written first, so a pointer that is newer than the record is never seen.
        record = self.objects.get(RECORD)
        return DepotState(self.objects.get(CHAMPION), self.objects.get(CHALLENGER), record)

    def push(self, folder: Path) -> None:
        """Upload one bundle, its manifest last. An upload that was cut off goes on where it was.

        Args:
            folder: Of the bundle; it is verified first.

        Raises:
            BundleError: When it cannot be used, or the depot has another bundle of this version.
            ObjectStoreError: When the storage cannot be written; readers see nothing of the version.
        """
        bundle = load_bundle(folder)
        there = {item.key: item for item in self.objects.list(bundle.version)}
        if f"{bundle.version}/{MANIFEST}" in there:
            self.confirm(bundle.version, folder)
        for name in bundle.manifest.files:
            self._put_file(f"{bundle.version}/{name}", (folder / name).read_bytes(), there)
        gates = folder.parent / _GATES / f"{bundle.version}.json"
        if gates.is_file():
            name = f"{_GATES}/{gates.name}"
            self.objects.put(name, gates.read_bytes(), after=self.objects.get(name))
        self._put_file(f"{bundle.version}/{MANIFEST}", (folder / MANIFEST).read_bytes(), there)

    def confirm(self, version: str, folder: Path) -> None:
        """Check that what the depot has of a version is the bundle in a folder: two machines may name theirs the same.

        Args:
            version: Its name; a depot that has none of it contradicts nothing.
            folder: Of the bundle. Manifests are compared, which have the checksums of all files.

        Raises:
            BundleError: When it is another one.
            ObjectStoreError: When the storage cannot be read.
        """
        key = f"{version}/{MANIFEST}"
        found = self.objects.get(key)
        if found is not None and found.data != (folder / MANIFEST).read_bytes():
            raise BundleError(
                f"{self.objects.url_of(key)}: is another bundle than {folder}, under the same name; bundles never "
                "change: train again under another version, or move this one away and `router-ml sync pull`"
            )

    def pull(self, version: str, shelf_dir: Path) -> None:
        """Download one bundle to a shelf, whole and verified, or not at all.

        Args:
            version: One of `versions()`.
            shelf_dir: Where it becomes `<shelf_dir>/<version>/`; it must not be there.

        Raises:
            UnknownName: When the depot has no such version, or not as a whole.
            BundleError: When it cannot be used.
            ObjectStoreError: When the storage cannot be read.
        """
        keys = [item.key for item in self.objects.list(version)] if _NAME.fullmatch(version) else []
        if f"{version}/{MANIFEST}" not in keys:
            known = self.versions()
            hint = did_you_mean(version, known)
            raise UnknownName(
                f"{self.objects.url}: no whole bundle '{version}' is there{hint}; known: {', '.join(known) or 'none'}"
            )
        names = (key.removeprefix(f"{version}/") for key in keys)
        contents = {name: self._read(f"{version}/{name}") for name in names if _NAME.fullmatch(name)}
        try:
            self._place(shelf_dir / version, contents)
            gates = self.objects.get(f"{_GATES}/{version}.json")
            if gates is not None:
                (shelf_dir / _GATES).mkdir(exist_ok=True)
                replace_file(shelf_dir / _GATES / f"{version}.json", gates.data)
        except BundleError as error:
            # The folder it was tried in is gone; what matters is where it came from.
            tried = rf"{re.escape(str(shelf_dir))}/\.{re.escape(version)}\.[^/:]*\.tmp"
            raise type(error)(re.sub(tried, self.objects.url_of(version), str(error))) from error
        except OSError as error:
            raise BundleError(f"{shelf_dir / version}: cannot be written ({error.strerror})") from error

    def write(self, changed: Mapping[str, tuple[Found | None, bytes]]) -> dict[str, str]:
        """Write pointers and record, in the order given, each on the condition that it is what was found.

        Args:
            changed: Key to (what was found, what it shall be).

        Returns:
            Key to its new ETag.

        Raises:
            ObjectConflict: When another writer was faster; what follows was not written.
            ObjectStoreError: When the storage cannot be written.
        """
        return {key: self.objects.put(key, data, after=found) for key, (found, data) in changed.items()}

    def _put_file(self, key: str, data: bytes, there: Mapping[str, Listed]) -> None:
        if _is_the_same(there.get(key), data):
            return
        try:
            self.objects.put(key, data, after=None)
        except ObjectConflict as error:
            raise BundleError(
                f"{self.objects.url_of(key)}: another file is there already, and bundles never change; "
                "train again under another version, or delete what an upload cut off has left there"
            ) from error

    def _place(self, final: Path, contents: Mapping[str, bytes]) -> None:
        try:
            place_folder(final, contents, verify=load_bundle)
        except FileExistsError:
            # Another process has pulled it meanwhile; it is verified again before it serves.
            if not final.is_dir():
                raise

    def _read(self, key: str) -> bytes:
        found = self.objects.get(key)
        if found is None:
            raise ObjectStoreError(f"{self.objects.url_of(key)}: was deleted while it was read; try again")
        return found.data


def _is_the_same(item: Listed | None, data: bytes) -> bool:
    # Where the ETag is no digest of the content (with some kinds of encryption) the content decides.
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return item is not None and item.size == len(data) and item.etag.strip('"') == digest
