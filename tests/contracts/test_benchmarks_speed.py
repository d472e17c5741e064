"""The training benchmark: the logs it writes, and the figures it makes of a run."""

import numpy as np
import pytest

from benchmarks.results_file import missed
from benchmarks.speed import pipeline
from benchmarks.speed.interactions import TIERS, WORDS, prompts, write_log
from benchmarks.speed.train import REFERENCE_US, Cost, Ran, growth_rows, rows_of
from router_ml.features import featurize
from router_ml.schema import Request, parse_interaction
from router_ml_training.dataset import build_dataset


def cost(n, wall_s, peak_gb=1.0, yardstick_us=REFERENCE_US):
    return Cost(n, wall_s, wall_s, peak_gb, yardstick_us, "linear", min(n, 120_000))


def test_a_log_is_one_of_the_service_with_about_200_tokens_of_new_text_each(tmp_path):
    path = tmp_path / "log.jsonl"
    write_log(path, 600, seed=0)
    rows = [parse_interaction(line) for line in path.read_text().splitlines()]
    assert len({row.id for row in rows}) == 600
    texts = [row.request.messages[0]["content"] for row in rows]
    assert len(set(texts)) == 600
    assert {len(text.split()) for text in texts} == {WORDS}
    dataset = build_dataset(rows, TIERS)
    assert 170 <= dataset.input_tokens.mean() <= 230
    assert 0.02 < dataset.complete.mean() < 0.09
    failures = 1 - np.nanmean(dataset.free_quality, axis=0)
    assert 0.02 < failures[1] < failures[0] < 0.6


def test_the_same_seed_writes_the_same_log_and_another_one_another(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_log(tmp_path / name, 20, seed=seed)
    first, second, third = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == second != third


def test_there_is_something_to_learn_from_the_words():
    texts, ease = prompts(300, np.random.default_rng(0))
    assert ease.std(axis=0).min() > 0.05
    assert featurize(Request(messages=[{"role": "user", "content": texts[0]}])).ids.size > WORDS


def test_minutes_are_those_of_the_reference_machine():
    assert cost(10, 120.0, yardstick_us=2 * REFERENCE_US).minutes == pytest.approx(1.0)


def test_only_the_million_has_goals():
    assert all(row.must is None for row in rows_of(cost(100_000, 1e6)))
    late, small = rows_of(cost(1_000_000, 16 * 60.0))[:2]
    assert missed(late) is True
    assert missed(small) is False


def test_a_figure_of_a_long_log_says_on_how_many_rows_models_were_fitted():
    fitted = rows_of(cost(1_000_000, 60.0))[-1]
    assert (fitted.metric, fitted.value, fitted.n) == ("rows that models are fitted on", 120_000, 1_000_000)


def test_growth_is_the_exponent_between_sizes():
    steps = growth_rows([cost(10_000, 5.0), cost(100_000, 50.0), cost(1_000_000, 5000.0)])
    assert [row.value for row in steps] == pytest.approx([1.0, 2.0])
    assert [missed(row) for row in steps] == [None, True]


def ran(wall_s, peak_gb=1.0):
    return Ran({}, wall_s, wall_s, peak_gb, REFERENCE_US)


def test_the_pipeline_has_goals_for_a_million_only():
    rate = pipeline.Rate(10, 1.0, REFERENCE_US)
    met = pipeline.Rate(300_000, 1.0, REFERENCE_US)
    slow = pipeline.rows_of(1_000_000, rate, rate, ran(21 * 60.0, 6.5), ran(5 * 60.0))
    assert [missed(row) for row in slow if row.must is not None] == [True] * 5
    fast = pipeline.rows_of(1_000_000, met, met, ran(19 * 60.0), ran(3 * 60.0))
    assert [missed(row) for row in fast if row.must is not None] == [False] * 5
    assert all(row.must is None for row in pipeline.rows_of(10_000, rate, rate, ran(1.0), ran(1.0)))


def test_rates_are_those_of_the_reference_machine():
    assert pipeline.Rate(100, 2.0, 2 * REFERENCE_US).per_s == pytest.approx(100.0)


def test_the_pipelines_store_is_filled_and_read_back(tmp_path):
    url = f"sqlite:///{tmp_path}/events.db"
    rng = np.random.default_rng(0)
    assert pipeline.fill(url, 0, 60, rng).n == 60
    pipeline.fill(url, 60, 40, rng)
    frame = next(iter(pipeline.read_frames(url)))
    assert frame["id"].to_list() == [f"speed-{i:08d}" for i in range(100)]
