"""A training record as files: read again it is what it was, also when its bundle is gone in the meantime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from router_ml.bundle import load_bundle
from router_ml_training.pipeline import Run
from router_ml_training.tracking_record import TrainingRecord, read_record, record_files
from tests.training.tracking_records import record_around


def written(record: TrainingRecord, folder: Path) -> Path:
    folder.mkdir()
    for name, content in record_files(record).items():
        (folder / name).write_bytes(content)
    return folder


def test_a_record_read_again_is_what_was_written(trained_run: Run, tmp_path: Path) -> None:
    record = record_around(trained_run.bundle.path)
    folder = written(record, tmp_path / "kept")
    (tmp_path / "bundle").mkdir()
    again = read_record(folder, tmp_path / "bundle")
    assert replace(again, bundle=record.bundle) == record
    assert load_bundle(again.bundle).manifest == trained_run.bundle.manifest


def test_a_record_without_times_report_or_pictures_is_kept_too(trained_run: Run, tmp_path: Path) -> None:
    whole = record_around(trained_run.bundle.path)
    record = replace(whole, data=replace(whole.data, first=None, last=None), report_html=None, pictures=())
    (tmp_path / "bundle").mkdir()
    again = read_record(written(record, tmp_path / "kept"), tmp_path / "bundle")
    assert replace(again, bundle=record.bundle) == record


@pytest.mark.parametrize("name", ["record.json", "bundle.model.onnx", "figure.cost_quality.svg"])
def test_a_record_with_a_missing_file_is_an_error(trained_run: Run, tmp_path: Path, name: str) -> None:
    folder = written(record_around(trained_run.bundle.path), tmp_path / "kept")
    (folder / name).unlink()
    (tmp_path / "bundle").mkdir()
    with pytest.raises(FileNotFoundError):
        read_record(folder, tmp_path / "bundle")
