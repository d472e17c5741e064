import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openai
import pytest

from router_ml.errors import UnknownName
from router_ml_training.simulate.outcomes import OutcomeTable, load_outcomes
from router_ml_training.simulate.standin import create_standin
from router_ml_training.simulate.truth import Truth, message_key
from router_ml_training.simulate.workload import generate

pytestmark = pytest.mark.e2e


@dataclass
class Running:
    client: openai.OpenAI
    url: str
    table: OutcomeTable
    truth: Truth


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("standin") / "workload.parquet"
    generate(300, rng=np.random.default_rng(0)).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def standin(outcomes: Path) -> Iterator[Running]:
    command = [sys.executable, "-m", "router_ml_training.simulate.standin", "--outcomes", str(outcomes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert ready["event"] == "ready"
            table = load_outcomes(outcomes)
            with openai.OpenAI(base_url=ready["url"], api_key="none", max_retries=0) as client:
                yield Running(client, ready["url"], table, Truth(table))
        finally:
            process.terminate()
            assert process.wait(timeout=10) == 0
            assert process.stderr is not None
            assert process.stderr.read() == "", "nothing that a client does is worth a traceback"


def row_where(table: OutcomeTable, wanted) -> tuple[int, int]:
    rows, columns = np.nonzero(np.vectorize(bool)(wanted))
    return int(rows[0]), int(columns[0])


def ask(standin: Running, i: int, k: int, **more):
    request = standin.table.requests[i]
    return standin.client.chat.completions.create(model=standin.table.models[k], messages=request.messages, **more)


def test_it_answers_with_the_known_outcome_of_the_model_asked(standin: Running) -> None:
    i, _ = row_where(standin.table, ~standin.table.failed.any(axis=1, keepdims=True))
    for k, model in enumerate(standin.table.models):
        reply = ask(standin, i, k, user="someone", temperature=0)
        assert reply.model == model
        assert reply.choices[0].message.content == standin.table.responses[i, k]
        assert reply.usage.prompt_tokens == standin.table.input_tokens[i, k]
        assert reply.usage.completion_tokens == standin.table.output_tokens[i, k]


def test_a_stream_adds_up_to_the_same_answer_and_reports_usage_when_asked(standin: Running) -> None:
    i, _ = row_where(standin.table, ~standin.table.failed.any(axis=1, keepdims=True))
    chunks = list(ask(standin, i, 1, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == standin.table.responses[i, 1]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == standin.table.output_tokens[i, 1]
    assert all(chunk.usage is None for chunk in ask(standin, i, 1, stream=True))


def test_a_client_that_leaves_a_stream_does_not_disturb_it(standin: Running) -> None:
    i, _ = row_where(standin.table, ~standin.table.failed.any(axis=1, keepdims=True))
    for _ in range(20):
        with ask(standin, i, 1, stream=True) as stream:
            next(iter(stream))
    assert ask(standin, i, 1).choices[0].message.content == standin.table.responses[i, 1]


def test_a_truncated_answer_says_that_its_length_ended_it(standin: Running) -> None:
    cut = (standin.table.cells("finish_reason") == "length") & ~standin.table.failed
    assert ask(standin, *row_where(standin.table, cut)).choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("error", "raised", "status"),
    [
        ("http_429", openai.RateLimitError, 429),
        ("http_500", openai.InternalServerError, 500),
        ("timeout", openai.InternalServerError, 504),
    ],
)
def test_infrastructure_errors_are_reproduced(standin: Running, error: str, raised, status: int) -> None:
    if not (standin.table.errors == error).any():
        pytest.skip(f"this workload has no {error}")
    with pytest.raises(raised) as caught:
        ask(standin, *row_where(standin.table, standin.table.errors == error))
    assert caught.value.status_code == status
    assert caught.value.code == error


def test_an_unknown_model_is_a_404_in_the_shape_of_openai(standin: Running) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        standin.client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "x"}])
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


def test_an_unknown_prompt_gets_a_short_generic_answer(standin: Running) -> None:
    reply = standin.client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "What is this?"}]
    )
    assert "stand-in" in reply.choices[0].message.content


def test_models_are_listed(standin: Running) -> None:
    assert [model.id for model in standin.client.models.list()] == ["gpt-4o-mini", "gpt-4o"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"model": "gpt-4o", "messages": []}'])
def test_bad_bodies_are_answered_with_400_and_do_not_stop_it(standin: Running, body: bytes) -> None:
    request = urllib.request.Request(f"{standin.url}/chat/completions", data=body, method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as reply:
        assert reply.code == 400
        assert json.loads(reply.read())["error"]["type"] == "invalid_request_error"
    assert standin.client.models.list().data


def test_the_truth_is_found_however_the_messages_are_written(standin: Running) -> None:
    request = standin.table.requests[3]
    as_parts = [
        {"role": m["role"], "content": [{"type": "text", "text": m["content"]}], "name": "x"} for m in request.messages
    ]
    known = standin.truth.find(as_parts)
    assert known is not None
    assert known.prompt_id == standin.table.prompt_ids[3]
    assert [known.answers[model].quality for model in standin.table.models] == standin.table.quality[3].tolist()
    delays = standin.table.cells("feedback_delay_s")[3].tolist()
    assert [known.answers[model].feedback_delay_s for model in standin.table.models] == delays
    assert standin.truth.find([{"role": "user", "content": "never asked"}]) is None
    assert message_key(request.messages) != message_key(request.messages[1:])


def test_it_serves_no_model_that_the_table_does_not_know(standin: Running) -> None:
    with pytest.raises(UnknownName, match="no outcomes of the model 'gpt-5'"):
        create_standin(standin.truth, ["gpt-5"])


def test_it_starts_without_the_heavy_half_of_training(outcomes: Path) -> None:
    code = (
        "import sys, router_ml_training.simulate.standin;"
        "heavy = {'sklearn', 'lightgbm', 'mlflow', 'scipy', 'onnxruntime', 'matplotlib'} & set(sys.modules);"
        "sys.exit(','.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_table_that_cannot_be_read_ends_it_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "router_ml_training.simulate.standin", "--outcomes", str(tmp_path / "no.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no such file" in done.stderr
    assert "Traceback" not in done.stderr
