"""The quality benchmark: its registry, what it does with failures, and the rivals it measures against."""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.sparse import csr_array

from benchmarks.quality import baselines, run
from benchmarks.quality.baselines import keyword_count, neighbour_means
from benchmarks.quality.controls import with_random_features
from benchmarks.quality.figures import Panel, Swept, drawn_at
from benchmarks.quality.result import Result, lower_end, row_of
from benchmarks.quality.summary import summary
from benchmarks.results_file import Row, missed, read_rows
from router_ml.errors import DataError
from router_ml.schema import Attempt, Interaction, RequestBody, Verdict
from router_ml_training.dataset import build_dataset
from router_ml_training.evaluation.curves import share_sweep
from router_ml_training.evaluation.metrics import METRICS, Figure
from router_ml_training.evaluation.outcomes import Outcomes

ISSUE = ("A", "A2", "B", "C", "D", "E", "F", "HB", "G", "G2", "H", "I", "J", "K", "L", "M", "N", "steering")


def dataset_of(*texts):
    def attempt(tier, adequate):
        return Attempt(tier=tier, verdicts=(Verdict(adequate=adequate, source="check"),))

    rows = [
        Interaction(
            id=f"row {i}",
            ts="2026-01-01T00:00:00Z",
            request=RequestBody(messages=({"role": "user", "content": text},)),
            mode="audit",
            attempts=(attempt("small", i % 2 == 0), attempt("large", True)),
        )
        for i, text in enumerate(texts)
    ]
    return build_dataset(rows, ("small", "large"))


def test_every_protocol_of_the_issue_has_a_target():
    assert tuple(run.PROTOCOLS) == ISSUE


@pytest.mark.parametrize("target", sorted(set(run.PROTOCOLS.values())))
def test_a_target_is_a_function_of_a_folder_and_a_number_of_draws(target):
    module, _, name = target.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"{module} does not exist"
    tree = ast.parse(Path(spec.origin).read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    arguments = functions[name].args
    assert [one.arg for one in arguments.args] == ["folder"]
    assert [one.arg for one in arguments.kwonlyargs] == ["draws"]


def test_a_target_of_several_protocols_runs_once_and_the_longest_starts_first():
    every = run.targets(None)
    assert len(every) == len(set(every)) == len(set(run.PROTOCOLS.values()))
    assert run.targets(["F", "D"]) == ["benchmarks.quality.cascades:run"]
    assert run.targets(["K", "D"])[0] == "benchmarks.quality.cascades:run"
    known = {target.partition(":")[0].rpartition(".")[2] for target in every}
    assert known >= set(run.LONGEST_FIRST)


def finished(monkeypatch, *found):
    monkeypatch.setattr(run, "outcomes_of", lambda *_, **__: iter([(target, one, 1.0) for target, one in found]))


def a_result(value):
    return Result(("K",), "K: a table", (Row("K", "distance", value, None, None, 10, 0.02, None, "lower"),))


def test_a_missed_goal_is_shown_and_is_no_error(tmp_path, monkeypatch, capsys):
    finished(monkeypatch, ("benchmarks.quality.controls:run", a_result(0.5)))
    out = tmp_path / "results.json"
    assert run.main(["--outcomes", str(tmp_path), "--protocol", "K", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "K: a table" in printed
    assert "missed" in printed
    assert [one["value"] for one in read_rows(out)] == [0.5]


def test_a_protocol_that_cannot_run_is_an_error_and_the_others_are_kept(tmp_path, monkeypatch, capsys):
    broken = ("benchmarks.quality.loop:run", DataError("no table"))
    finished(monkeypatch, broken, ("benchmarks.quality.controls:run", a_result(0.01)))
    out = tmp_path / "results.json"
    assert run.main(["--outcomes", str(tmp_path), "--out", str(out)]) == 1
    assert "not measured: N: no table" in capsys.readouterr().out
    assert [one["protocol"] for one in read_rows(out)] == ["K"]


def test_the_summary_holds_goals_only_in_the_order_of_the_protocols():
    first = Result(("B",), "", (Row("B", "share", 0.9, 0.8, 0.95, 10, 0.88, 0.93), Row("B", "g", 0.2, None, None, 10)))
    second = Result(("A",), "", (Row("A", "APGR", 0.6, None, None, 10, 0.69, 0.73),))
    lines = summary([first, second], ["A", "B"]).splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["A:", "B:"]
    assert lines[0].endswith("missed")
    assert "0.800 to 0.950" in lines[1]
    assert summary([], ["A"]) == "no goal was measured"


def test_a_must_on_the_lower_end_is_judged_there():
    figure = Figure(0.02, -0.01, 0.05)
    assert missed(row_of("H", "gain", figure, 10, must=0.0)) is False
    row = lower_end("H", "gain", figure, 10, must=0.0)
    assert (row.metric, row.value, missed(row)) == ("gain, lower end", -0.01, True)


def test_neighbours_are_those_of_a_brute_force_search():
    rng = np.random.default_rng(0)
    rows = rng.random((60, 12))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    quality = rng.random((40, 3))
    found = neighbour_means(csr_array(rows[:40]), quality, csr_array(rows[40:]), 5)
    for asked, mean in zip(rows[40:], found, strict=True):
        nearest = np.argsort(-(rows[:40] @ asked))[:5]
        np.testing.assert_allclose(mean, quality[nearest].mean(axis=0))


def test_the_factorisation_has_the_right_gradient_and_finds_what_decides(monkeypatch):
    rng = np.random.default_rng(1)
    embedded = rng.normal(size=(400, 6))
    quality = np.stack((embedded[:, 0] > 0, embedded[:, 1] > 0, np.ones(400)), axis=1).astype(float)
    seen = {}

    def spied(objective, start, **options):
        seen["error"] = check_grad(lambda x: objective(x)[0], lambda x: objective(x)[1], start)
        return minimize(objective, start, **options)

    minimize = baselines.minimize
    monkeypatch.setattr(baselines, "minimize", spied)
    scores = baselines._factorise(embedded, quality, 1e-4, 0).scores(embedded)
    assert seen["error"] < 1e-4
    told = quality[:, 0] != quality[:, 1]
    right = (scores[:, 0] > scores[:, 1]) == (quality[:, 0] > quality[:, 1])
    assert right[told].mean() > 0.95


def test_key_words_are_counted_once_each():
    dataset = dataset_of("What is the capital of Peru?", "Prove the theorem; prove it, or explain why not")
    assert keyword_count(dataset).tolist() == [0.0, 5.0]


def test_random_features_have_the_shape_of_the_real_ones_and_nothing_else():
    dataset = dataset_of(*(f"question number {i} about things" for i in range(40)))
    before = dataset.text.toarray()
    spoiled = with_random_features(dataset, np.random.default_rng(0))
    np.testing.assert_array_equal(dataset.text.toarray(), before)
    assert spoiled.dense.shape == dataset.dense.shape
    assert spoiled.text.shape == dataset.text.shape
    assert dataset.text.nnz * 0.99 <= spoiled.text.nnz <= dataset.text.nnz
    assert len(np.intersect1d(spoiled.text.indices, dataset.text.indices)) < 0.05 * dataset.text.nnz
    np.testing.assert_array_equal(spoiled.quality, dataset.quality)


def test_figures_of_the_tiers_alone_are_drawn_like_those_of_routers():
    rng = np.random.default_rng(0)
    outcomes = Outcomes((rng.random((200, 3)) < (0.4, 0.6, 0.7)).astype(float), np.tile((1.0, 2.0, 4.0), (200, 1)))
    sweep = share_sweep(rng.random(200), rng=rng)
    drawn = drawn_at(METRICS["zero_aiq"], Panel(np.arange(200), outcomes, (Swept("x", (), sweep),)), 200, draws=50)
    points = sweep.trace(outcomes, np.ones((1, 200)))
    assert drawn.value == pytest.approx(float(METRICS["zero_aiq"].values(points)[0]))
    assert drawn.draws.shape == (50,)
    assert drawn.draws.std() > 0
