"""Logs that teach nothing, or something wrong: one clear message, or the constant model with a verdict saying so."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import load_bundle
from router_ml.cli import main
from router_ml.schema import Attempt, Interaction, Verdict

PRICES = "input_usd_per_mtok = 2.5\noutput_usd_per_mtok = 10.0\n"
N = 240
Items = list[Interaction]
Run = Callable[..., tuple[int, str, str]]


def said(items: Items, verdicts: Callable[[Attempt], Sequence[Verdict]], **more: Any) -> Items:
    """Return a log whose attempts have other verdicts."""
    return [
        item.model_copy(
            update={
                "attempts": tuple(
                    attempt.model_copy(update={"verdicts": tuple(verdicts(attempt)), **more})
                    for attempt in item.attempts
                )
            }
        )
        for item in items
    ]


def by(source: str, *, refusals_only: bool = False) -> Callable[[Items], Items]:
    """Return what makes a log be judged by one source."""

    def verdicts(attempt: Attempt) -> list[Verdict]:
        good = bool(attempt.verdicts[0].adequate)
        if good and refusals_only:
            return []
        return [Verdict.model_validate({"adequate": good, "source": source})]

    return lambda items: said(items, verdicts)


def contradicted(items: Items) -> Items:
    """Two people judge every answer, and say the opposite of each other, in either order."""
    rng = np.random.default_rng(0)

    def verdicts(_: Attempt) -> list[Verdict]:
        first = bool(rng.random() < 0.5)
        return [Verdict(adequate=first, source="human"), Verdict(adequate=not first, source="human")]

    return said(items, verdicts)


def one_tier(items: Items) -> Items:
    return [item.model_copy(update={"attempts": item.attempts[:1], "mode": "live"}) for item in items]


def flawless(items: Items) -> Items:
    return said(items, lambda _: [Verdict(adequate=True, source="check")])


def hopeless(items: Items) -> Items:
    return said(items, lambda _: [Verdict(adequate=False, source="check")])


def broken(items: Items) -> Items:
    return said(items, lambda _: [], error="timeout")


def drawn(small: float, large: float) -> Callable[[Items], list[dict[str, Any]]]:
    """Return what writes a log of the large tier's answers with these propensities, possible or not."""

    def rows(items: Items) -> list[dict[str, Any]]:
        plain = [json.loads(item.to_json()) for item in items]
        propensity = {"small": small, "large": large}
        return [{**row, "mode": "live", "attempts": row["attempts"][1:], "propensity": propensity} for row in plain]

    return rows


@pytest.fixture(scope="module")
def home(world: Any, config: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a champion that was learned from a good log."""
    folder: Path = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "router.toml").write_text(config)
        write(folder / "good.jsonl", world.log(400))
        assert main(["train", "good.jsonl", "--no-mlflow", "--promote"]) == 0
    return folder


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(home)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def write(path: Path, items: Sequence[Any]) -> str:
    lines = (json.dumps(item) if isinstance(item, dict) else item.to_json() for item in items)
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


REFUSED: dict[str, tuple[Callable[[Items], Sequence[Any]], str, str]] = {
    "one tier": (one_tier, "no outcome is known for the tier large in 240 interactions", "explore or audit that tier"),
    "errors only": (broken, "every call ended in an error", "record feedback"),
    "rules only": (by("rule", refusals_only=True), "none of the 240 interactions says", "record feedback"),
    "the router's own opinion": (by("verifier"), "the router's own opinion", "record feedback"),
    "impossible draws": (drawn(1.0, 0.0), "large was tried first, with probability 0", "`router-ml ingest`"),
    "no distribution": (drawn(0.5, 0.1), "sum to 0.6000, expected 1", "`router-ml ingest`"),
}


@pytest.mark.parametrize("command", ["train", "evaluate", "certify"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_teaches_nothing_is_refused_with_what_where_and_what_next(
    world: Any, home: Path, run: Run, case: str, command: str
) -> None:
    spoil, what, then = REFUSED[case]
    log = write(home / "bad.jsonl", spoil(world.log(N, 2)))
    before = sorted((home / "models").iterdir())
    code, out, err = run(command, log, *(["--no-mlflow"] if command == "train" else []))
    assert (code, out) == (2, "")
    assert err.startswith("router-ml: error: ")
    assert err.count("\n") == 1
    assert what in err
    assert then in err
    assert sorted((home / "models").iterdir()) == before


@pytest.mark.parametrize(
    ("spoil", "best"),
    [(flawless, "small"), (hopeless, "small"), (contradicted, None)],
    ids=["no failures", "failures only", "contradicting verdicts"],
)
def test_where_nothing_can_be_told_apart_the_constant_model_is_kept(
    world: Any, home: Path, run: Run, spoil: Callable[[Items], Items], best: str | None
) -> None:
    log = write(home / "bad.jsonl", spoil(world.log(N, 2)))
    code, out, err = run("train", log, "--no-mlflow", "--json")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert made["learner"] == "constant"
    assert made["verdict"].startswith("Keep the constant model")
    policy = load_bundle(home / "models" / made["version"]).policy
    assert best is None or policy.best_tier == best
    assert not any(point.judged for point in policy.frontier)
    for command in ("evaluate", "certify"):
        code, out, err = run(command, log)
        assert (code in (0, 1), err) == (True, "")
        assert out


@pytest.mark.parametrize("source", ["user", "judge"])
def test_one_source_of_labels_is_enough_where_it_says_yes_and_no(world: Any, home: Path, run: Run, source: str) -> None:
    log = write(home / "bad.jsonl", by(source)(world.log(400, 2)))
    code, out, err = run("train", log, "--no-mlflow", "--json")
    assert (code, err, json.loads(out)["learner"]) == (0, "", "linear")


def test_ten_rows_are_too_few_to_learn_from_or_to_certify(world: Any, home: Path, run: Run) -> None:
    log = write(home / "bad.jsonl", world.log(10, 2))
    code, _, err = run("train", log, "--no-mlflow")
    assert code == 2
    assert "10 interactions in 10 groups are too few to split" in err
    assert "collect more, or keep the constant model" in err
    code, _, err = run("certify", log)
    assert code == 2
    assert "known for 10 of 10 requests, and at least 110 are needed" in err


def test_a_few_impossible_draws_are_left_out(world: Any, home: Path, run: Run) -> None:
    rows = [*drawn(1.0, 0.0)(world.log(6, 3)), *(json.loads(item.to_json()) for item in world.log(N, 2))]
    log = write(home / "bad.jsonl", [{**row, "id": f"n{i}"} for i, row in enumerate(rows)])
    code, out, err = run("evaluate", log, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["n_test"] == N


@pytest.mark.parametrize("command", ["train", "evaluate", "certify"])
def test_a_tier_without_price_is_named(home: Path, run: Run, config: str, command: str) -> None:
    (home / "unpriced.toml").write_text(config.replace(PRICES, ""))
    code, out, err = run(command, "good.jsonl", "--config", "unpriced.toml")
    assert (code, out) == (2, "")
    assert "unpriced.toml: tiers[1] ('large'): no price is known for the model 'maxi'" in err
    assert "set input_usd_per_mtok and output_usd_per_mtok" in err
