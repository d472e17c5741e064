"""Training runs in a real MLflow: recorded whole and once, judged; local and over a server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router_ml.bundle import load_bundle
from router_ml.errors import BundleCorrupt, RouterError
from router_ml_training.gates import GateLine
from router_ml_training.pipeline import Run
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking import begin_run, log_gates, log_training
from router_ml_training.tracking_registry import bundle_digest, fetch_bundle
from tests.training.mlflow_server import MlflowServer, Wire
from tests.training.tracking_records import DIGEST, alias_version, record_around, renamed

GATES = (
    GateLine("certificate", True, "a saving of 20 % is proven", 0.2, 0.0),
    GateLine("size", True, "4 files"),
    GateLine("drift", False, "the traffic has changed", 0.3, 0.25, required=False),
)


@pytest.fixture
def bundle(trained_run: Run) -> Path:
    return trained_run.bundle.path


@pytest.fixture
def own_names(mlflow_server: MlflowServer) -> MlflowSettings:
    """The shared server, under names that no other test uses."""
    name = uuid.uuid4().hex
    return MlflowSettings(tracking_uri=mlflow_server.url, experiment=f"e-{name}", registered_model=f"m-{name}")


@pytest.mark.slow
def test_a_run_is_recorded_whole(mlflow_local: MlflowSettings, bundle: Path) -> None:
    begun = begin_run("router-2026-02-01.1", "a key", mlflow_local)
    run_id = log_training(record_around(bundle), settings=mlflow_local, run_id=begun)
    assert run_id == begun

    client = _client(mlflow_local)
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("router-2026-02-01.1", "FINISHED")
    assert run.data.params == {"learner": "linear", "seed": "0", "quality": "0.97"}
    assert run.data.metrics == {"apgr": 0.66, "apgr_low": 0.64, "apgr_high": 0.68}
    tags = run.data.tags
    assert tags["undefined.cs_97"] == "no point reaches 97 %"
    assert (tags["router.key"], tags["router.bundle"]) == ("a key", "router-2026-02-01.1")
    assert (tags["data.digest"], tags["data.rows"], tags["certificate"]) == (DIGEST, "1000", "proven")
    assert tags["mlflow.note.content"] == "**Use 'linear'.**"
    assert tags["data.last"] == "2026-01-31T00:00:00+00:00"

    [given] = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("interactions", DIGEST[:36])
    assert json.loads(given.dataset.source)["tags"]["source"] == "log.jsonl"
    profile = json.loads(given.dataset.profile)
    assert (profile["num_rows"], profile["first"]) == (1000, "2026-01-01T00:00:00+00:00")
    assert profile["known_outcomes"] == {"small": 900, "large": 800}

    stored = {item.path for folder in ("", "figures", "bundle") for item in client.list_artifacts(run_id, folder)}
    assert {f"figures/cost_quality.{kind}" for kind in ("png", "svg", "csv")} <= stored
    assert {"report.html", "slices.json", "bundle/manifest.json", "bundle/model.onnx"} <= stored
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "slices.json", "type": "table"}]


@pytest.mark.slow
def test_each_learner_that_competed_is_a_nested_run(mlflow_local: MlflowSettings, bundle: Path) -> None:
    run_id = log_training(record_around(bundle), settings=mlflow_local)
    client = _client(mlflow_local)
    experiment = client.get_run(run_id).info.experiment_id
    nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    seen = {run.info.run_name: (run.data.tags["chosen"], run.data.metrics["loss"]) for run in nested}
    assert seen == {"constant": ("false", 0.5), "linear": ("true", 0.3)}
    [linear] = [run for run in nested if run.info.run_name == "linear"]
    assert (linear.data.metrics["excess_low"], linear.data.metrics["excess_high"]) == (-0.1, 0.1)
    assert linear.data.tags["why"] == "Use 'linear'."


@pytest.mark.slow
def test_the_graph_and_the_router_are_models_and_the_router_is_registered(
    mlflow_local: MlflowSettings, bundle: Path
) -> None:
    import mlflow
    import pandas as pd

    run_id = log_training(record_around(bundle), settings=mlflow_local)
    mlflow.set_tracking_uri(mlflow_local.tracking_uri)
    version = _client(mlflow_local).get_model_version_by_alias("router", "challenger")
    assert (version.run_id, version.description) == (run_id, "**Use 'linear'.**")
    assert version.tags == {
        "router.bundle": "router-2026-02-01.1",
        "router.digest": bundle_digest(bundle),
        "certificate": "proven",
        "validation_status": "pending",
    }

    graph = mlflow.onnx.load_model(f"runs:/{run_id}/graph")
    assert graph.SerializeToString() == (bundle / "model.onnx").read_bytes()
    info = mlflow.models.get_model_info(f"runs:/{run_id}/graph")
    spec = [(one.name, one.shape, str(one.type)) for one in info.signature.inputs.inputs]
    assert [name for name, *_ in spec] == ["dense", "ids", "counts"]
    assert spec[1][1:] == ((-1, -1), "int64")
    outputs = [(one.name, one.shape) for one in info.signature.outputs.inputs]
    assert outputs == [("adequacy", (-1, 2)), ("output_tokens", (-1, 2))]

    router = mlflow.pyfunc.load_model("models:/router@challenger")
    assert router.metadata.get_input_schema().has_input_names()
    decided = router.predict(pd.DataFrame({"prompt": ["greet alpha", "prove omega"]}))
    assert decided["policy_version"].tolist() == ["router-2026-02-01.1"] * 2
    assert set(decided["tier"]) <= {"small", "large"}
    bolder = mlflow.pyfunc.load_model("models:/router@challenger", model_config={"quality": 0.8})
    assert bolder.predict(pd.DataFrame({"prompt": ["greet alpha"]}))["quality"].tolist() == [0.8]


@pytest.mark.slow
def test_recording_a_run_twice_makes_one_run_and_one_version(mlflow_local: MlflowSettings, bundle: Path) -> None:
    first = log_training(record_around(bundle), settings=mlflow_local)
    assert log_training(record_around(bundle), settings=mlflow_local) == first
    assert begin_run("router-2026-02-01.1", "a key", mlflow_local) == first
    client = _client(mlflow_local)
    assert len(client.search_runs([client.get_run(first).info.experiment_id])) == 3
    assert len(client.search_model_versions("name = 'router'")) == 1


@pytest.mark.slow
def test_gates_are_tags_and_figures_of_the_run_and_tags_of_the_version(
    mlflow_local: MlflowSettings, bundle: Path
) -> None:
    run_id = log_training(record_around(bundle), settings=mlflow_local)
    log_gates(run_id, GATES, settings=mlflow_local)
    client = _client(mlflow_local)
    run = client.get_run(run_id)
    assert {name: run.data.tags[f"gate.{name}"] for name in ("certificate", "size", "drift")} == {
        "certificate": "passed",
        "size": "passed",
        "drift": "warned",
    }
    assert (run.data.metrics["gate.certificate"], run.data.metrics["gate.drift.limit"]) == (0.2, 0.25)
    assert "gate.size" not in run.data.metrics
    version = client.get_model_version_by_alias("router", "challenger")
    assert (version.tags["gate.drift"], version.tags["validation_status"]) == ("warned", "passed")

    log_gates(run_id, [*GATES, GateLine("parity", False, "3 decisions flipped", 3.0, 0.0)], settings=mlflow_local)
    version = client.get_model_version_by_alias("router", "challenger")
    assert (version.tags["gate.parity"], version.tags["validation_status"]) == ("failed", "failed")


@pytest.mark.slow
@pytest.mark.e2e
def test_files_can_be_kept_on_an_object_store_and_its_absence_is_an_error(
    objects_of_its_own: Any, mlflow_local: MlflowSettings, bundle: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    objects_of_its_own.make_bucket()
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", objects_of_its_own.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    settings = mlflow_local.model_copy(update={"artifacts": f"{objects_of_its_own.url}/router"})
    log_training(record_around(bundle), settings=settings)
    assert not (tmp_path / "artifacts").exists()
    fetched = fetch_bundle("router-2026-02-01.1", tmp_path / "models", settings=settings)
    assert load_bundle(fetched).manifest == load_bundle(bundle).manifest
    objects_of_its_own.stop()
    with pytest.raises(RouterError, match=r"could not be used: .*[Cc]onnect.* \[mlflow\] tracking_uri and artifacts"):
        log_training(record_around(bundle, key="another"), settings=settings)


@pytest.fixture
def wire(mlflow_server: MlflowServer) -> Iterator[Wire]:
    wire = Wire(mlflow_server.port, b"PUT /api/2.0/mlflow-artifacts")
    yield wire
    wire.close()


@pytest.mark.slow
@pytest.mark.e2e
def test_a_server_that_goes_away_in_the_middle_is_an_error_and_the_run_is_completed_later(
    own_names: MlflowSettings, wire: Wire, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = own_names.model_copy(update={"tracking_uri": wire.url})
    record, began = record_around(bundle), time.monotonic()
    with pytest.raises(RouterError, match=r"could not be used.*tracking_uri"):
        log_training(record, settings=settings)
    assert wire.broken.is_set()
    assert time.monotonic() - began < 30
    half = _client(own_names).get_run(begin_run(record.name, record.key, own_names))
    assert half.info.status != "FINISHED"

    wire.mend()
    assert log_training(record, settings=settings) == half.info.run_id
    assert alias_version("challenger", settings=own_names) == record.name
    assert capfd.readouterr().out == "", "what MLflow says would end up in the output of commands"


@pytest.mark.slow
def test_a_bundle_that_is_damaged_is_not_recorded(mlflow_local: MlflowSettings, bundle: Path, tmp_path: Path) -> None:
    damaged = renamed(bundle, "router-2026-02-03.1", tmp_path)
    (damaged / "policy.json").write_text("{}")
    with pytest.raises(BundleCorrupt):
        log_training(replace(record_around(bundle), bundle=damaged), settings=mlflow_local)
    assert alias_version("challenger", settings=mlflow_local) is None


def test_importing_the_module_does_not_import_mlflow() -> None:
    code = "import sys, router_ml_training.tracking_outbox; sys.exit(bool({'mlflow', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _client(settings: MlflowSettings) -> Any:
    import mlflow

    return mlflow.MlflowClient(settings.tracking_uri)
