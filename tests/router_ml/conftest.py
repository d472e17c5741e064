"""Small real bundles: an ONNX graph whose adequacy is a logistic function of the prompt's length."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from router_ml.bundle import ManifestDraft, PolicySpec, TrainedOn, write_bundle
from router_ml.features import DENSE_NAMES, SCHEMA_HASH
from router_ml.ladder import Tier

TIERS = (
    Tier(name="small", model="mini", input_usd_per_mtok=0.15, output_usd_per_mtok=0.6, latency_ms=300),
    Tier(name="medium", model="midi", input_usd_per_mtok=0.8, output_usd_per_mtok=4.0, latency_ms=600),
    Tier(name="large", model="maxi", input_usd_per_mtok=2.5, output_usd_per_mtok=10.0, latency_ms=1200),
)
LENGTH = DENSE_NAMES.index("structure.log_input_tokens")
CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def build_model(
    *,
    tiers: Sequence[str] = ("small", "medium", "large"),
    bias: Sequence[float] = (4.0, 5.0, 6.0),
    slope: Sequence[float] = (-1.0, -0.8, -0.5),
    schema_hash: str = SCHEMA_HASH,
    dense: int | None = len(DENSE_NAMES),
    outputs: Sequence[str] = ("adequacy", "output_tokens"),
    metadata: dict[str, str] | None = None,
) -> bytes:
    k = len(tiers)
    weights = np.zeros((dense or len(DENSE_NAMES), k), np.float32)
    weights[LENGTH] = slope
    constants = {
        "weights": weights,
        "bias": np.array(bias, np.float32),
        "axes": np.array([1], np.int64),
        "nothing": np.zeros(1, np.float32),
        "tokens": np.full((1, k), 200, np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["dense", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], [outputs[0]]),
        # All inputs matter, as in a real graph; the words weigh nothing here.
        helper.make_node("Cast", ["ids"], ["buckets"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["buckets", "counts"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axes"], ["summed"], keepdims=1),
        helper.make_node("Mul", ["summed", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "tokens"], [outputs[1]]),
    ]
    f32, i64 = TensorProto.FLOAT, TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "router",
        [
            helper.make_tensor_value_info("dense", f32, ["n", dense]),
            helper.make_tensor_value_info("ids", i64, ["n", "l"]),
            helper.make_tensor_value_info("counts", f32, ["n", "l"]),
        ],
        [helper.make_tensor_value_info(name, f32, ["n", k]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    default = {"feature_schema_hash": schema_hash, "tiers": json.dumps(list(tiers))}
    helper.set_model_props(model, default if metadata is None else metadata)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def build_policy(**changes: Any) -> PolicySpec:
    frontier = [
        {"quality": 1.0, "shadow_price": 0.0, "saving": 0.0},
        {"quality": 0.97, "shadow_price": 20.0, "saving": 0.4},
        {"quality": 0.9, "shadow_price": 200.0, "saving": 0.8},
    ]
    return PolicySpec.model_validate({"tiers": TIERS, "best_tier": "large", "frontier": frontier, **changes})


def build_draft(version: str = "v1", **changes: Any) -> ManifestDraft:
    trained_on = TrainedOn(digest="abc", n_interactions=10, description="made up for a test")
    base: dict[str, Any] = {"version": version, "created": CREATED, "trained_on": trained_on, "learner": "linear"}
    return ManifestDraft.model_validate({**base, **changes})


@pytest.fixture(name="build_model", scope="session")
def _build_model() -> Callable[..., bytes]:
    return build_model


@pytest.fixture(name="build_policy", scope="session")
def _build_policy() -> Callable[..., PolicySpec]:
    return build_policy


@pytest.fixture(name="build_draft", scope="session")
def _build_draft() -> Callable[..., ManifestDraft]:
    return build_draft


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write a bundle below `tmp_path / "models"` and return its folder."""

    def make(
        version: str = "v1", *, policy: PolicySpec | None = None, model: bytes | None = None, **draft: Any
    ) -> Path:
        return write_bundle(
            tmp_path / "models",
            manifest=build_draft(version, **draft),
            policy=policy or build_policy(),
            model=build_model() if model is None else model,
        )

    return make
