"""The steps from a log to an exported model: read, label, split, train, evaluate, certify, export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from router_ml_training.assessment import Assessment
from router_ml_training.corpus import Corpus
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.certificate_record import Certification
from router_ml_training.learning import Fitted, SplitBy, Trained, export, fit, score, split_log, trained_from
from router_ml_training.pipeline import certify_run, measure_run, some, windows
from router_ml_training.profile import Profile
from router_ml_training.retrain.job import Job
from router_ml_training.retrain.learned import Learned, Marks, learned_from, marks_of
from router_ml_training.retrain.steps import Get, Step
from router_ml_training.splits import Split

__all__ = ["Course", "Evaluated", "Labelled"]

# Rows that the parity gate replays: more show nothing more.
_REPLAYED = 10_000


@dataclass(frozen=True, slots=True)
class Labelled:
    """What the log says: rows, how many of them say something of each tier, and the time they span."""

    n_rows: int
    known: Mapping[str, int]
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the policy is worth on held-out rows, and what the models said of them.

    `before` sums up the window that was learned from, `latest` the held-out one and what the model expects of it.
    """

    assessment: Assessment
    marks: Marks
    before: Profile
    latest: Profile


class Course:
    """One run over one corpus; rows are gathered when a step needs them, and shared by those that do.

    Args:
        job: What is asked for.
        corpus: What was read.
        started: When the run was begun.
        learners: Who competes.
    """

    def __init__(self, job: Job, corpus: Corpus, *, started: datetime, learners: Sequence[str]) -> None:
        self.job = job
        self.corpus = corpus
        self.started = started
        self.learners = tuple(learners)
        self._facts: Dataset | None = None
        self._test: Dataset | None = None

    @property
    def facts(self) -> Dataset:
        """All rows, without words."""
        if self._facts is None:
            self._facts = self.corpus.facts()
        return self._facts

    def steps(self) -> tuple[Step, ...]:
        """Return the steps up to the export; what follows touches the shelf."""
        of = self.job.training
        seed = {"seed": of.seed}
        shares = {"tune": of.tune_share, "test": of.test_share, "certify": of.certify_share}
        terms = {"loss": of.certify_loss, "confidence": of.certify_confidence}
        training = {"learners": list(self.learners), "tiers": self.job.tiers, "engine": of.engine}
        return (
            Step("read", lambda _: self.corpus.digest, {"digest": self.corpus.digest}),
            Step("label", self._label, {}, ("read",)),
            Step("split", self._split, {**seed, **shares, **terms}, ("label",)),
            Step("train", self._train, {**seed, **training}, ("split",)),
            Step("evaluate", self._evaluate, {**seed, "quality": self.job.quality}, ("split", "train")),
            Step("certify", self._certify, {**seed, **terms, "slice": of.certify_slice_loss}, ("split", "train")),
            Step("export", self._export, seed, ("train",)),
        )

    def trained(self, get: Get) -> Trained:
        """Return the finished run, its training rows without words, its test rows with them."""
        split, by = get("split")
        graph, parity = get("export")
        marks: Marks = get("evaluate").marks
        test = marks.on(self._test_rows(split))
        return trained_from(self._fitted(get), self.job.ladder, split, by, graph, parity, test, None)

    def _label(self, _: Get) -> Labelled:
        facts = self.facts
        known = (~np.isnan(facts.quality)).sum(axis=0)
        counts = {tier: int(count) for tier, count in zip(facts.tiers, known, strict=True)}
        return Labelled(len(facts), counts, float(facts.ts.min()), float(facts.ts.max()))

    def _split(self, _: Get) -> tuple[Split, SplitBy]:
        return split_log(self.facts, self.job.ladder, self.job.training)

    def _train(self, get: Get) -> Learned:
        split, _ = get("split")
        train, tune = self.corpus.gather(split.train), self.corpus.gather(split.tune)
        job = self.job
        fitted = fit(
            train,
            tune,
            job.ladder,
            job.training,
            learners=self.learners,
            refit=set(self.learners) != set(job.training.learners),
            grow=job.engine.grow,
            progress=job.progress,
        )
        return learned_from(fitted)

    def _evaluate(self, get: Get) -> Evaluated:
        split, _ = get("split")
        fitted, job = self._fitted(get), self.job
        test = score(self._test_rows(split), fitted, job.ladder)
        n_train = len(fitted.competition.fitted)
        assessment = measure_run(test, fitted.policy, job.training, quality=job.quality, n_train=n_train)
        earlier = self.corpus.gather(some(split.train, job.training))
        return Evaluated(assessment, marks_of(test), *windows(earlier, test, job.training))

    def _certify(self, get: Get) -> Certification:
        split, _ = get("split")
        fitted, job = self._fitted(get), self.job
        aside = None
        if len(split.certify):
            aside = score(self.corpus.gather(split.certify), fitted, job.ladder)
        return certify_run(aside, self.facts, fitted.policy, job.training, self.started)

    def _export(self, get: Get) -> Any:
        n, rng = self.corpus.n_rows, np.random.default_rng(self.job.training.seed)
        rows = np.arange(n) if n <= _REPLAYED else np.sort(rng.choice(n, _REPLAYED, replace=False))
        replay = self.corpus.gather(rows)
        return export(self._fitted(get), replay, self.job.ladder, self.job.training)

    def _fitted(self, get: Get) -> Fitted:
        split, _ = get("split")
        learned: Learned = get("train")
        return learned.fitted(self.facts, split)

    def _test_rows(self, split: Split) -> Dataset:
        if self._test is None:
            self._test = self.corpus.gather(split.test)
        return self._test
