"""Fewer nodes for the same graph: what is linear in the same columns is computed at once.

A service scores one request at a time, and then every node costs more than the numbers in it. Scaling, calibration and
the choice of columns come one after another, for each tier; all of them together are one matrix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

__all__ = ["folded"]

F64: TypeAlias = NDArray[np.float64]

# What these give is bounded: in a matrix, nought times a column is nought. Nought times an infinity is not.
_BOUNDED = "Clip"
# Elementwise, so that it does not matter whether columns are joined before or after.
_ELEMENTWISE = "Sigmoid"


@dataclass(frozen=True, slots=True)
class _Affine:
    """A tensor (n, k) as `source @ weights + bias`: weights (C, k), bias (k,)."""

    source: str
    weights: F64
    bias: F64


def folded(graph: bytes) -> bytes:
    """Return a graph that computes the same with fewer nodes, to the rounding of float32.

    Args:
        graph: A serialised graph whose tensors have one row per request.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph))
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    shapes = {one.name: one.type.tensor_type.shape.dim for one in model.graph.value_info}
    widths = {name: shape[1].dim_value for name, shape in shapes.items() if len(shape) == 2}
    nodes = _joined_early(list(model.graph.node))
    found: dict[str, _Affine] = {}
    kept: list[onnx.NodeProto] = []
    for node in nodes:
        affine = _affine(node, found, constants)
        if affine is None:
            kept.append(node)
        else:
            found[node.output[0]] = affine
        name = node.output[0]
        if node.op_type == _BOUNDED and widths.get(name):
            width = widths[name]
            found[name] = _Affine(name, np.eye(width), np.zeros(width))
    kept = _with_matrices(model, kept, found)
    if len(kept) < len(model.graph.node):
        _replace(model, kept)
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised


def _joined_early(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Join columns before a function of each of them, so that it is computed once for all."""
    made_by = {node.output[0]: node for node in nodes}
    uses = Counter(name for node in nodes for name in node.input)
    again: list[onnx.NodeProto] = []
    for node in nodes:
        parts = [made_by.get(name) for name in node.input]
        if node.op_type == "Concat" and all(
            part is not None and part.op_type == _ELEMENTWISE and uses[part.output[0]] == 1 for part in parts
        ):
            inner = [part for part in parts if part is not None]
            again = [one for one in again if one not in inner]
            joined = f"{node.output[0]}_joined"
            again.append(helper.make_node("Concat", [part.input[0] for part in inner], [joined], axis=_axis(node)))
            again.append(helper.make_node(_ELEMENTWISE, [joined], [node.output[0]]))
        else:
            again.append(node)
    return again


def _affine(
    node: onnx.NodeProto, found: Mapping[str, _Affine], constants: Mapping[str, NDArray[Any]]
) -> _Affine | None:
    if node.op_type == "Concat":
        return _concat(node, [found.get(name) for name in node.input])
    if len(node.input) != 2:
        return None
    first, second = node.input
    if first in constants and node.op_type in ("Add", "Mul"):
        first, second = second, first
    if first not in found or second not in constants:
        return None
    return _applied(node, found[first], constants[second])


def _concat(node: onnx.NodeProto, parts: Sequence[_Affine | None]) -> _Affine | None:
    known = [part for part in parts if part is not None]
    if _axis(node) != 1 or len(known) < len(parts) or len({part.source for part in known}) != 1:
        return None
    weights = np.concatenate([part.weights for part in known], axis=1)
    return _Affine(known[0].source, weights, np.concatenate([part.bias for part in known]))


def _applied(node: onnx.NodeProto, x: _Affine, constant: NDArray[Any]) -> _Affine | None:
    kind = node.op_type
    if kind == "Gather" and _axis(node) == 1 and constant.ndim == 1:
        return _Affine(x.source, x.weights[:, constant], x.bias[constant])
    value = constant.astype(np.float64)
    if kind == "MatMul" and value.ndim == 2:
        return _Affine(x.source, x.weights @ value, x.bias @ value)
    if value.ndim > 1 or value.size not in (1, len(x.bias)):
        return None
    if kind in ("Mul", "Div"):
        factor = value if kind == "Mul" else 1.0 / value
        return _Affine(x.source, x.weights * factor, x.bias * factor)
    if kind in ("Add", "Sub"):
        return _Affine(x.source, x.weights, x.bias + (value if kind == "Add" else -value))
    return None


def _with_matrices(
    model: onnx.ModelProto, kept: Sequence[onnx.NodeProto], found: Mapping[str, _Affine]
) -> list[onnx.NodeProto]:
    """Put one product behind every source, for the tensors that the nodes which are kept ask for."""
    asked = [name for node in kept for name in node.input] + [one.name for one in model.graph.output]
    wanted: dict[str, list[str]] = {}
    for name in dict.fromkeys(asked):
        if name in found and found[name].source != name:
            wanted.setdefault(found[name].source, []).append(name)
    nodes: list[onnx.NodeProto] = []
    for node in kept:
        nodes.append(node)
        source = node.output[0]
        if source in wanted:
            nodes += _product(model, source, wanted[source], found)
    return nodes


def _product(
    model: onnx.ModelProto, source: str, names: Sequence[str], found: Mapping[str, _Affine]
) -> list[onnx.NodeProto]:
    parts = [found[name] for name in names]
    weights = np.concatenate([part.weights for part in parts], axis=1)
    bias = np.concatenate([part.bias for part in parts])
    given = [(f"{source}_weights", weights.astype(np.float32)), (f"{source}_bias", bias.astype(np.float32))]
    product = names[0] if len(names) == 1 else f"{source}_product"
    nodes = [helper.make_node("Gemm", [source, *(name for name, _ in given)], [product])]
    if len(names) > 1:
        given.append((f"{source}_sizes", np.array([len(part.bias) for part in parts], np.int64)))
        nodes.append(helper.make_node("Split", [product, f"{source}_sizes"], list(names), axis=1))
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in given)
    return nodes


def _replace(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
    read = {name for node in nodes for name in node.input}
    used = [one for one in model.graph.initializer if one.name in read]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(used)


def _axis(node: onnx.NodeProto) -> int:
    return next((int(one.i) for one in node.attribute if one.name == "axis"), 0)
