"""LightGBM's trees -> one ONNX tree ensemble that gives the same sums.

Own converter, because the public one rounds thresholds to the nearest float32 and then takes the other branch for
values that sit on them. Rounded *down*, "value <= threshold" is the same for every float32 value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.errors import ParityError
from router_ml_training.onnx_graph import GraphBuilder

__all__ = ["TREE_PARAMETERS", "Trees", "draw_trees", "floor_float32", "read_trees"]

F32: TypeAlias = NDArray[np.float32]
I64: TypeAlias = NDArray[np.int64]

# What every ensemble here shares: small trees, and the same ones for the same rows and seed.
TREE_PARAMETERS: Mapping[str, Any] = {
    "num_leaves": 15,
    "lambda_l2": 5.0,
    "boost_from_average": False,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass(frozen=True, slots=True)
class Trees:
    """Nodes of all trees in one table, shape (m,); `value` is the leaf's output, 0 at splits."""

    tree: I64
    node: I64
    feature: I64
    threshold: F32
    left: I64
    right: I64
    missing_left: I64
    is_leaf: NDArray[np.bool_]
    value: F32

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add a TreeEnsembleRegressor over `dense` and return its output, shape (n, 1)."""
        return draw_trees(graph, [self])

    @property
    def thresholds(self) -> list[tuple[int, float]]:
        """(feature, threshold) of every split: where the parity gate looks hardest."""
        splits = np.flatnonzero(~self.is_leaf)
        return list(zip(self.feature[splits].tolist(), self.threshold[splits].tolist(), strict=True))


def draw_trees(graph: GraphBuilder, forests: Sequence[Trees | None], factors: Sequence[float] | None = None) -> str:
    """Add one TreeEnsembleRegressor over `dense` for several sums of trees.

    Args:
        graph: The graph.
        forests: The trees of every column of the output; None: a column of zeros.
        factors: What each column is multiplied by; None: nothing.

    Returns:
        The tensor, (n, len(forests)).
    """
    columns = [(t, one) for t, one in enumerate(forests) if one is not None]
    together = [one for _, one in columns]
    # Trees are numbered on from forest to forest.
    starts = np.cumsum([0, *(int(one.tree.max(initial=-1)) + 1 for one in together)])[:-1]
    ids = np.concatenate([one.tree + start for one, start in zip(together, starts, strict=True)])
    leaf = np.concatenate([one.is_leaf for one in together])
    target = np.concatenate([np.full(len(one.tree), t) for t, one in columns])
    times = np.ones(len(forests)) if factors is None else np.array(factors)
    values = (np.concatenate([one.value for one in together]) * times[target]).astype(np.float32)
    nodes = {
        name: np.concatenate([getattr(one, name) for one in together]).tolist()
        for name in ("node", "feature", "threshold", "left", "right", "missing_left")
    }
    return graph.add(
        "TreeEnsembleRegressor",
        "dense",
        domain="ai.onnx.ml",
        n_targets=len(forests),
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=ids.tolist(),
        nodes_nodeids=nodes["node"],
        nodes_featureids=nodes["feature"],
        nodes_values=nodes["threshold"],
        nodes_modes=["LEAF" if one else "BRANCH_LEQ" for one in leaf],
        nodes_truenodeids=nodes["left"],
        nodes_falsenodeids=nodes["right"],
        nodes_missing_value_tracks_true=nodes["missing_left"],
        target_treeids=ids[leaf].tolist(),
        target_nodeids=np.array(nodes["node"])[leaf].tolist(),
        target_ids=target[leaf].tolist(),
        target_weights=values[leaf].tolist(),
    )


def floor_float32(value: float) -> np.float32:
    """Return the largest float32 that is not above a float64."""
    with np.errstate(over="ignore"):  # LightGBM writes 1e300 for "every number goes left"
        nearest = np.float32(value)
    return nearest if float(nearest) <= value else np.nextafter(nearest, np.float32(-np.inf))


def read_trees(dump: Mapping[str, Any]) -> Trees:
    """Read `Booster.dump_model()`.

    Raises:
        ParityError: For splits that ONNX cannot reproduce (categorical, zero as missing).
    """
    rows: list[tuple[int, int, int, np.float32, int, int, int, bool, float]] = []
    for number, tree in enumerate(dump["tree_info"]):
        _read_node(tree["tree_structure"], number, 0, rows)
    columns = list(zip(*rows, strict=True))
    ints = [np.array(columns[i], np.int64) for i in (0, 1, 2, 4, 5, 6)]
    return Trees(
        tree=ints[0],
        node=ints[1],
        feature=ints[2],
        threshold=np.array(columns[3], np.float32),
        left=ints[3],
        right=ints[4],
        missing_left=ints[5],
        is_leaf=np.array(columns[7], np.bool_),
        value=np.array(columns[8], np.float32),
    )


def _read_node(node: Mapping[str, Any], tree: int, number: int, rows: list[Any]) -> int:
    """Append a subtree, numbered from `number` on in depth-first order; return the next free number."""
    if "leaf_value" in node:
        rows.append((tree, number, 0, np.float32(0), 0, 0, 0, True, float(node["leaf_value"])))
        return number + 1
    _refuse_unusual(node)
    position = len(rows)
    rows.append(())
    right = _read_node(node["left_child"], tree, number + 1, rows)
    free = _read_node(node["right_child"], tree, right, rows)
    threshold = floor_float32(float(node["threshold"]))
    # Without missing values in training LightGBM reads NaN as 0.
    to_left = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0
    feature = int(node["split_feature"])
    rows[position] = (tree, number, feature, threshold, number + 1, right, int(to_left), False, 0.0)
    return free


def _refuse_unusual(node: Mapping[str, Any]) -> None:
    if node["decision_type"] != "<=" or node["missing_type"] not in ("None", "NaN"):
        raise ParityError(
            f"a split of kind '{node['decision_type']}' with missing values as '{node['missing_type']}' cannot be "
            "exported: train without categorical features and without zero_as_missing"
        )
