"""The parity gate: what passes is the trained model to 1e-5 and to the last decision; what was damaged is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from router_ml.errors import ParityError
from router_ml.features import N_BUCKETS
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import fit_encoder
from router_ml_training.export import TOLERANCE, ParityReport, check_parity, to_onnx
from router_ml_training.learners import LEARNERS
from router_ml_training.tasks import AdequacyModel, fit_adequacy
from router_ml_training.tokens import TokenModel, fit_tokens


@dataclass(frozen=True)
class Made:
    data: Dataset
    adequacy: AdequacyModel
    tokens: TokenModel
    ladder: Any

    @property
    def graph(self) -> bytes:
        return to_onnx(self.adequacy, self.tokens)

    def check(self, graph: bytes, *, price: float = 60.0, n_rows: int = 2000, seed: int = 0) -> ParityReport:
        rng = np.random.default_rng(seed)
        parts = (graph, self.adequacy, self.tokens, self.data)
        return check_parity(*parts, ladder=self.ladder, shadow_price=price, rng=rng, n_rows=n_rows)


@pytest.fixture(scope="module")
def make(world: Any) -> Callable[[str, str], Made]:
    made: dict[tuple[str, str], Made] = {}

    def build(learner: str, policy: str = "audit") -> Made:
        if (learner, policy) not in made:
            data = world.dataset(600, policy=policy)
            train, tune = data.rows(np.arange(450)), data.rows(np.arange(450, 600))
            encoder = fit_encoder(train)
            adequacy = fit_adequacy(train, tune, encoder, LEARNERS.load(learner), seed=0)
            made[learner, policy] = Made(data, adequacy, fit_tokens(train, encoder), world.ladder)
        return made[learner, policy]

    return build


@pytest.mark.parametrize("policy", ["audit", "chain"])
@pytest.mark.parametrize("learner", list(LEARNERS))
def test_every_learner_passes_in_both_forms(learner: str, policy: str, make: Callable[..., Made]) -> None:
    made = make(learner, policy)
    report = made.check(made.graph)
    assert report.n_rows == 2200
    assert report.n_flipped == 0
    assert report.max_difference <= TOLERANCE
    assert report.max_token_difference <= 1e-3


def test_the_gate_looks_at_ten_thousand_rows_and_a_tenth_of_odd_ones_on_top(make: Callable[..., Made]) -> None:
    made = make("constant")
    rng = np.random.default_rng(0)
    parts = (made.graph, made.adequacy, made.tokens, made.data)
    assert check_parity(*parts, ladder=made.ladder, shadow_price=60.0, rng=rng).n_rows == 11_000


def test_of_a_long_log_rows_are_replayed_and_none_is_made_up(make: Callable[..., Made]) -> None:
    made = make("linear")
    assert made.check(made.graph, n_rows=300).n_rows == 300 + 100


def test_the_same_models_give_the_same_bytes(make: Callable[..., Made]) -> None:
    assert make("gbdt").graph == make("gbdt").graph


def damaged(graph: bytes, change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(graph)
    change(model)
    return bytes(model.SerializeToString())


def scale_constant(factor: float, size: int) -> Callable[[onnx.ModelProto], None]:
    """Multiply the last float constant of that many values; those of the answer lengths are drawn last."""

    def change(model: onnx.ModelProto) -> None:
        tensors = [(one, numpy_helper.to_array(one)) for one in model.graph.initializer]
        tensor, values = [(one, v) for one, v in tensors if v.dtype == np.float32 and v.size == size][-1]
        tensor.CopyFrom(numpy_helper.from_array(values * np.float32(factor), tensor.name))

    return change


def move_thresholds(model: onnx.ModelProto) -> None:
    # Up by one float32: the mistake of a converter that rounds to the nearest.
    (node,) = [one for one in model.graph.node if one.op_type == "TreeEnsembleRegressor"][:1]
    (values,) = [one for one in node.attribute if one.name == "nodes_values"]
    up = np.nextafter(np.array(values.floats, np.float32), np.float32(np.inf))
    values.floats[:] = up.tolist()


def swap_tiers(model: onnx.ModelProto) -> None:
    (last,) = [one for one in model.graph.node if "adequacy" in one.output]
    last.op_type = "Gather"
    last.attribute.append(helper.make_attribute("axis", 1))
    last.input.append("swapped")
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 0]), "swapped"))


def nothing_missing(model: onnx.ModelProto) -> None:
    # NaN would run through to the probabilities.
    (node,) = [one for one in model.graph.node if one.op_type == "Imputer"]
    node.op_type, node.domain = "Identity", ""
    del node.attribute[:]


@pytest.mark.parametrize(
    ("learner", "change", "said"),
    [
        pytest.param("linear", scale_constant(1.001, 8 * N_BUCKETS), "adequacy differs by up to", id="word weights"),
        pytest.param("gbdt", move_thresholds, "adequacy differs by up to", id="tree thresholds one step up"),
        pytest.param("linear", swap_tiers, "decisions flip", id="tiers swapped"),
        pytest.param("length", nothing_missing, "adequacy differs by up to inf", id="missing values handed through"),
        pytest.param("constant", scale_constant(1.01, 2), "log token counts by up to", id="token intercepts"),
    ],
)
def test_a_damaged_graph_is_refused(
    learner: str, change: Callable[[onnx.ModelProto], None], said: str, make: Callable[..., Made]
) -> None:
    made = make(learner)
    graph = damaged(made.graph, change)
    with pytest.raises(ParityError, match=f"the exported graph is not the trained model.*{said}.*nothing was written"):
        made.check(graph)


def test_tokens_that_are_hardly_wrong_and_change_decisions_are_refused(make: Callable[..., Made]) -> None:
    made = make("linear")
    graph = damaged(made.graph, scale_constant(1.00015, 2))  # 0.07 % more tokens: allowed, as far as numbers go
    with pytest.raises(ParityError, match=r"[1-9]\d* decisions flip"):
        made.check(graph, price=150.0, n_rows=10_000)


def test_tiers_that_tie_are_no_reason_to_refuse(make: Callable[..., Made]) -> None:
    made = make("linear")
    twin = made.adequacy.models[0]
    # Two tiers alike but for the last bits: which one is taken does not matter.
    almost = replace(twin, platt=replace(twin.platt, shift=twin.platt.shift + 1e-9))
    adequacy = replace(made.adequacy, models=(twin, almost))
    tied = replace(made, adequacy=adequacy)
    assert tied.check(tied.graph, price=0.0).n_flipped == 0
