"""What MLflow has not been told yet: runs that could not be recorded, kept whole on disk until it can be reached.

`<outbox>/<version>/` is one run with its bundle and figures, `<outbox>/<version>.gates.json` what its gates said. Each
is there whole or not at all.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from router_ml.durable import place_folder, replace_file
from router_ml.errors import RouterError
from router_ml_training.gates import GateLine
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking import begin_run, log_gates, log_training
from router_ml_training.tracking_record import TrainingRecord, read_record, record_files

__all__ = ["flush_outbox", "keep_gates", "keep_run", "outbox_of"]

_GATES = ".gates.json"


def outbox_of(models_dir: Path) -> Path:
    """Return the folder of what MLflow has not been told about a shelf."""
    return models_dir / ".retrain" / "outbox"


def keep_run(record: TrainingRecord, folder: Path) -> Path:
    """Keep a run to be recorded later; a version that is kept already is replaced.

    Args:
        record: What to record.
        folder: The outbox.

    Returns:
        Where it is kept.

    Raises:
        RouterError: When it cannot be written.
    """
    final = folder / record.name
    try:
        files = record_files(record)
        if final.exists():
            _clear(final)
        place_folder(final, files, verify=lambda _: None)
    except OSError as error:
        raise _unwritable(final, error) from error
    return final


def keep_gates(version: str, key: str, lines: Sequence[GateLine], folder: Path) -> None:
    """Keep what the gates said of a bundle.

    Args:
        version: The bundle's.
        key: The key of its run.
        lines: One per gate.
        folder: The outbox.

    Raises:
        RouterError: When it cannot be written.
    """
    _keep(folder / f"{version}{_GATES}", {"key": key, "lines": [asdict(line) for line in lines]})


def flush_outbox(settings: MlflowSettings, folder: Path) -> list[str]:
    """Tell MLflow of every run that was kept, the oldest first; what it was told is kept no longer.

    One that was recorded in the meantime is found by its key and left as it is.

    Args:
        settings: `[mlflow]`: where.
        folder: The outbox.

    Returns:
        The versions that were recorded.

    Raises:
        RouterError: When MLflow cannot be used, or something kept cannot be read; the rest stays for the next time.
    """
    recorded = []
    for kept in _oldest_first(folder, "*/"):
        _log_run(kept, settings)
        _clear(kept)
        recorded.append(kept.name)
    for file in _oldest_first(folder, f"*{_GATES}"):
        said = _read(file)
        run_id = begin_run(file.name.removesuffix(_GATES), said["key"], settings)
        log_gates(run_id, [GateLine(**line) for line in said["lines"]], settings=settings)
        file.unlink()
    return recorded


def _clear(kept: Path) -> None:
    # Renamed first: one that was half deleted when the process was killed could not be read, and stop all others.
    doomed = kept.with_name(f".{kept.name}.told")
    shutil.rmtree(doomed, ignore_errors=True)
    kept.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _log_run(kept: Path, settings: MlflowSettings) -> None:
    with tempfile.TemporaryDirectory(prefix="router-ml-") as bundle:
        try:
            record = read_record(kept, Path(bundle))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _unreadable(kept, error) from error
        log_training(record, settings=settings)


def _oldest_first(folder: Path, pattern: str) -> list[Path]:
    kept = [path for path in folder.glob(pattern) if not path.name.startswith(".")]
    return sorted(kept, key=lambda path: (path.stat().st_mtime, path.name))


def _keep(file: Path, content: Mapping[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps(content).encode())
    except OSError as error:
        raise _unwritable(file, error) from error


def _read(file: Path) -> dict[Any, Any]:
    try:
        found: dict[Any, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error
    return found


def _unwritable(path: Path, error: OSError) -> RouterError:
    return RouterError(f"{path}: cannot be kept for MLflow ({error.strerror}); check the folder, its rights and space")


def _unreadable(path: Path, error: Exception) -> RouterError:
    return RouterError(f"{path}: cannot be read ({error}); delete it to give up telling MLflow")
