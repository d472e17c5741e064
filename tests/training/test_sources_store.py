from __future__ import annotations

from pathlib import Path

import pytest

from router_ml.errors import DataError
from router_ml.ladder import Ladder, Tier
from router_ml.schema import Feedback, Interaction, parse_interaction
from router_ml.store import open_store
from router_ml_training.sources import Reject, SourceOptions
from router_ml_training.sources.store import read


def interaction(i: int, tier: str = "small") -> Interaction:
    return parse_interaction({"id": f"i{i}", "ts": f"2026-01-01T00:00:0{i}Z", "attempts": [{"tier": tier}]})


def test_what_the_service_recorded_is_read_with_the_feedback_that_came_later(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    thumb = Feedback(ts=interaction(5).ts, source="user", adequate=False)
    with open_store(url) as store:
        store.append([interaction(1), interaction(0)])
        store.amend("i1", thumb)
    first, second = read(url, SourceOptions())
    assert first == interaction(0)
    assert isinstance(second, Interaction)
    assert second.feedback == (thumb,)
    assert list(read(str(tmp_path / "events.db"), SourceOptions())) == [first, second]


def test_a_tier_that_the_ladder_lost_is_rejected(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    with open_store(url) as store:
        store.append([interaction(0, "medium"), interaction(1)])
    prices = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}
    ladder = Ladder.of([Tier(name=name, model=name, **prices) for name in ("small", "large")])
    bad, good = read(url, SourceOptions(ladder=ladder))
    assert isinstance(bad, Reject)
    assert "no tier is called 'medium'" in bad.reason
    assert '"id":"i0"' in bad.raw
    assert good == interaction(1)


def test_a_store_that_is_not_there_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    path = tmp_path / "typo.db"
    with pytest.raises(DataError, match="no such event store"):
        list(read(f"sqlite:///{path}", SourceOptions()))
    assert not path.exists()
