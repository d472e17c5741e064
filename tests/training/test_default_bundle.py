"""The recipe of the bundle that ships: halves of models instead of pairs, length instead of words."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from router_ml.errors import DataError
from router_ml_training.default_bundle import PUBLIC, halves, interactions, ladder, learn_from, public_tables
from router_ml_training.simulate.outcomes import OutcomeTable, outcome_table

N = 400


def table(models: int = 5) -> OutcomeTable:
    """Long prompts are too hard for the cheaper models; every model counts a few tokens more than the one before."""
    rng = np.random.default_rng(0)
    words = rng.integers(2, 60, N)
    rows = [
        {
            "prompt_id": f"p{i:03d}",
            "prompt": " ".join(f"word{rng.integers(500)}" for _ in range(words[i])),
            "model": f"m{k}",
            "quality": float(rng.random() < (0.9 if k > models // 2 or words[i] < 30 else 0.3)),
            "cost_usd": 0.001 * 3**k,
            "input_tokens": int(words[i]) + k,
            "output_tokens": 100 * (k + 1),
        }
        for i in range(N)
        for k in range(models)
    ]
    return outcome_table(pl.DataFrame(rows))


def test_a_half_is_the_mean_of_its_models_on_every_prompt() -> None:
    whole = table()
    pair = halves(whole)
    assert pair.tiers == ("small", "large")
    assert pair.models == ("cheaper 2 of 5", "dearer 3 of 5")
    np.testing.assert_allclose(pair.quality[:, 0], whole.quality[:, :2].mean(axis=1))
    np.testing.assert_allclose(pair.quality[:, 1], whole.quality[:, 2:].mean(axis=1))
    np.testing.assert_allclose(pair.cost_usd[:, 1], whole.cost_usd[:, 2:].mean(axis=1))
    np.testing.assert_array_equal(pair.output_tokens, np.tile([150, 400], (N, 1)))
    assert pair.prompt_ids == whole.prompt_ids
    assert not pair.dated


def test_of_two_models_each_is_its_half() -> None:
    whole = table(models=2)
    np.testing.assert_array_equal(halves(whole).quality, whole.quality)


def test_the_log_is_priced_by_the_ladder_and_dated_by_nobody() -> None:
    prices = ladder()
    item = next(iter(interactions([halves(table())], prices)))
    assert item.tags == {"ts_assigned": True}
    for attempt in item.attempts:
        assert attempt.cost_usd == prices.tier(attempt.tier).cost_usd(
            attempt.input_tokens or 0, attempt.output_tokens or 0
        )


def test_the_recipe_learns_that_long_prompts_need_the_dearer_tier() -> None:
    trained, dataset = learn_from([halves(table())])
    assert trained.learner == "length"
    assert trained.policy.price_unit == "typical"
    model = trained.competition.winner
    p = model.predict(model.encoder.encode(dataset))
    need, length = p[:, 1] - p[:, 0], dataset.input_tokens
    assert need[length > 40].mean() > need[length < 20].mean() + 0.2


def test_answers_are_expected_to_be_as_long_as_those_of_the_mean_table() -> None:
    short = halves(table())
    long = outcome_table(
        short.frame.head(200).with_columns(pl.col("prompt") + " again", pl.col("output_tokens") * 3),
        dict(zip(short.tiers, short.models, strict=True)),
    )
    trained, dataset = learn_from([short, long])
    lengths = trained.tokens.predict(trained.competition.winner.encoder.encode(dataset))
    np.testing.assert_allclose(lengths, np.tile([300.0, 800.0], (len(dataset), 1)), rtol=1e-5)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{PUBLIC[0].name}\.parquet: missing"):
        public_tables(tmp_path)
