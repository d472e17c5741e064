"""What is learned: a chain log gives the truth back, slip and forms are told from the evidence, tokens are averages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.encoder import Design, fit_encoder
from router_ml_training.learners import LEARNERS
from router_ml_training.learners.constant import ConstantHead
from router_ml_training.onnx_graph import GraphBuilder
from router_ml_training.tasks import AdequacyModel, TokenModel, _form, _slip, fit_adequacy, fit_tokens, forms

N_TRAIN, N_TUNE, N_FRESH = 3000, 800, 1500


def part(world: Any, n: int, seed: int, policy: str = "audit") -> Dataset:
    made: Dataset = world.dataset(n, seed, policy=policy)
    return made


def truth(world: Any, seed: int) -> np.ndarray:
    difficulty = world.draw(N_FRESH, np.random.default_rng(seed)).difficulty
    return np.stack([world.p_small[difficulty], world.p_large[difficulty]], axis=1)


def fitted(train: Dataset, tune: Dataset, learner: str = "linear") -> AdequacyModel:
    return fit_adequacy(train, tune, fit_encoder(train), LEARNERS.load(learner), seed=0)


def freed(data: Dataset) -> Dataset:
    """The same rows for a learner that does not know why the large tier was asked."""
    return replace(data, escalated=np.zeros_like(data.escalated))


@pytest.fixture(scope="module")
def chain(world: Any) -> tuple[Dataset, Dataset]:
    return part(world, N_TRAIN, 1, "chain"), part(world, N_TUNE, 2, "chain")


def test_from_a_chain_log_the_chained_form_recovers_the_truth_and_a_naive_head_does_not(
    world: Any, chain: tuple[Dataset, Dataset]
) -> None:
    train, tune = chain
    fresh, p = part(world, N_FRESH, 3), truth(world, 3)
    chained, naive = fitted(train, tune), fitted(freed(train), freed(tune))
    assert forms(chained) == {"small": "marginal", "large": "chained"}
    assert forms(naive) == {"small": "marginal", "large": "marginal"}
    errors = {
        name: float(np.abs(model.predict(model.encoder.encode(fresh))[:, 1] - p[:, 1]).mean())
        for name, model in (("chained", chained), ("naive", naive))
    }
    assert errors["chained"] < 0.05
    assert errors["naive"] > 2 * errors["chained"]
    assert chained.predict(chained.encoder.encode(fresh))[:, 1].mean() == pytest.approx(p[:, 1].mean(), abs=0.02)


def test_the_cheap_tier_is_recovered_from_the_chain_as_from_an_audit(
    world: Any, chain: tuple[Dataset, Dataset]
) -> None:
    fresh, p = part(world, N_FRESH, 3), truth(world, 3)
    model = fitted(*chain)
    assert np.abs(model.predict(model.encoder.encode(fresh))[:, 0] - p[:, 0]).mean() < 0.06


def test_from_an_audit_both_heads_are_marginal_and_right(world: Any) -> None:
    train, tune = part(world, N_TRAIN, 1), part(world, N_TUNE, 2)
    fresh, p = part(world, N_FRESH, 3), truth(world, 3)
    model = fitted(train, tune)
    assert set(forms(model).values()) == {"marginal"}
    assert np.abs(model.predict(model.encoder.encode(fresh)) - p).mean() < 0.06


def test_the_chained_form_is_its_closed_form(chain: tuple[Dataset, Dataset]) -> None:
    model = fitted(*chain)
    design = model.encoder.encode(chain[1])
    small, large = model.models
    p_small = small.platt.probability(small.head.logit(design))
    p_if_failed = large.platt.probability(large.head.logit(design))
    expected = p_small * (1 - large.slip) + (1 - p_small) * p_if_failed
    np.testing.assert_allclose(model.predict(design)[:, 1], expected, rtol=1e-12)


def test_the_slip_is_measured_on_audited_rows_and_assumed_without_them(world: Any) -> None:
    chain_only = part(world, 1500, 1, "chain")
    mixed = world.log(1500, 1, policy="chain") + [
        item.model_copy(update={"id": f"a{item.id}"}) for item in world.log(250, 9)
    ]
    model = fitted(chain_only, part(world, 200, 2, "chain"))
    assert model.models[1].slip == pytest.approx(0.08)
    audited = build_dataset(mixed, world.ladder.names)
    both = ~np.isnan(audited.quality).any(axis=1) & ~audited.escalated[:, 1] & (audited.quality[:, 0] >= 0.5)
    failures = float((1 - audited.quality[both, 1]).sum())
    assert _slip(audited, 1) == pytest.approx((failures + 0.08 * 20) / (both.sum() + 20))
    assert _slip(audited, 1) == pytest.approx(world.slip, abs=0.05)


@pytest.mark.parametrize(
    ("free", "escalated", "form"),
    [(0, 50, "chained"), (10, 50, "chained"), (13, 50, "marginal"), (199, 5000, "chained"), (200, 5000, "marginal")],
)
def test_a_tier_is_chained_when_few_of_its_outcomes_were_seen_freely(
    world: Any, free: int, escalated: int, form: str
) -> None:
    n = free + escalated
    data = part(world, 10, 0)
    quality = np.full((n, 2), 0.0)
    flags = np.zeros((n, 2), bool)
    flags[free:, 1] = True
    assert _form(replace(data, quality=quality, escalated=flags), 1) == form


def test_a_tier_that_is_unknown_on_the_tune_rows_keeps_its_raw_probabilities(world: Any) -> None:
    train, tune = part(world, 400, 1), part(world, 50, 2)
    hidden = replace(tune, quality=np.stack([tune.quality[:, 0], np.full(50, np.nan)], axis=1))
    model = fitted(train, hidden)
    assert (model.models[1].platt.slope, model.models[1].platt.shift) == (1.0, 0.0)
    assert model.models[0].platt.slope != 1.0


def test_escalated_outcomes_do_not_make_a_marginal_head_pessimistic(world: Any) -> None:
    both = part(world, 1500, 1)
    seen = np.random.default_rng(0).random(1500) < 0.5
    log = part(world, 1500, 1, "chain")
    quality = np.where(seen[:, None], both.quality, log.quality)
    mixed = replace(both, quality=quality, escalated=np.where(seen[:, None], False, log.escalated))
    model = fitted(mixed, both.rows(np.zeros(0, np.int64)), "constant")
    assert forms(model)["large"] == "marginal"
    head = model.models[1].head
    assert isinstance(head, ConstantHead)
    assert 1 / (1 + np.exp(-head.value)) == pytest.approx(both.quality[seen, 1].mean(), abs=0.01)


def tokens_in_graph(model: TokenModel, data: Dataset) -> np.ndarray:
    graph = GraphBuilder()
    fit_encoder(data).define(graph)
    serialised = graph.model({"output_tokens": model.add_to_graph(graph)}, data.tiers)
    batch = data.features(range(len(data)))
    feed = {"dense": batch.dense, "ids": batch.ids, "counts": batch.counts}
    session = ort.InferenceSession(serialised, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["output_tokens"], feed)[0])


def design_of(data: Dataset) -> Design:
    return fit_encoder(data).encode(data)


def test_expected_tokens_follow_a_known_law(world: Any) -> None:
    data = part(world, 1500, 4)
    scaled = design_of(data).scaled.astype(np.float64)
    rng = np.random.default_rng(0)
    column = int(scaled.std(axis=0).argmax())
    law = np.exp(4 + 0.5 * scaled[:, [column]] + np.array([0.0, 1.0]))
    data = replace(data, output_tokens=np.round(law * np.exp(rng.normal(0, 0.5, law.shape))))
    model = fit_tokens(data, fit_encoder(data))
    expected = law * np.exp(0.5**2 / 2)  # the mean of a log-normal
    ratio = model.predict(design_of(data)) / expected
    assert np.quantile(ratio, [0.05, 0.5, 0.95]) == pytest.approx([1, 1, 1], abs=0.25)
    assert model.predict(design_of(data)).mean() == pytest.approx(data.output_tokens.mean(), rel=0.06)


def test_the_graph_expects_the_same_tokens(world: Any) -> None:
    data = part(world, 300, 4)
    model = fit_tokens(data, fit_encoder(data))
    np.testing.assert_allclose(tokens_in_graph(model, data), model.predict(design_of(data)), rtol=1e-5)


def test_a_tier_with_few_lengths_gets_its_average_and_one_with_none_that_of_the_others(world: Any) -> None:
    data = part(world, 300, 4)
    few = np.full_like(data.output_tokens, np.nan)
    few[:10, 0] = 100.0
    model = fit_tokens(replace(data, output_tokens=few), fit_encoder(data))
    np.testing.assert_allclose(model.predict(design_of(data)), 100.0, rtol=1e-5)
    nothing = fit_tokens(replace(data, output_tokens=np.full_like(few, np.nan)), fit_encoder(data))
    np.testing.assert_allclose(nothing.predict(design_of(data)), 300.0, rtol=1e-5)


def test_an_absurd_request_is_expected_to_end_somewhere(world: Any) -> None:
    data = part(world, 300, 4)
    wild = TokenModel(np.full((data.dense.shape[1], 2), 2.0, np.float32), np.zeros(2, np.float32))
    huge = replace(data, dense=np.full_like(data.dense, 1e30))
    assert wild.predict(fit_encoder(data).encode(huge)).max() == 16_384
    graph_says = tokens_in_graph(wild, data)
    np.testing.assert_allclose(graph_says, wild.predict(design_of(data)), rtol=1e-3)
