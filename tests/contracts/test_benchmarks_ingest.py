"""The ingest benchmark: what it writes looks like the service's own, and a small run has all figures and one goal."""

import itertools
import json

import pytest

from benchmarks.speed.ingest import BATCH, PROTOCOL, _batches, main
from router_ml.schema import parse_interaction


def test_batches_are_of_today_with_ids_that_rise_and_prompts_that_differ():
    rows = list(itertools.chain.from_iterable(itertools.islice(_batches(), 3)))
    assert len(rows) == 3 * BATCH
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    assert len({row.ts[:10] for row in rows}) == 1
    assert len({parse_interaction(row.body).request.messages[0]["content"] for row in rows[:50]}) == 50


@pytest.mark.slow
def test_a_small_run_states_the_rate_at_every_filling_and_has_its_goal_at_the_last(postgres, tmp_path, capsys):
    out = tmp_path / "results.json"
    url = postgres.database()
    assert main(["--rows", "300,700", "--turns", "3", "--batches", "1", "--url", url, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert {row["protocol"] for row in found} == {PROTOCOL}
    ratios = {row["metric"]: row["must"] for row in found if row["metric"].endswith("/ empty store")}
    assert ratios == {
        "rate at 0 rows / empty store": None,
        "rate at 300 rows / empty store": None,
        "rate at 700 rows / empty store": 0.8,
    }
    assert all(row["value"] > 0 for row in found)
    assert "must" in capsys.readouterr().out
