"""Who competes: all when much is new, however many rows there are; otherwise the last winner and the constant."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from router_ml_training.retrain.competing import competitors, settings_key
from router_ml_training.retrain.state import LastCompetition
from router_ml_training.settings import TrainingSettings

SETTINGS = TrainingSettings(learners=("constant", "length", "linear"))
NOW = datetime(2026, 11, 22, tzinfo=UTC)
LAST = LastCompetition(n_rows=1000, until=999.0, settings="same", winner="linear", at=NOW, passed=True)


@pytest.mark.parametrize(
    ("first", "end", "everyone"),
    [(0, 1000, False), (0, 1099, False), (0, 1100, True), (0, 899, True), (50, 1050, False), (100, 1100, True)],
)
def test_a_tenth_that_came_or_went_brings_all_back(first: int, end: int, everyone: bool) -> None:
    names, why = competitors(LAST, np.arange(first, end, dtype=np.float64), "same", SETTINGS)
    assert names == (SETTINGS.learners if everyone else ("constant", "linear"))
    assert ("at the last competition" in why) == everyone


def test_a_window_that_has_moved_on_says_how_much_is_new() -> None:
    _, why = competitors(LAST, np.arange(500.0, 1500.0), "same", SETTINGS)
    assert why == "all learners compete: 1,000 rows (500 new), 1,000 at the last competition on 2026-11-22"


def test_other_logs_settings_and_failed_gates_bring_all_back() -> None:
    ts = np.arange(1000.0)
    assert competitors(None, ts, "same", SETTINGS)[0] == SETTINGS.learners
    assert "settings, tiers, logs or libraries" in competitors(LAST, ts, "other", SETTINGS)[1]
    failed = LAST.model_copy(update={"passed": False})
    assert "failed its gates" in competitors(failed, ts, "same", SETTINGS)[1]
    keys = {settings_key(SETTINGS, [], {}, [[log, "native"]]) for log in ("a.jsonl", "b.jsonl")}
    assert len(keys) == 2
