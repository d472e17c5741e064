"""A fitted verifier -> ONNX, and the parity gate that it has to pass before a bundle is written.

All heads are drawn side by side, one column per answering tier; the tier that answered picks its column.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.errors import ParityError
from router_ml.features.answer import ANSWER_NAMES, ANSWER_SCHEMA_HASH, N_ANSWER_TEXT_BUCKETS
from router_ml.verifier import VERIFIER_OUTPUT, Verifier, open_verifier
from router_ml_training.answers import Answers
from router_ml_training.learners.trees import Trees
from router_ml_training.onnx_graph import FLOAT, INT64, GraphBuilder
from router_ml_training.verifier import VerifierModel
from router_ml_training.verifier_encoder import CLIP, CUT, METADATA_WEIGHT
from router_ml_training.verifier_gains import OWN_SHARE
from router_ml_training.verifier_heads import Mix

__all__ = ["check_verifier", "posterior_by_graph", "verifier_to_onnx"]

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]

_TOLERANCE = 1e-5
_CHUNK = 500
_MOST_ROWS = 5000
_EXTREME = np.float32(3e38)
# A head for gains is the mean of its two opinions.
_MEAN = Mix(np.array([0.5, 0.5]), 0.0)


def verifier_to_onnx(model: VerifierModel) -> bytes:
    """Draw a verifier: `posterior` (n, K) from an answer's features, the chances before, and who answered."""
    graph = GraphBuilder()
    k = len(model.tiers)
    odds = _draw_odds(graph)
    # Row i has a 1 in the column of the tier that answered; the dearest tier has no head and no column in `heads`.
    position = graph.constant(np.arange(k, dtype=np.int64))
    column = graph.add("Unsqueeze", "tier", graph.constant(np.array([1], np.int64)))
    answered = graph.add("Cast", graph.add("Equal", column, position), to=FLOAT)
    heads = _columns(graph, answered, 0, k - 1)
    own = _row_sum(graph, graph.add("Mul", odds, answered))
    average = graph.add("ReduceMean", odds, graph.constant(np.array([1], np.int64)), keepdims=1)
    opinions = _draw_opinions(graph, model, own, average)
    gains = _columns(graph, opinions, k - 1, k - 1 + len(model.gains)) if model.gains else None
    judged = _row_sum(graph, graph.add("Mul", _columns(graph, opinions, 0, k - 1), heads))
    posterior = _draw_posterior(graph, model, judged, odds, own, heads, answered, gains)
    inputs: dict[str, tuple[int, tuple[str | int, ...]]] = {
        "dense": (FLOAT, ("n", len(ANSWER_NAMES))),
        "ids": (INT64, ("n", "l")),
        "counts": (FLOAT, ("n", "l")),
        "adequacy": (FLOAT, ("n", k)),
        "tier": (INT64, ("n",)),
    }
    facts = {"answer_schema_hash": ANSWER_SCHEMA_HASH}
    return graph.model({VERIFIER_OUTPUT: posterior}, model.tiers, inputs=inputs, facts=facts)


def check_verifier(
    graph: bytes, model: VerifierModel, answers: Answers, adequacy: F64, rng: np.random.Generator
) -> float:
    """Judge the same answers with the trained verifier and with its graph, and half of them again made odd.

    Args:
        graph: The serialised graph.
        model: The trained verifier.
        answers: Answers to replay, by any tier.
        adequacy: What was thought before each, (m, K).
        rng: Chooses rows, and which values become NaN or extreme.

    Returns:
        The largest difference of a probability.

    Raises:
        ParityError: When one differs by more than 1e-5.
    """
    verifier = open_verifier(graph, model.tiers, "the exported verifier")
    rows = rng.permutation(len(answers))[:_MOST_ROWS]
    largest = 0.0
    for start in range(0, len(rows), _CHUNK):
        index = np.sort(rows[start : start + _CHUNK])
        part, before = answers.take(index), adequacy[index]
        for dense in (part.dense, _odd(part.dense, rng)):
            some = Answers(part.row, part.tier, dense, part.text)
            expected = model.posterior(model.encoder.encode(some), before, some.tier)
            got = posterior_by_graph(verifier, some, before)
            difference = np.abs(expected - got)
            largest = max(largest, float("inf") if np.isnan(difference).any() else float(difference.max(initial=0.0)))
    if largest > _TOLERANCE:
        raise ParityError(
            f"the exported verifier is not the trained one: over {len(rows)} answers probabilities differ by up to "
            f"{largest:.1e} (allowed {_TOLERANCE:.0e}); nothing was written. This is a fault of the exporter"
        )
    return largest


def posterior_by_graph(verifier: Verifier, answers: Answers, adequacy: F64) -> F64:
    """Return what a bundle's verifier says of answers whose chances before, (m, K), are given, (m, K)."""
    result = np.empty((len(answers), verifier.n_tiers))
    for start in range(0, len(answers), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(answers)))
        part = answers.take(rows)
        lengths = np.diff(part.text.indptr)
        ids = np.zeros((len(rows), max(int(lengths.max(initial=1)), 1)), np.int64)
        counts = np.zeros(ids.shape, np.float32)
        filled = np.arange(ids.shape[1]) < lengths[:, None]
        ids[filled], counts[filled] = part.text.indices, part.text.data
        result[rows] = verifier.posterior_many(part.dense, ids, counts, adequacy[rows], part.tier)
    return result


def _draw_odds(graph: GraphBuilder) -> str:
    edges = [graph.constant(np.array(edge, np.float32)) for edge in (CUT, 1.0 - CUT)]
    p = graph.add("Clip", "adequacy", *edges)
    return graph.add("Log", graph.add("Div", p, graph.add("Sub", graph.scalar(1.0), p)))


def _draw_opinions(graph: GraphBuilder, model: VerifierModel, own: str, average: str) -> str:
    """Draw every head's mixed log odds, (n, K - 1), and beside them every pair's gain, (n, G)."""
    heads = (*model.heads, *model.gains.values())
    mixes = (*model.mixes, *[_MEAN] * len(model.gains))
    words = graph.add("Gather", graph.constant(np.stack([head.words for head in heads], axis=1)), "ids")
    weights = graph.add("Unsqueeze", _draw_weights(graph, model), graph.constant(np.array([2], np.int64)))
    linear = graph.add(
        "ReduceSum", graph.add("Mul", words, weights), graph.constant(np.array([1], np.int64)), keepdims=0
    )
    missing = graph.add("Cast", graph.add("IsNaN", "dense"), to=FLOAT)
    columns = graph.add("Concat", _draw_scaled(graph, model), missing, own, average, axis=1)
    table = np.stack([np.concatenate((head.scaled, head.missing, head.before)) for head in heads], axis=1)
    linear = graph.add("Add", linear, graph.add("MatMul", columns, graph.constant(table)))
    linear = graph.add("Add", linear, graph.constant(np.array([head.intercept for head in heads], np.float32)))
    # Where there are no trees the linear opinion counts for both.
    weight = np.array(
        [[mix.weights[0] + (head.trees is None) * mix.weights[1] for head, mix in zip(heads, mixes, strict=True)]]
    )
    shift = [
        mix.shift + (head.trees is not None) * mix.weights[1] * head.start
        for head, mix in zip(heads, mixes, strict=True)
    ]
    mixed = graph.add("Mul", linear, graph.constant(weight.astype(np.float32)))
    mixed = graph.add("Add", mixed, graph.constant(np.array(shift, np.float32)))
    if all(head.trees is None for head in heads):
        return mixed
    share = graph.constant(np.array([mix.weights[1] for mix in mixes], np.float32))
    return graph.add("Add", mixed, graph.add("Mul", _draw_trees(graph, [head.trees for head in heads]), share))


def _draw_scaled(graph: GraphBuilder, model: VerifierModel) -> str:
    centred = graph.add("Sub", "dense", graph.constant(model.encoder.mean))
    scaled = graph.add("Div", centred, graph.constant(model.encoder.scale))
    known = graph.add("Where", graph.add("IsNaN", scaled), graph.scalar(0.0), scaled)
    edges = [graph.constant(np.array(edge, np.float32)) for edge in (-CLIP, CLIP)]
    return graph.add("Clip", known, *edges)


def _draw_weights(graph: GraphBuilder, model: VerifierModel) -> str:
    values = graph.add("Mul", "counts", graph.add("Gather", graph.constant(model.encoder.idf), "ids"))
    energy = _row_sum(graph, graph.add("Mul", values, values))
    norm = graph.add("Sqrt", graph.add("Max", energy, graph.scalar(1e-12)))
    is_metadata = graph.add("GreaterOrEqual", "ids", graph.constant(np.array([N_ANSWER_TEXT_BUCKETS], np.int64)))
    metadata = graph.add("Mul", "counts", graph.scalar(METADATA_WEIGHT))
    return graph.add("Where", is_metadata, metadata, graph.add("Div", values, norm))


def _draw_trees(graph: GraphBuilder, forests: list[Trees | None]) -> str:
    """Draw the trees of all heads as one ensemble with a target per head, (n, K - 1 + G)."""
    tables = [(target, forest) for target, forest in enumerate(forests) if forest is not None]
    offsets = np.cumsum([0, *(int(forest.tree.max(initial=-1)) + 1 for _, forest in tables)])
    nodes = {
        "nodes_treeids": np.concatenate([f.tree + o for (_, f), o in zip(tables, offsets, strict=False)]),
        "nodes_nodeids": np.concatenate([f.node for _, f in tables]),
        "nodes_featureids": np.concatenate([f.feature for _, f in tables]),
        "nodes_values": np.concatenate([f.threshold for _, f in tables]),
        "nodes_truenodeids": np.concatenate([f.left for _, f in tables]),
        "nodes_falsenodeids": np.concatenate([f.right for _, f in tables]),
        "nodes_missing_value_tracks_true": np.concatenate([f.missing_left for _, f in tables]),
    }
    leaf = np.concatenate([f.is_leaf for _, f in tables])
    head = np.concatenate([np.full(len(f.tree), target) for target, f in tables])
    return graph.add(
        "TreeEnsembleRegressor",
        graph.add("Concat", "dense", "adequacy", axis=1),
        domain="ai.onnx.ml",
        n_targets=len(forests),
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_modes=["LEAF" if one else "BRANCH_LEQ" for one in leaf],
        target_treeids=nodes["nodes_treeids"][leaf].tolist(),
        target_nodeids=nodes["nodes_nodeids"][leaf].tolist(),
        target_ids=head[leaf].tolist(),
        target_weights=np.concatenate([f.value for _, f in tables])[leaf].tolist(),
        **{name: values.tolist() for name, values in nodes.items()},
    )


def _draw_posterior(
    graph: GraphBuilder,
    model: VerifierModel,
    judged: str,
    odds: str,
    own: str,
    heads: str,
    answered: str,
    gains: str | None,
) -> str:
    k = len(model.tiers)
    parts = {
        name: np.zeros((k - 1, k), np.float32) for name in ("before", "moved", "shift", "dearer", "chained", "kept")
    }
    for (s, t), one in model.transfers.items():
        parts["before"][s, t], parts["moved"][s, t] = one.mix.weights
        parts["shift"][s, t], parts["dearer"][s, t] = one.mix.shift, 1.0
        parts["chained"][s, t], parts["kept"][s, t] = float(one.given_failure), 1.0 - one.slip
    row = {name: graph.add("MatMul", heads, graph.constant(table)) for name, table in parts.items()}
    v = graph.add("Sigmoid", judged)
    z = graph.add("Add", graph.add("Mul", odds, row["before"]), row["shift"])
    z = graph.add("Add", z, graph.add("Mul", graph.add("Sub", judged, own), row["moved"]))
    p = graph.add("Sigmoid", z)
    bad = graph.add("Sub", graph.scalar(1.0), v)
    mixture = graph.add("Add", graph.add("Mul", row["kept"], v), graph.add("Mul", bad, p))
    free = graph.add("Sub", graph.scalar(1.0), row["chained"])
    dearer = graph.add("Add", graph.add("Mul", row["chained"], mixture), graph.add("Mul", free, p))
    if gains is not None:
        dearer = _draw_gains(graph, model, dearer, v, heads, gains)
    mine = graph.add("Mul", answered, _row_sum(graph, heads))
    rest = graph.add("Sub", graph.add("Sub", graph.scalar(1.0), mine), row["dearer"])
    known = graph.add("Add", graph.add("Mul", mine, v), graph.add("Mul", row["dearer"], dearer))
    return graph.add("Add", known, graph.add("Mul", rest, "adequacy"))


def _draw_gains(graph: GraphBuilder, model: VerifierModel, dearer: str, v: str, heads: str, gains: str) -> str:
    """Draw the chances (n, K) of dearer tiers where a pair's head has its say in them."""
    k, pairs = len(model.tiers), list(model.gains)
    # Row g of `target` has a 1 in the column of its pair's dearer tier, `asked` in the row of the one that answers.
    asked, target = np.zeros((k - 1, len(pairs)), np.float32), np.zeros((len(pairs), k), np.float32)
    for g, (s, t) in enumerate(pairs):
        asked[s, g] = target[g, t] = 1.0
    speaks = graph.add("MatMul", heads, graph.constant(asked))
    added = graph.add("MatMul", graph.add("Mul", gains, speaks), graph.constant(target))
    transferred = graph.add("Mul", graph.add("Sub", dearer, v), graph.scalar(1.0 - OWN_SHARE))
    mixed = graph.add("Add", graph.add("Add", v, transferred), graph.add("Mul", added, graph.scalar(OWN_SHARE)))
    mixed = graph.add("Clip", mixed, graph.scalar(0.0), graph.scalar(1.0))
    has = graph.add("MatMul", speaks, graph.constant(target))
    rest = graph.add("Mul", dearer, graph.add("Sub", graph.scalar(1.0), has))
    return graph.add("Add", rest, graph.add("Mul", mixed, has))


def _columns(graph: GraphBuilder, tensor: str, start: int, end: int) -> str:
    bounds = [graph.constant(np.array([value], np.int64)) for value in (start, end, 1)]
    return graph.add("Slice", tensor, *bounds)


def _row_sum(graph: GraphBuilder, tensor: str) -> str:
    return graph.add("ReduceSum", tensor, graph.constant(np.array([1], np.int64)), keepdims=1)


def _odd(dense: F32, rng: np.random.Generator) -> F32:
    changed = dense.copy()
    changed[rng.random(dense.shape) < 0.05] = np.nan
    extreme = rng.random(dense.shape) < 0.02
    changed[extreme] = rng.choice(np.array([-_EXTREME, -1e6, 0.0, 1e6, _EXTREME], np.float32), int(extreme.sum()))
    return changed
