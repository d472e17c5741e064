"""Bound buffers: the same scores as handing arrays over, whatever came before and however many threads ask."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from router_ml.graph import open_graph
from router_ml.scorer import Scorer

D, K = 3, 2


@pytest.fixture(scope="module")
def session() -> Any:
    """A graph whose outputs depend on every id and every weight."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "counts"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axis"], ["sum"], keepdims=1),
        helper.make_node("MatMul", ["dense", "weights"], ["product"]),
        helper.make_node("Add", ["product", "sum"], ["adequacy"]),
        helper.make_node("Neg", ["adequacy"], ["output_tokens"]),
    ]
    inputs = [("dense", TensorProto.FLOAT, D), ("ids", TensorProto.INT64, "l"), ("counts", TensorProto.FLOAT, "l")]
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info(name, kind, ["n", width]) for name, kind, width in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", K]) for name in ("adequacy", "output_tokens")],
        [
            numpy_helper.from_array(np.array([1]), "axis"),
            numpy_helper.from_array(np.arange(D * K, dtype=np.float32).reshape(D, K), "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return open_graph(model.SerializeToString(), "the graph")


def request(n: int, seed: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.integers(0, 1000, n))
    return rng.random(D).astype(np.float32), ids, rng.integers(1, 4, n).astype(np.float32)


def by_hand(session: Any, dense: Any, ids: Any, counts: Any) -> list[float]:
    feed = {"dense": dense[None], "ids": ids[None], "counts": counts[None]}
    found: list[float] = session.run(["adequacy"], feed)[0][0].tolist()
    return found


def check(session: Any) -> Callable[[Scorer, int, int], None]:
    def one(scorer: Scorer, n: int, seed: int) -> None:
        parts = request(n, seed)
        adequacy, tokens = scorer.run(*parts)
        assert adequacy.dtype == tokens.dtype == np.float64
        # Weights and ids are whole numbers: padding cannot change a bit of their sum.
        assert adequacy.tolist() == pytest.approx(by_hand(session, *parts), rel=1e-6)
        assert tokens.tolist() == [-value for value in adequacy.tolist()]

    return one


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 128, 1000, 4096, 4097, 9000])
def test_a_request_of_any_length_is_scored_as_by_hand(session: Any, n: int) -> None:
    check(session)(Scorer(session, D, K), n, n)


def test_nothing_of_a_longer_request_is_left_in_a_shorter_one(session: Any) -> None:
    scorer = Scorer(session, D, K)
    for seed, n in enumerate((60, 3, 64, 1, 40, 100, 70, 128, 65)):
        check(session)(scorer, n, seed)


def test_a_request_without_words_is_one_of_zeros(session: Any) -> None:
    scorer = Scorer(session, D, K)
    check(session)(scorer, 50, 0)
    dense, ids, counts = request(0, 1)
    assert scorer.run(dense, ids, counts)[0].tolist() == pytest.approx((dense @ np.arange(6.0).reshape(D, K)).tolist())


def test_scores_stay_when_the_next_request_comes(session: Any) -> None:
    scorer = Scorer(session, D, K)
    first = scorer.run(*request(5, 0))[0]
    before = first.tolist()
    scorer.run(*request(5, 1))
    assert first.tolist() == before


def test_threads_share_no_buffers(session: Any) -> None:
    scorer = Scorer(session, D, K)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: check(session)(scorer, 1 + seed % 90, seed), range(400)))


def test_a_bag_that_the_graph_does_not_read_is_not_looked_at(session: Any) -> None:
    dense, ids, counts = request(70, 0)
    nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
    scorer = Scorer(session, D, K, bag=False)
    expected = Scorer(session, D, K).run(dense, *nothing)[0].tolist()
    assert scorer.run(dense, ids, counts)[0].tolist() == expected == scorer.run(dense, *nothing)[0].tolist()
