"""The shelf of bundles: list them, name the champion and its challenger, switch, switch back, clear away old ones.

`<models>/<version>/` are the bundles, `<models>/champion` a text file with one version, `<models>/challenger` one with
a version and perhaps its share of the requests, `<models>/switches.jsonl` has one line per switch and
`<models>/gates/<version>.json` what the gates said of a version. Every switch is one atomic replacement of a text file,
under a lock that all processes share; services watch both files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from router_ml.bundle import MANIFEST, default_bundle_path, load_bundle
from router_ml.durable import replace_file
from router_ml.errors import BundleCorrupt, BundleError, UnknownName, UsageError
from router_ml.manifest import Manifest, Metric
from router_ml.pointers import LARGEST_SHARE, Challenger, Pointers
from router_ml.registry import did_you_mean
from router_ml.switches import Cause, Switch, replaced_by

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
    challenger: bool = False


@dataclass(frozen=True, slots=True)
class Shelf:
    """The bundles in one folder, and which of them is in service."""

    directory: Path

    def versions(self) -> list[ShelfEntry]:
        """Return every bundle, oldest first; damaged ones too, with their problem."""
        champion, challenger = self._pointers.champion(), self.challenger()
        wanted = None if challenger is None else challenger.version
        entries = [self._entry(version, champion, wanted) for version in self._folders()]
        return sorted(entries, key=lambda entry: (entry.created, entry.version))

    def names(self) -> set[str]:
        """Return what bundles are called, or were called as far as gates and switches tell of them."""
        kept = {file.stem for file in (self.directory / "gates").glob("*.json")}
        switched = {name for switch in self.switches() for name in (switch.before, switch.after) if name}
        return {*self._folders(), *kept, *switched}

    def champion(self) -> str | None:
        """Return the version in service; None before the first promotion.

        Raises:
            BundleCorrupt: When the champion file names something that is not on the shelf.
        """
        version = self._pointers.champion()
        if version is not None and version not in self._folders():
            message = (
                f"{self._pointers.champion_file}: names '{version}', which is not on the shelf; "
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
        return self.path_in_service(self.champion() or DEFAULT)

    def path_in_service(self, version: str) -> Path:
        """Return the folder of a version that served or serves: of one on the shelf, or of the default bundle.

        Raises:
            UnknownName: When the shelf has no such version.
        """
        shipped = version == DEFAULT and DEFAULT not in self._folders()
        return default_bundle_path() if shipped else self.path(version)

    def challenger(self) -> Challenger | None:
        """Return who is tried beside the champion; None when nobody is.

        Raises:
            BundleCorrupt: When the challenger file cannot be read as a version and a share.
        """
        return self._pointers.challenger()

    def switches(self) -> list[Switch]:
        """Return every switch there was, oldest first.

        Raises:
            BundleCorrupt: When the record cannot be read.
        """
        return self._pointers.switches()

    def promote(self, version: str, *, reason: str, now: datetime, only_over: str | None = None) -> None:
        """Put a version into service, once it has been loaded and verified; it is no challenger any more.

        Args:
            version: A version on the shelf.
            reason: Why, in one sentence, for the record.
            now: When.
            only_over: Promote only while this version is the champion (`DEFAULT` before the first promotion).

        Raises:
            UnknownName: When the shelf has no such version.
            BundleError: When it cannot be used, the shelf cannot be written, or another than `only_over` is the
                champion; the champion stays.
        """
        load_bundle(self.path(version))
        with self._pointers.locked():
            before = self._pointers.champion()
            if only_over is not None and (before or DEFAULT) != only_over:
                raise BundleError(
                    f"{self.directory}: {before or DEFAULT} is the champion now, and {version} was compared with "
                    f"{only_over}; run again to compare it with the new champion"
                )
            self._pointers.set_champion(Switch(now.isoformat(), "promote", before, version, "person", reason))

    def rollback(
        self,
        *,
        now: datetime,
        reason: str = "rolled back by hand",
        cause: Cause = "person",
        evidence: Mapping[str, Any] | None = None,
        only: str | None = None,
    ) -> str:
        """Put the version back into service that the champion replaced; again, and the one before that.

        Args:
            now: When.
            reason: Why, in one sentence, for the record.
            cause: Who decided.
            evidence: The numbers it was decided on.
            only: Roll back only while this version is the champion; of several processes one succeeds.

        Returns:
            The version now in service; "default" for the bundle that served before the first promotion.

        Raises:
            UsageError: When there is nothing to go back to, or another version than `only` is the champion.
            BundleError: When the earlier version cannot be used; the champion stays.
        """
        with self._pointers.locked():
            champion, replaced = self._pointers.champion(), replaced_by(self.switches())
            if only is not None and champion != only:
                raise UsageError(f"{self.directory}: {champion or DEFAULT} is the champion, not {only}; nothing to do")
            if champion is None or champion not in replaced:
                raise UsageError(f"{self.directory}: no promotion to roll back; `router-ml models` lists what there is")
            version = replaced[champion]
            load_bundle(default_bundle_path() if version is None else self.path(version))
            switch = Switch(now.isoformat(), "rollback", champion, version, cause, reason, evidence or {})
            self._pointers.set_champion(switch)
        return DEFAULT if version is None else version

    def challenge(self, version: str, *, reason: str, now: datetime, share: float | None = None) -> None:
        """Put a version up beside the champion, once it has been loaded and verified.

        Args:
            version: A version on the shelf.
            reason: Why, in one sentence, for the record.
            now: When.
            share: What it answers of the requests, in [0, 0.9]; None: what is configured.

        Raises:
            UnknownName: When the shelf has no such version.
            UsageError: When it is the champion, or the share is none.
            BundleError: When it cannot be used, or the shelf cannot be written; the challenger stays who it was.
        """
        _check_share(share)
        load_bundle(self.path(version))
        with self._pointers.locked():
            if version == self._pointers.champion():
                raise UsageError(f"{version} is the champion already; challenge it with another version")
            evidence = {} if share is None else {"share": share}
            before = self._pointers.replaceable()
            switch = Switch(now.isoformat(), "challenge", before, version, "person", reason, evidence)
            self._pointers.set_challenger(switch, share)

    def canary(self, share: float, *, reason: str, now: datetime) -> Challenger:
        """Set the challenger's share of the requests; 0 ends its canary and leaves it up.

        Args:
            share: In [0, 0.9].
            reason: Why, in one sentence, for the record.
            now: When.

        Raises:
            UsageError: When there is no challenger, or the share is none.
            BundleError: When the shelf cannot be written; the share stays.
        """
        _check_share(share)
        with self._pointers.locked():
            before = self.challenger()
            if before is None:
                raise UsageError(f"{self.directory}: there is no challenger; `router-ml challenge VERSION` puts one up")
            evidence = {"share": share, "share_before": before.share}
            version = before.version
            switch = Switch(now.isoformat(), "canary", version, version, "person", reason, evidence)
            self._pointers.set_challenger(switch, share)
        return Challenger(version, share)

    def withdraw(
        self,
        *,
        reason: str,
        now: datetime,
        cause: Cause = "person",
        evidence: Mapping[str, Any] | None = None,
        only: str | None = None,
    ) -> str:
        """Take the challenger down; the champion answers everything again.

        Args:
            reason: Why, in one sentence, for the record.
            now: When.
            cause: Who decided.
            evidence: The numbers it was decided on.
            only: Withdraw only this version; of several processes one succeeds.

        Returns:
            The version withdrawn.

        Raises:
            UsageError: When there is no challenger, or another than `only`.
            BundleError: When the shelf cannot be written; the challenger stays.
        """
        with self._pointers.locked():
            before = self.challenger()
            if before is None or (only is not None and before.version != only):
                found = "there is no challenger" if before is None else f"{before.version} is the challenger"
                raise UsageError(f"{self.directory}: {found}{'' if only is None else f', not {only}'}; nothing to do")
            switch = Switch(now.isoformat(), "withdraw", before.version, None, cause, reason, evidence or {})
            self._pointers.set_challenger(switch, None)
        return before.version

    def keep_gates(self, version: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Keep what the gates said of a version, in `<models>/gates/<version>.json`.

        Args:
            version: A version on the shelf.
            lines: One record per gate, of JSON values.

        Raises:
            UnknownName: When the shelf has no such version.
            BundleError: When it cannot be written.
        """
        self.path(version)
        file = self._gates_file(version)
        try:
            file.parent.mkdir(exist_ok=True)
            replace_file(file, json.dumps([dict(line) for line in lines], indent=2).encode() + b"\n")
        except OSError as error:
            raise BundleError(
                f"{file}: cannot be written ({error.strerror}); check the folder and its rights"
            ) from error

    def gates(self, version: str) -> tuple[Mapping[str, Any], ...]:
        """Return what the gates said of a version; empty when they were never asked.

        Raises:
            BundleCorrupt: When the file cannot be read as records.
        """
        file = self._gates_file(version)
        try:
            found = json.loads(file.read_bytes())
        except FileNotFoundError:
            return ()
        except (OSError, ValueError) as error:
            raise BundleCorrupt(f"{file}: cannot be read ({error}); delete it, then retrain") from error
        if not isinstance(found, list) or not all(_is_gate(line) for line in found):
            raise BundleCorrupt(f"{file}: expected a list of gates; delete it, then retrain")
        return tuple(found)

    def prune(self, keep: int) -> list[str]:
        """Delete all but the newest bundles; never the champion, the one before it, the challenger, or the default.

        Args:
            keep: How many of the newest bundles to keep, >= 0.

        Returns:
            The versions deleted, oldest first.
        """
        champion = self._pointers.champion()
        challenger = self.challenger()
        spared = {DEFAULT, champion, replaced_by(self.switches()).get(champion or "")}
        spared.add(None if challenger is None else challenger.version)
        entries = self.versions()
        old = [entry.version for entry in entries[: max(len(entries) - keep, 0)] if entry.version not in spared]
        for version in old:
            # Renamed first: a reader finds the whole bundle or none.
            doomed = (self.directory / version).rename(self.directory / f".{version}.pruned")
            shutil.rmtree(doomed, ignore_errors=True)
            self._gates_file(version).unlink(missing_ok=True)
        return old

    def _gates_file(self, version: str) -> Path:
        return self.directory / "gates" / f"{version}.json"

    @property
    def _pointers(self) -> Pointers:
        return Pointers(self.directory)

    def _folders(self) -> list[str]:
        if not self.directory.is_dir():
            return []
        found = self.directory.iterdir()
        return sorted(path.name for path in found if not path.name.startswith(".") and (path / MANIFEST).is_file())

    def _entry(self, version: str, champion: str | None, challenger: str | None) -> ShelfEntry:
        file = self.directory / version / MANIFEST
        try:
            manifest = Manifest.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            created = datetime.fromtimestamp(file.parent.stat().st_mtime, UTC)
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
            problem = f"its manifest cannot be read ({why})"
            return ShelfEntry(version, created, version == champion, problem=problem, challenger=version == challenger)
        created = manifest.created if manifest.created.tzinfo else manifest.created.replace(tzinfo=UTC)
        return ShelfEntry(
            version,
            created,
            version == champion,
            manifest.learner,
            dict(manifest.metrics),
            manifest.simulated,
            challenger=version == challenger,
        )


def _is_gate(line: object) -> bool:
    return isinstance(line, dict) and isinstance(line.get("name"), str) and isinstance(line.get("passed"), bool)


def _check_share(share: float | None) -> None:
    if share is not None and not 0.0 <= share <= LARGEST_SHARE:
        raise UsageError(
            f"share: expected a share of the requests in [0, {LARGEST_SHARE}], got {share:g}; the champion keeps the "
            "rest, to be compared with, and `router-ml promote` gives everything"
        )
