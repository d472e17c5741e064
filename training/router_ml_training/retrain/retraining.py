"""One retraining from beginning to end: under the lock, from what an interrupted run left, to a record of it all."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.errors import DataError, UsageError
from router_ml_training.assessment import headline
from router_ml_training.corpus import Corpus, read_corpus
from router_ml_training.evaluation.report import ReportData, summary_table
from router_ml_training.pipeline import next_version
from router_ml_training.reading import ripe_before
from router_ml_training.records import record_kept, report_of_run
from router_ml_training.retrain.competing import competitors, settings_key
from router_ml_training.retrain.course import Course
from router_ml_training.retrain.finishing import Finish, Gated, Promoted, made_by, rival_of
from router_ml_training.retrain.gating import notes_of, passed
from router_ml_training.retrain.job import Job
from router_ml_training.retrain.lock import held
from router_ml_training.retrain.results import private_folder
from router_ml_training.retrain.state import Begun, LastCompetition, RunState, read_state, write_state
from router_ml_training.retrain.steps import StepLine, Steps, hashed

__all__ = ["Outcome", "Plan", "plan", "retrain"]

F64: TypeAlias = NDArray[np.float64]

# An interrupted run that is older has nothing to give: its log is out of date.
_TAKEN_UP = timedelta(hours=24)
# Results of the last run and of the one before are kept.
_RUNS = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a retraining: a record for machines, a text for people; `report` is None when nothing was done.

    `kept` says that the champion stays, and nothing waits for a person.
    """

    record: Mapping[str, Any]
    text: str
    kept: bool
    report: ReportData | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a retraining would do: rows read, steps that would run, who would compete and why."""

    n_rows: int
    steps: tuple[str, ...]
    learners: tuple[str, ...]
    why: str


def retrain(job: Job, *, draw: bool = False) -> Outcome:
    """Run every step whose inputs have changed since the last run; take up one that was interrupted.

    Args:
        job: What is asked for.
        draw: Draw the report's pictures.

    Raises:
        DataError: When there is too little to learn from.
        RouterError: When another run is at work, or something cannot be read or written; what is done is kept.
    """
    private_folder(job.places.directory)
    with held(job.places.lock, now=job.now):
        _clear(job)
        state = read_state(job.places.state)
        begun = _begun(job, state)
        if job.force:
            state = state.model_copy(update={"salt": job.now.isoformat(), "last": None, "competition": None})
        state = state.model_copy(update={"begun": begun})
        write_state(job.places.state, state)
        try:
            return _retrain(job, state, begun, draw=draw)
        except UsageError:
            # The log has to change before a rerun can do better: it should see what comes.
            write_state(job.places.state, read_state(job.places.state).model_copy(update={"begun": None}))
            raise


def plan(job: Job) -> Plan:
    """Return what a retraining would do; nothing is written but temporary files."""
    places = job.places
    state = read_state(places.state) if places.state.exists() else RunState()
    begun = _begun(job, state)
    with tempfile.TemporaryDirectory(prefix="router-ml-") as folder:
        cache = Path(folder) / "parts"
        if places.parts.is_dir():
            shutil.copytree(places.parts, cache, copy_function=_linked)
        corpus = _read(job, begun, cache)
        if job.force:
            state = RunState(salt=job.now.isoformat())
        if _is_known(job, state, corpus) and state.finished is not None:
            return Plan(corpus.n_rows, (), (), f"nothing new since {_shown(state.finished)}")
        begun = _planned(job, state, begun, corpus)
        steps = _steps(job, begun, corpus, state.salt)
        return Plan(corpus.n_rows, steps.to_run(), begun.learners, begun.why)


def _retrain(job: Job, state: RunState, begun: Begun, *, draw: bool) -> Outcome:
    clock = time.perf_counter()
    corpus = _read(job, begun, job.places.parts)
    seconds = round(time.perf_counter() - clock, 3)
    if _is_known(job, state, corpus):
        write_state(job.places.state, state.model_copy(update={"begun": None}))
        if job.mlflow is not None:
            record_kept(job.mlflow, job.shelf)
        return _nothing_new(state)
    begun = _planned(job, state, begun, corpus)
    state = state.model_copy(update={"begun": begun})
    write_state(job.places.state, state)
    steps = _steps(job, begun, corpus, state.salt)
    first, *rest = steps.run()
    lines = (replace(first, seconds=seconds), *rest)
    promoted: Promoted = steps.get("promote")
    gated: Gated = steps.get("gate")
    report = promoted.report or report_of_run(promoted.run, draw=draw)
    outcome = _outcome(begun, lines, gated, promoted, report)
    kept = (tuple(sorted(steps.kept)), *state.kept)[:_RUNS]
    job.places.results.keep({pair for run in kept for pair in run})
    finished = RunState(
        last=begun.model_copy(update={"rival": gated.rival}),
        finished=job.now,
        salt=state.salt,
        competition=_competition(job, state, begun, corpus.facts().ts, promoted, gated),
        kept=kept,
        record=dict(outcome.record),
        text=outcome.text,
    )
    write_state(job.places.state, finished)
    return outcome


def _begun(job: Job, state: RunState) -> Begun:
    """Return the interrupted run that asked for the same, or a new one."""
    before = state.begun
    if before is None or job.force or before.request != job.request or job.now - before.started > _TAKEN_UP:
        return Begun(request=job.request, started=job.now)
    return before


def _read(job: Job, begun: Begun, cache: Path) -> Corpus:
    # Later ones wait for the next run, also those whose clock is ahead.
    before = ripe_before(begun.started, job.training.maturity_s) or begun.started
    corpus = read_corpus(
        job.logs,
        job.ladder,
        cache,
        since=begun.started - job.since if isinstance(job.since, timedelta) else job.since,
        ripe_before=before,
        executor=job.engine.executor,
        progress=job.progress,
    )
    job.engine.executor.close()  # nothing is read after this: its processes would only take memory
    if corpus.n_rows == 0:
        raise DataError(f"{job.description}: no interaction to learn from")
    return corpus


def _is_known(job: Job, state: RunState, corpus: Corpus) -> bool:
    last = state.last
    if last is None or last.inputs != _inputs(job, state, corpus):
        return False
    # Who lost against one champion may still win against another.
    return bool(state.record.get("promoted")) or last.rival == rival_of(job.shelf, last.version)


def _inputs(job: Job, state: RunState, corpus: Corpus) -> str:
    return hashed([corpus.digest, job.settings, dict(job.everything(state.salt))])


def _planned(job: Job, state: RunState, begun: Begun, corpus: Corpus) -> Begun:
    """Return the run with its version and its learners.

    A run that was interrupted over the same log keeps those it had. Where only gates or the way of promotion have
    changed, the last bundle goes through the gates again.
    """
    inputs = _inputs(job, state, corpus)
    made_of = hashed([corpus.digest, job.settings_of_bundle, dict(job.everything(state.salt))])
    if begun.made_of == made_of and (_ours(job, begun) or not _taken(job, begun)):
        return begun.model_copy(update={"inputs": inputs})
    if state.last is not None and state.last.made_of == made_of and _ours(job, state.last):
        return state.last.model_copy(update={"inputs": inputs, "request": begun.request})
    learners, why = competitors(state.competition, corpus.facts().ts, _settings_key(job), job.training)
    version = next_version(job.shelf, begun.started)
    found = {"inputs": inputs, "made_of": made_of, "version": version, "learners": learners, "why": why}
    return begun.model_copy(update=found)


def _taken(job: Job, begun: Begun) -> bool:
    return (job.shelf.directory / begun.version).exists()


def _ours(job: Job, begun: Begun) -> bool:
    return _taken(job, begun) and made_by(job.shelf, begun.version, begun.started)


def _steps(job: Job, begun: Begun, corpus: Corpus, salt: str) -> Steps:
    course = Course(job, corpus, started=begun.started, learners=begun.learners)
    finish = Finish(job, course, begun.version, begun.started, (begun.why,))
    return Steps(
        (*course.steps(), *finish.steps()),
        job.places.results,
        everything=job.everything(salt),
        started=lambda name: job.progress(f"step: {name}"),
    )


def _competition(
    job: Job, state: RunState, begun: Begun, ts: F64, promoted: Promoted, gated: Gated
) -> LastCompetition | None:
    ok = passed(gated.lines)
    if begun.learners != job.training.learners:
        return None if state.competition is None else state.competition.model_copy(update={"passed": ok})
    winner = promoted.run.trained.learner
    until, key = float(ts.max()), _settings_key(job)
    return LastCompetition(n_rows=len(ts), until=until, settings=key, winner=winner, at=begun.started, passed=ok)


def _settings_key(job: Job) -> str:
    return settings_key(job.training, job.tiers, job.everything("")["libraries"], job.sources)


def _outcome(
    begun: Begun, lines: tuple[StepLine, ...], gated: Gated, promoted: Promoted, report: ReportData
) -> Outcome:
    run = promoted.run
    record = {
        "version": run.version,
        "learner": run.trained.learner,
        "promoted": promoted.promoted,
        "waits": promoted.waits,
        "nothing_new": False,
        "reason": promoted.reason,
        "gate": asdict(gated.comparison),
        "gates": [asdict(line) for line in gated.lines],
        "steps": [asdict(line) for line in lines],
        "learners": list(begun.learners),
        "why_these_learners": begun.why,
        "n_interactions": len(run.dataset),
        "mlflow_run_id": run.mlflow_run_id,
        **headline(run.assessment),
    }
    gates = "\n".join(notes_of(gated.lines))
    text = f"{summary_table(report)}\n\n{gates}\n\n{run.version} {_verb(promoted)}: {promoted.reason}"
    return Outcome(record, text, not (promoted.promoted or promoted.waits), report)


def _nothing_new(state: RunState) -> Outcome:
    record = {**state.record, "nothing_new": True, "steps": []}
    last = state.text.rstrip().rsplit("\n", 1)[-1]
    since = _shown(state.finished) if state.finished is not None else "the last run"
    kept = not (record.get("promoted") or record.get("waits"))
    return Outcome(record, f"nothing new since {since}; {last}", kept)


def _verb(promoted: Promoted) -> str:
    if promoted.promoted:
        return "promoted"
    return "passed its gates" if promoted.waits else "not promoted; the champion stays"


def _shown(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


def _linked(source: str, to: str) -> None:
    Path(to).symlink_to(Path(source).resolve())


def _clear(job: Job) -> None:
    """Remove what a killed run was writing; we hold the lock, so nobody is writing it now."""
    job.places.results.sweep()
    shutil.rmtree(job.places.making, ignore_errors=True)
