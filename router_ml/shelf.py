"""The shelf of bundles: list them, name the champion, switch it, switch back, clear away old ones.

`<models>/<version>/` are the bundles, `<models>/champion` a text file with one version, `<models>/history.jsonl`
one line per switch. Promotion and rollback are one atomic replacement of the text file; a service watches it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from router_ml.bundle import MANIFEST, default_bundle_path, load_bundle
from router_ml.durable import append_line, replace_file
from router_ml.errors import BundleCorrupt, BundleError, UnknownName, UsageError
from router_ml.manifest import Manifest, Metric
from router_ml.registry import did_you_mean

__all__ = ["DEFAULT", "Shelf", "ShelfEntry"]

# What serves before the first promotion: the bundle that ships with the project.
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class ShelfEntry:
    """One bundle on the shelf; `problem` says why its manifest cannot be read ("" when it can)."""

    version: str
    created: datetime
    champion: bool
    learner: str = ""
    metrics: dict[str, Metric] = field(default_factory=dict)
    simulated: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Shelf:
    """The bundles in one folder, and which of them is in service."""

    directory: Path

    def versions(self) -> list[ShelfEntry]:
        """Return every bundle, oldest first; damaged ones too, with their problem."""
        champion = self._named()
        entries = [self._entry(version, champion) for version in self._folders()]
        return sorted(entries, key=lambda entry: (entry.created, entry.version))

    def champion(self) -> str | None:
        """Return the version in service; None before the first promotion.

        Raises:
            BundleCorrupt: When the champion file names something that is not on the shelf.
        """
        version = self._named()
        if version is not None and version not in self._folders():
            message = (
                f"{self._champion_file}: names '{version}', which is not on the shelf; "
                "promote one that is, or delete the file to serve the default bundle"
            )
            raise BundleCorrupt(message)
        return version

    def path(self, version: str) -> Path:
        """Return the folder of a version.

        Raises:
            UnknownName: When the shelf has no such version; the message lists those it has.
        """
        known = self._folders()
        if version not in known:
            listed = ", ".join(known) or "none; `router-ml train` makes one"
            raise UnknownName(
                f"no bundle is called '{version}'{did_you_mean(version, known)} in {self.directory}; known: {listed}"
            )
        return self.directory / version

    def champion_path(self) -> Path:
        """Return the folder of the bundle in service: the champion, or the default before the first promotion."""
        version = self.champion()
        return default_bundle_path() if version is None else self.path(version)

    def promote(self, version: str, *, reason: str, now: datetime) -> None:
        """Put a version into service, once it has been loaded and verified.

        Args:
            version: A version on the shelf.
            reason: Why, in one sentence, for the history.
            now: When.

        Raises:
            UnknownName: When the shelf has no such version.
            BundleError: When it cannot be used, or the shelf cannot be written; the champion stays.
        """
        load_bundle(self.path(version))
        self._switch(version, action="promote", reason=reason, now=now)

    def rollback(self, *, now: datetime) -> str:
        """Put the version back into service that the champion replaced; again, and the one before that.

        Args:
            now: When.

        Returns:
            The version now in service; "default" for the bundle that served before the first promotion.

        Raises:
            UsageError: When there is nothing to go back to.
            BundleError: When the earlier version cannot be used; the champion stays.
        """
        champion, replaced = self._named(), self._before()
        if champion is None or champion not in replaced:
            raise UsageError(f"{self.directory}: no promotion to roll back; `router-ml models` lists what there is")
        version = replaced[champion]
        load_bundle(default_bundle_path() if version is None else self.path(version))
        self._switch(version, action="rollback", reason="rollback", now=now)
        return DEFAULT if version is None else version

    def prune(self, keep: int) -> list[str]:
        """Delete all but the newest bundles; never the champion, the one before it, or the default.

        Args:
            keep: How many of the newest bundles to keep, >= 0.

        Returns:
            The versions deleted, oldest first.
        """
        champion = self._named()
        spared = {DEFAULT, champion, self._before().get(champion or "")}
        entries = self.versions()
        old = [entry.version for entry in entries[: max(len(entries) - keep, 0)] if entry.version not in spared]
        for version in old:
            # Renamed first: a reader finds the whole bundle or none.
            doomed = (self.directory / version).rename(self.directory / f".{version}.pruned")
            shutil.rmtree(doomed, ignore_errors=True)
        return old

    @property
    def _champion_file(self) -> Path:
        return self.directory / "champion"

    @property
    def _history_file(self) -> Path:
        return self.directory / "history.jsonl"

    def _named(self) -> str | None:
        try:
            return self._champion_file.read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise BundleCorrupt(f"{self._champion_file}: cannot be read ({error}); promote a version again") from error

    def _folders(self) -> list[str]:
        if not self.directory.is_dir():
            return []
        found = self.directory.iterdir()
        return sorted(path.name for path in found if not path.name.startswith(".") and (path / MANIFEST).is_file())

    def _entry(self, version: str, champion: str | None) -> ShelfEntry:
        file = self.directory / version / MANIFEST
        try:
            manifest = Manifest.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            created = datetime.fromtimestamp(file.parent.stat().st_mtime, UTC)
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
            problem = f"its manifest cannot be read ({why})"
            return ShelfEntry(version, created, version == champion, problem=problem)
        created = manifest.created if manifest.created.tzinfo else manifest.created.replace(tzinfo=UTC)
        return ShelfEntry(
            version, created, version == champion, manifest.learner, dict(manifest.metrics), manifest.simulated
        )

    def _switch(self, version: str | None, *, action: str, reason: str, now: datetime) -> None:
        # The history first: a line about a switch that a crash prevented is ignored when it is read, while a switch
        # without its line could not be rolled back.
        line = {"ts": now.isoformat(), "from": self._named(), "to": version, "reason": reason, "action": action}
        try:
            append_line(self._history_file, json.dumps(line, ensure_ascii=False))
            if version is None:
                self._champion_file.unlink(missing_ok=True)
            else:
                replace_file(self._champion_file, f"{version}\n".encode())
        except OSError as error:
            raise BundleError(f"{self.directory}: cannot be written ({error.strerror}); the champion stays") from error

    def _before(self) -> dict[str, str | None]:
        # What each version replaced when it was last promoted; None is the default bundle. Lines of rollbacks, and
        # of switches that a crash prevented, do not matter here.
        try:
            lines = self._history_file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise BundleCorrupt(f"{self._history_file}: cannot be read ({error})") from error
        replaced: dict[str, str | None] = {}
        for line in lines:
            try:
                entry = json.loads(line)
                if entry["action"] == "promote" and entry["from"] != entry["to"]:
                    replaced[str(entry["to"])] = entry["from"]
            except (ValueError, KeyError, TypeError):
                continue  # a line cut off by a crash
        return replaced
