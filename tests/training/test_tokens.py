"""Expected answer lengths: averages that follow a known law, trees only where they earn it, the graph says the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from router_ml_training import tokens
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import Design, Encoder, fit_encoder
from router_ml_training.onnx_graph import GraphBuilder
from router_ml_training.tokens import TokenModel, cross_fit_tokens, fit_tokens


def plain(data: Dataset) -> Encoder:
    """Fit the encoder without what only some learners ask for."""
    return fit_encoder(data, curved=False, latent=False)


def part(world: Any, n: int, seed: int) -> Dataset:
    made: Dataset = world.dataset(n, seed, policy="audit")
    return made


@pytest.fixture
def bent(world: Any) -> Dataset:
    """Lengths of the small tier rise with a column, those of the large one are tenfold inside of a band of it."""
    data = part(world, 1500, 4)
    rng = np.random.default_rng(0)
    dense = data.dense.copy()
    dense[:, 0] = rng.normal(0.0, 1.0, len(data))
    band = np.where(np.abs(dense[:, 0]) < 0.6, 500.0, 50.0)
    law = np.column_stack((np.exp(4 + 0.5 * dense[:, 0]), band))
    return replace(data, dense=dense, output_tokens=np.ceil(law * np.exp(rng.normal(0, 0.3, law.shape))))


def tokens_in_graph(model: TokenModel, data: Dataset) -> np.ndarray:
    graph = GraphBuilder()
    plain(data).define(graph)
    serialised = graph.model({"output_tokens": model.add_to_graph(graph)}, data.tiers)
    batch = data.features(range(len(data)))
    feed = {"dense": batch.dense, "ids": batch.ids, "counts": batch.counts}
    session = ort.InferenceSession(serialised, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["output_tokens"], feed)[0])


def design_of(data: Dataset) -> Design:
    return plain(data).encode(data)


def test_expected_tokens_follow_a_known_law(world: Any) -> None:
    data = part(world, 1500, 4)
    scaled = design_of(data).scaled.astype(np.float64)
    rng = np.random.default_rng(0)
    column = int(scaled.std(axis=0).argmax())
    law = np.exp(4 + 0.5 * scaled[:, [column]] + np.array([0.0, 1.0]))
    data = replace(data, output_tokens=np.round(law * np.exp(rng.normal(0, 0.5, law.shape))))
    model = fit_tokens(data, plain(data))
    expected = law * np.exp(0.5**2 / 2)  # the mean of a log-normal
    ratio = model.predict(design_of(data)) / expected
    assert np.quantile(ratio, [0.05, 0.5, 0.95]) == pytest.approx([1, 1, 1], abs=0.25)
    assert model.predict(design_of(data)).mean() == pytest.approx(data.output_tokens.mean(), rel=0.06)


def test_the_graph_expects_the_same_tokens(world: Any) -> None:
    data = part(world, 300, 4)
    model = fit_tokens(data, plain(data))
    np.testing.assert_allclose(tokens_in_graph(model, data), model.predict(design_of(data)), rtol=1e-5)


def test_a_tier_with_few_lengths_gets_its_average_and_one_with_none_that_of_the_others(world: Any) -> None:
    data = part(world, 300, 4)
    few = np.full_like(data.output_tokens, np.nan)
    few[:10, 0] = 100.0
    model = fit_tokens(replace(data, output_tokens=few), plain(data))
    np.testing.assert_allclose(model.predict(design_of(data)), 100.0, rtol=1e-5)
    nothing = fit_tokens(replace(data, output_tokens=np.full_like(few, np.nan)), plain(data))
    np.testing.assert_allclose(nothing.predict(design_of(data)), 300.0, rtol=1e-5)


def test_an_absurd_request_is_expected_to_end_somewhere(world: Any) -> None:
    data = part(world, 300, 4)
    wild = TokenModel(np.full((data.dense.shape[1], 2), 2.0, np.float32), np.zeros(2, np.float32))
    huge = replace(data, dense=np.full_like(data.dense, 1e30))
    assert wild.predict(plain(data).encode(huge)).max() == 16_384
    graph_says = tokens_in_graph(wild, data)
    np.testing.assert_allclose(graph_says, wild.predict(design_of(data)), rtol=1e-3)


def test_trees_are_kept_for_the_tier_that_needs_them(bent: Dataset) -> None:
    model = fit_tokens(bent, plain(bent))
    assert [one is not None for one in model.grown] == [False, True]
    expected = model.predict(design_of(bent))[:, 1]
    inside = np.abs(bent.dense[:, 0]) < 0.5
    assert np.median(expected[inside]) == pytest.approx(500 * np.exp(0.3**2 / 2), rel=0.1)
    assert model.predict(design_of(bent).rows(np.zeros(0, np.int64))).shape == (0, 2)


def test_the_graph_grows_the_same_trees(bent: Dataset) -> None:
    model = fit_tokens(bent, plain(bent))
    np.testing.assert_allclose(tokens_in_graph(model, bent), model.predict(design_of(bent)), rtol=1e-4)


def test_held_out_lengths_are_right_on_average_and_farther_off_than_those_learned(bent: Dataset) -> None:
    model, held_out = cross_fit_tokens(bent, plain(bent))
    assert held_out.mean(axis=0) == pytest.approx(bent.output_tokens.mean(axis=0), rel=0.05)
    off = [np.mean(np.log(bent.output_tokens / p)[:, 1] ** 2) for p in (held_out, model.predict(design_of(bent)))]
    assert off[0] > off[1]


def test_where_a_length_is_unknown_the_models_own_stands_in(bent: Dataset) -> None:
    unknown = bent.output_tokens.copy()
    unknown[::3] = np.nan
    data = replace(bent, output_tokens=unknown)
    model, lengths = cross_fit_tokens(data, plain(data))
    np.testing.assert_array_equal(lengths[::3], model.predict(design_of(data))[::3])
    assert not np.isnan(lengths).any()


def test_long_logs_are_learned_from_in_part(bent: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_MAX_ROWS", 500)
    model, lengths = cross_fit_tokens(bent, plain(bent))
    assert ((lengths != model.predict(design_of(bent))).sum(axis=0) == 500).all()
    assert lengths.mean(axis=0) == pytest.approx(bent.output_tokens.mean(axis=0), rel=0.15)
