"""`evaluate --offpolicy` as a person runs it: estimates near the truth on a random log, a refusal on a fixed one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from router_ml.cli import main
from router_ml.schema import Interaction
from router_ml_training.simulate.behaviours import LogOptions
from router_ml_training.simulate.outcomes import OutcomeTable, outcome_table
from router_ml_training.simulate.policies import simulate_log

N = 700


@pytest.fixture(scope="module")
def table(world: Any) -> OutcomeTable:
    drawn = world.draw(N, np.random.default_rng(21))
    frames = [
        pl.DataFrame(
            {
                "prompt_id": [f"{i:05d}" for i in range(N)],
                "prompt": drawn.prompts,
                "model": tier.model,
                "quality": drawn.quality[:, k],
                "cost_usd": [tier.cost_usd(100, int(tokens)) for tokens in drawn.tokens[:, k]],
                "input_tokens": [100] * N,
                "output_tokens": drawn.tokens[:, k],
            }
        )
        for k, tier in enumerate(world.ladder)
    ]
    return outcome_table(pl.concat(frames), {tier.name: tier.model for tier in world.ladder})


@pytest.fixture(scope="module")
def home(world: Any, config: str, table: OutcomeTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained bundle, and logs of three policies on one workload."""
    folder = tmp_path_factory.mktemp("offpolicy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "router.toml").write_text(config)
        write(folder / "train.jsonl", world.log(500))
        assert main(["train", "train.jsonl", "--no-mlflow", "--promote"]) == 0
    for policy in ("uniform", "cascade", "full"):
        options = LogOptions(audit_share=0.1)
        write(folder / f"{policy}.jsonl", simulate_log(table, policy, rng=np.random.default_rng(2), options=options))
    return folder


def write(path: Path, items: Sequence[Interaction] | Any) -> None:
    path.write_text("".join(f"{item.to_json()}\n" for item in items))


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    monkeypatch.chdir(home)

    def call(*arguments: str) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = main(["evaluate", *arguments])
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in arguments and out else out, err

    return call


def test_a_random_log_says_what_the_policy_is_worth(run: Callable[..., Any]) -> None:
    code, found, err = run("uniform.jsonl", "--offpolicy", "--quality", "0.95", "--json")
    assert (code, err, found["refused"]) == (0, "", False)
    _, known, _ = run("full.jsonl", "--quality", "0.95", "--json")
    quality, share = known["quality"]["routed"], known["operating_point"]["share"]
    assert 0.1 < share["small"] < 0.9  # a policy that routes
    assert found["share"] == pytest.approx(share, abs=0.05)
    assert found["n"] == N
    assert 0.85 * N < found["n_drawn"] < 0.95 * N  # audits were not drawn
    assert sum(found["left_out"].values()) == N - found["n_drawn"]
    for name in ("ips", "snips", "dr", "dr_clipped"):
        assert found["quality"][name]["low"] < quality < found["quality"][name]["high"]
    widths = {name: found["quality"][name]["high"] - found["quality"][name]["low"] for name in ("dr", "ips")}
    assert widths["dr"] < widths["ips"]
    assert found["cost_usd"]["dr"]["low"] < found["cost_usd"]["dr"]["value"] < found["cost_usd"]["dr"]["high"]
    assert found["quality"]["overlap"]["max_weight"] == pytest.approx(2.0)


def test_the_table_says_what_was_counted_and_what_the_model_answers_for(run: Callable[..., Any]) -> None:
    code, text, _ = run("uniform.jsonl", "--offpolicy")
    assert code == 0
    for words in (
        "estimator",
        "DR clipped",
        "USD per 1k",
        "effective sample size",
        "that no policy drew",
        "by the first",
    ):
        assert words in text
    assert "recalibrated on this log" in text
    assert "flatter" not in text


def test_a_log_without_exploration_is_refused_with_what_to_do(run: Callable[..., Any]) -> None:
    code, text, _ = run("cascade.jsonl", "--offpolicy", "--quality", "0.95")
    assert code == 1
    assert "quality refused: no support:" in text
    assert "explore those tiers, or audit a share of the requests" in text
    assert text.count("refused") >= 8
    code, found, _ = run("cascade.jsonl", "--offpolicy", "--quality", "0.95", "--json")
    assert (code, found["refused"], found["quality"]["dr"]["value"]) == (1, True, None)
    assert found["quality"]["dm"]["value"] > 0


def test_a_log_of_audits_has_nothing_drawn_and_says_how_to_measure_it(run: Callable[..., Any]) -> None:
    code, out, err = run("full.jsonl", "--offpolicy")
    assert (code, out) == (2, "")
    assert "none of the 700 requests says which tier was drawn first" in err
    assert "measure on audits, without --offpolicy" in err


def test_the_log_a_bundle_learned_from_is_named_as_such(run: Callable[..., Any], home: Path) -> None:
    lines = (home / "uniform.jsonl").read_text()
    (home / "own.jsonl").write_text(lines)
    assert main(["train", "own.jsonl", "--no-mlflow"]) == 0
    version = sorted(path.name for path in (home / "models").iterdir() if path.is_dir())[-1]
    _, text, _ = run("own.jsonl", "--offpolicy", "--bundle", version)
    assert "the figures flatter it" in text
