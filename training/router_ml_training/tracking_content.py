"""What a run shows in MLflow: params, figures with intervals, the data, pictures and their data, tables, the bundle."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router_ml.registry import require
from router_ml_training.evaluation.canvas import Picture
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.tracking_client import WHY
from router_ml_training.tracking_record import DataRecord, Table, TrainingRecord

__all__ = ["flat", "log_content", "log_table"]

_DIGEST_LENGTH = 36  # MLflow's column for dataset digests; the whole digest is in a tag
_TABLES_TAG = "mlflow.loggedArtifacts"


def log_content(mlflow: Any, run_id: str, record: TrainingRecord) -> None:
    """Write everything of a record but its models; a second time, the same again.

    Args:
        mlflow: MLflow, connected.
        run_id: The run.
        record: What to write.
    """
    client = mlflow.MlflowClient()
    mlflow.log_params(dict(record.params), run_id=run_id)
    mlflow.log_metrics(flat(record.metrics), run_id=run_id)
    client.log_batch(run_id, tags=[mlflow.entities.RunTag(*tag) for tag in _tags(record).items()])
    client.log_inputs(run_id, [_dataset(record.data)])
    with tempfile.TemporaryDirectory(prefix="router-ml-") as folder:
        _write_files(Path(folder), record)
        client.log_artifacts(run_id, folder)
    for name, rows in record.tables.items():
        log_table(mlflow, run_id, name, rows)


def log_table(mlflow: Any, run_id: str, name: str, rows: Table) -> None:
    """Write a table as MLflow's own page of tables reads it; it replaces what was there.

    Args:
        mlflow: MLflow, connected.
        run_id: The run.
        name: Of the file, without its ending.
        rows: Column name to cell; every row has the columns of the first.
    """
    if not rows:
        return
    client, file = mlflow.MlflowClient(), f"{name}.json"
    columns = list(rows[0])
    client.log_dict(run_id, {"columns": columns, "data": [[row.get(key) for key in columns] for row in rows]}, file)
    known = json.loads(client.get_run(run_id).data.tags.get(_TABLES_TAG, "[]"))
    if not any(one["path"] == file for one in known):
        client.set_tag(run_id, _TABLES_TAG, json.dumps([*known, {"path": file, "type": "table"}]))


def flat(metrics: Mapping[str, Figure]) -> dict[str, float]:
    """Return figures as MLflow's metrics: `name`, `name_low` and `name_high`, as far as they are defined."""
    ends = {"": "value", "_low": "low", "_high": "high"}
    every = {f"{name}{end}": getattr(figure, part) for name, figure in metrics.items() for end, part in ends.items()}
    return {name: value for name, value in every.items() if value is not None}


def _tags(record: TrainingRecord) -> dict[str, str]:
    undefined = {f"undefined.{name}": figure.reason for name, figure in record.metrics.items() if figure.reason}
    data = record.data
    facts = {"data.digest": data.digest, "data.rows": str(data.n_rows)}
    if data.first is not None and data.last is not None:
        facts |= {"data.first": data.first.isoformat(), "data.last": data.last.isoformat()}
    return {**facts, **undefined, **record.tags, "mlflow.note.content": record.description}


def _dataset(data: DataRecord) -> Any:
    # As an entity, which can hold how many rows there are and when: MLflow's classes for datasets of one kind cannot.
    entities = require("mlflow.entities", extra="training", why=WHY)
    profile: dict[str, Any] = {"num_rows": data.n_rows, "known_outcomes": dict(data.known)}
    if data.first is not None and data.last is not None:
        profile |= {"first": data.first.isoformat(), "last": data.last.isoformat()}
    kinds = {f"{name}.{tier}": "double" for tier in data.known for name in ("quality", "cost_usd", "output_tokens")}
    columns = [{"name": name, "type": kind} for name, kind in {"ts": "datetime", **kinds}.items()]
    made = entities.Dataset(
        name=data.name,
        digest=data.digest[:_DIGEST_LENGTH],
        source_type="code",
        source=json.dumps({"tags": {"source": data.source, "sha256": data.digest, "rows": str(data.n_rows)}}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(profile),
    )
    return entities.DatasetInput(made, [entities.InputTag("mlflow.data.context", "training")])


def _write_files(folder: Path, record: TrainingRecord) -> None:
    shutil.copytree(record.bundle, folder / "bundle")
    if record.report_html is not None:
        (folder / "report.html").write_text(record.report_html, encoding="utf-8")
    if record.pictures:
        (folder / "figures").mkdir()
    for picture in record.pictures:
        _write_picture(folder / "figures" / picture.name, picture)


def _write_picture(stem: Path, picture: Picture) -> None:
    stem.with_name(f"{stem.name}.png").write_bytes(picture.png)
    stem.with_name(f"{stem.name}.svg").write_text(picture.svg, encoding="utf-8")
    if picture.data:
        stem.with_name(f"{stem.name}.csv").write_text(picture.data, encoding="utf-8")
