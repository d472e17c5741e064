"""Drift: small windows do not cry wolf, large ones do not alarm on nothing, and what has changed is found."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router_ml.features import DENSE_NAMES, N_TEXT_BUCKETS
from router_ml_training.dataset import Dataset
from router_ml_training.drift import ALPHA, KINDS, POLICY_KINDS, TRAFFIC_KINDS, Drift, drift_between
from router_ml_training.histograms import histogram, share_histogram
from router_ml_training.profile import Profile, profile_of

WORDS = DENSE_NAMES.index("text.log_words")


@pytest.fixture(scope="module")
def pool(world: Any) -> Dataset:
    """4,000 rows of a chain's log, to draw windows from."""
    return world.dataset(4000, policy="chain")


def window(pool: Dataset, n: int, rng: np.random.Generator, *, session: int = 1) -> Dataset:
    """Draw a window; with sessions, their requests are all of one kind."""
    picked = np.repeat(rng.integers(0, len(pool), -(-n // session)), session)[:n]
    groups = rng.integers(-(2**62), 2**62, -(-n // session))
    return replace(pool.rows(picked), group=np.repeat(groups, session)[:n])


def line_of(drift: Drift, name: str) -> Any:
    return next(line for line in drift.lines if line.name == name)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "session"), [(150, 1), (600, 1), (900, 3)])
def test_without_a_change_hardly_a_window_is_called_drifted(pool: Dataset, n: int, session: int) -> None:
    rng = np.random.default_rng(n)
    references = [profile_of(window(pool, 2000, rng, session=session)) for _ in range(6)]
    runs = 300
    alarms = sum(
        drift_between(references[i % 6], profile_of(window(pool, n, rng, session=session))).drifted for i in range(runs)
    )
    # The bound is on the chance: so many of the runs may exceed it by luck in one of a thousand tries.
    assert alarms <= runs * ALPHA + 3.1 * np.sqrt(runs * ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize("session", [1, 4])
def test_p_values_of_one_line_are_honest_also_within_sessions(session: int) -> None:
    rng, p = np.random.default_rng(1), []
    for _ in range(500):
        profiles = []
        for n in (1600, 600):
            group = np.repeat(rng.integers(-(2**62), 2**62, n // session), session)
            expected = np.repeat(rng.random(n // session) ** 2, session)
            found = share_histogram(expected, group)
            assert found is not None
            profiles.append(Profile(tiers=("small",), n=n, features={}, adequacy={"small": found}))
        p.append(drift_between(*profiles).lines[0].p)
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)
    assert np.mean(np.array(p) <= 0.01) <= 0.01 + 3 * np.sqrt(0.01 * 0.99 / 500)


def test_a_change_of_the_traffic_is_found_and_named(pool: Dataset) -> None:
    rng = np.random.default_rng(0)
    longer = window(pool, 600, rng)
    moved = longer.dense.copy()
    moved[:300, WORDS] += 0.5
    found = drift_between(profile_of(window(pool, 2000, rng)), profile_of(replace(longer, dense=moved)))
    assert [line.name for line in found.lines if line.drifted] == ["text.log_words"]
    assert found.worst is not None
    assert found.worst.name == "text.log_words"
    assert found.worst.current > found.worst.reference
    assert found.worst.ks > 0.2


def test_a_change_of_what_the_model_expects_is_found(pool: Dataset) -> None:
    rng = np.random.default_rng(0)
    before, now = window(pool, 2000, rng), window(pool, 600, rng)
    calm, worse = rng.beta(6, 2, (2000, 2)), rng.beta(4, 3, (600, 2))
    found = drift_between(profile_of(before, calm), profile_of(now, worse), kinds=TRAFFIC_KINDS)
    assert {line.name for line in found.lines if line.drifted} == {"adequacy small", "adequacy large"}


def test_a_change_of_what_tiers_do_is_found(pool: Dataset) -> None:
    rng = np.random.default_rng(0)
    before, now = window(pool, 2000, rng), window(pool, 800, rng)
    escalated = now.escalated.copy()
    escalated[:120, 1] = True
    changed = replace(now, output_tokens=now.output_tokens * 1.5, cost_usd=now.cost_usd * 1.4, escalated=escalated)
    found = drift_between(profile_of(before), profile_of(changed), kinds=POLICY_KINDS)
    drifted = {line.name for line in found.lines if line.drifted}
    assert {"output tokens small", "cost small", "escalation"} <= drifted
    assert not drifted & {"feedback small", "input tokens small"}
    assert line_of(found, "cost small").distance == pytest.approx(0.4, abs=0.1)


def test_new_classes_of_requests_are_found(world: Any) -> None:
    rng = np.random.default_rng(0)
    data = world.dataset(1500)

    def classes(share: float, n: int) -> Profile:
        text = data.text.tolil()[:n]
        whose = np.where(rng.random(n) < share, 5000, 5001)
        text[np.arange(n), N_TEXT_BUCKETS + whose - 4999] = 1.0
        return profile_of(replace(data.rows(np.arange(n)), text=text.tocsr()))

    assert line_of(drift_between(classes(0.5, 1000), classes(0.95, 400)), "class of request").drifted
    assert not line_of(drift_between(classes(0.5, 1000), classes(0.52, 400)), "class of request").drifted


def test_a_huge_log_does_not_alarm_on_next_to_nothing() -> None:
    rng = np.random.default_rng(0)
    n = 200_000

    def shifted(by: float) -> Profile:
        found = histogram(np.exp(rng.normal(by, 1.0, n)), np.arange(n))
        assert found is not None
        return Profile(tiers=("small",), n=n, features={"length": found})

    line = drift_between(shifted(0.0), shifted(0.05)).lines[0]
    assert line.p is not None
    assert line.p < 1e-6
    assert not line.drifted


def test_a_handful_of_requests_is_no_window(pool: Dataset) -> None:
    rng = np.random.default_rng(0)
    few = window(pool, 30, rng)
    found = drift_between(profile_of(window(pool, 2000, rng)), profile_of(replace(few, dense=few.dense + 3)))
    assert not found.drifted
    assert {line.p for line in found.lines} == {None}


def test_one_long_session_is_no_window_either(pool: Dataset) -> None:
    rng = np.random.default_rng(0)
    found = drift_between(profile_of(window(pool, 2000, rng)), profile_of(window(pool, 400, rng, session=400)))
    assert not found.drifted


@pytest.mark.slow
def test_a_few_long_sessions_are_no_window(pool: Dataset) -> None:
    # A flag that every tenth session has, and by chance none of twenty: 800 rows without it are 20 sessions.
    rng, alarms = np.random.default_rng(2), 0

    def profile(sessions: int, length: int) -> Profile:
        group = np.repeat(rng.integers(-(2**62), 2**62, sessions), length)
        flags = {f"flag {i}": histogram(np.repeat(rng.random(sessions) < 0.1, length), group) for i in range(10)}
        return Profile(tiers=("small",), n=sessions * length, features=flags)

    reference = profile(5000, 4)
    for _ in range(40):
        alarms += drift_between(reference, profile(20, 40)).drifted
    assert alarms == 0


def test_kinds_choose_what_is_compared(pool: Dataset) -> None:
    rng = np.random.default_rng(0)
    both = [profile_of(window(pool, 300, rng), rng.random((300, 2))) for _ in range(2)]
    assert {line.kind for line in drift_between(*both, kinds=("tokens",)).lines} == {"tokens"}
    assert {line.kind for line in drift_between(*both).lines} == set(KINDS)
    assert not set(TRAFFIC_KINDS) & set(POLICY_KINDS)


def test_other_tiers_are_compared_where_their_names_meet(world: Any) -> None:
    before = profile_of(world.dataset(300, policy="chain"))
    renamed = before.model_copy(update={"tiers": ("small", "huge")})
    found = drift_between(before, renamed)
    assert "first tier" not in {line.name for line in found.lines}
    assert "output tokens small" in {line.name for line in found.lines}


def test_it_can_be_shown(pool: Dataset) -> None:
    rng = np.random.default_rng(0)
    longer = window(pool, 600, rng)
    moved = longer.dense.copy()
    moved[:, WORDS] += 0.5
    found = drift_between(profile_of(window(pool, 2000, rng)), profile_of(replace(longer, dense=moved)))
    rows = found.to_rows()
    assert rows[0][0] == "text.log_words"
    assert rows[0][1] > rows[0][2] == 0.2
    text = found.to_text(most=3)
    assert "drifted  text.log_words" in text
    assert f"{len(found.lines) - 3} more lines are within their limits" in text
    record = json.loads(json.dumps(found.to_dict()))
    assert record["drifted"]
    assert record["lines"][0]["name"] == "text.log_words"
    assert len(record["lines"]) == len(rows)
