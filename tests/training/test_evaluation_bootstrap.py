"""Intervals: how often they cover a known truth, that they are paired, and what undefined draws do to them."""

import numpy as np
import pytest

from router_ml.errors import DataError
from router_ml_training.evaluation.bootstrap import (
    curve_figures,
    interval,
    mean_figure,
    resamples,
    statistic_figure,
)
from router_ml_training.evaluation.curves import price_sweep, share_sweep
from router_ml_training.evaluation.metrics import curve_metrics
from router_ml_training.evaluation.outcomes import Outcomes


def world(seed: int, n: int = 300) -> tuple[Outcomes, np.ndarray]:
    """Small fails with a probability that the score tells; APGR of this score is 2/3 in the population."""
    rng = np.random.default_rng(seed)
    need = rng.random(n)
    small = (rng.random(n) > need).astype(float)
    return Outcomes(np.column_stack((small, np.ones(n))), np.tile([1.0, 9.0], (n, 1)), best=1), need


def test_the_interval_of_a_mean_covers_it_about_as_often_as_it_says():
    hits = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        figure = mean_figure(rng.exponential(1.0, 80), rng=rng, draws=200)
        hits += figure.low <= 1.0 <= figure.high
    assert 0.88 <= hits / 300 <= 0.98


def test_the_interval_of_apgr_covers_its_population_value():
    # PGR(f) = 1 - (1 - f)^2 when the share f of highest need goes to large, so APGR = 2/3.
    metric = [m for m in curve_metrics() if m.name == "apgr"]
    hits = 0
    for seed in range(200):
        outcomes, need = world(seed)
        rng = np.random.default_rng(seed + 1000)
        figure = curve_figures(share_sweep(need, rng=rng), outcomes, rng=rng, metrics=metric, draws=150)["apgr"]
        hits += figure.low <= 2 / 3 <= figure.high
    assert 0.89 <= hits / 200 <= 0.99


def test_drawing_whole_groups_widens_intervals_of_dependent_rows():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 25)
    values = rng.normal(size=40)[groups]
    alone = mean_figure(values, rng=np.random.default_rng(1))
    grouped = mean_figure(values, rng=np.random.default_rng(1), groups=groups)
    assert (grouped.high - grouped.low) > 3 * (alone.high - alone.low)


def test_a_draw_has_as_many_rows_as_the_data_and_keeps_groups_whole():
    rows = np.concatenate(list(resamples(500, rng=np.random.default_rng(0), draws=37, width=1_000_000)))
    assert rows.shape == (37, 500)
    assert (rows.sum(axis=1) == 500).all()
    labels = np.array(["a", "b", "a", "c"])
    grouped = np.concatenate(list(resamples(4, rng=np.random.default_rng(0), draws=20, groups=labels)))
    assert (grouped[:, 0] == grouped[:, 2]).all()
    assert (grouped[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_the_same_seed_gives_the_same_figures_and_more_draws_the_same_value():
    outcomes, need = world(2)
    sweep = share_sweep(need, rng=np.random.default_rng(0))
    first, again = (curve_figures(sweep, outcomes, rng=np.random.default_rng(5), draws=50) for _ in range(2))
    assert first == again
    none = curve_figures(sweep, outcomes, rng=np.random.default_rng(5), draws=0)
    assert none["cs_97"].value == first["cs_97"].value
    assert (none["cs_97"].low, none["cs_97"].high) == (None, None)
    assert all(figure.low <= figure.value <= figure.high for name, figure in first.items() if name.startswith("cs_9"))


def test_batches_of_draws_do_not_change_the_figures():
    outcomes, need = world(3, n=50)
    sweep = price_sweep(np.column_stack((1 - need, np.ones(50))), outcomes.cost, rng=np.random.default_rng(0))
    whole = sweep.trace(outcomes, np.concatenate(list(resamples(50, rng=np.random.default_rng(1), draws=8))))
    parts = resamples(50, rng=np.random.default_rng(1), draws=8, width=400_000)
    assert whole.quality == pytest.approx(np.concatenate([sweep.trace(outcomes, part).quality for part in parts]))


def test_an_undefined_draw_counts_as_the_worst():
    values = np.arange(100.0)
    values[:10] = np.nan
    assert interval(values) == (None, 97.0)
    assert interval(values, better=-1) == (12.0, None)
    values[:10] = -1
    low, high = interval(values)
    assert (low, high) == (-1.0, 97.0)


def test_undefined_statistics_and_empty_rows_give_a_reason():
    nothing = statistic_figure(lambda w: np.full(len(w), np.nan), 5, rng=np.random.default_rng(0), reason="because")
    assert nothing.to_dict() == {"value": None, "low": None, "high": None, "reason": "because"}
    assert mean_figure([], rng=np.random.default_rng(0)).reason == "no rows"
    with pytest.raises(DataError):
        list(resamples(3, rng=np.random.default_rng(0), groups=[1, 2]))
