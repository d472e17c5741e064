"""A bundle with a verifier: loaded and refused like the rest of it, and what `Router.judge` makes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from router_ml.bundle import VERIFIER, Bundle, load_bundle, write_bundle
from router_ml.cli import main
from router_ml.config import ExplorationSettings, PolicySettings
from router_ml.errors import BundleCorrupt, BundleMismatch
from router_ml.features.answer import ANSWER_NAMES, ANSWER_SCHEMA_HASH
from router_ml.router import Router
from router_ml.schema import Answer, Decision, Request

HEDGES = ANSWER_NAMES.index("words.hedge_cues")
NAMES = ("small", "medium", "large")
ASKED = Request(messages=({"role": "user", "content": "Say hi"},))
SURE, UNSURE = Answer("It is twelve.", "stop"), Answer("It is perhaps twelve, maybe more.", "stop")


def build_verifier(
    *, tiers: Sequence[str] = NAMES, schema: str = ANSWER_SCHEMA_HASH, v: float = 0.9, output: str = "posterior"
) -> bytes:
    """A verifier that says `v` of every tier, less 0.3 for each hedge-ish log count of the answering one's words."""
    k = len(tiers)
    constants: dict[str, Any] = {
        "slope": np.float32(-0.3),
        "at": np.array([HEDGES], np.int64),
        "v": np.full((1, 1), v, np.float32),
        "position": np.arange(k),
        "rest": np.float32(0.9),
    }
    constants |= {"one": np.array([1], np.int64), "zero": np.zeros((1, k), np.float32)}
    nodes = [
        helper.make_node("Gather", ["dense", "at"], ["hedges"], axis=1),
        helper.make_node("Mul", ["hedges", "slope"], ["moved"]),
        helper.make_node("Add", ["moved", "v"], ["mine"]),
        helper.make_node("Unsqueeze", ["tier", "one"], ["column"]),
        helper.make_node("Equal", ["column", "position"], ["here"]),
        helper.make_node("Where", ["here", "mine", "rest"], ["said"]),
        helper.make_node("Cast", ["ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "counts"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "one"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Mul", ["adequacy", "zero"], ["nil"]),
        helper.make_node("Sum", ["said", "nothing", "nil"], [output]),
    ]
    f32, i64 = TensorProto.FLOAT, TensorProto.INT64
    inputs = {"dense": (f32, ["n", len(ANSWER_NAMES)]), "ids": (i64, ["n", "l"]), "counts": (f32, ["n", "l"])}
    inputs |= {"adequacy": (f32, ["n", k]), "tier": (i64, ["n"])}
    graph = helper.make_graph(
        nodes,
        "verifier",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(output, f32, ["n", k])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"answer_schema_hash": schema, "tiers": json.dumps(list(tiers))})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture
def write(
    tmp_path: Path, build_draft: Callable[..., Any], build_policy: Callable[..., Any], build_model: Callable[..., bytes]
) -> Callable[..., Path]:
    def make(verifier: bytes | None, **policy: Any) -> Path:
        return write_bundle(
            tmp_path / "models",
            manifest=build_draft(),
            policy=build_policy(**policy),
            model=build_model(),
            verifier=verifier,
        )

    return make


def judging_policy(**changes: Any) -> dict[str, Any]:
    point = {"quality": 0.97, "shadow_price": 10.0, "saving": 0.5, "judged": True, "alone_price": 20.0}
    spread = ((0.0, 1.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0))
    return {"frontier": [point | changes], "plans": {"spread": spread}}


def router_of(path: Path) -> Router:
    return Router(load_bundle(path), PolicySettings(), ExplorationSettings(up=0.0), {})


def decided(router: Router, **changes: Any) -> Decision:
    decision = router.route(ASKED, decision_id="d", rng=np.random.default_rng(0))
    plan = type(decision.plan)("small", "large")
    return Decision(**{name: getattr(decision, name) for name in Decision.__slots__} | {"plan": plan} | changes)


def test_a_bundle_without_a_verifier_judges_by_rules_alone(write: Callable[..., Path]) -> None:
    path = write(None)
    assert not (path / VERIFIER).exists()
    assert load_bundle(path).verifier is None
    router = router_of(path)
    assert router.judge(ASKED, UNSURE, decision=decided(router)) is None


def test_a_verifier_is_written_with_its_checksum_and_loaded(write: Callable[..., Path]) -> None:
    bundle: Bundle = load_bundle(write(build_verifier()))
    assert VERIFIER in bundle.manifest.files
    assert bundle.verifier is not None
    assert bundle.verifier.n_tiers == 3


def test_plans_without_a_verifier_are_refused_when_written_and_when_loaded(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(BundleMismatch, match=r"plans judge answers, but there is no verifier\.onnx"):
        write(None, **judging_policy())
    assert not (tmp_path / "models" / "v1").exists()
    path = write(build_verifier(), **judging_policy())
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["files"][VERIFIER]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleMismatch, match="copy the whole bundle again"):
        load_bundle(path)


def test_a_damaged_or_missing_verifier_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(build_verifier())
    damaged, missing = tmp_path / "damaged", tmp_path / "missing"
    shutil.copytree(path, damaged)
    shutil.copytree(path, missing)
    (damaged / VERIFIER).write_bytes(b"x" + (path / VERIFIER).read_bytes()[1:])
    (missing / VERIFIER).unlink()
    with pytest.raises(BundleCorrupt, match="does not match its checksum"):
        load_bundle(damaged)
    with pytest.raises(BundleCorrupt, match=r"no verifier\.onnx"):
        load_bundle(missing)


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        (b"no graph", "not a graph"),
        (build_verifier(schema="old"), "answer features 'old'"),
        (build_verifier(tiers=("small", "medium", "huge")), "made for the tiers"),
        (build_verifier(output="chances"), "expected the inputs"),
        (build_verifier(v=1.5), "probabilities"),
    ],
)
def test_a_verifier_that_does_not_fit_is_never_written(
    write: Callable[..., Path], verifier: bytes, message: str
) -> None:
    with pytest.raises((BundleCorrupt, BundleMismatch), match=message):
        write(verifier)


def test_a_rules_refusal_is_final(write: Callable[..., Path]) -> None:
    router = router_of(write(build_verifier(), **judging_policy()))
    verdict = router.judge(ASKED, Answer("", "stop"), decision=decided(router))
    assert verdict is not None
    assert (verdict.source, verdict.adequate) == ("rule", False)


def test_an_answer_stays_unless_the_next_tier_is_worth_its_price(write: Callable[..., Path]) -> None:
    router = router_of(write(build_verifier(v=0.9), **judging_policy()))
    decision = decided(router)
    assert decision.threshold == 10.0
    sure, unsure = (router.judge(ASKED, answer, decision=decision) for answer in (SURE, UNSURE))
    assert sure is not None
    assert unsure is not None
    assert (sure.source, sure.adequate) == ("verifier", True)
    assert sure.score == pytest.approx(0.9)
    assert unsure.adequate is False
    assert unsure.reason is not None
    assert "large would be at 0.90" in unsure.reason
    dear = decided(router, expected_cost_usd=dict.fromkeys(NAMES, 1.0))
    stays = router.judge(ASKED, UNSURE, decision=dear)
    assert stays is not None
    assert stays.adequate is True


def test_an_answer_is_judged_by_what_its_decision_looked_at_and_at_its_price(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    router = router_of(write(build_verifier(v=0.9), **judging_policy()))
    decision = router.route(ASKED, decision_id="d", rng=np.random.default_rng(0))
    anew = router.judge(ASKED, UNSURE, decision=replace(decision, basis=None))
    monkeypatch.setattr(Bundle, "score", lambda *_: pytest.fail("scored twice"))
    assert router.judge(ASKED, UNSURE, decision=decision) == anew is not None
    # Whatever a dearer tier's expected cost has become since, as by a warm cache: the price is the decision's own.
    monkeypatch.undo()
    free, dear = (decided(router, usd_price=price) for price in (0.0, 1e9))
    verdicts = [router.judge(ASKED, UNSURE, decision=one) for one in (free, dear)]
    assert [verdict.adequate for verdict in verdicts if verdict is not None] == [False, True]


def test_with_nobody_to_jump_to_there_is_a_score_and_no_verdict(write: Callable[..., Path]) -> None:
    router = router_of(write(build_verifier(), **judging_policy()))
    decision = decided(router)
    for options in (
        {"tier": "medium"},
        {"tier": "small", "decision": None},
        {"decision": decided(router, quality=0.5)},
    ):
        verdict = router.judge(ASKED, SURE, **{"decision": decision, **options})
        assert verdict is not None
        if options.get("decision", decision) is None or "tier" in options:
            assert verdict.adequate is None
        assert verdict.score == pytest.approx(0.9)
    assert router.judge(ASKED, SURE) is None, "nobody said who answered"
    assert router.judge(ASKED, SURE, tier="large") is None, "nobody is dearer"


def test_a_policy_that_was_tuned_without_judging_only_gets_scores(write: Callable[..., Path]) -> None:
    router = router_of(write(build_verifier()))
    verdict = router.judge(ASKED, UNSURE, decision=decided(router))
    assert verdict is not None
    assert verdict.adequate is None
    assert verdict.score is not None
    assert verdict.score < 0.8


def test_route_explains_utilities_as_worth_of_plans_where_answers_are_judged(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(build_verifier(), **judging_policy())
    arguments = ["route", "hi", "--explain", "--bundle", str(path)]
    assert main([*arguments, "--json"]) == 0
    decision = json.loads(capsys.readouterr().out)
    assert decision["judged"]
    cost, price = decision["expected_cost_usd"], decision["threshold"]
    alone = {name: p - price * cost[name] for name, p in decision["adequacy"].items()}
    assert decision["utility"]["small"] > alone["small"] + 0.01
    assert decision["utility"]["large"] == pytest.approx(alone["large"])
    assert decision["tier"] == max(decision["utility"], key=decision["utility"].get)
    assert main(arguments) == 0
    assert "utility = worth of the best plan that begins with the tier" in capsys.readouterr().out
