"""Which rows certify: audits alone, chains and draws where their chances are known, and nothing that was chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import binom

from router_ml.bundle import PolicySpec
from router_ml_training.certification_evidence import can_certify, known_outcomes, labels_settled, partial_log
from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.evaluation.bounds import betting_e_value
from router_ml_training.evaluation.certificate_partial import PartialLog, rectified
from router_ml_training.scored import Scored

N = 400
AUDITED = np.arange(N) % 5 == 0


def scored_of(data: Dataset) -> Scored:
    return Scored(data, np.full((N, 2), 0.7), np.tile([1e-5, 1e-4], (N, 1)))


@pytest.fixture(scope="module")
def policy(world: Any) -> PolicySpec:
    return PolicySpec(tiers=world.ladder.tiers, best_tier="large")


@pytest.fixture(scope="module")
def full(world: Any) -> Dataset:
    data: Dataset = world.dataset(N)
    return data


def chains(full: Dataset) -> Dataset:
    """Small always first, large after a failure only; a fifth is audited."""
    failed = full.quality[:, 0] < 0.5
    quality, escalated = full.quality.copy(), np.zeros((N, 2), np.bool_)
    quality[~AUDITED & ~failed, 1] = np.nan
    escalated[~AUDITED & failed, 1] = True
    propensity = np.where(AUDITED[:, None], np.nan, [[1.0, 0.0]])
    return replace(full, quality=quality, escalated=escalated, propensity=propensity, action=np.where(AUDITED, -1, 0))


def draws(full: Dataset) -> Dataset:
    """Either tier with probability a half, nothing after it; a fifth is audited."""
    action = np.where(AUDITED, -1, np.arange(N) % 2)
    quality = np.where(AUDITED[:, None] | (action[:, None] == [0, 1]), full.quality, np.nan)
    propensity = np.where(AUDITED[:, None], np.nan, [[0.5, 0.5]])
    return replace(full, quality=quality, propensity=propensity, action=action)


def test_chains_among_audits_are_evidence_with_the_share_that_was_audited(full: Dataset, policy: PolicySpec) -> None:
    found = partial_log(scored_of(chains(full)), policy)
    assert not isinstance(found, str)
    log, rows = found
    assert (log.reveals, log.best, log.bar, log.audit_share) == ("chain", 1, 1.0, 0.2)
    assert rows.tolist() == list(range(N))
    assert log.audited.tolist() == AUDITED.tolist()
    assert log.first[:, 0].tolist() == [1.0] * N


def test_draws_among_audits_are_evidence_too(full: Dataset, policy: PolicySpec) -> None:
    found = partial_log(scored_of(draws(full)), policy)
    assert not isinstance(found, str)
    assert found[0].reveals == "draw"


def test_what_was_judged_for_a_reason_is_none(full: Dataset, policy: PolicySpec) -> None:
    logs = {
        "chains that went on although the answer is now known to be good": replace(
            chains(full), quality=np.where(chains(full).escalated[:, [1, 0]], 1.0, chains(full).quality)
        ),
        "draws of which many are not judged": replace(
            draws(full), quality=np.where((AUDITED | (np.arange(N) % 3 > 0))[:, None], draws(full).quality, np.nan)
        ),
        "draws of a policy that hardly ever tries one tier": replace(
            draws(full), propensity=np.where(AUDITED[:, None], np.nan, [[0.999, 0.001]])
        ),
        "no propensities": replace(draws(full), propensity=np.full((N, 2), np.nan)),
        "nothing but audits": full,
        "no audits": chains(full).rows(~AUDITED),
    }
    for name, data in logs.items():
        scored = replace(scored_of(full), dataset=data, adequacy=np.full(data.quality.shape, 0.7))
        assert isinstance(partial_log(scored, policy), str), name


def test_known_outcomes_are_those_of_audits_not_of_escalations(full: Dataset) -> None:
    found = known_outcomes(scored_of(chains(full)), 1)
    assert found.n == AUDITED.sum()
    assert found.best_tier == 1
    assert found.quality.tolist() == full.quality[AUDITED].tolist()


def test_whether_rows_could_prove_anything_does_not_depend_on_their_outcomes(full: Dataset) -> None:
    assert can_certify(full, 0.03, 0.95)
    assert not can_certify(full.rows(np.arange(109)), 0.03, 0.95)
    assert can_certify(replace(full, quality=np.zeros((N, 2))), 0.03, 0.95)
    # 80 audits are too few alone, and 320 chains too few beside them.
    assert not can_certify(chains(full), 0.03, 0.95)


def serviced(world: Any, n: int, *, share: float = 0.1, failed: float = 0.0) -> Dataset:
    """Chains as the service logs them; each audit is a second record, beside the live one."""
    rng = np.random.default_rng(1)
    drawn = world.draw(n, rng)
    live = [
        one.model_copy(update={"propensity": {"small": 1.0, "large": 0.0}})
        for one in world.log_of(drawn, policy="chain")
    ]
    both = world.log_of(drawn)
    log = []
    for answer, audit in zip(live, both, strict=True):
        log.append(answer)
        if rng.random() < share:
            tags = {"beside": answer.id, "share": share}
            attempts = audit.attempts[:1] if rng.random() < failed else audit.attempts
            log.append(audit.model_copy(update={"id": f"{answer.id}-audit", "tags": tags, "attempts": attempts}))
    return build_dataset(log, world.ladder.names)


def scored_as(data: Dataset) -> Scored:
    return Scored(data, np.full(data.quality.shape, 0.8), np.tile([1e-5, 1e-4], (len(data), 1)))


@pytest.mark.parametrize("failed", [0.0, 0.2])
def test_an_audit_beside_an_answer_is_the_same_request_and_counts_once(
    world: Any, policy: PolicySpec, failed: float
) -> None:
    n = 1500
    data = serviced(world, n, failed=failed)
    found = partial_log(scored_as(data), policy)
    assert not isinstance(found, str)
    log, rows = found
    assert log.n == n
    assert len(set(data.group[rows].tolist())) == n
    drawn = int((data.beside != 0).sum())
    assert log.audit_share == pytest.approx(0.1 * log.audited.sum() / drawn)
    assert (log.audited.sum() == drawn) == (failed == 0.0)


def test_service_logs_certify_as_seldom_wrongly_as_they_say(world: Any, policy: PolicySpec) -> None:
    # Always small loses (0.0642 - 0.04) / 0.8 = 3.02 %. With each audit taken for half a request a fifth would pass.
    wrong, n, base = 0, 1500, serviced(world, 1500)
    first = np.flatnonzero(base.beside == 0)
    twin = {int(key): i for i, key in enumerate(base.key[first])}
    request = np.array([twin[int(b or k)] for b, k in zip(base.beside, base.key, strict=True)])
    for seed in range(100):
        rng = np.random.default_rng(seed)
        large, u = rng.random(n) < 0.8, rng.random(n)
        small = np.where(large, u >= 0.0642 / 0.8, u < 0.04 / 0.2)
        quality = np.column_stack((small, large)).astype(float)[request]
        live = base.beside == 0
        hidden, escalated = live & (quality[:, 0] == 1.0), np.zeros(quality.shape, np.bool_)
        quality[hidden, 1], escalated[live & ~hidden, 1] = np.nan, True
        data = replace(base, quality=quality, escalated=escalated)
        log, rows = cast("tuple[PartialLog, Any]", partial_log(scored_as(data), policy))
        values, largest = rectified(log, np.zeros(len(rows), np.intp), allowed_loss=0.03)
        order = rng.permutation(len(rows))
        wealth = betting_e_value(values[order], allowed_loss=0.03, confidence=0.95, largest=largest)
        wrong += wealth >= 20.0
    assert wrong <= binom.ppf(0.99, 100, 0.05)


def test_audits_beside_answers_that_nobody_drew_are_left_out(world: Any, policy: PolicySpec) -> None:
    data = serviced(world, 800)
    named = np.isin(data.key, data.beside[:200]) & (data.beside == 0)
    found = partial_log(scored_as(replace(data, action=np.where(named, -1, data.action))), policy)
    assert not isinstance(found, str)
    assert not np.isin(data.beside[found[1]], data.key[named]).any()


def test_a_dear_call_that_failed_costs_its_row_not_the_certificate(full: Dataset, policy: PolicySpec) -> None:
    data = chains(full)
    went_on = np.flatnonzero(data.escalated[:, 1])
    for lost, usable in ((went_on[:2], True), (went_on[:40], False)):
        quality, escalated = data.quality.copy(), data.escalated.copy()
        quality[lost, 1], escalated[lost, 1] = np.nan, False
        found = partial_log(scored_of(replace(data, quality=quality, escalated=escalated)), policy)
        if usable:
            assert not isinstance(found, str)
            assert found[0].n == N - len(lost)
        else:
            assert isinstance(found, str)
            assert found.startswith(f"{len(lost)} of {(~AUDITED).sum()} live requests do not show a whole chain")


def test_labels_of_a_source_that_was_found_to_err_prove_nothing(full: Dataset, policy: PolicySpec) -> None:
    soft = np.full((N, 2), np.nan)
    soft[:300, 1] = 0.9
    doubted = replace(full, soft=soft)
    assert known_outcomes(scored_of(doubted), 1).n == N - 300
    assert not can_certify(doubted, 0.03, 0.95)
    assert isinstance(partial_log(scored_of(replace(chains(full), soft=soft)), policy), str)
    settled = np.zeros((N, 2), np.bool_)
    settled[300:350] = True
    rows = np.arange(N)
    assert labels_settled(replace(doubted, settled=settled), rows) == pytest.approx(100 / 500)
    assert labels_settled(replace(full, quality=np.full((N, 2), np.nan)), rows) is None
