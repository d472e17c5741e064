"""A competition of learners on one log: the table that decides it, everybody's curve on test rows, the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from router_ml.ladder import Ladder
from router_ml_training.assessment import Assessment, assess
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.canvas import Picture
from router_ml_training.evaluation.curves import Swept, curve_of, price_sweep, share_sweep
from router_ml_training.evaluation.figures import cost_quality
from router_ml_training.evaluation.metrics import apgr, cs
from router_ml_training.evaluation.outcomes import Curve
from router_ml_training.evaluation.report import ModelFacts, ReportData
from router_ml_training.importance import importance_of, model_chances
from router_ml_training.learning import Progress, Trained, learn
from router_ml_training.reporting import data_facts, report_data
from router_ml_training.scored import score_with_models
from router_ml_training.settings import TrainingSettings

__all__ = ["Match", "competition_table", "play"]

_DRAWS = 400


@dataclass(frozen=True, slots=True)
class Match:
    """A finished competition: the run, what the winner is worth on test rows, and everybody's curve there."""

    trained: Trained
    assessment: Assessment
    report: ReportData
    curves: dict[str, Curve]

    def curve_table(self) -> pl.DataFrame:
        """Return what every learner's scores before the call are worth on the test rows, the winner's name marked."""
        rows = [
            (name, name == self.trained.learner, apgr(curve).value, cs(curve, 0.97).value, cs(curve, 1.0).value)
            for name, curve in self.curves.items()
        ]
        numbers = dict.fromkeys(("apgr", "saving at 97 %", "saving at 100 %"), pl.Float64)
        return pl.DataFrame(rows, schema={"learner": pl.String, "kept": pl.Boolean, **numbers}, orient="row")

    def curve_picture(self) -> Picture:
        """Draw every learner's cost against quality on the test rows; the one that was kept stands out."""
        others = {name: curve for name, curve in self.curves.items() if name != self.trained.learner}
        return cost_quality(
            self.curves[self.trained.learner],
            tiers=self.trained.ladder.names,
            title=f"Every candidate on the test rows; '{self.trained.learner}' is kept",
            baselines=others,
            name=self.trained.learner,
            simulated=self.trained.test.dataset.simulated,
        )

    def picture(self, name: str) -> Picture | None:
        """Return a picture of the winner's report by name, such as `reliability`; None where it was not drawn."""
        return next((one for one in self.report.pictures if one.name == name), None)


def play(
    dataset: Dataset,
    ladder: Ladder,
    settings: TrainingSettings,
    *,
    quality: float,
    now: datetime,
    progress: Progress = lambda _: None,
) -> Match:
    """Train every candidate on a log and measure them; nothing is written anywhere.

    Args:
        dataset: The log.
        ladder: Tiers and prices.
        settings: Learners, splits, seed.
        quality: Share of the best tier's quality that the winner's operating point keeps.
        now: Time of the run.
        progress: Told what is being done.

    Raises:
        DataError: When there is too little to learn from.
    """
    trained = learn(dataset, ladder, settings, progress=progress)
    progress("measuring on held-out rows")
    rng = np.random.default_rng(settings.seed + 1)
    measured = assess(trained.test, trained.policy, quality=quality, n_train=trained.n_fitted, rng=rng, draws=_DRAWS)
    predict = model_chances(trained.competition.winner)
    report = report_data(
        measured,
        title="Router training run",
        created=now,
        data=data_facts(dataset, measured, "the notebook's sample"),
        model=ModelFacts(trained.learner, "not written"),
        choice=trained.competition.choice,
        importance=importance_of(trained.test, trained.policy, predict, quality=quality, rng=rng),
    )
    return Match(trained, measured, report, _curves(trained))


def competition_table(trained: Trained) -> pl.DataFrame:
    """Return the competition, simplest learner first: held-out loss, excess over the best, and who was kept."""
    choice = trained.competition.choice
    rows = [
        (one.name, one.loss, one.excess, one.standard_error, one.within, one.name == choice.name)
        for one in choice.candidates
    ]
    numbers = dict.fromkeys(("held-out loss", "above the best", "standard error"), pl.Float64)
    marks = dict.fromkeys(("within one", "kept"), pl.Boolean)
    return pl.DataFrame(rows, schema={"learner": pl.String, **numbers, **marks}, orient="row")


def _curves(trained: Trained) -> dict[str, Curve]:
    outcomes, rows = trained.test.outcomes()
    rng = np.random.default_rng(0)
    curves = {}
    for name, model in trained.competition.models.items():
        scored = score_with_models(trained.test.dataset, model, trained.tokens, trained.ladder)
        curves[name] = curve_of(_swept(scored.adequacy[rows], scored.cost_usd[rows], rng), outcomes)
    return curves


def _swept(adequacy: np.ndarray, cost: np.ndarray, rng: np.random.Generator) -> Swept:
    if adequacy.shape[1] == 2:
        return share_sweep(adequacy[:, 1] - adequacy[:, 0], rng=rng)
    return price_sweep(adequacy, cost, rng=rng)
