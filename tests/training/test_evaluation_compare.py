"""Choosing a candidate, the strategies it is shown beside, and the baselines it must beat."""

import numpy as np
import pytest

from router_ml.errors import DataError
from router_ml_training.evaluation.baselines import always, baseline_sweeps, oracle_choice, shuffled
from router_ml_training.evaluation.bootstrap import curve_figures
from router_ml_training.evaluation.compare import one_standard_error
from router_ml_training.evaluation.curves import curve_of
from router_ml_training.evaluation.metrics import cs
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.evaluation.strategies import measure, random_mix, strategy_of, vacuity

ORDER = ("constant", "length", "linear", "gbdt")


def losses(**gain: float) -> dict[str, np.ndarray]:
    base = np.random.default_rng(0).random(500)
    noise = np.random.default_rng(1)
    return {name: base - by + noise.normal(0, 0.02, 500) for name, by in gain.items()}


def traffic(n: int = 600, seed: int = 0) -> Outcomes:
    rng = np.random.default_rng(seed)
    quality = (rng.random((n, 3)) < (0.5, 0.7, 0.9)).astype(float)
    return Outcomes(quality, rng.uniform(0.9, 1.1, (n, 3)) * (1, 3, 10))


def test_the_simplest_within_one_standard_error_wins():
    table = losses(constant=0.0, linear=0.1)
    noise = np.random.default_rng(2).normal(0, 0.02, 500)
    # Better by half a standard error of the paired difference.
    table["gbdt"] = table["linear"] + noise - noise.mean() - 0.5 * noise.std(ddof=1) / np.sqrt(500)
    choice = one_standard_error(table, simplicity=ORDER)
    assert (choice.name, choice.best, choice.keep_constant) == ("linear", "gbdt", False)
    assert "the simplest within one standard error of the best, 'gbdt'" in choice.verdict


def test_a_clear_winner_is_used_however_complex():
    choice = one_standard_error(losses(constant=0.0, linear=0.1, gbdt=0.2), simplicity=ORDER)
    assert (choice.name, choice.best) == ("gbdt", "gbdt")
    assert choice.verdict.startswith("Use 'gbdt'")


@pytest.mark.parametrize("gain", [0.0, 0.0003])
def test_a_gain_within_noise_keeps_the_constant_model(gain: float):
    choice = one_standard_error(losses(constant=0.0, gbdt=gain), simplicity=ORDER)
    assert (choice.name, choice.keep_constant) == ("constant", True)
    assert choice.verdict.startswith("Keep the constant model")


def test_the_standard_error_is_that_of_the_paired_difference():
    table = losses(constant=0.0, gbdt=0.1)
    row = one_standard_error(table, simplicity=ORDER).candidates[0]
    difference = table["constant"] - table["gbdt"]
    assert row.standard_error == pytest.approx(difference.std(ddof=1) / np.sqrt(500))
    assert row.excess == pytest.approx(difference.mean())


def test_rows_of_one_session_count_as_one():
    copies = {name: np.repeat(loss, 10) for name, loss in losses(constant=0.0, gbdt=0.1).items()}
    once = one_standard_error(losses(constant=0.0, gbdt=0.1), simplicity=ORDER)
    grouped = one_standard_error(copies, simplicity=ORDER, groups=np.repeat(np.arange(500), 10))
    assert grouped.candidates[0].standard_error == pytest.approx(once.candidates[0].standard_error)


def test_equal_losses_go_to_the_simplest():
    same = np.ones(5)
    assert one_standard_error({"gbdt": same, "length": same}, simplicity=ORDER).name == "length"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "no candidates"),
        ({"other": np.ones(3)}, "order of simplicity"),
        ({"length": np.ones(3), "gbdt": np.ones(4)}, "one length"),
        ({"length": np.array([1.0, np.nan])}, "not finite"),
    ],
)
def test_losses_that_cannot_be_compared_are_refused(table: dict, said: str):
    with pytest.raises(DataError, match=said):
        one_standard_error(table, simplicity=ORDER)


def test_a_constant_strategy_measures_its_tier():
    outcomes = traffic()
    row = strategy_of("always small", always(0, outcomes), outcomes, rng=np.random.default_rng(0), draws=100)
    assert row.cost_usd == pytest.approx(outcomes.cost[:, 0].mean())
    assert row.saving.value == pytest.approx(1 - outcomes.cost[:, 0].sum() / outcomes.cost[:, 2].sum())
    assert row.saving.low < row.saving.value < row.saving.high
    assert (row.share, row.escalation_rate) == ((1.0, 0.0, 0.0), None)
    assert row.cost_per_1k_usd == pytest.approx(1000 * row.cost_usd)


def test_the_best_tier_keeps_everything_and_saves_nothing_in_every_draw():
    outcomes = traffic()
    row = strategy_of("always large", always(2, outcomes), outcomes, rng=np.random.default_rng(0), draws=50)
    assert (row.quality_kept.low, row.quality_kept.high) == (1.0, 1.0)
    assert (row.saving.low, row.saving.high) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_every_attempt_is_paid_for():
    outcomes = traffic(n=4)
    row = measure(
        "cascade",
        quality=outcomes.quality[:, 2],
        cost=outcomes.cost[:, 0] + outcomes.cost[:, 2],
        column=always(2, outcomes),
        outcomes=outcomes,
        escalated=[True, True, True, False],
    )
    assert row.escalation_rate == pytest.approx(0.75)
    assert row.saving.value < 0


def test_a_random_mix_costs_what_it_is_given_and_lies_on_the_hull_of_the_tiers():
    outcomes = traffic()
    cost, quality = outcomes.cost.mean(axis=0), outcomes.quality.mean(axis=0)
    for budget in np.linspace(cost[0], cost[2], 9):
        mix = random_mix(outcomes, float(budget))
        assert np.dot(mix.share, cost) == pytest.approx(mix.cost_usd) == pytest.approx(budget)
        assert np.dot(mix.share, quality) == pytest.approx(mix.quality)
        assert sum(mix.share) == pytest.approx(1)
    assert random_mix(outcomes, 0.0).share == (1.0, 0.0, 0.0)
    assert random_mix(outcomes, 1e9).share == (0.0, 0.0, 1.0)


def test_the_oracle_has_the_best_quality_at_the_least_cost():
    outcomes = traffic()
    row = strategy_of("oracle", oracle_choice(outcomes), outcomes)
    assert row.quality == pytest.approx(outcomes.quality.max(axis=1).mean())
    best = outcomes.quality == outcomes.quality.max(axis=1, keepdims=True)
    assert row.cost_usd == pytest.approx(np.where(best, outcomes.cost, np.inf).min(axis=1).mean())


def test_baselines_are_ordered_as_they_should_be_where_length_tells_something():
    outcomes = traffic()
    length = 100 * (1 - outcomes.quality[:, 0]) + np.random.default_rng(1).normal(0, 120, outcomes.n)
    curves = {
        name: curve_of(sweep, outcomes)
        for name, sweep in baseline_sweeps(outcomes, length, rng=np.random.default_rng(0)).items()
    }
    saved = {name: cs(curve, 0.9).value for name, curve in curves.items()}
    assert saved["random"] < saved["prompt_length"] < saved["oracle"]


def test_shuffled_labels_keep_rows_whole_and_lose_what_they_belong_to():
    labels = np.column_stack((np.arange(1000), 2 * np.arange(1000)))
    mixed = shuffled(labels, rng=np.random.default_rng(0))
    assert (mixed[:, 1] == 2 * mixed[:, 0]).all()
    assert sorted(mixed[:, 0]) == list(range(1000))
    assert abs(np.corrcoef(mixed[:, 0], labels[:, 0])[0, 1]) < 0.1


def test_a_claim_that_a_coin_or_the_cheapest_tier_can_make_is_called_vacuous():
    close = Outcomes(np.tile([0.98, 1.0], (10, 1)), np.tile([1.0, 10.0], (10, 1)))
    router = strategy_of("router", always(0, close), close)
    assert "no router is needed" in vacuity(close, router, 0.97)
    apart = Outcomes(np.tile([0.5, 1.0], (10, 1)), np.tile([1.0, 10.0], (10, 1)))
    dear = measure("router", quality=[1.0] * 10, cost=[9.8] * 10, column=always(1, apart), outcomes=apart)
    assert "takes no learning" in vacuity(apart, dear, 0.97)
    good = measure("router", quality=[1.0] * 10, cost=[2.0] * 10, column=always(1, apart), outcomes=apart)
    assert vacuity(apart, good, 0.97) is None


def test_all_figures_of_a_three_tier_curve_are_defined_or_say_why():
    outcomes = traffic()
    sweep = baseline_sweeps(outcomes, np.arange(outcomes.n), rng=np.random.default_rng(0))["oracle"]
    figures = curve_figures(sweep, outcomes, rng=np.random.default_rng(0), draws=20)
    assert all((figure.value is None) == (figure.reason is not None) for figure in figures.values())
    assert figures["aiq"].low > figures["zero_aiq"].high
