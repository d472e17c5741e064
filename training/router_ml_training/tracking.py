"""Training runs in MLflow: begun, recorded whole, judged by the gates, named champion, and their bundles fetched back.

One parent run per bundle, one nested run per learner that competed. Everything is found again by tags: the run by its
key, the registered version by the version of its bundle. Recording the same thing twice changes nothing.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from router_ml.bundle import load_bundle
from router_ml.durable import place_folder
from router_ml.errors import BundleError, UnknownName
from router_ml_training.gates import GateLine
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking_client import connected, experiment_id, find_run
from router_ml_training.tracking_content import flat, log_content, log_table
from router_ml_training.tracking_flavours import log_models
from router_ml_training.tracking_record import TrainingRecord

__all__ = [
    "Alias",
    "alias_version",
    "begin_run",
    "failed_gates",
    "fetch_bundle",
    "log_gates",
    "log_training",
    "set_alias",
]

Alias: TypeAlias = Literal["challenger", "champion"]

KEY, BUNDLE = "router.key", "router.bundle"
_FINISHED = "FINISHED"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
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


def set_alias(alias: Alias, version: str, *, settings: MlflowSettings, run_id: str | None = None) -> int:
    """Point an alias of the registered model at the version that holds a bundle.

    Args:
        alias: `champion` when its bundle is promoted or rolled back to, `challenger` while it is a candidate.
        version: The version of the bundle.
        settings: `[mlflow]`: where.
        run_id: The run that made the bundle, where two machines gave two bundles one name; None: the newest of them.

    Returns:
        The version of the registered model.

    Raises:
        UnknownName: When no version there holds that bundle.
        RouterError: When the tracking server or database cannot be used.
    """
    with connected(settings) as mlflow:
        found = _version_of(mlflow, version, settings, run_id)
        mlflow.MlflowClient().set_registered_model_alias(settings.registered_model, alias, found.version)
        return int(found.version)


def alias_version(alias: Alias, *, settings: MlflowSettings) -> str | None:
    """Return the version of the bundle that an alias points at; None when it points at nothing.

    Args:
        alias: Which one.
        settings: `[mlflow]`: where.

    Raises:
        UnknownName: When it points at something that holds no bundle of a router.
        RouterError: When the tracking server or database cannot be used.
    """
    name = settings.registered_model
    with connected(settings) as mlflow:
        client = mlflow.MlflowClient()
        models = client.search_registered_models(f"name = '{name}'")
        number = models[0].aliases.get(alias) if models else None
        if number is None:
            return None
        tags: Mapping[str, str] = client.get_model_version(name, number).tags
    if BUNDLE not in tags:
        raise UnknownName(
            f"models:/{name}@{alias} is version {number}, which has no tag {BUNDLE}: router-ml did not register it; "
            "point the alias at a version that has one"
        )
    return tags[BUNDLE]


def failed_gates(version: str, *, settings: MlflowSettings) -> tuple[str, ...]:
    """Return the names of the gates that are required and that a bundle did not pass.

    Args:
        version: The version of the bundle.
        settings: `[mlflow]`: where.

    Raises:
        UnknownName: When no registered version holds that bundle.
        RouterError: When the tracking server or database cannot be used.
    """
    with connected(settings) as mlflow:
        tags: Mapping[str, str] = _version_of(mlflow, version, settings).tags
    return tuple(
        name.removeprefix("gate.") for name in sorted(tags) if name.startswith("gate.") and tags[name] == "failed"
    )


def fetch_bundle(version: str, into: Path, *, settings: MlflowSettings) -> Path:
    """Bring a bundle from MLflow to this machine, whole and verified, or not at all.

    Args:
        version: The version of the bundle.
        into: The folder of all bundles; one that is there already stays as it is.
        settings: `[mlflow]`: where.

    Returns:
        The folder of the bundle.

    Raises:
        UnknownName: When no registered version holds that bundle, or it is no version.
        BundleError: When what came is damaged, is another bundle, or cannot be written.
        RouterError: When the tracking server, database or artifact store cannot be used.
    """
    final = into / version
    if _VERSION.fullmatch(version) and final.exists():
        load_bundle(final)
        return final
    with connected(settings) as mlflow, tempfile.TemporaryDirectory(prefix="router-ml-") as folder:
        run_id = _version_of(mlflow, version, settings).run_id
        came = Path(mlflow.MlflowClient().download_artifacts(run_id, "bundle", folder))
        contents = {file.name: file.read_bytes() for file in came.iterdir() if file.is_file()}
    try:
        place_folder(final, contents, verify=lambda path: _is(path, version))
    except OSError as error:
        raise BundleError(f"{final}: cannot be written ({error.strerror}); check the folder and its rights") from error
    return final


def _is(path: Path, version: str) -> None:
    found = load_bundle(path).version
    if found != version:
        raise BundleError(f"MLflow has the bundle {found} under the name of {version}; record it again")


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
    tags = {BUNDLE: record.name, "validation_status": "pending", **record.model_tags}
    made = client.create_model_version(
        name,
        source=logged.model_uri,
        run_id=run_id,
        model_id=logged.model_id,
        tags=tags,
        description=record.description,
    )
    return str(made.version)


def _version_of(mlflow: Any, version: str, settings: MlflowSettings, run_id: str | None = None) -> Any:
    name = settings.registered_model
    if not _VERSION.fullmatch(version):  # a tag, which anybody may set, becomes a path
        raise UnknownName(
            f"{version!r} is no version of a bundle: point the alias at a version that router-ml registered"
        )
    versions = mlflow.MlflowClient().search_model_versions(f"name = '{name}' and tags.`{BUNDLE}` = '{version}'")
    if not versions:
        raise UnknownName(
            f"MLflow has no version of '{name}' that holds the bundle {version}: it was not recorded there"
        )
    return max(versions, key=lambda one: (one.run_id == run_id, int(one.version)))


def _said(line: GateLine) -> str:
    return "passed" if line.passed else "failed" if line.required else "warned"
