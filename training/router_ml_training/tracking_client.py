"""The way to MLflow: told where to write, quiet, refused within seconds when it cannot be reached, secrets kept.

MLflow takes seconds to import and keeps global state, so it is loaded inside the functions and told where to write each
time; importing this module does nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit

from router_ml.errors import RouterError
from router_ml.registry import require
from router_ml_training.settings import MlflowSettings

__all__ = ["WHY", "connected", "experiment_id", "find_run"]

WHY = "to record training runs"
_CONNECT_S = 3.0
# Where the servers of the databases that MLflow knows listen, when an address does not say.
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
# MLflow hands on what the libraries of object stores raise, and that some of them is not installed (ImportError).
_ARTIFACT_STORES = ("azure", "boto3", "botocore", "google", "requests", "urllib3")
# Drivers of databases take a password there as well.
_IN_QUERY = re.compile(r"([?&;][^=&;#]*(?:pass|pwd|token|secret|key|credential)[^=&;#]*=)([^&;#]*)", re.IGNORECASE)
# Set before MLflow is imported, each only where the user has not decided otherwise.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    # Large files go up in one request, which takes longer than an answer should.
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "300",
}
# The last one warns of every second try, and what becomes of that is said anyway.
_LOGGERS = {"mlflow": logging.WARNING, "alembic": logging.WARNING, "urllib3.connectionpool": logging.ERROR}
# MLflow 3.17 about its own code: a type hint of one of its classes, a loader that SQLAlchemy 2.1 deprecates, a
# comparison that pandas 4 will read otherwise.
_OWN_WARNINGS = (
    r".*Any type hint is inferred as AnyType",
    r".*``noload`` loader strategy is deprecated",
    "Operation with range is deprecated",
)


@contextlib.contextmanager
def connected(settings: MlflowSettings) -> Iterator[Any]:
    """Yield MLflow, told where to write; its failures inside the block become one RouterError.

    Args:
        settings: `[mlflow]`: where.

    Raises:
        MissingExtra: When mlflow is not installed.
        RouterError: When the tracking server, database or artifact store cannot be used.
    """
    uri = settings.tracking_uri
    _reachable(uri)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with _quiet():
        mlflow = require("mlflow", extra="training", why=WHY)
        databases = require("sqlalchemy.exc", extra="training", why=WHY)
    known = (mlflow.exceptions.MlflowException, databases.SQLAlchemyError, OSError, ImportError)
    with _quiet():  # again: importing MLflow sets its loggers' levels
        try:
            mlflow.set_tracking_uri(uri)
            yield mlflow
        except Exception as error:
            if not isinstance(error, known) and type(error).__module__.partition(".")[0] not in _ARTIFACT_STORES:
                raise
            reason = _without_secrets((str(error).splitlines() or [type(error).__name__])[0].strip(" ."), uri)
            message = f"MLflow at {_shown(uri)} could not be used: {reason}. Check [mlflow] tracking_uri and artifacts"
            raise RouterError(message) from error


def experiment_id(mlflow: Any, settings: MlflowSettings) -> str:
    """Return the id of the experiment, made if new.

    A server keeps artifacts where it chooses, a local database beside us; an `artifacts` URL is taken by both.
    """
    known = mlflow.get_experiment_by_name(settings.experiment)
    if known is not None:
        return str(known.experiment_id)
    location: str | None = settings.artifacts
    if "://" not in settings.artifacts:
        remote = urlsplit(settings.tracking_uri).scheme in ("http", "https")
        location = None if remote else Path(settings.artifacts).resolve().as_uri()
    # Tells MLflow's pages that models are trained here; they show traces of agents first otherwise.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return str(mlflow.create_experiment(settings.experiment, artifact_location=location, tags=kind))


def find_run(mlflow: Any, experiment: str, tag: str, value: str) -> Any | None:
    """Return the newest run of an experiment that has a tag of that value; None when there is none."""
    quoted = value.replace("'", "\\'")
    runs = mlflow.MlflowClient().search_runs([experiment], f"tags.`{tag}` = '{quoted}'", max_results=1)
    return runs[0] if runs else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's and its migrations' chatter off the terminal; its warnings to users still come through."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger, level in zip(loggers, _LOGGERS.values(), strict=True):
        logger.setLevel(level)
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
        RouterError: When nothing answers there, or the folder cannot be made.
    """
    parts = urlsplit(uri)
    try:
        if parts.scheme in ("http", "https"):
            _ask(parts)
        elif parts.scheme == "sqlite" and parts.path.strip("/") not in ("", ":memory:"):
            Path(uri.split("://", 1)[1].removeprefix("/")).parent.mkdir(parents=True, exist_ok=True)
        elif parts.hostname and (port := parts.port or _DATABASE_PORTS.get(parts.scheme.partition("+")[0])):
            # MLflow itself would try again for two minutes.
            socket.create_connection((parts.hostname, port), timeout=_CONNECT_S).close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        message = (
            f"MLflow at {_shown(uri)} cannot be reached: {error or type(error).__name__}. Start it, or set [mlflow] "
            "tracking_uri, such as sqlite:///mlruns/mlflow.db"
        )
        raise RouterError(message) from error


def _ask(parts: SplitResult) -> None:
    # Any answer will do: a gateway may ask who we are. MLflow itself would wait and try again for a minute.
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_CONNECT_S)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/health")
        connection.getresponse().read()
    finally:
        connection.close()


def _shown(uri: str) -> str:
    """The address without the name and the password in it."""
    user, at, _ = urlsplit(uri).netloc.rpartition("@")
    return _IN_QUERY.sub(r"\1***", uri.replace(f"{user}{at}", "***@", 1) if at else uri)


def _without_secrets(text: str, uri: str) -> str:
    parts = urlsplit(uri)
    user = parts.netloc.rpartition("@")[0]
    known = {user, parts.password or "", *(value for _, value in _IN_QUERY.findall(uri))}
    secrets = {*known, *map(unquote, known), *map(unquote_plus, known)} - {""}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
