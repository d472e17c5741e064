"""The champion as a person names it in MLflow: found, fetched where it is missing, checked, put into service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from router_ml.errors import BundleError
from router_ml.shelf import DEFAULT, Shelf
from router_ml_training.records import tell_kept
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking_aliases import Seen, note_champion, seen_champion
from router_ml_training.tracking_registry import fetch_bundle, named

__all__ = ["Followed", "follow"]


@dataclass(frozen=True, slots=True)
class Followed:
    """What MLflow's alias names (None: nothing), whether that is new, and what was in service before."""

    version: str | None
    changed: bool
    before: str | None


def follow(shelf: Shelf, settings: MlflowSettings, *, anyway: bool, now: datetime) -> Followed:
    """Put into service what MLflow's alias `champion` names.

    What waits in the outbox is told first: the alias may lag behind what was promoted here.

    Args:
        shelf: Where bundles are; one that is missing is fetched from MLflow.
        settings: `[mlflow]`.
        anyway: Also a bundle that failed a gate which is required, was rolled back, or was replaced here since.
        now: When.

    Raises:
        BundleError: When the bundle failed a gate, was rolled back or replaced, cannot be used, or is another than the
            shelf has under its name; the champion stays.
        RouterError: When MLflow cannot be used.
    """
    tell_kept(settings, shelf)
    before, found, seen = shelf.champion(), named("champion", settings=settings), seen_champion(shelf)
    moved = seen is None or seen.digest != (None if found is None else found.digest)
    agreed = found is not None and found.version == before
    if moved or (agreed and seen is not None and seen.champion != before):
        note_champion(None if found is None else found.digest, shelf)
    if found is None:
        return Followed(None, False, before)
    known = found.version in {entry.version for entry in shelf.versions()}
    if known:
        fetch_bundle(found.version, shelf.directory, settings=settings, digest=found.digest)
    if found.version == before:
        return Followed(before, False, before)
    failed = tuple(dict.fromkeys((*found.failed, *_failed_here(shelf, found.version))))
    if not anyway:
        _refuse_rolled_back(shelf, found.version)
        _refuse_failed(found.version, failed)
        if seen is not None and not moved:
            _refuse_out_of_date(shelf, found.version, seen)
    if not known:
        fetch_bundle(found.version, shelf.directory, settings=settings, digest=found.digest)
    reason = "MLflow's alias 'champion' was moved to it"
    if failed:
        reason += f", although it failed {', '.join(failed)}"
    shelf.promote(found.version, reason=reason, now=now)
    note_champion(found.digest, shelf)
    return Followed(found.version, True, before)


def _failed_here(shelf: Shelf, version: str) -> tuple[str, ...]:
    """Return the required gates that failed as the shelf knows it: MLflow may not have been told yet."""
    lines = shelf.gates(version)
    return tuple(str(line["name"]) for line in lines if line.get("required", True) and not line.get("passed", False))


def _refuse_failed(version: str, failed: Sequence[str]) -> None:
    if failed:
        raise BundleError(
            f"{version} did not pass the gate{'s' if len(failed) > 1 else ''} {', '.join(failed)}, so it is not put "
            "into service: move MLflow's alias 'champion' back, or say --anyway"
        )


def _refuse_out_of_date(shelf: Shelf, version: str, seen: Seen) -> None:
    # Promoted here since, a bundle that MLflow does not know: the alias could not follow.
    champion = shelf.champion()
    if champion != seen.champion:
        raise BundleError(
            f"{champion or DEFAULT} was put into service here since MLflow's alias 'champion' was moved to {version}, "
            "so the alias is out of date: move it, or say --anyway"
        )


def _refuse_rolled_back(shelf: Shelf, version: str) -> None:
    # The alias stays when the service rolls back by itself: following it would bring the fault back.
    of_champion = [switch for switch in shelf.switches() if switch.action in ("promote", "rollback")]
    last = next((switch for switch in reversed(of_champion) if version in (switch.before, switch.after)), None)
    if last is not None and last.action == "rollback" and last.before == version:
        raise BundleError(
            f"{version} was rolled back at {last.ts} ({last.reason}), so it is not put into service again: move "
            "MLflow's alias 'champion' to another version, or say --anyway"
        )
