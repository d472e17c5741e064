"""One bundle as `router-ml models VERSION` shows it: what it was made from, what is proven, what its gates said."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from router_ml.bundle import MANIFEST, default_bundle_path
from router_ml.cli.output import table
from router_ml.errors import BundleCorrupt
from router_ml.manifest import Manifest
from router_ml.shelf import DEFAULT, Shelf

__all__ = ["detail_record", "detail_text"]


def detail_record(shelf: Shelf, version: str) -> dict[str, Any]:
    """Return everything that is known of a version, as JSON values: its manifest, its marks and its gates.

    Args:
        shelf: Where it is.
        version: A version on the shelf, or "default".

    Raises:
        UnknownName: When the shelf has no such version.
        BundleCorrupt: When its manifest cannot be read.
    """
    on_shelf = version != DEFAULT or (shelf.directory / DEFAULT / MANIFEST).is_file()
    path = shelf.path(version) if on_shelf else default_bundle_path()
    challenger = shelf.challenger()
    return {
        **_manifest(path).model_dump(mode="json"),
        "path": path,
        "champion": version == (shelf.champion() or DEFAULT),
        "challenger": challenger is not None and challenger.version == version,
        "gates": [dict(line) for line in shelf.gates(version)] if on_shelf else [],
    }


def detail_text(record: Mapping[str, Any]) -> str:
    """Return the record of a version for people."""
    marks = "".join(f" ({name})" for name in ("champion", "challenger") if record[name])
    facts = {
        "version": f"{record['version']}{marks}",
        "created": f"{_time(record['created'])}, learner {record['learner']}",
        "data": _data(record),
        "certificate": (record["certificate"] or {}).get("verdict", "none: nothing is proven about this bundle"),
        "MLflow run": record["mlflow_run_id"] or "not recorded",
        "commit": record["git_commit"] or "unknown",
        "folder": str(record["path"]),
    }
    width = max(map(len, facts))
    blocks = ["\n".join(f"{name:<{width}}  {value}" for name, value in facts.items()), _gates(record["gates"])]
    rows = [[name, *(_number(metric[end]) for end in ("value", "low", "high"))] for name, metric in _metrics(record)]
    blocks.append(table(["metric", "value", "low", "high"], rows) if rows else "no metrics")
    return "\n\n".join(blocks)


def _manifest(path: Path) -> Manifest:
    # Not the whole bundle: one that this release cannot serve any more can still be looked at.
    try:
        return Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise BundleCorrupt(f"{path / MANIFEST}: cannot be read ({why}); copy or export the bundle again") from error


def _data(record: Mapping[str, Any]) -> str:
    data = record["trained_on"]
    times = f", {_time(data['first_ts'])} to {_time(data['last_ts'])}" if data["first_ts"] and data["last_ts"] else ""
    simulated = ", simulated" if record["simulated"] else ""
    return f"{data['n_interactions']:,} interactions{times}{simulated}; {data['description']} (digest {data['digest']})"


def _gates(lines: list[Mapping[str, Any]]) -> str:
    if not lines:
        return "no gates were asked"
    rows = [
        [line["name"], _said(line), _number(line.get("value")), _number(line.get("limit")), line.get("detail")]
        for line in lines
    ]
    return table(["gate", "result", "value", "limit", "why"], rows)


def _said(line: Mapping[str, Any]) -> str:
    return "passed" if line["passed"] else "failed" if line.get("required", True) else "warned"


def _metrics(record: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(record["metrics"].items())


def _number(value: object) -> str | None:
    return f"{value:.4g}" if isinstance(value, int | float) else None if value is None else str(value)


def _time(text: str) -> str:
    time = datetime.fromisoformat(text)
    return f"{time.astimezone(UTC) if time.tzinfo else time:%Y-%m-%d %H:%M} UTC"
