"""The last steps of a run: bundle onto the shelf, gates, champion. Repeated, each does nothing twice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from router_ml.bundle import load_bundle
from router_ml.errors import BundleError, RouterError
from router_ml.shelf import DEFAULT, Shelf
from router_ml.switches import replaced_by
from router_ml_training.dataset import Dataset
from router_ml_training.drift import TRAFFIC_KINDS, drift_between
from router_ml_training.evaluation.report import ReportData
from router_ml_training.gate import GateReport, compare
from router_ml_training.gates import GateLine
from router_ml_training.pipeline import Run, champion_of, write_run
from router_ml_training.records import record_run, report_of_run
from router_ml_training.retrain.course import Course, Evaluated
from router_ml_training.retrain.gating import GateCase, passed, run_gates, why_not
from router_ml_training.retrain.job import Job
from router_ml_training.retrain.steps import Get, Step
from router_ml_training.run_record import run_key
from router_ml_training.tracking import begin_run
from router_ml_training.tracking_aliases import name_champion

__all__ = ["Finish", "Gated", "Promoted", "Registered", "made_by", "rival_of", "was_promoted"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Registered:
    """A bundle that is on the shelf; `mlflow_run_id` is None when MLflow could not be reached."""

    version: str
    mlflow_run_id: str | None


@dataclass(frozen=True, slots=True)
class Gated:
    """What the gates said, and how the challenger compares with the champion, who was `rival` then."""

    lines: tuple[GateLine, ...]
    comparison: GateReport
    rival: str


@dataclass(frozen=True, slots=True)
class Promoted:
    """Whether the challenger is in service now, or waits for a person, and why; `report` is what MLflow was told."""

    promoted: bool
    waits: bool
    reason: str
    run: Run
    report: ReportData | None


@dataclass(frozen=True, slots=True)
class Finish:
    """The last steps of a course: `version` is the bundle that it becomes, `notes` what the report says besides."""

    job: Job
    course: Course
    version: str
    started: datetime
    notes: tuple[str, ...]

    def steps(self) -> tuple[Step, ...]:
        """Return the steps from the export on."""
        gates, tracked = self.job.gates.model_dump(mode="json"), self.job.mlflow is not None
        after = ("split", "train", "evaluate", "certify", "export")
        return (
            Step("register", self._register, {"version": self.version, "tracked": tracked}, after),
            Step("gate", self._gate, {"gates": gates, "rival": rival_of(self.job.shelf, self.version)}, ("register",)),
            Step("promote", self._promote, {"promote": self.job.training.promote}, ("gate",), kept=False),
        )

    def _register(self, get: Get) -> Registered:
        """Begin the run in MLflow, and put the bundle onto the shelf, unless an interrupted run did so already."""
        job, facts = self.job, self.course.facts
        final = job.shelf.directory / self.version
        if final.exists():
            if not made_by(job.shelf, self.version, self.started):
                raise BundleError(f"{final}: another run has made this version meanwhile; run again for the next one")
            return Registered(self.version, load_bundle(final).manifest.mlflow_run_id)
        run_id = self._begun(facts)
        evaluated: Evaluated = get("evaluate")
        made = write_run(
            self.version,
            self.course.trained(get),
            evaluated.assessment,
            get("certify"),
            facts,
            job.places.making,
            now=self.started,
            description=job.description,
            git_commit=job.git_commit,
            run_id=run_id,
            profile=evaluated.latest.to_bytes(),
        )
        _shelve(made, final)
        return Registered(self.version, run_id)

    def _begun(self, facts: Dataset) -> str | None:
        if self.job.mlflow is None:
            return None
        try:
            return begin_run(self.version, run_key(self.version, facts.digest, self.started), self.job.mlflow)
        except RouterError as error:
            _log.warning("the run cannot be begun in MLflow: %s", error)
            return None

    def _run(self, get: Get) -> Run:
        registered: Registered = get("register")
        return Run(
            registered.version,
            load_bundle(self.job.shelf.path(registered.version)),
            self.course.trained(get),
            get("evaluate").assessment,
            get("certify"),
            self.course.facts,
            self.started,
            self.job.description,
            registered.mlflow_run_id,
            self.notes,
        )

    def _gate(self, get: Get) -> Gated:
        run, evaluated = self._run(get), get("evaluate")
        rival = rival_of(self.job.shelf, run.version)
        champion = champion_of(self.job.shelf, rival)
        if isinstance(champion, GateReport):
            comparison, champion = champion, None
        else:
            trained = run.trained
            comparison = compare(trained.test, trained.policy, champion, trained.ladder, quality=self.job.quality)
        case = GateCase(run, self.job.gates, champion, comparison, evaluated.before, evaluated.latest)
        lines = run_gates(case)
        self.job.shelf.keep_gates(run.version, [asdict(line) for line in lines])
        return Gated(lines, comparison, rival)

    def _promote(self, get: Get) -> Promoted:
        """Record the run, then switch; a version that was in service once is not put there again by itself."""
        job, gated = self.job, get("gate")
        evaluated: Evaluated = get("evaluate")
        drift = drift_between(evaluated.before, evaluated.latest, kinds=TRAFFIC_KINDS)
        run = replace(self._run(get), gates=gated.lines, drift=tuple(drift.to_rows()))
        report = self._record(run, gated.lines)
        if not passed(gated.lines):
            return Promoted(False, False, why_not(gated.lines), run, report)
        reason = gated.comparison.reason
        before = was_promoted(job.shelf, run.version)
        if not before and job.training.promote == "manual":
            wanted = f"{reason}; it waits until MLflow's alias 'champion' is moved to it (`router-ml follow`)"
            return Promoted(False, True, wanted, run, report)
        if not before:
            job.shelf.promote(run.version, reason=reason, now=job.now, only_over=gated.rival)
        in_service = job.shelf.champion() == run.version
        if in_service and job.mlflow is not None:
            name_champion(run.version, job.shelf, job.mlflow)
        said = reason if in_service else "it was in service, and was replaced since"
        return Promoted(in_service, False, said, run, report)

    def _record(self, run: Run, lines: Sequence[GateLine]) -> ReportData | None:
        if self.job.mlflow is None:
            return None
        self.job.progress("recording the run in MLflow")
        report = report_of_run(run)
        record_run(run, self.job.training, self.job.mlflow, self.job.shelf, report=report, gates=lines)
        return report


def made_by(shelf: Shelf, version: str, started: datetime) -> bool:
    """Return whether a version on the shelf is whole, and was made by the run that was begun at that time."""
    try:
        return load_bundle(shelf.directory / version).manifest.created == started
    except BundleError:
        return False


def rival_of(shelf: Shelf, version: str) -> str:
    """Return whom a version has to beat: the champion, or, where it is that itself, whom it replaced.

    Raises:
        BundleCorrupt: When the champion file names something that is not on the shelf.
    """
    champion = shelf.champion() or DEFAULT
    if champion != version:
        return champion
    replaced = replaced_by(shelf.switches()).get(version) or DEFAULT
    return replaced if replaced == DEFAULT or (shelf.directory / replaced).exists() else version


def was_promoted(shelf: Shelf, version: str) -> bool:
    """Return whether a version is or was in service, by whomever; a switch that a crash prevented does not count.

    The record is written before the pointer: only who was replaced has certainly been there.
    """
    if shelf.champion() == version:
        return True
    return any(one.before == version and one.action in ("promote", "rollback") for one in shelf.switches())


def _shelve(made: Path, final: Path) -> None:
    try:
        made.rename(final)
    except OSError as error:
        raise BundleError(f"{final}: cannot be written ({error.strerror}); check the folder and its rights") from error
