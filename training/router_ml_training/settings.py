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

    `learners` compete; `test_share`, `certify_share` and `tune_share` are the latest parts of the log, kept for the
    report, for the certificate (nothing else touches it) and for the choice of knobs; a certificate is about a loss of
    at most `certify_loss` of the best tier's quality, within a slice of the traffic `certify_slice_loss`, with
    `certify_confidence`; reports count a score as adequate from `adequate_bar` (models learn the score itself);
    interactions younger than `maturity_s` seconds wait for their feedback.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    learners: Annotated[tuple[str, ...], Field(min_length=1)] = ("constant", "length", "keywords", "linear", "gbdt")
    test_share: Share = 0.2
    tune_share: Share = 0.2
    certify_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.15
    certify_loss: Share = 0.03
    certify_slice_loss: Share = 0.07
    certify_confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95
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
        kept = self.test_share + self.certify_share + self.tune_share
        if kept >= 1.0:
            raise ValueError(f"test_share + certify_share + tune_share is {kept:g}, which leaves no rows to train on")
        return self


class MlflowSettings(_Section):
    """`[mlflow]`: where runs are tracked, their artifacts kept, and under which names."""

    tracking_uri: Annotated[str, Field(min_length=1)] = "sqlite:///mlruns/mlflow.db"
    artifacts: Annotated[str, Field(min_length=1)] = "mlruns/artifacts"
    experiment: Annotated[str, Field(min_length=1)] = "router-ml"
    registered_model: Annotated[str, Field(min_length=1)] = "router"
