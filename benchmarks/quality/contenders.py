"""Every router of a table: what it scores a request by, fitted on the train rows of a split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.protocols import Rows, Split
from router_ml.features import DENSE_NAMES
from router_ml_training.candidates import compete
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import fit_encoder
from router_ml_training.evaluation.baselines import shuffled
from router_ml_training.learners import LEARNERS
from router_ml_training.splits import group_folds
from router_ml_training.tasks import AdequacyModel, fit_adequacy

__all__ = ["CHOSEN", "LENGTH", "ORACLE", "RANDOM", "SHUFFLED", "Scores", "score"]

F64: TypeAlias = NDArray[np.float64]

CHOSEN, LENGTH, ORACLE = "router (the competition's choice)", "prompt length", "oracle"
RANDOM, SHUFFLED = "random mix", "shuffled labels"
_LEARNERS = ("constant", "length", "linear", "gbdt")
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


def score(dataset: Dataset, split: Split) -> Scores:
    """Fit every router on the train rows of a split and score its test rows.

    Learners score by the difference of their adequacies: requests that both tiers fail must not be escalated.
    """
    learned, test = dataset.rows(split.train), dataset.rows(split.test)
    rng = np.random.default_rng(split.seed)
    tunes = group_folds(learned.group, _TUNE_PARTS, rng) == 0
    train, tune = learned.rows(~tunes), learned.rows(tunes)
    competition = compete(train, tune, _LEARNERS, seed=split.seed)
    by_router = {LENGTH: test.dense[:, _LENGTH_COLUMN].astype(np.float64)}
    for name, model in competition.models.items():
        if name != "constant":
            by_router[f"learner '{name}'"] = _need(model, test)
    by_router[CHOSEN] = _need(competition.winner, test)
    by_router[SHUFFLED] = _need(_control(train, tune, split.seed, rng), test)
    by_router[ORACLE] = test.quality[:, 1] - test.quality[:, 0]
    return Scores(split.test, by_router, competition.choice.name)


def _control(train: Dataset, tune: Dataset, seed: int, rng: np.random.Generator) -> AdequacyModel:
    # Labels of other requests: whatever is learned from them is learned from nothing.
    train, tune = (replace(part, quality=shuffled(part.quality, rng=rng)) for part in (train, tune))
    return fit_adequacy(train, tune, fit_encoder(train), LEARNERS.load(_CONTROL), seed=seed)


def _need(model: AdequacyModel, rows: Dataset) -> F64:
    adequacy = model.predict(model.encoder.encode(rows))
    need: F64 = adequacy[:, 1] - adequacy[:, 0]
    return need
