"""Training runs in a real local MLflow: written, read back, aliased; and clear errors where it cannot be used."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from router_ml.errors import RouterError, UnknownName
from router_ml_training.evaluation.canvas import Picture
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking import DataRecord, TrainingRecord, log_training, set_alias

N_DENSE, TIERS = 3, ("small", "large")


def graph() -> bytes:
    """A graph with the inputs and outputs of a bundle's model."""
    k = len(TIERS)
    weights = helper.make_tensor("w", TensorProto.FLOAT, [N_DENSE, k], np.zeros(N_DENSE * k, dtype=np.float32))
    nodes = [
        helper.make_node("MatMul", ["dense", "w"], ["z"]),
        helper.make_node("Cast", ["ids"], ["id_floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["id_floats", "counts"], ["products"]),
        helper.make_node("ReduceSum", ["products"], ["sum"], keepdims=1),
        helper.make_node("Add", ["z", "sum"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["adequacy"]),
        helper.make_node("Exp", ["z"], ["output_tokens"]),
    ]

    def value(name: str, kind: int, width: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["n", width])

    inputs = [
        value("dense", TensorProto.FLOAT, N_DENSE),
        value("ids", TensorProto.INT64, "l"),
        value("counts", TensorProto.FLOAT, "l"),
    ]
    outputs = [value(name, TensorProto.FLOAT, k) for name in ("adequacy", "output_tokens")]
    made = helper.make_graph(nodes, "test", inputs, outputs, [weights])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()


def record(name: str = "router-2026-11-22.1") -> TrainingRecord:
    return TrainingRecord(
        name=name,
        params={"learner": "linear", "seed": 0},
        metrics={"apgr": Figure(0.66, 0.64, 0.68), "cs_97": Figure(None, reason="no point reaches 97 %")},
        data=DataRecord("log", "ab" * 32, 1000, "interactions.jsonl"),
        model=graph(),
        tiers=TIERS,
        n_dense=N_DENSE,
        requirements=("onnxruntime",),
        pictures=(Picture("cost_quality", "title", "alt", b"\x89PNG", "<svg/>"),),
        report_html="<!doctype html>",
        tags={"simulated": "true"},
    )


@pytest.mark.slow
def test_a_run_is_recorded_whole_and_its_model_can_be_promoted(tmp_path: Path):
    settings = MlflowSettings(
        tracking_uri=f"sqlite:///{tmp_path}/new/mlflow.db", artifacts=str(tmp_path / "artifacts"), registered_model="r"
    )
    first = log_training(record(), settings=settings)
    second = log_training(record("router-2026-11-22.2"), settings=settings)
    assert set_alias("champion", first, settings=settings) == 1

    import mlflow

    client = mlflow.MlflowClient(settings.tracking_uri)
    run = client.get_run(first)
    assert run.info.run_name == "router-2026-11-22.1"
    assert run.data.params == {"learner": "linear", "seed": "0"}
    assert run.data.metrics == {"apgr": 0.66, "apgr_low": 0.64, "apgr_high": 0.68}
    assert run.data.tags["undefined.cs_97"] == "no point reaches 97 %"
    assert (run.data.tags["data.digest"], run.data.tags["simulated"]) == ("ab" * 32, "true")
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("log", "ab" * 18)
    stored = {item.path for folder in ("", "figures") for item in client.list_artifacts(first, folder)}
    assert {"figures/cost_quality.png", "figures/cost_quality.svg", "report.html"} <= stored

    champion, challenger = (client.get_model_version_by_alias("r", alias) for alias in ("champion", "challenger"))
    assert (champion.run_id, challenger.run_id) == (first, second)
    mlflow.set_tracking_uri(settings.tracking_uri)
    model = mlflow.onnx.load_model("models:/r@champion")
    assert model.SerializeToString() == graph()
    signature = mlflow.models.get_model_info("models:/r@champion").signature
    assert [(spec.name, spec.shape, str(spec.type)) for spec in signature.inputs.inputs] == [
        ("dense", (-1, N_DENSE), "float32"),
        ("ids", (-1, -1), "int64"),
        ("counts", (-1, -1), "float32"),
    ]
    outputs = [(spec.name, spec.shape) for spec in signature.outputs.inputs]
    assert outputs == [("adequacy", (-1, 2)), ("output_tokens", (-1, 2))]
    with pytest.raises(UnknownName, match="registered no version"):
        set_alias("champion", "0" * 32, settings=settings)


def test_a_server_that_does_not_answer_is_an_error_within_seconds():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # bound, not listening: connections are refused
        began = time.monotonic()
        with pytest.raises(RouterError, match=r"cannot be reached.*tracking_uri"):
            log_training(record(), settings=MlflowSettings(tracking_uri=f"http://user:secret@127.0.0.1:{port}"))
    assert time.monotonic() - began < 5


def test_a_password_is_never_shown():
    with pytest.raises(RouterError) as caught:
        log_training(record(), settings=MlflowSettings(tracking_uri="http://user:secret@127.0.0.1:1"))
    assert "secret" not in str(caught.value)


def test_a_database_folder_that_cannot_be_made_is_an_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RouterError, match="cannot be reached"):
        log_training(record(), settings=MlflowSettings(tracking_uri=f"sqlite:///{tmp_path}/file/sub/mlflow.db"))


@pytest.mark.slow
def test_a_file_that_is_no_database_is_an_error(tmp_path: Path):
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(RouterError, match="not a database"):
        log_training(record(), settings=MlflowSettings(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"))


def test_importing_the_module_does_not_import_mlflow():
    code = "import sys, router_ml_training.tracking; sys.exit('mlflow' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
