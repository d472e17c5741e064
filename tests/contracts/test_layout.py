"""The house: files short, each with a first line that says what it is for, and each with a test of its name."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

MAX_LINES = 400
# Modules without a test file of their own name: the tests that exercise them, as parts of something larger.
TESTED_ELSEWHERE: dict[str, tuple[str, ...]] = {
    # One suite runs on every learner; what they share is tested through them.
    "tests/training/learners/test_contract.py": (
        "router_ml_training.learners.constant",
        "router_ml_training.learners.gbdt",
        "router_ml_training.learners.length",
        "router_ml_training.learners.linear",
        "router_ml_training.learners.protocol",
    ),
    # The parts of a made-up request and of its answers: seen in the workload, and nowhere else.
    "tests/training/test_simulate_workload.py": (
        "router_ml_training.simulate.bodies",
        "router_ml_training.simulate.company",
        "router_ml_training.simulate.timetable",
        "router_ml_training.simulate.truth",
        "router_ml_training.simulate.voice",
    ),
    "tests/training/test_simulate_policies.py": ("router_ml_training.simulate.behaviours",),
    "tests/training/test_sources_native.py": ("router_ml_training.sources.files", "router_ml_training.sources.rows"),
    "tests/training/test_evaluation_calibration.py": ("router_ml_training.evaluation.calibration_metrics",),
    "tests/training/test_evaluation_metrics.py": (
        "router_ml_training.evaluation.baselines",
        "router_ml_training.evaluation.hull",
        "router_ml_training.evaluation.outcomes",
    ),
    # Pictures and the table of strategies: seen in the page.
    "tests/training/test_evaluation_report.py": (
        "router_ml_training.evaluation.canvas",
        "router_ml_training.evaluation.strategies",
    ),
    # One file for the commands that learn and measure: they share their arguments and their workbench.
    "tests/training/test_commands_learn.py": (
        "router_ml_training.commands.evaluate",
        "router_ml_training.commands.report",
        "router_ml_training.commands.train",
        "router_ml_training.commands.workbench",
    ),
    # What a run shows, and its models: seen in a real MLflow.
    "tests/training/test_tracking.py": (
        "router_ml_training.tracking_content",
        "router_ml_training.tracking_flavours",
    ),
    # Thin endpoints over one service: asked over HTTP.
    "tests/serving/test_app.py": (
        "router_ml_serving.api",
        "router_ml_serving.api.admin",
        "router_ml_serving.api.models",
        "router_ml_serving.service",
    ),
    "tests/serving/test_bad_input.py": ("router_ml_serving.problems",),
    "tests/serving/test_chat.py": ("router_ml_serving.exchange",),
    # What the chat endpoints share: asked through each of them.
    "tests/serving/test_messages.py": ("router_ml_serving.api.answering",),
}


def test_a_file_is_short_and_says_what_it_is_for(module: Any) -> None:
    text = module.path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    said = ast.get_docstring(ast.parse(text)) or ""
    assert text.startswith('"""'), f"{module.name}: no docstring on the first line"
    assert said.splitlines()[0].rstrip().endswith((".", ":")), f"{module.name}: not a sentence: {said[:60]!r}"


def test_a_test_file_is_short(root: Path) -> None:
    long = [path for path in (root / "tests").rglob("*.py") if len(path.read_text().splitlines()) > MAX_LINES]
    assert long == []


def test_every_module_has_a_test_file_that_names_it(modules: list[Any], root: Path) -> None:
    elsewhere = {name for names in TESTED_ELSEWHERE.values() for name in names}
    untested = {module.name for module in modules if _needs_a_test(module) and not _named(module.name, _stems(root))}
    assert sorted(untested - elsewhere) == []


def test_the_exceptions_are_still_needed(modules: list[Any], root: Path) -> None:
    known = {module.name for module in modules}
    elsewhere = [name for names in TESTED_ELSEWHERE.values() for name in names]
    assert [name for name in elsewhere if name not in known or _named(name, _stems(root))] == []
    assert [path for path in TESTED_ELSEWHERE if not (root / path).is_file()] == []
    assert len(elsewhere) == len(set(elsewhere))


def test_no_package_hides_among_the_tests(root: Path) -> None:
    assert list((root / "tests").rglob("__init__.py")) == []


def _needs_a_test(module: Any) -> bool:
    # A package that only says what it is has nothing to test.
    body = ast.parse(module.path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) for node in body)


def _stems(root: Path) -> set[str]:
    return {path.stem.removeprefix("test_") for path in (root / "tests").rglob("test_*.py")}


def _named(name: str, stems: set[str]) -> bool:
    """Whether a test is called after the module, alone or with the packages it is in, or after its package as a whole.

    `features/scan.py` is covered by test_scan, test_features_scan, test_scan_words and test_features.
    """
    *packages, module = name.split(".")[1:]
    wanted = {module, "_".join((*packages, module)), *packages}
    return bool(wanted & stems) or any(stem.startswith(f"{module}_") for stem in stems)
