from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from router_ml.errors import DataError, UnknownName
from router_ml.schema import Interaction, parse_interaction
from router_ml_training.simulate import POLICIES
from router_ml_training.simulate.behaviours import LogOptions
from router_ml_training.simulate.outcomes import OutcomeTable, outcome_table
from router_ml_training.simulate.policies import simulate_log
from router_ml_training.simulate.workload import THREE_TIERS, generate


@pytest.fixture(scope="module")
def workload() -> OutcomeTable:
    frame = generate(600, rng=np.random.default_rng(5), tiers=THREE_TIERS)
    return outcome_table(frame, {tier.name: tier.model for tier in THREE_TIERS})


@pytest.fixture(scope="module")
def plain() -> OutcomeTable:
    rng = np.random.default_rng(0)
    n = 4000
    columns = {
        "prompt_id": [f"{i:05d}" for i in range(n)],
        "prompt": ["word " * int(length) for length in rng.integers(1, 40, n)],
        "input_tokens": [10] * n,
        "output_tokens": [5] * n,
    }
    small = pl.DataFrame({**columns, "model": "s", "cost_usd": 0.01, "quality": rng.random(n)})
    large = pl.DataFrame({**columns, "model": "l", "cost_usd": 0.10, "quality": 0.2 + 0.8 * rng.random(n)})
    return outcome_table(pl.concat([small, large]), {"small": "s", "large": "l"})


def log(table: OutcomeTable, policy: str, seed: int = 1, **options) -> list[Interaction]:
    return list(simulate_log(table, policy, rng=np.random.default_rng(seed), options=LogOptions(**options)))


@pytest.mark.parametrize("policy", list(POLICIES))
def test_a_log_is_deterministic_valid_labelled_and_in_order(workload: OutcomeTable, policy: str) -> None:
    items = log(workload, policy)
    assert [item.to_json() for item in items] == [item.to_json() for item in log(workload, policy)]
    assert len({item.id for item in items}) == len(items) == len(workload)
    assert {item.id for item in items}.isdisjoint(item.id for item in log(workload, policy, seed=2))
    assert all(item.tags["simulated"] == policy for item in items)
    assert [item.ts for item in items] == sorted(item.ts for item in items)
    assert parse_interaction(items[0].to_json()) == items[0]
    assert replace(items[0].to_request(), messages=list(items[0].request.messages)) == workload.requests[0]


@pytest.mark.parametrize("policy", ["uniform", "skewed"])
@pytest.mark.parametrize("tiers", ["plain", "workload"])
def test_tiers_are_tried_as_often_as_their_propensities_say(
    policy: str, tiers: str, request: pytest.FixtureRequest
) -> None:
    items = log(request.getfixturevalue(tiers), policy, epsilon=0.3)
    for tier in items[0].candidates:
        p = np.array([item.propensity[tier] for item in items])
        tried = np.array([item.attempts[0].tier == tier for item in items])
        z = (tried - p).sum() / np.sqrt((p * (1 - p)).sum())
        assert abs(z) < 3.5
    assert all(sum(item.propensity.values()) == pytest.approx(1.0) for item in items)


def test_skewed_sends_long_prompts_to_the_dearest_tier_above_a_floor(plain: OutcomeTable) -> None:
    items = log(plain, "skewed")
    lengths = np.array([len(request.messages[0]["content"]) for request in plain.requests])
    for item, length in zip(items, lengths, strict=True):
        assert item.propensity["large"] == pytest.approx(0.975 if length > np.median(lengths) else 0.025)
        assert item.explored == (item.propensity[item.attempts[0].tier] < 0.5)


@pytest.mark.parametrize("policy", ["uniform", "skewed"])
def test_one_tier_policies_leave_the_other_tiers_out_of_the_log(plain: OutcomeTable, policy: str) -> None:
    assert all(len(item.attempts) == 1 and item.mode == "live" for item in log(plain, policy))


def test_a_cascade_reaches_a_dearer_tier_only_after_a_failure(workload: OutcomeTable) -> None:
    lengths = Counter()
    for item in log(workload, "cascade"):
        assert item.propensity == {"small": 1.0, "medium": 0.0, "large": 0.0}
        assert [attempt.tier for attempt in item.attempts] == list(workload.tiers[: len(item.attempts)])
        for attempt in item.attempts[:-1]:
            assert attempt.error or attempt.verdicts[0].adequate is False
        last = item.attempts[-1]
        assert last.tier == "large" or last.verdicts[0].adequate
        lengths[len(item.attempts)] += 1
    assert lengths[1] > lengths[3] > 0


def test_verdicts_are_the_known_outcomes_against_the_bar(plain: OutcomeTable) -> None:
    for i, item in enumerate(log(plain, "cascade", bar=0.9)):
        quality = plain.quality[i, 0]
        (verdict,) = item.attempts[0].verdicts
        assert (verdict.source, verdict.score, verdict.adequate) == ("check", quality, quality >= 0.9)
        assert item.attempts[0].cost_usd == 0.01


def test_errors_carry_no_verdict_no_answer_and_no_cost(workload: OutcomeTable) -> None:
    for policy in ("uniform", "cascade", "audit"):
        failed = [attempt for item in log(workload, policy) for attempt in item.attempts if attempt.error]
        assert failed, policy
        assert all(not a.verdicts and a.response is None and a.cost_usd == 0.0 for a in failed)


def test_errors_can_be_added_to_a_table_without_any(plain: OutcomeTable) -> None:
    errors = [item.attempts[0].error for item in log(plain, "uniform", error_rate=0.1)]
    assert np.mean([error is not None for error in errors]) == pytest.approx(0.1, abs=0.02)


def test_an_audit_runs_every_tier_and_chooses_none(workload: OutcomeTable) -> None:
    for policy in ("audit", "full"):
        for item in log(workload, policy):
            assert item.mode == "audit"
            assert item.propensity == {}
            assert [attempt.tier for attempt in item.attempts] == list(workload.tiers)


def test_full_information_has_neither_errors_nor_noise(workload: OutcomeTable) -> None:
    items = log(workload, "full", judge_noise=0.5, error_rate=0.5)
    scores = [[attempt.verdicts[0].score for attempt in item.attempts] for item in items]
    assert scores == workload.quality.tolist()


def test_a_share_of_live_traffic_can_be_audited(plain: OutcomeTable) -> None:
    modes = Counter(item.mode for item in log(plain, "cascade", audit_share=0.1))
    assert modes["audit"] / len(plain) == pytest.approx(0.1, abs=0.02)


def test_a_noisy_judge_is_wrong_that_often_and_gives_no_score(plain: OutcomeTable) -> None:
    verdicts = [item.attempts[0].verdicts[0] for item in log(plain, "cascade", judge_noise=0.2, bar=0.5)]
    wrong = [v.adequate != (q >= 0.5) for v, q in zip(verdicts, plain.quality[:, 0], strict=True)]
    assert np.mean(wrong) == pytest.approx(0.2, abs=0.02)
    assert {(v.source, v.score) for v in verdicts} == {("judge", None)}


@pytest.mark.parametrize("tiers", ["plain", "workload"])
def test_thumbs_come_late_from_few_users_and_rather_for_bad_answers(tiers: str, request: pytest.FixtureRequest) -> None:
    table = request.getfixturevalue(tiers)
    items = log(table, "uniform", feedback="thumbs", thumbs_share=1.0, bar=0.6)
    quality = dict(zip(table.prompt_ids, table.quality, strict=True))
    spoke = {True: [], False: []}
    for item in items:
        (attempt,) = item.attempts
        assert not attempt.verdicts
        if attempt.error:
            assert not item.feedback
            continue
        good = bool(quality[item.tags["prompt_id"]][table.tiers.index(attempt.tier)] >= 0.6)
        spoke[good].append(bool(item.feedback))
        for thumb in item.feedback:
            assert (thumb.source, thumb.tier, thumb.adequate) == ("user", attempt.tier, good)
            assert thumb.ts > item.ts
    assert 1.5 * np.mean(spoke[True]) < np.mean(spoke[False]) < 0.7


def test_without_text_features_are_kept_instead(workload: OutcomeTable) -> None:
    item = log(workload.take(range(3)), "cascade", store_text=False)[0]
    assert item.request.messages == ()
    assert item.attempts[0].response is None
    assert item.features is not None


def test_unknown_policies_and_impossible_options_are_refused(plain: OutcomeTable) -> None:
    with pytest.raises(UnknownName, match="did you mean 'cascade'"):
        log(plain, "cascad")
    with pytest.raises(DataError, match="epsilon must be between 0 and 1, got 2"):
        LogOptions(epsilon=2)
