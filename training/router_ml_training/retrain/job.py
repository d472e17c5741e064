"""What a retraining is asked to do, and where it keeps what it does."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from router_ml.features import SCHEMA_HASH
from router_ml.ladder import Ladder
from router_ml.shelf import Shelf
from router_ml_training.engine import Engine
from router_ml_training.learning import Progress
from router_ml_training.pipeline import LIBRARIES
from router_ml_training.reading import Log
from router_ml_training.retrain.results import Results
from router_ml_training.retrain.steps import hashed
from router_ml_training.settings import GatesSettings, MlflowSettings, TrainingSettings

__all__ = ["Job", "Places"]


@dataclass(frozen=True, slots=True)
class Places:
    """The folder `<models_dir>/.retrain` and what is in it."""

    directory: Path

    @property
    def lock(self) -> Path:
        """Held by the run that is at work."""
        return self.directory / "lock"

    @property
    def state(self) -> Path:
        """What the next run should know."""
        return self.directory / "state.json"

    @property
    def parts(self) -> Path:
        """Parts of logs that were read."""
        return self.directory / "parts"

    @property
    def making(self) -> Path:
        """Where a bundle is written before it goes onto the shelf."""
        return self.directory / "making"

    @property
    def results(self) -> Results:
        """Results of steps."""
        return Results(self.directory / "steps")


@dataclass(frozen=True, slots=True)
class Job:
    """One retraining.

    `mlflow` is None when the run is not to be recorded; `since` leaves older interactions out, those from before a time
    or from longer before the run was begun; `force` runs every step again; `now` is when it was asked for.
    """

    logs: tuple[Log, ...]
    ladder: Ladder
    training: TrainingSettings
    gates: GatesSettings
    mlflow: MlflowSettings | None
    quality: float
    shelf: Shelf
    now: datetime
    engine: Engine
    since: datetime | timedelta | None = None
    force: bool = False
    git_commit: str | None = None
    progress: Progress = lambda _: None

    @property
    def places(self) -> Places:
        """Where it keeps what it does."""
        return Places(self.shelf.directory / ".retrain")

    @property
    def description(self) -> str:
        """One sentence on what the data are."""
        return ", ".join(map(str, self.logs))

    @property
    def tiers(self) -> list[dict[str, Any]]:
        """The ladder as JSON values."""
        return [{**tier.model_dump(mode="json"), "capabilities": sorted(tier.capabilities)} for tier in self.ladder]

    @property
    def request(self) -> str:
        """A hash of what is asked for: an interrupted run that asked for the same is taken up."""
        since = None if self.since is None else str(self.since)
        return hashed([self.sources, since, self.settings])

    @property
    def sources(self) -> Sequence[Any]:
        """Where the logs are, as JSON values."""
        return [[log.location, log.source] for log in self.logs]

    @property
    def settings(self) -> Sequence[Any]:
        """Every setting that a run depends on, as JSON values."""
        return [*self.settings_of_bundle, self.gates.model_dump(mode="json"), self.training.promote]

    @property
    def settings_of_bundle(self) -> Sequence[Any]:
        """Every setting that the bundle depends on, as JSON values."""
        training = self.training.model_dump(mode="json", exclude={"num_threads", "dask_scheduler", "promote"})
        return [training, self.tiers, self.quality]

    def everything(self, salt: str) -> Mapping[str, Any]:
        """Return what all steps depend on."""
        libraries = {name: importlib.metadata.version(name) for name in LIBRARIES}
        return {"features": SCHEMA_HASH, "libraries": libraries, "salt": salt}
