"""Off-policy estimates: closed forms on tiny logs, honest intervals by simulation, refusals without overlap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import t as student

from router_ml.errors import DataError
from router_ml_training.evaluation.compare import standard_error
from router_ml_training.evaluation.offpolicy import CLIP, ESTIMATORS, Logged, evaluate_offpolicy, overlap, recalibrated

Propensities = Callable[[np.ndarray], np.ndarray]
REPLICATIONS = 200
# The nominal 0.95 less three standard errors of a share of 200.
LEAST_COVERAGE = 0.90


def world(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw requests, the expected reward of three actions (n, 3), and the target policy (n, 3): greedy, smoothed."""
    x = rng.random(n)
    mean = np.stack([0.9 - 0.7 * x, 0.8 - 0.3 * x, 0.85 - 0.05 * x], axis=1)
    greedy = np.eye(3)[np.where(x < 0.3, 0, np.where(x < 0.6, 1, 2))]
    return x, mean, 0.85 * greedy + 0.05


def uniform(x: np.ndarray) -> np.ndarray:
    return np.full((len(x), 3), 1 / 3)


def skewed(x: np.ndarray) -> np.ndarray:
    return 0.85 * np.eye(3)[np.where(x > 0.5, 2, 0)] + 0.05


def logged(n: int, policy: Propensities, rng: np.random.Generator) -> tuple[Logged, np.ndarray, np.ndarray]:
    x, mean, target = world(n, rng)
    b = policy(x)
    action = (b.cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1)
    reward = (rng.random(n) < mean[np.arange(n), action]).astype(float)
    return Logged(action, b, reward), target, mean


def truth() -> float:
    _, mean, target = world(1_000_000, np.random.default_rng(99))
    return float((mean * target).sum(axis=1).mean())


def test_estimates_of_a_tiny_log_are_what_the_formulas_say() -> None:
    # 200 rows: action 0 and 1 in turn, both at probability a half; the target takes action 0 with probability 0.75.
    action, propensity = np.tile([0, 1], 100), np.full((200, 2), 0.5)
    reward = np.where(action == 0, 1.0, 0.5)
    target, model = np.tile([0.75, 0.25], (200, 1)), np.tile([0.8, 0.6], (200, 1))
    found = evaluate_offpolicy(Logged(action, propensity, reward), target, model, clip=1.2)
    # Weights 1.5 and 0.5, mean 1; surprises 0.2 and -0.1; the model's opinion 0.75.
    expected = {
        "dm": 0.75,
        "ips": (1.5 * 1.0 + 0.5 * 0.5) / 2,
        "snips": (1.5 * 1.0 + 0.5 * 0.5) / 2,
        "dr": 0.75 + (1.5 * 0.2 - 0.5 * 0.1) / 2,
        "dr_clipped": 0.75 + (1.2 * 0.2 - 0.5 * 0.1) / 2,
        "dr_shrunk": 0.75 + 0.125 * believed(0.125, standard_error(np.where(action == 0, 0.3, -0.05)), action),
    }
    assert {name: figure.value for name, figure in found.figures.items()} == pytest.approx(expected)
    assert found.overlap.ess == pytest.approx(200**2 / (100 * 1.5**2 + 100 * 0.5**2))
    assert (found.overlap.max_weight, found.overlap.mean_weight) == (1.5, 1.0)
    assert (found.overlap.unsupported, found.overlap.reason) == (0.0, None)
    ips = found.figures["ips"]
    error = standard_error(np.where(action == 0, 1.5, 0.25)) * student.ppf(0.975, 200)
    assert (ips.low, ips.high) == pytest.approx((0.875 - error, 0.875 + error))


def believed(correction: float, seen: float, action: np.ndarray) -> float:
    """Share of DR's correction that is believed: z^4 / (z^4 + 2.5^4), z by the larger of two standard errors."""
    # Per row and action, p^2 / b times the mean squared surprise: 0.75^2 / 0.5 * 0.2^2 + 0.25^2 / 0.5 * 0.1^2.
    expected = np.sqrt((0.75**2 / 0.5 * 0.04 + 0.25**2 / 0.5 * 0.01) / len(action))
    z = correction / max(seen, expected)
    return float(z**4 / (z**4 + 2.5**4))


def test_self_normalised_weights_follow_a_shift_of_the_reward_exactly_and_others_do_not() -> None:
    log, target, mean = logged(1500, skewed, np.random.default_rng(3))
    shifted = Logged(log.action, log.propensity, log.reward + 10.0)
    one, other = (evaluate_offpolicy(each, target, mean).figures for each in (log, shifted))
    assert other["snips"].value - one["snips"].value == pytest.approx(10.0)
    assert other["ips"].value - one["ips"].value != pytest.approx(10.0, abs=1e-3)
    assert other["snips"].high - other["snips"].low == pytest.approx(one["snips"].high - one["snips"].low)


def test_a_policy_measured_on_its_own_log_has_the_mean_of_that_log() -> None:
    log, _, mean = logged(500, uniform, np.random.default_rng(4))
    found = evaluate_offpolicy(log, log.propensity, mean)
    assert found.overlap.ess == pytest.approx(500)
    for name in ("ips", "snips"):
        assert found.figures[name].value == pytest.approx(log.reward.mean())


@pytest.mark.parametrize("policy", [uniform, skewed])
@pytest.mark.parametrize("right", [True, False])
def test_weighted_estimates_are_unbiased_and_their_intervals_cover(policy: Propensities, right: bool) -> None:
    value, rng = truth(), np.random.default_rng(7)
    drawn: dict[str, list[tuple[float, bool]]] = {name: [] for name in ESTIMATORS}
    for _ in range(REPLICATIONS):
        log, target, mean = logged(1200, policy, rng)
        found = evaluate_offpolicy(log, target, mean if right else np.full_like(mean, 0.3), clip=np.inf)
        for name, figure in found.figures.items():
            drawn[name].append((figure.value, figure.low <= value <= figure.high))
    spread = {}
    for name in ("ips", "snips", "dr", "dr_clipped"):
        values, covers = (np.array(column) for column in zip(*drawn[name], strict=True))
        assert abs(values.mean() - value) < 4 * standard_error(values), name
        assert covers.mean() >= LEAST_COVERAGE, name
        spread[name] = values.std()
    if right:
        assert max(spread["dr"], spread["snips"]) < 0.65 * spread["ips"]
    else:  # a constant model is wrong, and that shows in DM alone
        assert [found for found, _ in drawn["dm"]] == pytest.approx([0.3] * REPLICATIONS)


def test_rows_of_one_session_count_as_one() -> None:
    log, target, mean = logged(400, uniform, np.random.default_rng(8))
    again = np.tile(np.arange(400), 3)  # every request three times over, in one session
    grouped = Logged(log.action[again], log.propensity[again], log.reward[again], again)
    found, single = (evaluate_offpolicy(*each) for each in ((grouped, target[again], mean[again]), (log, target, mean)))
    for name in ESTIMATORS:
        one, other = found.figures[name], single.figures[name]
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
    assert found.overlap.ess == pytest.approx(single.overlap.ess)
    assert found.overlap.n == 1200


def test_intervals_of_grouped_rows_cover() -> None:
    rng, covers = np.random.default_rng(9), 0
    target, group = np.tile([0.7, 0.3], (600, 1)), np.repeat(np.arange(150), 4)
    for _ in range(REPLICATIONS):
        mood = rng.random(150)[group]  # a session is easy or hard as a whole
        log = Logged(rng.integers(0, 2, 600), np.full((600, 2), 0.5), (rng.random(600) < mood).astype(float), group)
        figure = evaluate_offpolicy(log, target, np.full((600, 2), 0.5)).figures["dr"]
        covers += figure.low <= 0.5 <= figure.high
    assert covers / REPLICATIONS >= LEAST_COVERAGE


def test_a_perfect_model_leaves_dr_almost_no_variance() -> None:
    x, mean, target = world(1000, np.random.default_rng(9))
    b = skewed(x)
    action = (b.cumsum(axis=1) < np.random.default_rng(10).random(1000)[:, None]).sum(axis=1)
    log = Logged(action, b, mean[np.arange(1000), action])  # rewards without noise, known to the model
    found = evaluate_offpolicy(log, target, mean).figures
    assert found["dr"].value == pytest.approx(float((mean * target).sum(axis=1).mean()))
    assert found["dr"].high - found["dr"].low < 0.3 * (found["ips"].high - found["ips"].low)
    for name in ("dr", "dr_clipped", "dr_shrunk"):
        assert found[name].value == pytest.approx(found["dm"].value)
        assert (found[name].low, found[name].high) == pytest.approx((found["dm"].low, found["dm"].high))


def test_clipping_trades_bias_for_width_only_where_weights_are_large() -> None:
    log, target, mean = logged(3000, skewed, np.random.default_rng(11))
    wrong = np.full_like(mean, 0.3)
    found = evaluate_offpolicy(log, target, wrong).figures
    assert found["dr_clipped"].high - found["dr_clipped"].low < found["dr"].high - found["dr"].low
    assert found["dr_clipped"].value < found["dr"].value  # rewards above the model's are cut
    assert overlap(log, target).max_weight > CLIP


def test_a_model_that_the_log_contradicts_is_not_believed_and_one_that_it_does_not_is() -> None:
    log, target, mean = logged(3000, uniform, np.random.default_rng(12))
    wrong, right = (evaluate_offpolicy(log, target, model).figures for model in (np.full_like(mean, 0.2), mean))
    assert wrong["dr_shrunk"].value == pytest.approx(wrong["dr"].value, abs=0.002)
    assert abs(right["dr_shrunk"].value - right["dm"].value) < 0.3 * abs(right["dr"].value - right["dm"].value)
    assert (right["dr_shrunk"].low, right["dr_shrunk"].high) == (right["dr"].low, right["dr"].high)


def test_a_biased_model_is_corrected_by_rows_of_other_folds() -> None:
    log, _, mean = logged(3000, uniform, np.random.default_rng(13))
    fitted = recalibrated(mean - 0.3, log, np.random.default_rng(0))
    assert np.abs((fitted - mean).mean(axis=0)).max() < 0.04
    few = Logged(log.action[:6], log.propensity[:6], log.reward[:6])
    assert recalibrated(mean[:6], few, np.random.default_rng(0)) == pytest.approx(mean[:6], abs=0.15)
    assert recalibrated(mean * 9, log, np.random.default_rng(0), bounds=(0.0, 1.0)).max() <= 1.0


def test_what_a_row_said_does_not_correct_the_model_on_that_row() -> None:
    log, _, mean = logged(300, uniform, np.random.default_rng(14))
    changed = Logged(log.action, log.propensity, np.where(np.arange(300) == 7, 50.0, log.reward))
    before, after = (recalibrated(mean, one, np.random.default_rng(0)) for one in (log, changed))
    assert after[7].tolist() == before[7].tolist()
    assert not np.allclose(after, before)


def test_an_estimate_from_few_heavy_rows_is_wide() -> None:
    # 10 rows of 2,000 carry half of the weight: a normal interval would be far too narrow.
    action = np.zeros(2000, int)
    action[:10] = 1
    target = np.where(np.arange(2000)[:, None] < 250, [[0.0, 1.0]], [[1.0, 0.0]])
    log = Logged(action, np.tile([0.96, 0.04], (2000, 1)), np.random.default_rng(0).random(2000))
    ips = evaluate_offpolicy(log, target, np.full((2000, 2), 0.5)).figures["ips"]
    error = standard_error(log.reward * target[np.arange(2000), action] / log.taken)
    assert ips.high - ips.low > 1.05 * 2 * 1.959964 * error


def refused(log: Logged, target: np.ndarray) -> str:
    found = evaluate_offpolicy(log, target, np.full(target.shape, 0.5))
    for name in ("ips", "snips", "dr", "dr_clipped"):
        figure = found.figures[name]
        assert (figure.value, figure.low, figure.high) == (None, None, None)
        assert figure.reason == found.overlap.reason
    assert found.overlap.reason is not None
    return found.overlap.reason


def test_a_target_that_the_log_never_tried_is_refused() -> None:
    log = Logged(np.ones(500, int), np.tile([0.0, 1.0], (500, 1)), np.ones(500))
    target = np.tile([0.02, 0.98], (500, 1))
    assert "no support: 2.0% of what this policy would do" in refused(log, target)
    assert "explore those tiers, or audit" in refused(log, target)
    assert overlap(log, np.tile([0.0, 1.0], (500, 1))).reason is None  # what it did try, it can say


def test_too_few_effective_requests_are_refused() -> None:
    log, target, _ = logged(80, uniform, np.random.default_rng(1))
    assert (
        "independent requests of this policy (at least 100): collect more feedback, explore more, or audit"
        in refused(log, target)
    )


def test_a_single_heavy_request_is_refused() -> None:
    action = np.zeros(3000, int)
    action[:40] = 1
    log = Logged(action, np.tile([0.985, 0.015], (3000, 1)), np.ones(3000))
    assert "a single request would count 67 times (at most 50): explore more" in refused(
        log, np.tile([0, 1], (3000, 1))
    )


def test_propensities_that_the_actions_contradict_are_refused() -> None:
    action = np.repeat([0, 1], [900, 100])
    log = Logged(action, np.full((1000, 2), 0.5), np.ones(1000))
    assert "the mean weight is 1.800 where true propensities give 1" in refused(log, np.tile([1, 0], (1000, 1)))


def test_an_empty_log_and_a_single_row_are_refused_by_every_estimator() -> None:
    for n in (0, 1):
        log = Logged(np.zeros(n, int), np.full((n, 2), 0.5), np.ones(n))
        found = evaluate_offpolicy(log, np.full((n, 2), 0.5), np.zeros((n, 2)))
        assert all(figure.value is None and figure.reason for figure in found.figures.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"propensity": np.tile([1.0, 0.0], (4, 1))}, "2 of 4 requests went to a tier that had probability 0"),
        ({"propensity": np.tile([0.9, 0.9], (4, 1))}, "sum to at most 1"),
        ({"propensity": np.full((4, 2), np.nan)}, "must be finite"),
        ({"propensity": np.full(4, 0.5)}, r"must be \(n,\), \(n, K\)"),
        ({"reward": np.array([1, 0, np.nan, 1])}, "must be finite"),
        ({"reward": np.ones(3)}, r"must have shape \(4,\)"),
        ({"group": np.ones(3)}, r"must have shape \(4,\)"),
        ({"action": np.array([0, 1, -1, 0])}, "actions must lie in 0 to 1"),
    ],
)
def test_a_log_that_is_none_is_refused(change: dict[str, np.ndarray], message: str) -> None:
    base = {"action": np.array([0, 1, 1, 0]), "propensity": np.full((4, 2), 0.5), "reward": np.ones(4)}
    with pytest.raises(DataError, match=message):
        Logged(**{**base, **change})


def test_a_target_that_is_no_distribution_and_a_model_of_another_shape_are_refused() -> None:
    log = Logged(np.zeros(4, int), np.full((4, 2), 0.5), np.ones(4))
    for target in (np.ones((4, 2)), np.tile([1.5, -0.5], (4, 1)), np.ones((4, 1))):
        with pytest.raises(DataError, match="the target"):
            evaluate_offpolicy(log, target, np.ones((4, 2)))
    for model in (np.ones((4, 3)), np.full((4, 2), np.inf)):
        with pytest.raises(DataError, match="the model must give one finite reward"):
            evaluate_offpolicy(log, np.full((4, 2), 0.5), model)


def test_the_shrunk_point_never_leaves_the_interval_it_is_quoted_with() -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = 1500
        action = (rng.random(n) < 0.05).astype(int)
        reward = (rng.random(n) < np.array([0.9, 0.99])[action]).astype(float)
        wanted = rng.random(n) < 0.2
        target = np.column_stack((~wanted, wanted)).astype(float)
        logged = Logged(action, np.tile([0.95, 0.05], (n, 1)), reward)
        found = evaluate_offpolicy(logged, target, np.tile([0.9, 0.3], (n, 1))).figures["dr_shrunk"]
        if found.value is not None and found.low is not None and found.high is not None:
            assert found.low <= found.value <= found.high
