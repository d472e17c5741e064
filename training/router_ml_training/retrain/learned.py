"""What training found, without the rows it found it on: small enough to keep, enough to score and to report with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.manifest import PolicySpec
from router_ml_training.candidates import Competition
from router_ml_training.dataset import Dataset, joined
from router_ml_training.evaluation.compare import Choice
from router_ml_training.learning import Fitted
from router_ml_training.scored import Scored
from router_ml_training.splits import Split
from router_ml_training.tasks import AdequacyModel
from router_ml_training.tokens import TokenModel
from router_ml_training.verifier_training import Judge

__all__ = ["Learned", "Marks", "learned_from", "marks_of"]

F64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Learned:
    """The winner and what came of the competition; `folded`: held-out rows are those that were learned from."""

    model: AdequacyModel
    choice: Choice
    adequacy: dict[str, F64]
    folded: bool
    tokens: TokenModel
    policy: PolicySpec
    judge: Judge | None

    def fitted(self, facts: Dataset, split: Split) -> Fitted:
        """Return it with its rows, which have no words.

        Args:
            facts: All rows, with or without words.
            split: Which of them were learned from.
        """
        train, tune = facts.rows(split.train), facts.rows(split.tune)
        if self.folded:
            train = tune = joined(train, tune)
        models = {self.choice.name: self.model}
        return Fitted(
            Competition(models, self.choice, train, tune, self.adequacy), self.tokens, self.policy, self.judge
        )


def learned_from(fitted: Fitted) -> Learned:
    """Return what was fitted, without its rows."""
    one = fitted.competition
    folded = one.held_out is one.fitted
    return Learned(one.winner, one.choice, dict(one.adequacy), folded, fitted.tokens, fitted.policy, fitted.judge)


@dataclass(frozen=True, slots=True)
class Marks:
    """What models said of rows, without the rows; shapes as in `Scored`."""

    adequacy: F64
    cost_usd: F64
    posterior: F64 | None
    spent_usd: F64 | None

    def on(self, rows: Dataset) -> Scored:
        """Return the rows with it."""
        return Scored(rows, self.adequacy, self.cost_usd, self.posterior, self.spent_usd)


def marks_of(scored: Scored) -> Marks:
    """Return what models said of rows, without the rows."""
    return Marks(scored.adequacy, scored.cost_usd, scored.posterior, scored.spent_usd)
