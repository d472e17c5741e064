"""Which rows certify: audits alone, chains and draws where their chances are known, and nothing that was chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import PolicySpec
from router_ml_training.certification_evidence import can_certify, known_outcomes, partial_log
from router_ml_training.dataset import Dataset
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
    assert found is not None
    log, rows = found
    assert (log.reveals, log.best, log.bar, log.audit_share) == ("chain", 1, 1.0, 0.2)
    assert rows.tolist() == list(range(N))
    assert log.audited.tolist() == AUDITED.tolist()
    assert log.first[:, 0].tolist() == [1.0] * N


def test_draws_among_audits_are_evidence_too(full: Dataset, policy: PolicySpec) -> None:
    found = partial_log(scored_of(draws(full)), policy)
    assert found is not None
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
        assert partial_log(scored, policy) is None, name


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
