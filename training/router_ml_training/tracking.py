"""Training runs in MLflow: params, metrics with intervals, data, figures, report, model. Only this module imports it.

MLflow takes seconds to import and keeps global state, so it is loaded inside the functions and told where to write each
time; importing this module does nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import numpy as np

from router_ml.errors import RouterError, UnknownName
from router_ml.registry import require
from router_ml_training.evaluation.canvas import Picture
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.settings import MlflowSettings

__all__ = ["Alias", "DataRecord", "TrainingRecord", "log_training", "set_alias"]

Alias: TypeAlias = Literal["challenger", "champion"]

_log = logging.getLogger(__name__)
_WHY = "to record training runs"
_CONNECT_S = 3.0
# Set before MLflow is imported, each only where the user has not decided otherwise.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
# MLflow 3.17 about its own code, on import: a type hint of one of its classes, a loader that SQLAlchemy 2.1 deprecates.
_OWN_WARNINGS = (r".*Any type hint is inferred as AnyType", r".*``noload`` loader strategy is deprecated")
_DIGEST_LENGTH = 36  # MLflow's column for dataset digests; the whole digest is in a tag


@dataclass(frozen=True, slots=True)
class DataRecord:
    """The data a run learned from: a name, the sha256 of its rows, how many there are, where they came from."""

    name: str
    digest: str
    n_rows: int
    source: str


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """Everything one training run leaves in MLflow.

    Args:
        name: Name of the run; the bundle's version.
        params: Settings it was trained with.
        metrics: Name to figure; written as `name`, `name_low`, `name_high`. Undefined ones become tags with the reason.
        data: What it learned from.
        model: The ONNX graph.
        tiers: Names in ladder order; the width of the graph's outputs.
        n_dense: Width of the graph's `dense` input.
        requirements: Pinned packages that are enough to run the graph, such as `onnxruntime==1.24.0`.
        pictures: Figures.
        report_html: The report, as a page.
        tags: Further facts.
    """

    name: str
    params: Mapping[str, str | int | float | bool]
    metrics: Mapping[str, Figure]
    data: DataRecord
    model: bytes
    tiers: tuple[str, ...]
    n_dense: int
    requirements: tuple[str, ...]
    pictures: tuple[Picture, ...] = ()
    report_html: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def log_training(run: TrainingRecord, *, settings: MlflowSettings) -> str:
    """Record a training run and register its model as `challenger`.

    Args:
        run: What to record.
        settings: `[mlflow]`: where.

    Returns:
        The id of the MLflow run.

    Raises:
        MissingExtra: When mlflow is not installed.
        RouterError: When the tracking server or database cannot be used.
    """
    with _mlflow(settings) as mlflow:
        experiment = _experiment(mlflow, settings)
        with mlflow.start_run(experiment_id=experiment, run_name=run.name) as active:
            run_id: str = active.info.run_id
            mlflow.log_params(dict(run.params))
            mlflow.log_metrics(_flat(run.metrics))
            mlflow.set_tags(_tags(run))
            mlflow.log_input(_dataset(run.data), context="training")
            for picture in run.pictures:
                mlflow.log_text(picture.svg, f"figures/{picture.name}.svg")
                _log_bytes(mlflow, picture.png, f"figures/{picture.name}.png")
            if run.report_html is not None:
                mlflow.log_text(run.report_html, "report.html")
            logged = _log_model(run)
        _register(mlflow, logged, run_id, settings.registered_model)
        _alias(mlflow, "challenger", run_id, settings)
    _log.info("training run recorded", extra={"run_id": run_id, "run_name": run.name})
    return run_id


def set_alias(alias: Alias, run_id: str, *, settings: MlflowSettings) -> int:
    """Point an alias of the registered model at the version a run made.

    Args:
        alias: `champion` when its bundle is promoted or rolled back to, `challenger` while it is a candidate.
        run_id: The MLflow run in the bundle's manifest.
        settings: `[mlflow]`: where.

    Returns:
        The version of the registered model.

    Raises:
        UnknownName: When the run registered no model there.
        RouterError: When the tracking server or database cannot be used.
    """
    with _mlflow(settings) as mlflow:
        return _alias(mlflow, alias, run_id, settings)


@contextlib.contextmanager
def _mlflow(settings: MlflowSettings) -> Iterator[Any]:
    """MLflow, told where to write; its failures inside the block become one RouterError."""
    uri = settings.tracking_uri
    _reachable(uri)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with _quiet():
        mlflow = require("mlflow", extra="training", why=_WHY)
        databases = require("sqlalchemy.exc", extra="training", why=_WHY)
    failures = (mlflow.exceptions.MlflowException, databases.SQLAlchemyError, OSError)
    with _quiet():  # again: importing MLflow sets its loggers' levels
        try:
            mlflow.set_tracking_uri(uri)
            yield mlflow
        except failures as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].strip(" .")
            message = f"MLflow at {_shown(uri)} could not be used: {reason}. Check [mlflow] tracking_uri and artifacts"
            raise RouterError(message) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's and its migrations' chatter off the terminal; its warnings to users still come through."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for about_itself in _OWN_WARNINGS:
                warnings.filterwarnings("ignore", message=about_itself)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reachable(uri: str) -> None:
    """Refuse within seconds where a server does not answer, and make the folder a local database needs.

    Raises:
        RouterError: When nothing listens there, or the folder cannot be made.
    """
    parts = urlsplit(uri)
    try:
        if parts.scheme in ("http", "https"):
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_S).close()
        elif parts.scheme == "sqlite" and parts.path.strip("/") not in ("", ":memory:"):
            Path(uri.split("://", 1)[1].removeprefix("/")).parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        message = (
            f"MLflow at {_shown(uri)} cannot be reached: {error}. Start it, or set [mlflow] tracking_uri, "
            "such as sqlite:///mlruns/mlflow.db"
        )
        raise RouterError(message) from error


def _shown(uri: str) -> str:
    """The address without a password."""
    parts = urlsplit(uri)
    return uri if parts.password is None else uri.replace(f":{parts.password}@", ":***@")


def _experiment(mlflow: Any, settings: MlflowSettings) -> str:
    """Id of the experiment, made if new. A server keeps artifacts where it chooses, a local database beside us."""
    known = mlflow.get_experiment_by_name(settings.experiment)
    if known is not None:
        return str(known.experiment_id)
    location: str | None = settings.artifacts
    if "://" not in settings.artifacts:
        remote = urlsplit(settings.tracking_uri).scheme in ("http", "https")
        location = None if remote else Path(settings.artifacts).resolve().as_uri()
    return str(mlflow.create_experiment(settings.experiment, artifact_location=location))


def _flat(metrics: Mapping[str, Figure]) -> dict[str, float]:
    ends = {"": "value", "_low": "low", "_high": "high"}
    every = {f"{name}{end}": getattr(figure, part) for name, figure in metrics.items() for end, part in ends.items()}
    return {name: value for name, value in every.items() if value is not None}


def _tags(run: TrainingRecord) -> dict[str, str]:
    undefined = {f"undefined.{name}": figure.reason for name, figure in run.metrics.items() if figure.reason}
    facts = {"data.digest": run.data.digest, "data.rows": str(run.data.n_rows), "tiers": ",".join(run.tiers)}
    return {**facts, **undefined, **run.tags}


def _dataset(data: DataRecord) -> Any:
    sources = require("mlflow.data.code_dataset_source", extra="training", why=_WHY)
    datasets = require("mlflow.data.meta_dataset", extra="training", why=_WHY)
    source = sources.CodeDatasetSource(tags={"source": data.source, "sha256": data.digest, "rows": str(data.n_rows)})
    return datasets.MetaDataset(source, name=data.name, digest=data.digest[:_DIGEST_LENGTH])


def _log_bytes(mlflow: Any, content: bytes, path: str) -> None:
    with mlflow.utils.file_utils.TempDir() as folder:
        local = Path(folder.path(Path(path).name))
        local.write_bytes(content)
        mlflow.log_artifact(str(local), artifact_path=str(Path(path).parent))


def _log_model(run: TrainingRecord) -> Any:
    onnx = require("onnx", extra="training", why=_WHY)
    flavor = require("mlflow.onnx", extra="training", why=_WHY)
    return flavor.log_model(
        onnx.load_model_from_string(run.model),
        name="model",
        signature=_signature(run),
        input_example=_example(run.n_dense),
        pip_requirements=list(run.requirements),
        onnx_execution_providers=["CPUExecutionProvider"],
    )


def _register(mlflow: Any, logged: Any, run_id: str, name: str) -> None:
    """Make a version of the registered model, as `log_model` would, without its lines on stderr."""
    client = mlflow.MlflowClient()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    client.create_model_version(name, source=logged.model_uri, run_id=run_id, model_id=logged.model_id)


def _signature(run: TrainingRecord) -> Any:
    """The graph's inputs and outputs by hand: MLflow cannot infer a batch whose n-gram width varies."""
    types = require("mlflow.types", extra="training", why=_WHY)
    models = require("mlflow.models", extra="training", why=_WHY)

    def tensor(name: str, dtype: type[np.generic], width: int) -> Any:
        return types.TensorSpec(np.dtype(dtype), (-1, width), name)

    inputs = [tensor("dense", np.float32, run.n_dense), tensor("ids", np.int64, -1), tensor("counts", np.float32, -1)]
    outputs = [tensor(name, np.float32, len(run.tiers)) for name in ("adequacy", "output_tokens")]
    return models.ModelSignature(inputs=types.Schema(inputs), outputs=types.Schema(outputs))


def _example(n_dense: int) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "dense": np.zeros((1, n_dense), dtype=np.float32),
        "ids": np.zeros((1, 2), dtype=np.int64),
        "counts": np.zeros((1, 2), dtype=np.float32),
    }


def _alias(mlflow: Any, alias: Alias, run_id: str, settings: MlflowSettings) -> int:
    client = mlflow.MlflowClient()
    versions = client.search_model_versions(f"name = '{settings.registered_model}' and run_id = '{run_id}'")
    if not versions:
        message = f"run {run_id} registered no version of '{settings.registered_model}' at {settings.tracking_uri}"
        raise UnknownName(message)
    newest = max(int(version.version) for version in versions)
    client.set_registered_model_alias(settings.registered_model, alias, str(newest))
    return newest
