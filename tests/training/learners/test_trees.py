"""LightGBM's trees -> ONNX: the same branch for every float32, on thresholds, one step beside, NaN and extremes."""

from __future__ import annotations

import math
from typing import Any

import lightgbm
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router_ml.errors import ParityError
from router_ml.features import DENSE_NAMES
from router_ml_training.learners.trees import Trees, floor_float32, read_trees
from router_ml_training.onnx_graph import GraphBuilder

WIDTH = len(DENSE_NAMES)
PARAMETERS = {
    "objective": "cross_entropy",
    "num_leaves": 12,
    "min_data_in_leaf": 5,
    "learning_rate": 0.2,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
    "seed": 0,
}


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(1e300)
@example(-1e300)
@example(1e-50)
@example(-1e-50)
@example(0.1)
@example(16777217.0)
def test_the_floor_is_the_largest_float32_that_is_not_above(value: float) -> None:
    floor = floor_float32(value)
    assert float(floor) <= value
    with np.errstate(over="ignore"):
        above = np.nextafter(floor, np.float32(np.inf))
    assert float(above) > value or math.isinf(above)


@given(st.floats(-1e30, 1e30), st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float32_is_on_the_same_side_of_a_threshold_and_of_its_floor(threshold: float, value: float) -> None:
    assert (value <= threshold) == (np.float32(value) <= floor_float32(threshold))


def train(kind: str, rounds: int = 15) -> lightgbm.Booster:
    rng = np.random.default_rng(3)
    dense = rng.normal(size=(400, WIDTH)).astype(np.float32)
    dense[:, 1] = np.round(dense[:, 1] * 3) / 7  # many ties
    dense[:, 2] = np.log1p(rng.integers(0, 50, 400)).astype(np.float32)
    dense[:, 3] = (rng.random(400) < 0.5).astype(np.float32)
    signal = dense[:, 0] + dense[:, 1] * dense[:, 2] + 2 * dense[:, 3]
    if kind == "with missing values":
        hidden = rng.random(400) < 0.4
        signal = signal + 2 * hidden
        dense[hidden, 0] = np.nan
    target = 1 / (1 + np.exp(-signal))
    return lightgbm.train(PARAMETERS, lightgbm.Dataset(dense, target), rounds)


def run(trees: Trees, dense: np.ndarray) -> np.ndarray:
    graph = GraphBuilder()
    model = graph.model({"out": trees.add_to_graph(graph)}, ("one",))
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    n = len(dense)
    feed = {"dense": dense, "ids": np.zeros((n, 1), np.int64), "counts": np.zeros((n, 1), np.float32)}
    return np.asarray(session.run(["out"], feed)[0])[:, 0]


def hard_rows(trees: Trees) -> np.ndarray:
    """Rows with values on each threshold and one step below and above it, with NaN and with extremes."""
    rng = np.random.default_rng(4)
    rows = []
    for feature, threshold in trees.thresholds:
        on = np.float32(threshold)
        beside = [np.nextafter(on, np.float32(-np.inf)), on, np.nextafter(on, np.float32(np.inf))]
        for value in beside:
            row = rng.normal(size=WIDTH).astype(np.float32)
            row[feature] = value if np.isfinite(value) else on
            rows.append(row)
    odd = rng.choice(np.array([np.nan, 3e38, -3e38, 0.0, 1e-30, -1e-30], np.float32), (500, WIDTH))
    every = np.concatenate((np.array(rows, np.float32), odd))
    # Nearer to zero than any feature comes LightGBM takes a value for zero, and ONNX does not.
    every[np.abs(every) < 1e-30] = 0.0
    return every


@pytest.mark.parametrize("kind", ["plain", "with missing values"])
def test_the_converted_trees_give_lightgbms_sums_where_it_is_hardest(kind: str) -> None:
    booster = train(kind)
    trees = read_trees(booster.dump_model())
    rows = hard_rows(trees)
    assert len(rows) > 700
    expected = booster.predict(rows, raw_score=True, num_threads=1)
    # One wrong branch moves a sum by far more than the rounding of fifteen float32 additions.
    np.testing.assert_allclose(run(trees, rows), expected, atol=2e-6)


def test_a_model_that_found_no_split_is_converted_too() -> None:
    parameters = {**PARAMETERS, "min_data_in_leaf": 300}
    rng = np.random.default_rng(0)
    booster = lightgbm.train(parameters, lightgbm.Dataset(np.zeros((400, WIDTH)), rng.random(400)), 5)
    trees = read_trees(booster.dump_model())
    assert trees.thresholds == []
    rows = rng.normal(size=(4, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(run(trees, rows), booster.predict(rows, raw_score=True, num_threads=1), rtol=1e-6)


def test_nodes_are_numbered_within_each_tree_and_children_come_after_their_parents() -> None:
    trees = read_trees(train("plain", rounds=4).dump_model())
    for number in range(4):
        of_tree = trees.tree == number
        assert trees.node[of_tree].tolist() == list(range(int(of_tree.sum())))
        splits = of_tree & ~trees.is_leaf
        assert (trees.left[splits] > trees.node[splits]).all()
        assert (trees.right[splits] > trees.left[splits]).all()


@pytest.mark.parametrize(
    ("changes", "said"), [({"decision_type": "=="}, "kind '=='"), ({"missing_type": "Zero"}, "as 'Zero'")]
)
def test_splits_that_onnx_cannot_reproduce_are_refused(changes: dict[str, Any], said: str) -> None:
    dump = train("plain", rounds=1).dump_model()
    dump["tree_info"][0]["tree_structure"].update(changes)
    with pytest.raises(ParityError, match=said):
        read_trees(dump)
