"""Why a decision was made: the words and facts that move the model, every plan's worth, and what would change it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from router_ml.bundle import default_bundle_path, load_bundle
from router_ml.cli.explanation import explained
from router_ml.config import ExplorationSettings, PolicySettings, UseCase
from router_ml.constraints import Context
from router_ml.explain import Contribution, Explanation, explain
from router_ml.features import DENSE_NAMES, N_BUCKETS, SCHEMA_HASH, featurize
from router_ml.router import Router
from router_ml.schema import Decision, Plan, Request

TIERS = ("small", "medium", "large")
# One sigmoid of what words and metadata weigh, for every tier.
BIAS = 1.0


def bag_model(weights: dict[int, float]) -> bytes:
    """Return a graph that adds up what the ids of a request weigh, counts included."""
    table = np.zeros((N_BUCKETS, 1), np.float32)
    for bucket, weight in weights.items():
        table[bucket] = weight
    k = len(TIERS)
    constants = {
        "table": table,
        "axis": np.array([1], np.int64),
        "last": np.array([2], np.int64),
        "bias": np.full((1, k), BIAS, np.float32),
        "flat": np.zeros((len(DENSE_NAMES), k), np.float32),
        "tokens": np.full((1, k), 200, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["each"]),
        helper.make_node("Unsqueeze", ["counts", "last"], ["shares"]),
        helper.make_node("Mul", ["each", "shares"], ["weighed"]),
        helper.make_node("ReduceSum", ["weighed", "axis"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["dense", "flat"], ["nothing"]),
        helper.make_node("Sum", ["nothing", "sum", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["adequacy"]),
        helper.make_node("Add", ["nothing", "tokens"], ["output_tokens"]),
    ]
    f32, i64 = TensorProto.FLOAT, TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "bag",
        [
            helper.make_tensor_value_info("dense", f32, ["n", len(DENSE_NAMES)]),
            helper.make_tensor_value_info("ids", i64, ["n", "l"]),
            helper.make_tensor_value_info("counts", f32, ["n", "l"]),
        ],
        [helper.make_tensor_value_info(name, f32, ["n", k]) for name in ("adequacy", "output_tokens")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"feature_schema_hash": SCHEMA_HASH, "tiers": json.dumps(list(TIERS))})
    return bytes(model.SerializeToString())


def user(text: str, **fields: Any) -> Request:
    return Request(messages=({"role": "user", "content": text},), **fields)


def only_in(request: Request, without: Request) -> set[int]:
    return set(featurize(request).ids.tolist()) - set(featurize(without).ids.tolist())


def router_of(path: Path, *, up: float = 0.0, **cases: UseCase) -> Router:
    return Router(load_bundle(path), PolicySettings(), ExplorationSettings(up=up), cases)


def decided(router: Router, request: Request, **options: Any) -> Decision:
    return router.route(request, decision_id="d", rng=np.random.default_rng(0), **options)


def explanation_of(router: Router, request: Request, **options: Any) -> Explanation:
    return explain(router, request, decided(router, request), **options)


def by_name(explanation: Explanation) -> dict[str, Contribution]:
    return {one.name: one for one in explanation.contributions}


@pytest.fixture
def bag(make_bundle: Callable[..., Path]) -> Callable[[dict[int, float]], Router]:
    return lambda weights: router_of(make_bundle(model=bag_model(weights)))


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def test_a_word_weighs_what_the_model_says_without_it(bag: Callable[..., Router]) -> None:
    (prove,) = featurize(user("Prove")).ids[:1]
    pair = only_in(user("prove it"), user("it prove"))
    router = bag({int(prove): -2.0} | dict.fromkeys(pair, 0.5))
    found = by_name(explanation_of(router, user("Prove it!")))
    assert found['"prove"'].kind == "word"
    assert found['"prove"'].change["large"] == pytest.approx(sigmoid(BIAS - 1.5) - sigmoid(BIAS + 0.5), abs=1e-6)
    assert found['"prove it"'].change["small"] == pytest.approx(sigmoid(BIAS - 1.5) - sigmoid(BIAS - 2.0), abs=1e-6)
    everything = found["all words and pairs together"]
    assert everything.change["small"] == pytest.approx(sigmoid(BIAS - 1.5) - sigmoid(BIAS), abs=1e-6)
    assert '"it"' not in found, "what changes nothing is not listed"


@pytest.mark.parametrize("text", ["为什么天空是蓝色的", "Größe über straße", "สวัสดีครับ", "snake_case x2 ÄÖ"])
def test_words_of_every_script_are_named(bag: Callable[..., Router], text: str) -> None:
    ids = featurize(user(text)).ids
    router = bag({int(bucket): 0.3 for bucket in ids if bucket < N_BUCKETS - 4096})
    names = {one.name.strip('"') for one in explanation_of(router, user(text), top=99).contributions}
    assert "words of one bucket" not in names
    spoken = set("".join(names - {"all words and pairs together"}).replace(" ", ""))
    assert spoken >= set(text.lower().replace(" ", ""))


def test_metadata_is_named_by_what_would_be_missing(bag: Callable[..., Router]) -> None:
    request = Request(
        messages=({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}),
        tenant="acme",
        feature="search",
        tools=({"type": "function", "function": {"name": "f"}},),
    )
    router = bag({int(bucket): -0.5 for bucket in featurize(request).ids if bucket >= N_BUCKETS - 4096})
    found = by_name(explanation_of(router, request, top=99))
    expected = {"tenant=acme", "feature=search", "tools", "system prompt", "turn of the conversation"}
    assert {name for name, one in found.items() if one.kind == "metadata"} == expected
    assert found["tenant=acme"].change["small"] < found["tools"].change["small"] < 0, (
        "with its feature it is known twice"
    )


def test_numbers_are_compared_with_the_usual(make_bundle: Callable[..., Path]) -> None:
    router = router_of(make_bundle())
    (length,) = explanation_of(router, user("word " * 2000)).contributions
    assert (length.name, length.kind) == ("structure.log_input_tokens", "number")
    assert length.change["small"] < length.change["large"] < 0


def test_the_quality_that_changes_the_plan_is_told(make_bundle: Callable[..., Path]) -> None:
    router = router_of(make_bundle(), up=1.0)
    explanation = explanation_of(router, user("word " * 20))
    planned = {}
    greedy = router_of(router.bundle.path)
    for one in explanation.qualities:
        for quality in (one.low + 1e-6, (one.low + one.high) / 2, one.high):
            planned[quality] = one.plan.first
            assert decided(greedy, user("word " * 20), quality=quality).tier == one.plan.first
    assert len(set(planned.values())) > 1
    assert (explanation.qualities[0].high, explanation.qualities[-1].low) == (1.0, 0.0)
    assert explanation.exploration == (0.0 if decided(greedy, user("word " * 20)).tier == "large" else 1.0)
    assert (explanation.frontier_point, explanation.saving) == (0.97, 0.4)


def test_a_knob_above_every_tuned_point_is_told(
    make_bundle: Callable[..., Path], build_policy: Callable[..., Any]
) -> None:
    router = router_of(make_bundle(policy=build_policy(frontier=[])))
    request = user("hi")
    explanation = explanation_of(router, request)
    assert (explanation.frontier_point, len(explanation.qualities)) == (None, 1)
    text = explained("head", decided(router, request), explanation, relative=False, width=80)
    assert "above every tuned point" in text
    assert "every quality: large" in text


def test_plans_that_are_not_allowed_are_marked(make_bundle: Callable[..., Path]) -> None:
    case = UseCase(tiers=("small", "large"))
    router = router_of(make_bundle(), cheap=case)
    request = user("hi", use_case="cheap")
    explanation = explanation_of(router, request, case=Context(frozenset({"small", "large"})))
    assert {one.plan.first for one in explanation.plans if not one.allowed} == {"medium"}
    text = explained("head", decided(router, request), explanation, relative=False, width=80)
    assert "medium" in text
    assert "not allowed" in text


def test_an_unusual_request_says_what_is_unusual(
    make_bundle: Callable[..., Path], build_policy: Callable[..., Any]
) -> None:
    n = len(DENSE_NAMES)
    policy = build_policy(bounds={"low": (-1e30,) * n, "high": (1.0,) * n, "max_outside": 0})
    router = router_of(make_bundle(policy=policy))
    explanation = explanation_of(router, user("word " * 50))
    assert "text.log_chars" in explanation.unusual
    assert not explanation.in_distribution
    assert {one.plan for one in explanation.qualities} == {Plan("large")}


@pytest.mark.parametrize("text", ["", "Why?", "为什么天空是蓝色的", "fox " * 4000])
def test_the_bundle_that_ships_with_the_project_is_explained(text: str) -> None:
    router = router_of(default_bundle_path())
    request = user(text, tenant="a\x1b[31m" + "天" * 60)
    explanation = explanation_of(router, request)
    decision = decided(router, request)
    for width in (80, 120):
        shown = explained("head " * 40, decision, explanation, relative=True, width=width)
        assert max(map(len, shown.splitlines())) <= width
        assert "\x1b" not in shown


@given(st.text(max_size=60), st.sampled_from([None, "acme"]))
@settings(max_examples=40, deadline=None)
def test_any_request_can_be_explained(text: str, tenant: str | None) -> None:
    router = router_of(default_bundle_path())
    explanation = explanation_of(router, user(text, tenant=tenant))
    assert all(np.isfinite(list(one.change.values())).all() for one in explanation.contributions)
    assert len(explanation.contributions) <= 10
