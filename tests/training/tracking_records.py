"""A training record for the tests, around a bundle: two learners, a picture, a table, a figure that is undefined."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from router_ml.bundle import MANIFEST, load_bundle
from router_ml_training.evaluation.canvas import Picture
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking_record import DataRecord, LearnerRecord, TrainingRecord
from router_ml_training.tracking_registry import Alias, named

FIRST, LAST = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 31, tzinfo=UTC)
DIGEST = "ab" * 32


def record_around(bundle: Path, *, key: str = "a key") -> TrainingRecord:
    """Everything that a run can leave in MLflow."""
    return TrainingRecord(
        name=load_bundle(bundle).version,
        key=key,
        bundle=bundle,
        quality=0.97,
        params={"learner": "linear", "seed": 0},
        metrics={"apgr": Figure(0.66, 0.64, 0.68), "cs_97": Figure(None, reason="no point reaches 97 %")},
        data=DataRecord("interactions", DIGEST, 1000, "log.jsonl", FIRST, LAST, {"small": 900, "large": 800}),
        learners=(
            LearnerRecord("constant", False, "Not kept: more than noise.", {"loss": Figure(0.5)}),
            LearnerRecord("linear", True, "Use 'linear'.", {"loss": Figure(0.3), "excess": Figure(0.0, -0.1, 0.1)}),
        ),
        pictures=(Picture("cost_quality", "title", "alt", b"\x89PNG", "<svg/>", "cost,quality\n1,2\n"),),
        tables={"slices": [{"slice": "all", "saving": 0.2}, {"slice": "use_case=chat", "saving": None}]},
        report_html="<!doctype html>",
        description="**Use 'linear'.**",
        tags={"certificate": "proven", "simulated": "true"},
        model_tags={"certificate": "proven"},
    )


def renamed(bundle: Path, version: str, into: Path) -> Path:
    """Copy a bundle under another version."""
    copy = into / version
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**manifest, "version": version}))
    return copy


def twin(bundle: Path, into: Path) -> Path:
    """Make another bundle of the same version, as a second machine would on the same day."""
    copy = into / bundle.name
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**manifest, "git_commit": "0123456789ab"}))
    return copy


def alias_version(alias: Alias, *, settings: MlflowSettings) -> str | None:
    """Return the version of the bundle that an alias points at."""
    found = named(alias, settings=settings)
    return None if found is None else found.version
