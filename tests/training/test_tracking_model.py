"""The router as an MLflow model: a frame of requests in, the router's own decisions out; also far from this project."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from router_ml.bundle import load_bundle
from router_ml.config import ExplorationSettings, PolicySettings
from router_ml.router import Router
from router_ml.schema import Request
from router_ml_training.pipeline import Run
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking import log_training
from router_ml_training.tracking_model import EXAMPLE, RoutingModel, columns_of
from router_ml_training.tracking_registry import set_alias
from tests.training.mlflow_server import end, environment, wait_for
from tests.training.tracking_records import record_around

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [str(folder) for folder in (ROOT, ROOT / "training", ROOT / "serving")]
PROMPTS = ("greet alpha beta number 3", "prove omega kappa number 5")


@pytest.fixture(scope="module")
def model(trained_run: Run) -> RoutingModel:
    return RoutingModel(trained_run.bundle.path, 0.97)


def test_it_decides_as_the_router_does(model: RoutingModel, trained_run: Run) -> None:
    nothing_tried = ExplorationSettings(up=0.0, audit=0.0, shadow=0.0)
    router = Router(load_bundle(trained_run.bundle.path), PolicySettings(quality=0.97), nothing_tried, {})
    decided = model.predict(pd.DataFrame({"prompt": PROMPTS}, index=["a", "b"]))
    assert list(decided.index) == ["a", "b"]
    for prompt, (_, row) in zip(PROMPTS, decided.iterrows(), strict=True):
        messages = [{"role": "user", "content": prompt}]
        decision = router.route(Request(messages=messages), decision_id="x", rng=np.random.default_rng(1))
        assert row["tier"] == decision.tier
        assert row["model"] == decision.model
        assert row["reason"] == decision.reason
        assert row["expected_cost_usd"] == decision.expected_cost_usd[decision.tier]
        assert row["adequacy.small"] == decision.adequacy["small"]
        assert row["policy_version"] == "router-2026-02-01.1"


def test_the_columns_are_those_it_declares(model: RoutingModel) -> None:
    assert list(model.predict(pd.DataFrame(EXAMPLE)).columns) == list(columns_of(("small", "large")))


def test_messages_count_like_a_prompt_and_missing_cells_like_missing_columns(model: RoutingModel) -> None:
    messages = json.dumps([{"role": "user", "content": PROMPTS[0]}])
    rows = [{"prompt": PROMPTS[0]}, {"messages": messages, "tenant": None, "max_tokens": np.nan}]
    first, second = model.predict(pd.DataFrame(rows)).to_dict("records")
    assert first == second


def test_each_row_may_ask_for_a_quality_of_its_own(model: RoutingModel) -> None:
    frame = pd.DataFrame({"prompt": [PROMPTS[1]] * 2, "quality": [None, 0.8]})
    assert model.predict(frame)["quality"].tolist() == [0.97, 0.8]


def test_what_a_request_needs_is_looked_at(model: RoutingModel) -> None:
    tools = json.dumps([{"type": "function", "function": {"name": "f", "parameters": {}}}])
    frame = pd.DataFrame({"prompt": [PROMPTS[0]], "tools": [tools], "max_tokens": [10.0], "use_case": ["batch"]})
    assert len(model.predict(frame)) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"tenant": "acme"}, "row 1: expected either a prompt or messages, as JSON"),
        ({"prompt": "hi", "messages": "[]"}, "row 1: expected either a prompt or messages, as JSON"),
        ({"messages": "hi"}, r"row 1: messages: not valid JSON"),
        ({"messages": "[]"}, "row 1: messages: expected at least one message"),
        ({"messages": '{"role": "user"}'}, "row 1: messages: expected a list of objects, as JSON"),
        ({"prompt": "hi", "response_format": "[]"}, "row 1: response_format: expected an object, as JSON"),
        ({"prompt": "hi", "max_tokens": 1.5}, r"row 1: max_tokens: expected a whole number of tokens, got 1\.5"),
        ({"prompt": "hi", "max_tokens": float("inf")}, "row 1: max_tokens: expected a whole number of tokens, got inf"),
        ({"messages": "[" * 100_000}, "row 1: messages: not valid JSON"),
        ({"prompt": "hi", "quality": 97.0}, r"row 1: quality: expected a share in \(0, 1\], got 97"),
    ],
)
def test_a_row_that_holds_no_request_is_an_error_that_names_it(
    model: RoutingModel, row: dict[str, Any], said: str
) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=said):
        model.predict(pd.DataFrame([{"prompt": "fine"}, row]))


@pytest.mark.slow
def test_it_loads_where_nothing_of_this_project_is_installed(
    trained_run: Run, mlflow_local: MlflowSettings, tmp_path: Path
) -> None:
    log_training(record_around(trained_run.bundle.path), settings=mlflow_local)
    code = f"""
import sys
# What an installation in development mode adds to the path.
sys.path[:] = [path for path in sys.path if path.rstrip("/") not in {FOLDERS!r}]
import mlflow, pandas
mlflow.set_tracking_uri({mlflow_local.tracking_uri!r})
model = mlflow.pyfunc.load_model("models:/router@challenger")
import router_ml.router
assert "/code/router_ml/" in router_ml.router.__file__, router_ml.router.__file__
assert "router_ml_training" not in sys.modules
print(model.predict(pandas.DataFrame({{"prompt": ["greet alpha"]}}))["policy_version"][0])
"""
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == ["router-2026-02-01.1"]


@pytest.fixture
def scoring_server(trained_run: Run, mlflow_local: MlflowSettings, tmp_path: Path) -> Iterator[str]:
    """`mlflow models serve` on the champion; the address it answers at."""
    log_training(record_around(trained_run.bundle.path), settings=mlflow_local)
    set_alias("champion", trained_run.version, settings=mlflow_local)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/router@champion"]
    with (tmp_path / "log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)],
            env={**environment(), "MLFLOW_TRACKING_URI": mlflow_local.tracking_uri},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", process, tmp_path / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


@pytest.mark.slow
@pytest.mark.e2e
def test_mlflow_serves_it(scoring_server: str) -> None:
    [decision] = _ask(scoring_server, {"dataframe_records": [{"prompt": PROMPTS[0], "max_tokens": 5}]})["predictions"]
    assert decision["tier"] in {"small", "large"}
    assert decision["policy_version"] == "router-2026-02-01.1"
    with pytest.raises(urllib.error.HTTPError) as refused:
        _ask(scoring_server, {"dataframe_records": [{"tenant": "acme"}]})
    assert refused.value.code == 400
    assert "row 0: expected either a prompt or messages" in json.loads(refused.value.read())["message"]
    refused.value.close()


def _ask(server: str, body: dict[str, Any]) -> Any:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{server}/invocations", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
