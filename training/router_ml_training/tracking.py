"""Training runs in MLflow: begun, recorded whole, their routers registered, judged by the gates.

One parent run per bundle, one nested run per learner that competed. Everything is found again by tags: the run by its
key, the registered version by the version of its bundle. Recording the same thing twice changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from router_ml.bundle import load_bundle
from router_ml_training.gates import GateLine
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking_client import connected, experiment_id, find_run
from router_ml_training.tracking_content import flat, log_content, log_table
from router_ml_training.tracking_flavours import log_models
from router_ml_training.tracking_record import TrainingRecord
from router_ml_training.tracking_registry import BUNDLE, DIGEST, bundle_digest

__all__ = ["begin_run", "log_gates", "log_training"]

KEY = "router.key"
_FINISHED = "FINISHED"
_log = logging.getLogger(__name__)


def begin_run(name: str, key: str, settings: MlflowSettings) -> str:
    """Make a run, or find the one that was made for the same key.

    Args:
        name: Name of the run: the bundle's version.
        key: Names the run for good, such as a digest of what goes into it.
        settings: `[mlflow]`: where.

    Returns:
        The id of the run, for the bundle's manifest.

    Raises:
        MissingExtra: When mlflow is not installed.
        RouterError: When the tracking server or database cannot be used.
    """
    with connected(settings) as mlflow:
        return _run_of(mlflow, name, key, settings)


def log_training(record: TrainingRecord, *, settings: MlflowSettings, run_id: str | None = None) -> str:
    """Record a training run, register the router it made and name that `challenger`.

    Args:
        record: What to record.
        settings: `[mlflow]`: where.
        run_id: The run that was begun for it; None: found or begun by the record's key.

    Returns:
        The id of the MLflow run. One that is recorded already is left as it is.

    Raises:
        MissingExtra: When mlflow is not installed.
        RouterError: When the tracking server, database or artifact store cannot be used; recording it again completes
            what was begun.
        BundleError: When the record's bundle cannot be loaded.
    """
    bundle = load_bundle(record.bundle)
    with connected(settings) as mlflow:
        client = mlflow.MlflowClient()
        run_id = run_id or _run_of(mlflow, record.name, record.key, settings)
        if client.get_run(run_id).info.status == _FINISHED:
            return run_id
        with mlflow.start_run(run_id=run_id):
            log_content(mlflow, run_id, record)
            _log_learners(mlflow, run_id, record, settings)
            logged = log_models(bundle, quality=record.quality)
            # Before the run counts as finished: one that ends here is completed the next time.
            version = _register(mlflow, logged, run_id, record, settings.registered_model)
            client.set_registered_model_alias(settings.registered_model, "challenger", version)
    _log.info("training run recorded", extra={"run_id": run_id, "run_name": record.name})
    return run_id


def log_gates(run_id: str, lines: Sequence[GateLine], *, settings: MlflowSettings) -> None:
    """Write what the gates said: tags and figures of the run, tags of the version it registered.

    Args:
        run_id: The run.
        lines: One per gate.
        settings: `[mlflow]`: where.

    Raises:
        RouterError: When there is no such run, or the tracking server or database cannot be used.
    """
    tags = {f"gate.{line.name}": _said(line) for line in lines}
    tags["validation_status"] = "failed" if "failed" in tags.values() else "passed"
    numbers = {f"gate.{line.name}": line.value for line in lines}
    numbers |= {f"gate.{line.name}.limit": line.limit for line in lines}
    rows = [
        {"gate": line.name, "result": _said(line), "detail": line.detail, "value": line.value, "limit": line.limit}
        for line in lines
    ]
    with connected(settings) as mlflow:
        client = mlflow.MlflowClient()
        for name, value in tags.items():
            client.set_tag(run_id, name, value)
        mlflow.log_metrics({name: value for name, value in numbers.items() if value is not None}, run_id=run_id)
        log_table(mlflow, run_id, "gates", rows)
        for version in client.search_model_versions(f"run_id = '{run_id}'"):
            for name, value in tags.items():
                client.set_model_version_tag(version.name, version.version, name, value)


def _run_of(mlflow: Any, name: str, key: str, settings: MlflowSettings) -> str:
    experiment = experiment_id(mlflow, settings)
    known = find_run(mlflow, experiment, KEY, key)
    if known is not None:
        return str(known.info.run_id)
    tags = {KEY: key, BUNDLE: name}
    return str(mlflow.MlflowClient().create_run(experiment, run_name=name, tags=tags).info.run_id)


def _log_learners(mlflow: Any, run_id: str, record: TrainingRecord, settings: MlflowSettings) -> None:
    client, experiment = mlflow.MlflowClient(), experiment_id(mlflow, settings)
    for one in record.learners:
        key = f"{record.key}/{one.name}"
        known = find_run(mlflow, experiment, KEY, key)
        tags = {KEY: key, "mlflow.parentRunId": run_id, "chosen": str(one.chosen).lower(), "why": one.why}
        made = known or client.create_run(experiment, run_name=one.name, tags=tags)
        child = made.info.run_id
        mlflow.log_params({"learner": one.name, **one.params}, run_id=child)
        mlflow.log_metrics(flat(one.metrics), run_id=child)
        client.set_terminated(child)


def _register(mlflow: Any, logged: Any, run_id: str, record: TrainingRecord, name: str) -> str:
    """Make a version of the registered model, as `log_model` would, without its lines on stderr."""
    client = mlflow.MlflowClient()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description="Routes requests to the tiers of a ladder; made by router-ml.")
    known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if known:
        return str(known[0].version)
    identity = {BUNDLE: record.name, DIGEST: bundle_digest(record.bundle)}
    tags = {**record.model_tags, **identity, "validation_status": "pending"}
    made = client.create_model_version(
        name,
        source=logged.model_uri,
        run_id=run_id,
        model_id=logged.model_id,
        tags=tags,
        description=record.description,
    )
    return str(made.version)


def _said(line: GateLine) -> str:
    return "passed" if line.passed else "failed" if line.required else "warned"
