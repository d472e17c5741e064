"""Every router of a table: what it scores a request by, fitted on the train rows of a split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.baselines import KEYWORDS, baseline_adequacy, keyword_count
from benchmarks.quality.protocols import Rows, Split
from router_ml.features import DENSE_NAMES
from router_ml_training.candidates import Competition, compete
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import fit_encoder
from router_ml_training.evaluation.baselines import shuffled
from router_ml_training.learners import LEARNERS
from router_ml_training.settings import TrainingSettings
from router_ml_training.splits import group_folds
from router_ml_training.tasks import AdequacyModel, fit_adequacy

__all__ = [
    "CHOSEN",
    "LEARNED",
    "LENGTH",
    "ORACLE",
    "RANDOM",
    "SHUFFLED",
    "Parts",
    "Scores",
    "adequacy_of",
    "competition_of",
    "control_of",
    "need_of",
    "parts_of",
    "rivals",
    "score",
]

F64: TypeAlias = NDArray[np.float64]

CHOSEN, LENGTH, ORACLE = "router (the competition's choice)", "prompt length", "oracle"
RANDOM, SHUFFLED = "random mix", "shuffled labels"
# Candidates of the product's own competition.
LEARNED = TrainingSettings().learners
_CONTROL = "linear"
_LENGTH_COLUMN = DENSE_NAMES.index("text.log_chars")
# One row in ten of the train side calibrates; fixed beforehand, not tuned.
_TUNE_PARTS = 10


@dataclass(frozen=True, slots=True)
class Scores:
    """What one split gave: by router, how much each test row needs the large tier, (n,); and what was chosen."""

    test: Rows
    by_router: dict[str, F64]
    chosen: str


@dataclass(frozen=True, slots=True)
class Parts:
    """The rows of one split: to fit on, to choose and calibrate on, to measure on."""

    train: Dataset
    tune: Dataset
    test: Dataset
    seed: int

    def with_shuffled_labels(self, rng: np.random.Generator) -> Parts:
        """Return the same rows with the outcomes of others: what is learned from them is learned from nothing."""
        train, tune = (replace(one, quality=shuffled(one.quality, rng=rng)) for one in (self.train, self.tune))
        return replace(self, train=train, tune=tune)


def parts_of(dataset: Dataset, split: Split) -> Parts:
    """Cut a dataset as a split says, one tenth of the train side for tuning."""
    learned = dataset.rows(split.train)
    tunes = group_folds(learned.group, _TUNE_PARTS, np.random.default_rng(split.seed)) == 0
    return Parts(learned.rows(~tunes), learned.rows(tunes), dataset.rows(split.test), split.seed)


def competition_of(parts: Parts) -> Competition:
    """Run the product's competition, with the learners it has unless told otherwise."""
    return compete(parts.train, parts.tune, LEARNED, seed=parts.seed)


def rivals(parts: Parts, competition: Competition) -> dict[str, F64]:
    """Return what every fitted router says about each test row and tier, by name, (m, K) each.

    The product's learners come first, then its choice, then what is to be beaten, then the control.
    """
    found = {
        f"learner '{name}'": adequacy_of(model, parts.test)
        for name, model in competition.models.items()
        if name != "constant"
    }
    found[CHOSEN] = adequacy_of(competition.winner, parts.test)
    found |= baseline_adequacy(parts.train, parts.tune, parts.test, seed=parts.seed)
    control = parts.with_shuffled_labels(np.random.default_rng(parts.seed))
    return found | {SHUFFLED: adequacy_of(control_of(control), parts.test)}


def control_of(parts: Parts) -> AdequacyModel:
    """Fit the learner of the controls: not the best, but quick, and able to find anything that leaks."""
    learner = LEARNERS.load(_CONTROL)
    return fit_adequacy(parts.train, parts.tune, fit_encoder(parts.train), learner, seed=parts.seed)


def score(dataset: Dataset, split: Split) -> Scores:
    """Fit every router on the train rows of a split and score its test rows.

    Learned routers score by the difference of adequacies: requests that both tiers fail must not be escalated.
    """
    parts = parts_of(dataset, split)
    competition = competition_of(parts)
    test = parts.test
    by_router = {LENGTH: test.dense[:, _LENGTH_COLUMN].astype(np.float64), KEYWORDS: keyword_count(test)}
    by_router |= {name: need_of(adequacy) for name, adequacy in rivals(parts, competition).items()}
    by_router[ORACLE] = test.quality[:, 1] - test.quality[:, 0]
    return Scores(split.test, by_router, competition.choice.name)


def adequacy_of(model: AdequacyModel, rows: Dataset) -> F64:
    """Return a model's adequacy of each row and tier, (n, K)."""
    return model.predict(model.encoder.encode(rows))


def need_of(adequacy: F64) -> F64:
    """Return how much each request needs the dearest tier rather than the cheapest, (n,), from adequacy (n, K)."""
    need: F64 = adequacy[:, -1] - adequacy[:, 0]
    return need
