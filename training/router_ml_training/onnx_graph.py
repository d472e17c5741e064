"""A thin builder for ONNX graphs: numeric nodes in, a checked model out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from router_ml.features import DENSE_NAMES, SCHEMA_HASH

__all__ = ["FLOAT", "INT64", "GraphBuilder"]

FLOAT: int = TensorProto.FLOAT
INT64: int = TensorProto.INT64
_OF_REQUESTS: Mapping[str, tuple[int, tuple[str | int, ...]]] = {
    "dense": (FLOAT, ("n", len(DENSE_NAMES))),
    "ids": (INT64, ("n", "l")),
    "counts": (FLOAT, ("n", "l")),
}

# Opset 18 and ai.onnx.ml 3 are read by every onnxruntime this project allows.
_OPSET = 18
_ML_OPSET = 3
_IR_VERSION = 9


class GraphBuilder:
    """Collects the nodes of one graph whose inputs are the features of a batch.

    Inputs are named `dense` (n, D) float32, `ids` (n, L) int64 and `counts` (n, L) float32.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._definitions: dict[str, Callable[[], str]] = {}
        self._shared: dict[str, str] = {}
        self._names = 0

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant tensor and return its name."""
        name = self._name("constant")
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        name = self._name(operator.lower())
        self._nodes.append(helper.make_node(operator, list(inputs), [name], domain=domain, **attributes))
        return name

    def split(self, tensor: str, sizes: Sequence[int]) -> list[str]:
        """Cut a tensor (n, C) into blocks of columns and return their names."""
        names = [self._name("split") for _ in sizes]
        width = self.constant(np.array(sizes, np.int64))
        self._nodes.append(helper.make_node("Split", [tensor, width], names, axis=1))
        return names

    def scalar(self, value: float) -> str:
        """Add a float32 constant of shape (1,)."""
        return self.constant(np.array([value], np.float32))

    def define(self, key: str, build: Callable[[], str]) -> None:
        """Name a tensor that several heads may use; its nodes are added when the first one asks for it."""
        self._definitions[key] = build

    def named(self, key: str) -> str:
        """Return the tensor defined under that key."""
        if key not in self._shared:
            self._shared[key] = self._definitions[key]()
        return self._shared[key]

    def model(
        self,
        outputs: Mapping[str, str],
        tiers: Sequence[str],
        *,
        inputs: Mapping[str, tuple[int, tuple[str | int, ...]]] | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> bytes:
        """Finish the graph and return the checked, serialised model.

        Args:
            outputs: Output name to tensor name; each tensor has shape (n, K).
            tiers: Tier names in the order of the columns.
            inputs: Element type and shape by name; None: those of a request's features.
            facts: What is written beside the tiers; None: the schema of a request's features.
        """
        taken = _OF_REQUESTS if inputs is None else inputs
        nodes = [*self._nodes, *(helper.make_node("Identity", [tensor], [name]) for name, tensor in outputs.items())]
        graph = helper.make_graph(
            nodes,
            "router",
            [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in taken.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", len(tiers)]) for name in outputs],
            self._constants,
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="router-ml")
        written = {"feature_schema_hash": SCHEMA_HASH} if facts is None else dict(facts)
        helper.set_model_props(model, {**written, "tiers": json.dumps(list(tiers))})
        onnx.checker.check_model(model, full_check=True)
        serialised: bytes = model.SerializeToString(deterministic=True)
        return serialised

    def _name(self, stem: str) -> str:
        self._names += 1
        return f"{stem}_{self._names}"
