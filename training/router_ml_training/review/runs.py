"""Two MLflow runs side by side: settings, figures with intervals and gates, as the tracking server has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from router_ml.errors import DataError
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.review.challenger import figure_text
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking_client import connected

__all__ = ["run_table"]

_SQLITE = "sqlite:///"
_ENDS = ("_low", "_high")
_TAGS = ("certified", "validation_status", "data.digest", "data.rows", "data.first", "data.last")


def run_table(runs: Mapping[str, str | None], settings: MlflowSettings, folder: Path) -> pl.DataFrame:
    """Return what the tracking server keeps of runs, one row per setting, figure and gate, one column per version.

    Args:
        runs: The id of each version's run; None: it was not recorded.
        settings: `[mlflow]`: where.
        folder: What a relative path of a local database is taken from.

    Raises:
        DataError: When a version was not recorded, or there is no such database; none is made.
        RouterError: When the tracking server or database cannot be used, or does not have a run.
    """
    unrecorded = [version for version, run in runs.items() if run is None]
    if unrecorded:
        raise DataError(f"{', '.join(unrecorded)}: not recorded in MLflow, so there is no run to show.")
    located = settings.model_copy(update={"tracking_uri": _located(settings.tracking_uri, folder)})
    with connected(located) as mlflow:
        client = mlflow.MlflowClient()
        found = {version: _rows(client.get_run(run).data) for version, run in runs.items()}
    names = dict.fromkeys(key for rows in found.values() for key in rows)
    order = sorted(names, key=lambda key: ("setting", "figure", "gate", "tag").index(key[0]))
    lines = [(*key, *(rows.get(key, "-") for rows in found.values())) for key in order]
    return pl.DataFrame(lines, schema=dict.fromkeys(("kind", "name", *found), pl.String), orient="row")


def _located(uri: str, folder: Path) -> str:
    if not uri.startswith(_SQLITE):
        return uri
    name, mark, options = uri.removeprefix(_SQLITE).partition("?")
    file = folder / name
    if not file.is_file():
        raise DataError(f"There is no MLflow database at `{file}`: `router-ml train` or `router-ml retrain` makes one.")
    return f"{_SQLITE}{file.resolve()}{mark}{options}"


def _rows(data: Any) -> dict[tuple[str, str], str]:
    """One run as (kind, name) -> text."""
    metrics, tags = dict(data.metrics), dict(data.tags)
    rows = {("setting", name): str(value) for name, value in sorted(data.params.items())}
    plain = [name for name in metrics if not name.startswith("gate.") and not _is_end(name, metrics)]
    rows |= {("figure", name): _figure(name, metrics) for name in plain}
    rows |= {
        ("gate", name.removeprefix("gate.")): _gate(name, said, metrics)
        for name, said in sorted(tags.items())
        if name.startswith("gate.")
    }
    return rows | {("tag", name): tags[name] for name in _TAGS if name in tags}


def _is_end(name: str, metrics: Mapping[str, float]) -> bool:
    return any(name.endswith(end) and name.removesuffix(end) in metrics for end in _ENDS)


def _figure(name: str, metrics: Mapping[str, float]) -> str:
    low, high = (metrics.get(f"{name}{end}") for end in _ENDS)
    return figure_text(Figure(metrics[name], low, high), percent=False)


def _gate(name: str, said: str, metrics: Mapping[str, float]) -> str:
    value, limit = metrics.get(name), metrics.get(f"{name}.limit")
    measured = "" if value is None else f": {value:.4g}" + ("" if limit is None else f", limit {limit:.4g}")
    return f"{said}{measured}"
