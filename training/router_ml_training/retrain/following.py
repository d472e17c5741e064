"""The champion as a person names it in MLflow: found, fetched where it is missing, checked, put into service."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from router_ml.errors import BundleError
from router_ml.shelf import Shelf
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking import alias_version, failed_gates, fetch_bundle

__all__ = ["Followed", "follow"]


@dataclass(frozen=True, slots=True)
class Followed:
    """What MLflow's alias names (None: nothing), whether that is new, and what was in service before."""

    version: str | None
    changed: bool
    before: str | None


def follow(shelf: Shelf, settings: MlflowSettings, *, anyway: bool, now: datetime) -> Followed:
    """Put into service what MLflow's alias `champion` names.

    Args:
        shelf: Where bundles are; one that is missing is fetched from MLflow.
        settings: `[mlflow]`.
        anyway: Also a bundle that failed a gate which is required, or was rolled back.
        now: When.

    Raises:
        BundleError: When the bundle failed a gate, was rolled back, or cannot be used; the champion stays.
        RouterError: When MLflow cannot be used.
    """
    before, version = shelf.champion(), alias_version("champion", settings=settings)
    if version is None or version == before:
        return Followed(version, False, before)
    if not anyway:
        _refuse_rolled_back(shelf, version)
    failed = tuple(dict.fromkeys((*failed_gates(version, settings=settings), *_failed_here(shelf, version))))
    if failed and not anyway:
        raise BundleError(
            f"{version} did not pass the gate{'s' if len(failed) > 1 else ''} {', '.join(failed)}, so it is not put "
            "into service: move MLflow's alias 'champion' back, or say --anyway"
        )
    if version not in {entry.version for entry in shelf.versions()}:
        fetch_bundle(version, shelf.directory, settings=settings)
    reason = "MLflow's alias 'champion' was moved to it"
    if failed:
        reason += f", although it failed {', '.join(failed)}"
    shelf.promote(version, reason=reason, now=now)
    return Followed(version, True, before)


def _failed_here(shelf: Shelf, version: str) -> tuple[str, ...]:
    """Return the required gates that failed as the shelf knows it: MLflow may not have been told yet."""
    lines = shelf.gates(version)
    return tuple(str(line["name"]) for line in lines if line.get("required", True) and not line.get("passed", False))


def _refuse_rolled_back(shelf: Shelf, version: str) -> None:
    # The alias stays when the service rolls back by itself: following it would bring the fault back.
    of_champion = [switch for switch in shelf.switches() if switch.action in ("promote", "rollback")]
    last = next((switch for switch in reversed(of_champion) if version in (switch.before, switch.after)), None)
    if last is not None and last.action == "rollback" and last.before == version:
        raise BundleError(
            f"{version} was rolled back at {last.ts} ({last.reason}), so it is not put into service again: move "
            "MLflow's alias 'champion' to another version, or say --anyway"
        )
