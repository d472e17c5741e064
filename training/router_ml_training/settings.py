"""The sections of router.toml that training owns: `[training]` and `[mlflow]`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from router_ml.registry import did_you_mean
from router_ml_training.learners import LEARNERS

__all__ = ["MlflowSettings", "TrainingSettings"]

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainingSettings(_Section):
    """`[training]`: how a model is learned from a log.

    `learners` compete; `test_share` and `tune_share` are the latest parts of the log, kept for the report and for the
    choice of knobs; reports count a score as adequate from `adequate_bar` (models learn the score itself); interactions
    younger than `maturity_s` seconds wait for their feedback.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    learners: Annotated[tuple[str, ...], Field(min_length=1)] = ("constant", "length", "linear", "gbdt")
    test_share: Share = 0.2
    tune_share: Share = 0.2
    adequate_bar: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    maturity_s: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    num_threads: Annotated[int, Field(ge=1)] = 1

    @field_validator("learners")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in LEARNERS:
                hint = did_you_mean(name, list(LEARNERS))
                raise ValueError(f"no learner is called '{name}'{hint}; known: {', '.join(LEARNERS)}")
        return names

    @model_validator(mode="after")
    def _something_is_left_to_learn_from(self) -> Self:
        if self.test_share + self.tune_share >= 1.0:
            message = (
                f"test_share + tune_share is {self.test_share + self.tune_share:g}, which leaves no rows to train on"
            )
            raise ValueError(message)
        return self


class MlflowSettings(_Section):
    """`[mlflow]`: where runs are tracked, their artifacts kept, and under which names."""

    tracking_uri: Annotated[str, Field(min_length=1)] = "sqlite:///mlruns/mlflow.db"
    artifacts: Annotated[str, Field(min_length=1)] = "mlruns/artifacts"
    experiment: Annotated[str, Field(min_length=1)] = "router-ml"
    registered_model: Annotated[str, Field(min_length=1)] = "router"
