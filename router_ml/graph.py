"""The ONNX graph inside a bundle: open it, and check that it is one that this release can score with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _ort_state

from router_ml.errors import BundleCorrupt, BundleMismatch
from router_ml.features import DENSE_NAMES, SCHEMA_HASH
from router_ml.manifest import PolicySpec

__all__ = ["GRAPH_ERRORS", "INPUTS", "OUTPUTS", "check_graph", "first_line", "inputs_read", "open_graph"]

INPUTS = {"dense": "tensor(float)", "ids": "tensor(int64)", "counts": "tensor(float)"}
OUTPUTS = {"adequacy": "tensor(float)", "output_tokens": "tensor(float)"}
# onnxruntime's errors have no base class of their own.
GRAPH_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(kind for kind in vars(_ort_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)


def open_graph(model: bytes, where: str) -> Any:
    """Open a serialised ONNX graph for scoring one request at a time.

    Args:
        model: The graph.
        where: File name for the message.

    Returns:
        An `onnxruntime.InferenceSession` (the package ships no types).

    Raises:
        BundleCorrupt: When it is not a graph that can be loaded.
    """
    # One thread: requests are small, and a service has one process per core.
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
    except GRAPH_ERRORS as error:
        raise BundleCorrupt(f"{where}: not a graph that onnxruntime can load ({first_line(error)})") from error


def inputs_read(model: bytes) -> frozenset[str]:
    """Return the inputs that a graph may compute something from; the others need not be made.

    Args:
        model: The serialised graph, with the inputs of this release.
    """
    # onnxruntime does not tell, and the package that parses graphs is for training. Every mention of a tensor's name is
    # written as field 1: once where the input is declared, and once more for each node that reads it. Chance can add
    # mentions, which costs time and no more.
    return frozenset(name for name in INPUTS if model.count(b"\n%c%s" % (len(name), name.encode())) > 1)


def check_graph(session: Any, policy: PolicySpec, where: str) -> None:
    """Check that a graph takes this release's features and scores the tiers of its policy.

    Raises:
        BundleMismatch: When inputs, outputs, widths or metadata are others.
    """
    for kind, nodes, expected in (
        ("inputs", session.get_inputs(), INPUTS),
        ("outputs", session.get_outputs(), OUTPUTS),
    ):
        found = {node.name: node.type for node in nodes}
        if found != expected:
            raise BundleMismatch(f"{where}: expected the {kind} {_listed(expected)}, got {_listed(found)}")
    widths = {node.name: node.shape[-1] for node in (*session.get_inputs(), *session.get_outputs())}
    tiers, dense = len(policy.tiers), len(DENSE_NAMES)
    for name, width in (("dense", dense), ("adequacy", tiers), ("output_tokens", tiers)):
        if isinstance(widths[name], int) and widths[name] != width:
            raise BundleMismatch(f"{where}: '{name}' has {widths[name]} columns, expected {width}")
    written = session.get_modelmeta().custom_metadata_map
    if written.get("feature_schema_hash") != SCHEMA_HASH:
        message = f"{where}: made for feature schema {written.get('feature_schema_hash')!r}, expected {SCHEMA_HASH!r}"
        raise BundleMismatch(message)
    names = [tier.name for tier in policy.tiers]
    if _tiers(written.get("tiers", "")) != names:
        raise BundleMismatch(f"{where}: made for the tiers {written.get('tiers')!r}, policy.json has {names}")


def first_line(error: Exception) -> str:
    """Return the first line of an error's message; onnxruntime appends its own stack."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _listed(nodes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in nodes.items()) or "none"


def _tiers(written: str) -> Any:
    try:
        return json.loads(written)
    except ValueError:
        return written
