"""A policy's certificate from a log: from pairs, from chains with audits, and clear words where there can be none."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import PolicySpec
from router_ml.errors import UsageError
from router_ml.manifest import FrontierPoint, PlanSpec
from router_ml_training.certification import Terms, certify_policy, uncertified
from router_ml_training.dataset import Dataset, joined
from router_ml_training.evaluation.certificate_record import Certification
from router_ml_training.scored import Scored

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LOOSE = Terms(allowed_loss=0.1, slice_loss=0.15, draws=50)
COST = (1e-5, 1e-4)


def policy_of(world: Any, *prices: float) -> PolicySpec:
    frontier = [FrontierPoint(quality=1 - 0.02 * i, shadow_price=price, saving=0.0) for i, price in enumerate(prices)]
    return PolicySpec(tiers=world.ladder.tiers, best_tier="large", frontier=tuple(frontier))


def knowing(world: Any, data: Dataset) -> Scored:
    """Score rows by the truth behind their words."""
    drawn = world.draw(len(data), np.random.default_rng(0))
    slip = world.p_small * (1 - world.slip) + (1 - world.p_small) * world.p_large_if_failed
    adequacy = np.stack((world.p_small[drawn.difficulty], slip[drawn.difficulty]), axis=1)
    return Scored(data, adequacy, np.tile(COST, (len(data), 1)))


def walk(scored: Scored, policy: PolicySpec, terms: Terms = LOOSE) -> Certification:
    return certify_policy(scored, policy, date=NOW, rng=np.random.default_rng(0), terms=terms)


def chains(full: Dataset, audit_share: float) -> Dataset:
    n = len(full)
    audited = np.random.default_rng(3).random(n) < audit_share
    failed = full.quality[:, 0] < 0.5
    quality, escalated = full.quality.copy(), np.zeros((n, 2), np.bool_)
    quality[~audited & ~failed, 1] = np.nan
    escalated[~audited & failed, 1] = True
    propensity = np.where(audited[:, None], np.nan, [[1.0, 0.0]])
    return replace(full, quality=quality, escalated=escalated, propensity=propensity, action=np.where(audited, -1, 0))


def test_pairs_certify_a_saving_and_say_what_to_read_it_beside(world: Any) -> None:
    found = walk(knowing(world, world.dataset(3000)), policy_of(world, 0.0, 1000.0, 1e5))
    assert found.beyond_constant
    assert found.certificate is not None
    assert found.certificate.evidence == "pairs"
    assert [step.certified for step in found.certificate.steps] == [True, True, True, False]
    assert found.beside is not None
    assert found.beside.gap == pytest.approx(0.28, abs=0.05)
    assert found.beside.oracle_saving > found.certificate.saving.value  # type: ignore[operator]
    assert found.beside.vacuous is None
    record = found.to_dict()
    assert record == json.loads(json.dumps(record, allow_nan=False))
    assert record["n_known"] == record["n_set_aside"] == 3000
    assert "short prompts" in {one["name"] for one in record["slices"]}  # type: ignore[index, union-attr]
    assert found.figures()["certified_saving"] == found.certificate.saving


def test_chains_certify_with_a_few_audits(world: Any) -> None:
    scored = knowing(world, world.dataset(3000))
    policy = policy_of(world, 0.0, 1000.0)
    partial = replace(scored, dataset=chains(scored.dataset, 0.05))
    found = walk(partial, policy)
    assert found.certificate is not None
    assert found.certificate.evidence == "chains and audits"
    assert found.n_known < 200
    assert found.certificate.index == 2
    counted = walk(partial, policy, replace(LOOSE, test="clopper-pearson")).certificate
    assert counted is not None
    assert (counted.evidence, counted.n_rows) == ("pairs", found.n_known)


def test_a_policy_that_always_loses_too_much_leaves_the_constant_model(world: Any) -> None:
    found = walk(knowing(world, world.dataset(600)), policy_of(world, 1e6))
    assert not found.beyond_constant
    assert found.verdict.startswith("Keep the constant model (always large)")
    assert found.slices == ()


@pytest.mark.parametrize(
    ("n", "prices", "said"), [(50, (0.0,), "known for 50 of 50 requests, and at least"), (300, (), "no frontier")]
)
def test_where_nothing_can_be_proven_it_says_why_and_nothing_fails(
    world: Any, n: int, prices: tuple[float, ...], said: str
) -> None:
    found = walk(knowing(world, world.dataset(n)), policy_of(world, *prices), Terms(draws=10))
    assert found.certificate is None
    assert said in found.verdict
    assert found.verdict.startswith("No certificate")
    assert found.to_dict()["beyond_constant"] is False
    assert found.figures()["certified_saving"].value is None


def judging(world: Any, n: int, seen: float) -> Scored:
    """Rows with a verifier that knows the truth, on answers that only a share of the rows has."""
    scored = knowing(world, world.dataset(n))
    posterior = np.repeat(scored.adequacy[:, None], 2, axis=1)
    posterior[:, 0] = scored.dataset.quality * 0.9 + 0.05
    posterior[np.random.default_rng(1).random(n) >= seen, 0] = np.nan
    return replace(scored, posterior=posterior)


def test_audits_beside_answers_that_are_not_in_the_log_are_no_part_of_it(world: Any) -> None:
    scored = knowing(world, world.dataset(3000))
    data = chains(scored.dataset, 0.06)
    audits = np.flatnonzero(data.action < 0)
    beside = data.beside.copy()
    beside[audits[:50]] = 12345
    found = walk(replace(scored, dataset=replace(data, beside=beside)), policy_of(world, 0.0, 1000.0))
    assert found.certificate is not None
    assert found.certificate.evidence == "chains and audits"
    assert (found.n_known, found.certificate.n_rows) == (len(audits) - 50, 2950)
    assert found.beside is not None


@pytest.mark.parametrize(("seen", "left"), [(1.0, 0), (0.7, 1), (0.0, 1)])
def test_a_point_that_judges_is_not_certified_where_its_answers_are_unknown(world: Any, seen: float, left: int) -> None:
    plain = policy_of(world, 0.0, 1000.0)
    judged = FrontierPoint(quality=0.9, shadow_price=1000.0, saving=0.0, judged=True, alone_price=500.0)
    policy = plain.model_copy(
        update={"frontier": (*plain.frontier, judged), "plans": PlanSpec(spread=((0.0, 0.3), (0.0, 0.0)))}
    )
    scored = judging(world, 800, seen)
    # Rows that are not under test do not decide: 3,000 whose answers are all known are no help.
    more = judging(world, 3000, 1.0)
    unknown = replace(more.dataset, quality=np.where([True, False], more.dataset.quality, np.nan))
    both = Scored(
        joined(scored.dataset, unknown),
        *(
            np.concatenate((getattr(scored, name), getattr(more, name)))
            for name in ("adequacy", "cost_usd", "posterior")
        ),
    )
    found = walk(both, policy)
    assert found.certificate is not None
    assert [step.quality for step in found.certificate.steps][1:] == [1.0, 0.98, 0.9][: 3 - left]
    assert len(found.notes) == left
    assert all(note.startswith("1 of 3 points of the frontier were left out: they judge") for note in found.notes)


def test_a_log_of_which_nothing_was_set_aside_has_no_certificate(world: Any) -> None:
    found = uncertified(world.dataset(60), policy_of(world), Terms())
    assert "known for 60 of 60 requests" in found.verdict
    assert "at least 110" in found.verdict


def test_shares_out_of_range_are_refused(world: Any) -> None:
    for terms in (Terms(allowed_loss=3.0), Terms(confidence=95.0), Terms(slice_loss=0.0)):
        with pytest.raises(UsageError):
            walk(knowing(world, world.dataset(20)), policy_of(world), terms)
