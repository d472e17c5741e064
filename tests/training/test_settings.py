from __future__ import annotations

from typing import Any

import pytest

from router_ml.config import load_config, parse_section
from router_ml.errors import ConfigError
from router_ml_training.settings import MlflowSettings, TrainingSettings


def test_an_empty_configuration_has_all_the_defaults() -> None:
    sections = load_config(None, {}).sections
    training = parse_section(TrainingSettings, sections["training"], where="defaults")
    mlflow = parse_section(MlflowSettings, sections["mlflow"], where="defaults")
    assert training.learners == ("constant", "length", "keywords", "linear", "gbdt")
    assert (training.seed, training.test_share, training.tune_share, training.num_threads) == (0, 0.2, 0.2, 1)
    assert (training.adequate_bar, training.maturity_s) == (1.0, 0.0)
    assert mlflow.tracking_uri == "sqlite:///mlruns/mlflow.db"
    assert (mlflow.artifacts, mlflow.experiment, mlflow.registered_model) == ("mlruns/artifacts", "router-ml", "router")


def test_the_environment_reaches_the_section() -> None:
    sections = load_config(
        None, {"ROUTER_ML_TRAINING__SEED": "7", "ROUTER_ML_TRAINING__LEARNERS": '["linear"]'}
    ).sections
    training = parse_section(TrainingSettings, sections["training"], where="environment")
    assert (training.seed, training.learners) == (7, ("linear",))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"learner": ["gbdt"]}, r"training\.learner: unknown key \(did you mean 'learners'\?\)"),
        ({"test_share": 1.0}, r"training\.test_share"),
        ({"test_share": 0.5, "tune_share": 0.5}, "leaves no rows to train on"),
        ({"test_share": 0.3, "tune_share": 0.3, "certify_share": 0.4}, "leaves no rows to train on"),
        ({"certify_loss": 0.0}, r"training\.certify_loss"),
        ({"certify_confidence": 0.3}, r"training\.certify_confidence"),
        ({"adequate_bar": 90}, r"training\.adequate_bar"),
        ({"learners": ["gbtd"]}, r"training\.learners: no learner is called 'gbtd' \(did you mean 'gbdt'\?\)"),
        ({"learners": []}, r"training\.learners"),
        ({"num_threads": 0}, r"training\.num_threads"),
        ({"maturity_s": float("nan")}, r"training\.maturity_s"),
    ],
)
def test_a_mistake_is_explained_with_its_key(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_section(TrainingSettings, raw, where="router.toml", prefix="training.")
