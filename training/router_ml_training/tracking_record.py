"""What a training run leaves in MLflow, as plain values that can be kept in a folder and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from router_ml.bundle import MANIFEST
from router_ml_training.evaluation.canvas import Picture
from router_ml_training.evaluation.metrics import Figure

__all__ = ["DataRecord", "LearnerRecord", "Params", "Table", "TrainingRecord", "read_record", "record_files"]

Params: TypeAlias = Mapping[str, str | int | float | bool]
# Rows of one table, column name to cell.
Table: TypeAlias = Sequence[Mapping[str, object]]

RECORD = "record.json"
_REPORT = "report.html"


@dataclass(frozen=True, slots=True)
class DataRecord:
    """The data a run learned from: a name, the digest of its rows, how many there are, where they came from, and when.

    `first` and `last` are None where the log has no times of its own; `known` is how many rows say something about each
    tier.
    """

    name: str
    digest: str
    n_rows: int
    source: str
    first: datetime | None = None
    last: datetime | None = None
    known: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LearnerRecord:
    """One learner that competed: its held-out figures, whether it was kept, and why or why not in one sentence."""

    name: str
    chosen: bool
    why: str
    metrics: Mapping[str, Figure]
    params: Params = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """Everything one training run leaves in MLflow.

    Args:
        name: Name of the run: the bundle's version.
        key: Names the run for good: recording it twice makes one run.
        bundle: The bundle's folder; its graph and the router made of it become models, its files artifacts.
        quality: Share of the best tier's quality that the recorded router keeps unless it is asked for another.
        params: Settings it was trained with.
        metrics: Name to figure; written as `name`, `name_low`, `name_high`. Undefined ones become tags with the reason.
        data: What it learned from.
        learners: All that competed.
        pictures: Figures.
        tables: Name to rows.
        report_html: The report, as a page.
        description: What a reviewer should read first, in Markdown.
        tags: Further facts.
        model_tags: Tags of the registered version, besides those of its bundle and gates.
    """

    name: str
    key: str
    bundle: Path
    quality: float
    params: Params
    metrics: Mapping[str, Figure]
    data: DataRecord
    learners: tuple[LearnerRecord, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    report_html: str | None = None
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    model_tags: Mapping[str, str] = field(default_factory=dict)


def record_files(record: TrainingRecord) -> dict[str, bytes]:
    """Return a record as the files of one folder, its bundle's files among them.

    Raises:
        OSError: When the bundle cannot be read.
    """
    manifest = json.loads((record.bundle / MANIFEST).read_bytes())
    plain: dict[str, Any] = {name: getattr(record, name) for name in _PLAIN}
    plain["metrics"] = _figures(record.metrics)
    plain["data"] = {**asdict(record.data), "first": _time(record.data.first), "last": _time(record.data.last)}
    plain["learners"] = [{**asdict(one), "metrics": _figures(one.metrics)} for one in record.learners]
    plain["pictures"] = [{"name": one.name, "title": one.title, "alt": one.alt} for one in record.pictures]
    plain["bundle"] = [MANIFEST, *manifest["files"]]
    files = {RECORD: json.dumps(plain, indent=1).encode()}
    files |= {f"bundle.{name}": (record.bundle / name).read_bytes() for name in plain["bundle"]}
    for one in record.pictures:
        drawn = {"png": one.png, "svg": one.svg.encode(), "csv": one.data.encode()}
        files |= {f"figure.{one.name}.{kind}": content for kind, content in drawn.items()}
    if record.report_html is not None:
        files[_REPORT] = record.report_html.encode()
    return files


_PLAIN = ("name", "key", "quality", "params", "tables", "description", "tags", "model_tags")


def read_record(folder: Path, bundle: Path) -> TrainingRecord:
    """Read what `record_files` gave.

    Args:
        folder: Where those files are.
        bundle: An empty folder for the bundle's files.

    Raises:
        OSError: When a file is missing or cannot be read.
        ValueError: When a file is damaged.
    """
    plain = json.loads((folder / RECORD).read_bytes())
    for name in plain["bundle"]:
        (bundle / name).write_bytes((folder / f"bundle.{name}").read_bytes())
    data = plain["data"]
    times = {edge: None if data[edge] is None else datetime.fromisoformat(data[edge]) for edge in ("first", "last")}
    report = folder / _REPORT
    return TrainingRecord(
        **{name: plain[name] for name in _PLAIN},
        bundle=bundle,
        metrics=_read_figures(plain["metrics"]),
        data=DataRecord(**{**data, **times}),
        learners=tuple(LearnerRecord(**{**one, "metrics": _read_figures(one["metrics"])}) for one in plain["learners"]),
        pictures=tuple(_read_picture(folder, one) for one in plain["pictures"]),
        report_html=report.read_text(encoding="utf-8") if report.is_file() else None,
    )


def _read_picture(folder: Path, said: Mapping[str, str]) -> Picture:
    png, svg, data = ((folder / f"figure.{said['name']}.{kind}").read_bytes() for kind in ("png", "svg", "csv"))
    return Picture(**said, png=png, svg=svg.decode(), data=data.decode())


def _figures(figures: Mapping[str, Figure]) -> dict[str, Any]:
    return {name: asdict(figure) for name, figure in figures.items()}


def _read_figures(plain: Mapping[str, Any]) -> dict[str, Figure]:
    return {name: Figure(**figure) for name, figure in plain.items()}


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
