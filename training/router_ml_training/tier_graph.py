"""A bundle's graph with one more tier, or its tiers in another order; what it computed before stays bit for bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from router_ml.errors import ParityError
from router_ml.features import FeatureBatch
from router_ml.graph import OUTPUTS, open_graph
from router_ml_training.onboarding import CLIP, CUT, MAX_TOKENS, Lengths, NewTierHead

__all__ = ["GRAPH_FILE", "VERIFIER_FILE", "check_tier", "reordered", "tiers_of", "with_tier"]

F64: TypeAlias = NDArray[np.float64]

# What a bundle calls its graphs.
GRAPH_FILE, VERIFIER_FILE = "model.onnx", "verifier.onnx"
TOLERANCE = 1e-5


class _Extension:
    """Nodes that are added behind a finished graph; its outputs become inner tensors, to be given out again later."""

    def __init__(self, graph: bytes) -> None:
        self.model = onnx.load_from_string(graph)
        # The number of nodes grows with every extension: no two share a prefix.
        self._prefix = f"extension{len(self.model.graph.node)}"
        self._names = 0
        self.before = {name: f"{self._prefix}_{name}" for name in OUTPUTS}
        for node in self.model.graph.node:
            node.input[:] = [self.before.get(name, name) for name in node.input]
            node.output[:] = [self.before.get(name, name) for name in node.output]

    def constant(self, value: Any) -> str:
        """Add a constant; numbers become float32 of shape (1,)."""
        array = np.array([value], np.float32) if isinstance(value, float) else np.ascontiguousarray(value)
        name = self._name()
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        name = self._name()
        self.model.graph.node.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def finish(self, outputs: dict[str, str], tiers: Sequence[str]) -> bytes:
        """Give tensors (n, K) out under the names of the outputs and return the checked graph."""
        for name, tensor in outputs.items():
            self.model.graph.node.append(helper.make_node("Identity", [tensor], [name]))
        for output in self.model.graph.output:
            output.type.tensor_type.shape.dim[1].dim_value = len(tiers)
        facts = {entry.key: entry.value for entry in self.model.metadata_props}
        helper.set_model_props(self.model, {**facts, "tiers": json.dumps(list(tiers))})
        onnx.checker.check_model(self.model, full_check=True)
        serialised: bytes = self.model.SerializeToString(deterministic=True)
        return serialised

    def _name(self) -> str:
        self._names += 1
        return f"{self._prefix}_{self._names}"


def tiers_of(graph: bytes) -> tuple[str, ...]:
    """Return the tiers that a graph scores, in the order of its columns."""
    props = onnx.load_from_string(graph).metadata_props
    return tuple(next(json.loads(entry.value) for entry in props if entry.key == "tiers"))


def reordered(graph: bytes, tiers: Sequence[str]) -> bytes:
    """Return the graph with its columns in the order of `tiers`, the same bytes when that is their order."""
    known = tiers_of(graph)
    if tuple(tiers) == known:
        return graph
    extension = _Extension(graph)
    order = extension.constant(np.array([known.index(name) for name in tiers], np.int64))
    columns = {name: extension.add("Gather", extension.before[name], order, axis=1) for name in OUTPUTS}
    return extension.finish(columns, tiers)


def with_tier(graph: bytes, name: str, head: NewTierHead, lengths: Lengths, tiers: Sequence[str]) -> bytes:
    """Add a tier's columns to a graph.

    Args:
        graph: The bundle's serialised graph.
        name: The new tier.
        head: Its adequacy, from the other tiers' and the dense columns.
        lengths: Its answer lengths, from another tier's.
        tiers: All tiers in order of price, the new one included.
    """
    known = (*tiers_of(graph), name)
    extension = _Extension(graph)
    new = {"adequacy": _draw_head(extension, head), "output_tokens": _draw_lengths(extension, lengths)}
    order = extension.constant(np.array([known.index(tier) for tier in tiers], np.int64))
    columns = {}
    for output, column in new.items():
        together = extension.add("Concat", extension.before[output], column, axis=1)
        columns[output] = extension.add("Gather", together, order, axis=1)
    return extension.finish(columns, tiers)


def check_tier(
    before: bytes, after: bytes, name: str, head: NewTierHead, lengths: Lengths, batch: FeatureBatch
) -> float:
    """Compare a graph with the one that a tier was added to.

    Args:
        before: The graph without the tier.
        after: The graph with it.
        name: The tier.
        head: What its adequacy has to be.
        lengths: What its answer lengths have to be.
        batch: Rows to compare on; copies with NaN and with extreme values are added.

    Returns:
        The largest difference of the new tier's adequacy.

    Raises:
        ParityError: When another tier's column has changed in any bit, or the new one differs by more than 1e-5.
    """
    feed = _odd(batch)
    (old, old_tokens), (new, new_tokens) = (
        open_graph(graph, "the extended graph").run(list(OUTPUTS), feed) for graph in (before, after)
    )
    tiers = tiers_of(after)
    at = tiers.index(name)
    back = [tiers.index(tier) for tier in tiers_of(before)]
    if not (np.array_equal(new[:, back], old) and np.array_equal(new_tokens[:, back], old_tokens)):
        raise ParityError(f"adding the tier '{name}' changed what the graph says of other tiers; nothing was written")
    expected = head.probability(old.astype(np.float64), feed["dense"])
    tokens = np.minimum(old_tokens[:, lengths.of] * lengths.ratio, MAX_TOKENS)
    gap = float(np.abs(new[:, at] - expected).max())
    token_gap = float(np.abs(new_tokens[:, at] / tokens - 1.0).max())
    if not (gap <= TOLERANCE and token_gap <= 1e-3):
        raise ParityError(
            f"the graph's column of '{name}' is not the fitted head: it differs by up to {gap:.1e} (allowed "
            f"{TOLERANCE:.0e}), its answer lengths by {token_gap:.1e}; nothing was written"
        )
    return gap


def _draw_head(extension: _Extension, head: NewTierHead) -> str:
    cut = [extension.constant(np.array(edge, np.float32)) for edge in (CUT, 1.0 - CUT)]
    p = extension.add("Clip", extension.before["adequacy"], *cut)
    odds = extension.add("Div", p, extension.add("Sub", extension.constant(1.0), p))
    stacked = extension.add("MatMul", extension.add("Log", odds), extension.constant(head.slopes[:, None]))
    centred = extension.add("Sub", "dense", extension.constant(head.mean))
    scaled = extension.add("Div", centred, extension.constant(head.scale))
    known = extension.add("Where", extension.add("IsNaN", scaled), extension.constant(0.0), scaled)
    edges = [extension.constant(np.array(edge, np.float32)) for edge in (-CLIP, CLIP)]
    columns = extension.add("MatMul", extension.add("Clip", known, *edges), extension.constant(head.columns[:, None]))
    score = extension.add("Add", extension.add("Add", stacked, columns), extension.constant(head.shift))
    return extension.add("Sigmoid", score)


def _draw_lengths(extension: _Extension, lengths: Lengths) -> str:
    column = extension.constant(np.array([lengths.of], np.int64))
    expected = extension.add("Gather", extension.before["output_tokens"], column, axis=1)
    tokens = extension.add("Mul", expected, extension.constant(lengths.ratio))
    return extension.add("Min", tokens, extension.constant(MAX_TOKENS))


def _odd(batch: FeatureBatch) -> dict[str, NDArray[Any]]:
    dense = np.tile(batch.dense, (3, 1))
    n = len(batch)
    dense[n : 2 * n, ::3] = np.nan
    dense[2 * n :, ::5] = np.where(np.arange(n) % 2, np.float32(1e30), np.float32(-1e30))[:, None]
    ids, counts = np.tile(batch.ids, (3, 1)), np.tile(batch.counts, (3, 1))
    if ids.shape[1] == 0:  # as the service does: one n-gram that counts 0
        ids, counts = np.zeros((len(ids), 1), np.int64), np.zeros((len(ids), 1), np.float32)
    return {"dense": dense, "ids": ids, "counts": counts}
