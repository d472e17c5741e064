"""The gates: each passes what it should, and stops or warns of what it should not let by."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import load_bundle
from router_ml.shelf import Shelf
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.report import Slice
from router_ml_training.gate import GateReport, compare
from router_ml_training.gates import GateLine
from router_ml_training.pipeline import Run, train_bundle
from router_ml_training.profile import profile_of
from router_ml_training.retrain.gating import GATES, GateCase, notes_of, passed, run_gates, why_not
from router_ml_training.settings import GatesSettings, TrainingSettings

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SETTINGS = TrainingSettings(learners=("linear",))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def run(world: Any, shelf: Shelf) -> Run:
    data = world.dataset(1500)
    return train_bundle(data, world.ladder, SETTINGS, shelf, quality=0.97, now=NOW, description="1500 made up")


@pytest.fixture(scope="module")
def champion(world: Any, shelf: Shelf, run: Run) -> Run:
    data = world.dataset(500, 4)
    return train_bundle(data, world.ladder, SETTINGS, shelf, quality=0.97, now=NOW, description="500 made up")


@pytest.fixture
def case(run: Run, champion: Run) -> GateCase:
    theirs, trained = load_bundle(champion.bundle.path), run.trained
    comparison = compare(trained.test, trained.policy, theirs, trained.ladder, quality=0.97)
    before, latest = (profile_of(run.dataset.rows(rows)) for rows in (trained.split.train, trained.split.test))
    return GateCase(run, GatesSettings(), theirs, comparison, before, latest)


def say(name: str, case: GateCase) -> GateLine:
    return GATES.load(name)(case)


def test_a_good_challenger_passes_every_gate_that_is_required(case: GateCase) -> None:
    lines = run_gates(case)
    assert [line.name for line in lines] == list(GATES)
    assert passed(lines), notes_of(lines)
    assert why_not(lines) == ""
    assert {line.name for line in lines if not line.required} == {"certificate", "off_policy", "drift"}


def test_a_gate_that_is_not_required_only_warns(case: GateCase) -> None:
    small = replace(case, limits=GatesSettings(max_mb=1e-6, required=("parity",)))
    lines = run_gates(small)
    assert passed(lines)
    assert any(note.startswith("gate size warns: ") for note in notes_of(lines))
    lines = run_gates(replace(case, limits=GatesSettings(max_mb=1e-6)))
    assert not passed(lines)
    assert "MB" in why_not(lines)
    assert any(note.startswith("gate size FAILED: ") for note in notes_of(lines))


def test_certificate_wants_the_quality_that_is_asked_for_or_the_champions(case: GateCase) -> None:
    found = case.run.certification.certificate
    assert found is not None
    proven = found.point.quality
    at = replace(case.run.assessment, quality=proven)
    assert say("certificate", replace(case, run=replace(case.run, assessment=at), champion=None)).passed
    below = replace(case.run.assessment, quality=proven - 0.01)
    bolder = replace(case, run=replace(case.run, assessment=below), champion=None)
    line = say("certificate", bolder)
    assert not line.passed
    assert f"certified from quality {proven:g} upwards only" in line.detail
    assert case.champion is not None
    record = {"beyond_constant": True, "quality": proven}
    manifest = case.champion.manifest.model_copy(update={"certificate": record})
    beside_champion = replace(bolder, champion=replace(case.champion, manifest=manifest))
    assert say("certificate", beside_champion).passed
    nothing = replace(case.run.certification, certificate=None, reason="too few audits")
    line = say("certificate", replace(case, run=replace(case.run, certification=nothing)))
    assert (line.passed, line.value) == (False, None)
    assert "too few audits" in line.detail


def test_saving_says_how_much_more_is_saved_on_the_same_rows(case: GateCase) -> None:
    line = say("saving", case)
    assert line.passed
    assert "points of the bill against it" in line.detail
    assert case.comparison.spent is not None
    assert line.value == pytest.approx(-case.comparison.spent.mean)
    worse = GateReport(False, "worse than router-1 on 300 held-out rows", "router-1", 300)
    line = say("saving", replace(case, comparison=worse))
    assert (line.passed, line.detail) == (False, worse.reason)


def test_off_policy_refuses_a_log_without_propensities(case: GateCase) -> None:
    line = say("off_policy", case)
    assert not line.passed
    assert line.detail.startswith("no off-policy estimate: ")


@pytest.mark.parametrize(("shift", "agrees"), [(0.0, True), (0.4, False)])
def test_off_policy_compares_the_log_with_held_out_outcomes(case: GateCase, shift: float, agrees: bool) -> None:
    trained = case.run.trained
    data, n = trained.test.dataset, len(trained.test.dataset)
    action = np.random.default_rng(0).integers(0, 2, n)
    quality = data.quality.copy()
    logged = replace(data, action=action, propensity=np.full((n, 2), 0.5))
    audited = np.arange(n) < n // 2
    # Whoever was not audited did worse than the audits say: their outcomes are not those of the same tiers.
    quality[~audited] = np.clip(quality[~audited] - shift, 0.0, 1.0)
    quality[~audited, 1 - action[~audited]] = np.nan
    test = replace(trained.test, dataset=replace(logged, quality=quality))
    line = say("off_policy", replace(case, run=replace(case.run, trained=replace(trained, test=test))))
    assert line.passed is agrees
    assert ("agrees with" if agrees else "contradicts") in line.detail


def test_calibration_looks_at_the_worst_tier_beyond_noise(case: GateCase) -> None:
    assessment = case.run.assessment
    off = {**assessment.calibration, "large": {"ece": Figure(0.3, 0.2, 0.4)}}
    line = say("calibration", replace(case, run=replace(case.run, assessment=replace(assessment, calibration=off))))
    assert (line.passed, line.value, line.limit) == (False, 0.3, 0.1)
    assert "'large' is off by 0.300" in line.detail
    noisy = {**assessment.calibration, "large": {"ece": Figure(0.3, 0.05, 0.4)}}
    line = say("calibration", replace(case, run=replace(case.run, assessment=replace(assessment, calibration=noisy))))
    assert line.passed


def test_slices_look_at_the_worst_slice_beyond_noise(case: GateCase) -> None:
    saved = Figure(0.5)
    lost = (Slice("code", 200, Figure(0.7, 0.6, 0.8), saved), Slice("short prompts", 20, Figure(0.1, 0.0, 0.2), saved))
    assessment = replace(case.run.assessment, slices=lost)
    line = say("slices", replace(case, run=replace(case.run, assessment=assessment)))
    assert not line.passed
    assert line.value == pytest.approx(0.3)
    assert line.limit == pytest.approx(0.13)
    assert "'code' loses 30.0 % (at least 20.0 %)" in line.detail


def test_parity_fails_where_a_decision_flipped(case: GateCase) -> None:
    assert say("parity", case).passed
    trained = case.run.trained
    flipped = replace(trained, parity=replace(trained.parity, n_flipped=1))
    assert not say("parity", replace(case, run=replace(case.run, trained=flipped))).passed


def test_latency_is_measured_against_a_yardstick_and_the_champion(case: GateCase) -> None:
    line = say("latency", case)
    assert line.passed
    assert line.value is not None
    assert 0.5 < line.value < 150.0
    assert "the champion's" in line.detail
    impatient = GatesSettings(max_decision_yardsticks=0.01)
    alone = say("latency", replace(case, champion=None, limits=impatient))
    assert not alone.passed
    # Slow, but no slower than what is in service.
    assert say("latency", replace(case, limits=impatient.model_copy(update={"max_slowdown": 5.0}))).passed


def test_drift_names_what_has_changed(case: GateCase, world: Any) -> None:
    alike = case.run.dataset
    halves = (profile_of(alike.rows(np.arange(start, len(alike), 2))) for start in (0, 1))
    assert say("drift", replace(case, **dict(zip(("before", "latest"), halves, strict=True)))).passed
    other = world.dataset(600, 5)
    longer = replace(other, dense=other.dense + np.float32(3.0))
    line = say("drift", replace(case, latest=profile_of(longer)))
    assert not line.passed
    assert line.value is not None
    assert line.value > 5
    assert "differ from those learned from in " in line.detail


def test_size_counts_every_file_of_the_bundle(case: GateCase) -> None:
    line = say("size", case)
    folder: Path = case.run.bundle.path
    assert line.value == pytest.approx(sum(len(file.read_bytes()) for file in folder.iterdir()) / 1e6)
