"""What is learned: a chain log gives the truth back, slips and forms come from the evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from router_ml_training import tasks
from router_ml_training.candidates import log_loss
from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.encoder import Encoder, fit_encoder
from router_ml_training.learners import LEARNERS
from router_ml_training.learners.boosting import Growth, grow_here
from router_ml_training.learners.constant import ConstantHead
from router_ml_training.onnx_graph import GraphBuilder
from router_ml_training.slips import PUBLIC_SLIP, SlipLaw
from router_ml_training.splits import group_folds
from router_ml_training.tasks import AdequacyModel, cross_fit_adequacy, fit_adequacy, forms

N_TRAIN, N_TUNE, N_FRESH = 3000, 800, 1500


def plain(data: Dataset) -> Encoder:
    """Fit the encoder without what only some learners ask for."""
    return fit_encoder(data, curved=False, latent=False)


def part(world: Any, n: int, seed: int, policy: str = "audit") -> Dataset:
    made: Dataset = world.dataset(n, seed, policy=policy)
    return made


def truth(world: Any, seed: int) -> np.ndarray:
    difficulty = world.draw(N_FRESH, np.random.default_rng(seed)).difficulty
    return np.stack([world.p_small[difficulty], world.p_large[difficulty]], axis=1)


def fitted(train: Dataset, tune: Dataset, learner: str = "linear") -> AdequacyModel:
    encoder = plain(train)
    return fit_adequacy(train, tune, encoder, LEARNERS.load(learner), seed=0)


def with_slip(model: AdequacyModel, law: SlipLaw) -> AdequacyModel:
    small, large = model.models
    return replace(model, models=(small, replace(large, slip=law)))


def freed(data: Dataset) -> Dataset:
    """The same rows for a learner that does not know why the large tier was asked."""
    return replace(data, escalated=np.zeros_like(data.escalated))


@pytest.fixture(scope="module")
def chain(world: Any) -> tuple[Dataset, Dataset]:
    return part(world, N_TRAIN, 1, "chain"), part(world, N_TUNE, 2, "chain")


def test_from_a_chain_log_and_the_slip_the_truth_is_recovered_and_a_naive_head_misses_it(
    world: Any, chain: tuple[Dataset, Dataset]
) -> None:
    train, tune = chain
    fresh, p = part(world, N_FRESH, 3), truth(world, 3)
    # This world slips at one rate everywhere, unlike the public tables.
    constant = SlipLaw(float(np.log(world.slip / (1 - world.slip))), 0.0, 0.0)
    chained, naive = with_slip(fitted(train, tune), constant), fitted(freed(train), freed(tune))
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
    slip = large.slip.probability(p_small, p_if_failed)
    expected = p_small * (1 - slip) + (1 - p_small) * p_if_failed
    np.testing.assert_allclose(model.predict(design)[:, 1], expected, rtol=1e-12)


def test_the_slip_is_measured_on_audited_rows_and_assumed_without_them(world: Any) -> None:
    chain_only = part(world, 1500, 1, "chain")
    log = world.log(1500, 1, policy="chain") + [
        item.model_copy(update={"id": f"a{item.id}"}) for item in world.log(500, 9)
    ]
    audited = build_dataset(log, world.ladder.names)
    assert fitted(chain_only, part(world, 200, 2, "chain")).models[1].slip == PUBLIC_SLIP
    model, _ = cross_fit(audited, 3)
    assert forms(model)["large"] == "chained"
    p = model.predict(model.encoder.encode(chain_only))[:, 0]
    rise, slip = model.transitions(model.logits(model.encoder.encode(chain_only)))
    assert float(p @ slip[:, 1] / p.sum()) == pytest.approx(world.slip, abs=0.03)
    assumed = PUBLIC_SLIP.probability(p, rise[:, 1])
    assert np.abs(slip[:, 1] - world.slip).mean() < np.abs(assumed - world.slip).mean()


def cross_fit(data: Dataset, n_folds: int, learner: str = "linear") -> tuple[AdequacyModel, np.ndarray]:
    fold = group_folds(data.group, n_folds, np.random.default_rng(0))
    encoder = plain(data)
    return cross_fit_adequacy(data, fold, encoder, LEARNERS.load(learner), seed=0)


def test_a_chain_without_unknowns_is_learned_in_one_pass(
    chain: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("nothing is uncertain, so nothing is filled in")

    monkeypatch.setattr("router_ml_training.tasks.smoothed", never)
    assert tasks._Work(*work_of(chain[0])).fit(np.arange(len(chain[0]))).models[1].form == "chained"


def work_of(data: Dataset) -> tuple[Any, ...]:
    encoder = plain(data)
    learner = LEARNERS.load("constant")
    return data, encoder, encoder.encode(data), learner, tasks._forms(data, learner), 0, 1, grow_here, learner


def refused_unseen(world: Any, n: int) -> tuple[Dataset, Dataset]:
    """Return what happened, and what a log says of it where a verifier's word alone stands for refused answers."""
    rng = np.random.default_rng(5)
    data = part(world, n, 4)
    small, large = data.quality.T.copy()
    refused = np.where(small == 1, rng.random(n) < 0.25, rng.random(n) < 0.75)
    # Accepted answers were judged by people, refused ones never: only the verifier's word stands for them.
    quality = np.stack([np.where(refused, np.nan, small), np.where(refused, large, np.nan)], axis=1)
    soft = np.full_like(quality, np.nan)
    soft[refused, 0] = 0.25
    escalated = np.stack([np.zeros(n, bool), refused], axis=1)
    return data, replace(data, quality=quality, soft=soft, escalated=escalated)


def test_em_recovers_rates_when_a_verifier_alone_said_who_failed(world: Any) -> None:
    data, log = refused_unseen(world, 6000)
    model = fitted(log, log, "constant")
    naive, small = np.nanmean(log.quality[:, 0]), data.quality[:, 0].mean()
    found = model.predict(model.encoder.encode(data))[:, 0].mean()
    assert naive > small + 0.1
    assert found == pytest.approx(small, abs=0.05)


def test_with_a_draft_trees_are_grown_in_the_last_round_only_and_say_the_same(world: Any) -> None:
    data, log = refused_unseen(world, 1500)
    encoder = plain(log)
    grown: list[int] = []

    def counted(*arguments: Any, **options: Any) -> Growth:
        grown[-1] += 1
        return grow_here(*arguments, **options)

    said = []
    for draft in (None, LEARNERS.load("linear")):
        grown.append(0)
        model = fit_adequacy(log, log, encoder, LEARNERS.load("gbdt"), seed=0, grow=counted, draft=draft)
        said.append(model.predict(encoder.encode(data)))
    assert grown[0] == 4 * grown[1] > 0
    losses = [log_loss(one, data.quality) for one in said]
    assert abs(float(np.mean(losses[1] - losses[0]))) < 0.01


def test_one_outcome_per_request_shares_linear_heads_and_no_others(world: Any) -> None:
    data = part(world, 1200, 6)
    first = np.random.default_rng(1).random(1200) < 0.9
    quality = np.where(np.stack([first, ~first], axis=1), data.quality, np.nan)
    log = replace(data, quality=quality)
    shared, _ = cross_fit(log, 3)
    apart, _ = cross_fit(log, 3, "length")
    assert set(forms(shared).values()) == {"shared"}
    assert set(forms(apart).values()) == {"marginal"}
    p = truth(world, 3)
    fresh = part(world, N_FRESH, 3)
    error = np.abs(shared.predict(shared.encoder.encode(fresh)) - p).mean(axis=0)
    assert error[0] < 0.12
    assert error[1] < 0.15


@pytest.mark.parametrize("slopes", ["public", "fitted"])
def test_the_graph_draws_slips_that_depend_on_the_request(
    world: Any, chain: tuple[Dataset, Dataset], slopes: str
) -> None:
    model = fitted(*chain)
    if slopes == "fitted":
        model = with_slip(model, SlipLaw(0.5, 2.0, 0.0))
    graph = GraphBuilder()
    serialised = graph.model({"adequacy": model.add_to_graph(graph)}, chain[1].tiers)
    batch = chain[1].features(range(len(chain[1])))
    session = ort.InferenceSession(serialised, providers=["CPUExecutionProvider"])
    drawn = session.run(["adequacy"], {"dense": batch.dense, "ids": batch.ids, "counts": batch.counts})[0]
    np.testing.assert_allclose(drawn, model.predict(model.encoder.encode(chain[1])), atol=1e-5)


def test_ten_rows_and_no_failures_give_a_constant_and_nothing_worse(world: Any) -> None:
    few = part(world, 10, 1)
    model = fitted(few, few)
    assert np.isfinite(model.predict(model.encoder.encode(few))).all()
    flawless = replace(few, quality=np.ones_like(few.quality))
    spotless = fitted(flawless, flawless)
    p = spotless.predict(spotless.encoder.encode(part(world, 50, 2)))
    assert np.ptp(p, axis=0).max() < 1e-12
    assert (p > 0.5).all()


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
