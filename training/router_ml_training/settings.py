"""The sections of router.toml that training owns."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from router_ml.registry import did_you_mean
from router_ml_training.learners import LEARNERS

__all__ = ["AlertSettings", "GatesSettings", "MlflowSettings", "TrainingSettings"]

GateName = Literal["certificate", "saving", "off_policy", "calibration", "slices", "parity", "latency", "drift", "size"]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainingSettings(_Section):
    """`[training]`: how a model is learned from a log.

    `learners` compete; `test_share`, `certify_share` and `tune_share` are the latest parts of the log, kept for the
    report, for the certificate (nothing else touches it) and for the choice of knobs; a certificate is about a loss of
    at most `certify_loss` of the best tier's quality, within a slice of the traffic `certify_slice_loss`, with
    `certify_confidence`; reports count a score as adequate from `adequate_bar` (models learn the score itself);
    interactions younger than `maturity_s` seconds wait for their feedback. `engine` says who reads parts of the log and
    grows trees: this machine with `num_threads`, or the workers of the Dask cluster whose scheduler answers at
    `dask_scheduler` (None: as many processes of this machine as `num_threads`). With `promote = "manual"` a challenger
    that passed its gates waits until a person moves MLflow's alias `champion`.
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
    promote: Literal["auto", "manual"] = "auto"
    engine: Literal["local", "dask"] = "local"
    dask_scheduler: str | None = None

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


class GatesSettings(_Section):
    """`[gates]`: what a challenger has to show before it is promoted; a gate that is not `required` only warns.

    `max_ece` is the calibration error of a tier's adequacy; `max_slice_loss` may be lost within a slice of the traffic
    on top of what the quality asked for allows, as a share of the best tier's quality; a decision may take
    `max_decision_yardsticks` times `sum(range(1000))`, or `max_slowdown` times the champion's; `max_drift` features may
    have drifted; the files may have `max_mb` megabytes.
    """

    required: tuple[GateName, ...] = ("saving", "calibration", "slices", "parity", "latency", "size")
    max_ece: Share = 0.1
    max_slice_loss: Share = 0.1
    max_decision_yardsticks: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 150.0
    max_slowdown: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] = 1.5
    max_drift: Annotated[int, Field(ge=0)] = 0
    max_mb: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 200.0


class AlertSettings(_Section):
    """`[alerts]`: who is told when traffic drifts or a tier changes, besides the log and the metrics.

    `webhook_env` names the environment variable with the URL that alerts are posted to as JSON (None: nowhere), within
    `timeout_s`; the same alert is not sent again for `pause_s`.
    """

    webhook_env: Annotated[str, Field(min_length=1)] | None = None
    timeout_s: Annotated[float, Field(gt=0.0, le=300.0)] = 10.0
    pause_s: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 86_400.0


class MlflowSettings(_Section):
    """`[mlflow]`: where runs are tracked, their artifacts kept, and under which names."""

    tracking_uri: Annotated[str, Field(min_length=1)] = "sqlite:///mlruns/mlflow.db"
    artifacts: Annotated[str, Field(min_length=1)] = "mlruns/artifacts"
    experiment: Annotated[str, Field(min_length=1)] = "router-ml"
    registered_model: Annotated[str, Field(min_length=1)] = "router"
