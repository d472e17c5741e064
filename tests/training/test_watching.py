"""One look at the traffic: held against what the bundle was trained on, and against what its policy did before."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import Bundle, load_bundle, write_bundle
from router_ml.features import DENSE_NAMES
from router_ml.manifest import ManifestDraft, TrainedOn
from router_ml.watch import WatchedAlarm
from router_ml_training.dataset import Dataset
from router_ml_training.learning import learn
from router_ml_training.profile import Profile, profile_of
from router_ml_training.settings import TrainingSettings
from router_ml_training.traffic_windows import TrafficWindows, expected_adequacy
from router_ml_training.watching import Watched, watch_record, watch_traffic

START = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = DENSE_NAMES.index("text.log_words")
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def bundle(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    data = world.dataset(800, seed=1)
    trained = learn(data, world.ladder, TrainingSettings(learners=("constant", "linear")))
    draft = ManifestDraft(
        version="v1",
        created=START,
        trained_on=TrainedOn(digest="abc", n_interactions=800, description="made up"),
        learner=trained.learner,
    )
    folder = tmp_path_factory.mktemp("shelf")
    return load_bundle(write_bundle(folder, manifest=draft, policy=trained.policy, model=trained.graph))


@pytest.fixture(scope="module")
def reference(world: Any, bundle: Bundle) -> Profile:
    data = world.dataset(1000, seed=2)
    return profile_of(data, expected_adequacy(data, bundle, rng=RNG))


def windows(world: Any, n: int = 1000, *, policy: str = "audit", days: float = 20.0, **changes: Any) -> TrafficWindows:
    """Traffic after that of the reference, decided by v1; the second half is the window."""
    # Prompts of the world are numbered: in any other order than theirs, early and late ones are alike.
    data: Dataset = world.dataset(n, seed=3, policy=policy).rows(np.random.default_rng(3).permutation(n))
    since = START + timedelta(days=60)
    ts = since.timestamp() + (np.arange(n) / n - 0.5) * 2 * days * 86_400.0
    latest = ts >= since.timestamp()
    for name, change in changes.items():
        data = replace(data, **{name: change(getattr(data, name), latest)})
    return TrafficWindows(replace(data, ts=ts), latest, np.ones(n, np.bool_), since, since + timedelta(days=days))


def look(found: TrafficWindows, bundle: Bundle, reference: Profile | None) -> Watched:
    return watch_traffic(found, bundle, reference, rng=np.random.default_rng(0))


@pytest.mark.parametrize("policy", ["audit", "chain"])
def test_the_same_traffic_is_quiet(world: Any, bundle: Bundle, reference: Profile, policy: str) -> None:
    found = look(windows(world, policy=policy), bundle, reference)
    assert found.quiet
    assert found.alerts == ()
    assert found.traffic is not None
    assert {line.kind for line in found.traffic.lines} == {"feature", "classes", "adequacy"}
    assert {alarm.kind for alarm in found.alarms} == (
        {"quality", "answer_length"} if policy == "audit" else {"escalation", "chosen_answer_length"}
    )
    assert found.to_text().endswith("nothing has drifted, and no alarm rings")


def test_longer_requests_are_drift(world: Any, bundle: Bundle, reference: Profile) -> None:
    def longer(dense: np.ndarray, latest: np.ndarray) -> np.ndarray:
        changed = dense.copy()
        changed[latest, WORDS] += 0.6
        return changed

    found = look(windows(world, dense=longer), bundle, reference)
    assert not found.quiet
    assert "text.log_words" in {alert.name for alert in found.alerts if alert.kind == "drift"}
    assert "text.log_words has drifted: distance" in found.to_text()


def test_a_tier_that_became_worse_is_an_alarm(world: Any, bundle: Bundle, reference: Profile) -> None:
    def worse(quality: np.ndarray, latest: np.ndarray) -> np.ndarray:
        changed = quality.copy()
        changed[latest & (RNG.random(len(quality)) < 0.4), 1] = 0.0
        return changed

    found = look(windows(world, quality=worse), bundle, reference)
    assert [(alert.kind, alert.name) for alert in found.alerts] == [
        ("quality", "large fall"),
        ("drift", "feedback large"),
    ]


def test_more_escalations_than_the_policy_had_are_found(world: Any, bundle: Bundle, reference: Profile) -> None:
    def more(escalated: np.ndarray, latest: np.ndarray) -> np.ndarray:
        changed = escalated.copy()
        changed[latest & (RNG.random(len(escalated)) < 0.5), 1] = True
        return changed

    found = look(windows(world, policy="chain", escalated=more), bundle, reference)
    assert ("escalation", "small rise") in {(alert.kind, alert.name) for alert in found.alerts}
    assert ("drift", "escalation") in {(alert.kind, alert.name) for alert in found.alerts}


def test_another_policy_is_not_held_against_what_its_predecessor_did(
    world: Any, bundle: Bundle, reference: Profile
) -> None:
    def more(escalated: np.ndarray, latest: np.ndarray) -> np.ndarray:
        changed = escalated.copy()
        changed[latest & (RNG.random(len(escalated)) < 0.5), 1] = True
        return changed

    traffic = windows(world, policy="chain", escalated=more)
    found = look(replace(traffic, own=traffic.latest), bundle, reference)
    assert found.quiet
    assert found.own is None
    assert "has not decided long enough" in found.to_text()


def test_a_bundle_without_a_profile_is_compared_with_the_time_before(world: Any, bundle: Bundle) -> None:
    found = look(windows(world), bundle, None)
    assert found.traffic is not None
    assert found.quiet
    assert "keeps no profile of what it was trained on; the time before the window stands in" in found.notes[0]
    traffic = windows(world)
    alone = look(replace(traffic, latest=np.ones(1000, np.bool_)), bundle, None)
    assert alone.traffic is None
    assert "nothing older to compare with" in alone.notes[0]


def test_other_tiers_are_compared_in_what_came(world: Any, bundle: Bundle, reference: Profile) -> None:
    traffic = windows(world)
    renamed = replace(traffic, dataset=replace(traffic.dataset, tiers=("small", "huge")))
    found = look(renamed, bundle, reference)
    assert found.traffic is not None
    assert {line.kind for line in found.traffic.lines} == {"feature", "classes"}
    assert "the log is of other tiers" in found.to_text()


def test_audits_that_the_bundle_was_trained_on_are_not_listened_to(
    world: Any, bundle: Bundle, reference: Profile
) -> None:
    traffic = windows(world)
    trained_late = reference.model_copy(update={"last_ts": traffic.since})
    alarms = look(traffic, bundle, trained_late).alarms
    assert {alarm.n for alarm in alarms} == {int((traffic.dataset.ts > traffic.since.timestamp()).sum())}


def test_the_record_keeps_what_others_found_and_what_was_told(world: Any, bundle: Bundle, reference: Profile) -> None:
    found = look(windows(world), bundle, reference)
    now = START + timedelta(days=90)
    first = watch_record(found, now=now, previous=None)
    assert (first.bundle, first.n, first.checked) == ("v1", found.n, now)
    assert len(first.drift) == len(found.lines)
    golden = WatchedAlarm(
        kind="golden", tier="large", direction="fall", evidence=1.0, limit=9.0, rings=False, text="fine"
    )
    earlier = first.model_copy(update={"alarms": (*first.alarms, golden), "sent": {"drift: x": now}})
    again = watch_record(found, now=now, previous=earlier)
    assert again.alarms == (*first.alarms, golden)
    assert again.sent == {"drift: x": now}


def test_everything_is_plain_values(world: Any, bundle: Bundle, reference: Profile) -> None:
    record = json.loads(json.dumps(look(windows(world), bundle, reference).to_dict()))
    assert record["quiet"] is True
    assert record["traffic"]["n_reference"] == 1000


def test_of_many_rows_a_sample_is_asked(world: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router_ml_training.traffic_windows._ASKED", 40)
    data = world.dataset(100)
    found = expected_adequacy(data, bundle, rng=np.random.default_rng(0))
    assert found.shape == (100, 2)
    assert (~np.isnan(found).any(axis=1)).sum() == 40


def test_it_is_written_nowhere_who_asked_what(world: Any, bundle: Bundle, reference: Profile, tmp_path: Path) -> None:
    found = look(windows(world), bundle, reference)
    written = json.dumps(found.to_dict()) + watch_record(found, now=START, previous=None).model_dump_json()
    assert not any(word in written for word in ("greet", "derive", "summarise", "omega"))
