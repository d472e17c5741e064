"""The registered model in a real MLflow: aliases, bundles of one name told apart, bundles fetched back."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from router_ml.bundle import load_bundle
from router_ml.errors import BundleCorrupt, BundleError, UnknownName
from router_ml_training.gates import GateLine
from router_ml_training.pipeline import Run
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking import log_gates, log_training
from router_ml_training.tracking_registry import bundle_digest, fetch_bundle, named, set_alias
from tests.training.mlflow_server import MlflowServer
from tests.training.tracking_records import alias_version, record_around, renamed, twin

pytestmark = pytest.mark.slow
VERSION = "router-2026-02-01.1"


@pytest.fixture
def bundle(trained_run: Run) -> Path:
    return trained_run.bundle.path


def test_aliases_point_at_versions_by_the_bundle_they_hold(
    mlflow_local: MlflowSettings, bundle: Path, tmp_path: Path
) -> None:
    assert alias_version("champion", settings=mlflow_local) is None
    log_training(record_around(bundle), settings=mlflow_local)
    later = renamed(bundle, "router-2026-02-02.1", tmp_path)
    log_training(record_around(later, key="another"), settings=mlflow_local)
    assert set_alias("champion", "router-2026-02-01.1", settings=mlflow_local) == 1
    assert alias_version("champion", settings=mlflow_local) == "router-2026-02-01.1"
    assert alias_version("challenger", settings=mlflow_local) == "router-2026-02-02.1"
    with pytest.raises(UnknownName, match=r"holds the bundle router-2026-03-01\.1: it was not recorded there"):
        set_alias("champion", "router-2026-03-01.1", settings=mlflow_local)
    client = _client(mlflow_local)
    other = client.create_model_version("router", source=str(tmp_path), run_id=None)
    client.set_registered_model_alias("router", "champion", other.version)
    with pytest.raises(UnknownName, match=r"models:/router@champion is version 3, which has no tag router\.bundle"):
        alias_version("champion", settings=mlflow_local)


def test_no_tag_leads_out_of_the_shelf(mlflow_local: MlflowSettings, bundle: Path, tmp_path: Path) -> None:
    log_training(record_around(bundle), settings=mlflow_local)
    for tag in ("../elsewhere/x", str(bundle), "it's"):
        _client(mlflow_local).set_model_version_tag("router", "1", "router.bundle", tag)
        with pytest.raises(UnknownName, match="is no version of a bundle"):
            fetch_bundle(tag, tmp_path / "shelf", settings=mlflow_local)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.e2e
def test_a_bundle_travels_over_a_server_to_another_machine(
    mlflow_server: MlflowServer, bundle: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    name = uuid.uuid4().hex
    own_names = MlflowSettings(tracking_uri=mlflow_server.url, experiment=f"e-{name}", registered_model=f"m-{name}")
    run_id = log_training(record_around(bundle), settings=own_names)
    log_gates(run_id, [GateLine("size", True, "4 files")], settings=own_names)
    set_alias("champion", "router-2026-02-01.1", settings=own_names)
    assert list(tmp_path.iterdir()) == [], "artifacts go through the server"

    version = alias_version("champion", settings=own_names)
    assert version is not None
    fetched = fetch_bundle(version, tmp_path / "models", settings=own_names)
    assert fetched == tmp_path / "models" / version
    assert load_bundle(fetched).manifest == load_bundle(bundle).manifest
    assert fetch_bundle(version, tmp_path / "models", settings=own_names) == fetched
    with pytest.raises(UnknownName, match=r"router-2026-03-01\.1"):
        fetch_bundle("router-2026-03-01.1", tmp_path / "models", settings=own_names)

    [stored] = mlflow_server.artifacts.rglob(f"{run_id}/artifacts/bundle/model.onnx")
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleCorrupt, match="does not match its checksum"):
        fetch_bundle(version, tmp_path / "elsewhere", settings=own_names)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_bundles_of_one_name_are_told_apart_by_what_is_in_them(
    mlflow_local: MlflowSettings, bundle: Path, tmp_path: Path
) -> None:
    other = twin(bundle, tmp_path / "other machine")
    here, there = bundle_digest(bundle), bundle_digest(other)
    run_id = log_training(record_around(bundle), settings=mlflow_local)
    log_training(record_around(other, key="of another machine"), settings=mlflow_local)
    assert set_alias("champion", VERSION, settings=mlflow_local, digest=here) == 1
    found = named("champion", settings=mlflow_local)
    assert found is not None
    assert (found.version, found.digest, found.run_id) == (VERSION, here, run_id)
    assert set_alias("champion", VERSION, settings=mlflow_local, digest=there) == 2
    assert set_alias("champion", VERSION, settings=mlflow_local) == 2, "the newest, when nobody says which"
    with pytest.raises(UnknownName, match="it has another one of that name, of another machine"):
        set_alias("champion", VERSION, settings=mlflow_local, digest="ab" * 32)

    shelf = tmp_path / "shelf"
    assert bundle_digest(fetch_bundle(VERSION, shelf, settings=mlflow_local, digest=here)) == here
    with pytest.raises(BundleError, match=r"another bundle by router-2026-02-01\.1 than the one in .*move .* away"):
        fetch_bundle(VERSION, shelf, settings=mlflow_local, digest=there)
    (shelf / VERSION).rename(tmp_path / "away")
    assert bundle_digest(fetch_bundle(VERSION, shelf, settings=mlflow_local, digest=there)) == there


def test_a_version_that_an_earlier_release_registered_is_known_by_its_manifest(
    mlflow_local: MlflowSettings, bundle: Path
) -> None:
    log_training(record_around(bundle), settings=mlflow_local)
    _client(mlflow_local).delete_model_version_tag("router", "1", "router.digest")
    assert set_alias("champion", VERSION, settings=mlflow_local, digest=bundle_digest(bundle)) == 1
    found = named("champion", settings=mlflow_local)
    assert found is not None
    assert found.digest == bundle_digest(bundle)


def test_what_does_not_have_the_digest_it_is_registered_with_is_not_taken(
    mlflow_local: MlflowSettings, bundle: Path, tmp_path: Path
) -> None:
    log_training(record_around(bundle), settings=mlflow_local)
    _client(mlflow_local).set_model_version_tag("router", "1", "router.digest", "ab" * 32)
    with pytest.raises(BundleError, match="another bundle"):
        fetch_bundle(VERSION, tmp_path / "shelf", settings=mlflow_local, digest="ab" * 32)
    assert list((tmp_path / "shelf").iterdir()) == []


def test_an_alias_can_be_taken_away(mlflow_local: MlflowSettings, bundle: Path) -> None:
    set_alias("champion", None, settings=mlflow_local)
    log_training(record_around(bundle), settings=mlflow_local)
    set_alias("champion", VERSION, settings=mlflow_local)
    for _ in range(2):
        set_alias("champion", None, settings=mlflow_local)
        assert named("champion", settings=mlflow_local) is None


def test_a_bundle_without_a_manifest_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(BundleCorrupt, match=r"manifest\.json: cannot be read"):
        bundle_digest(tmp_path)


def _client(settings: MlflowSettings) -> Any:
    import mlflow

    return mlflow.MlflowClient(settings.tracking_uri)
