import io
import json

import numpy as np
import polars as pl
import pytest

from router_ml.checks import run_checks
from router_ml.errors import DataError, UnknownName
from router_ml.schema import Answer
from router_ml_training.simulate.outcomes import OutcomeTable, outcome_table
from router_ml_training.simulate.workload import THREE_TIERS, TWO_TIERS, SimulatedTier, generate


def made(n: int, seed: int, **options) -> pl.DataFrame:
    return generate(n, rng=np.random.default_rng(seed), **options)


@pytest.fixture(scope="module")
def workload() -> pl.DataFrame:
    return made(2000, 7)


@pytest.fixture(scope="module")
def table(workload: pl.DataFrame) -> OutcomeTable:
    return outcome_table(workload, {"small": "gpt-4o-mini", "large": "gpt-4o"})


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_workload() -> None:
    assert parquet(made(60, 1)) == parquet(made(60, 1))
    assert made(60, 1)["prompt"].to_list() != made(60, 2)["prompt"].to_list()


def test_it_is_labelled_simulated_and_ordered_in_time(workload: pl.DataFrame, table: OutcomeTable) -> None:
    assert workload["simulated"].all()
    assert table.simulated
    assert list(table.ts) == sorted(table.ts)
    assert workload["prompt_id"].n_unique() == len(table) == 2000


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_quality_gap_leaves_something_to_win_and_is_not_vacuous(seed: int) -> None:
    table = outcome_table(made(1500, seed))
    small, large = table.quality.mean(axis=0)
    assert 0.08 <= (large - small) / large <= 0.15
    assert large == pytest.approx(0.90, abs=0.025)
    worse = ((table.quality[:, 0] == 1) & (table.quality[:, 1] == 0)).mean()
    assert 0.025 <= worse <= 0.06, "a large tier is wrong now and then where a small one is right"
    assert table.cost_usd[:, 0].mean() / table.cost_usd[:, 1].mean() == pytest.approx(0.06, abs=0.01)


def test_three_tiers_get_better_and_dearer() -> None:
    table = outcome_table(made(1500, 3, tiers=THREE_TIERS), {tier.name: tier.model for tier in THREE_TIERS})
    assert table.tiers == ("small", "medium", "large")
    assert (np.diff(table.quality.mean(axis=0)) > 0).all()


def test_requests_have_the_token_anatomy_of_real_calls(workload: pl.DataFrame) -> None:
    def within(column: str, low: int, high: int, *, absent: float) -> None:
        values = workload[column].to_numpy()
        present = values[values > 0]
        assert (present >= low).all(), column
        assert (present <= high).all(), column
        assert (values == 0).mean() <= absent, column

    within("system_tokens", 500, 1500, absent=0.0)
    within("context_tokens", 2000, 8000, absent=0.6)
    within("history_tokens", 1500, 3000, absent=0.9)
    within("question_tokens", 50, 200, absent=0.0)
    good = workload.filter(pl.col("quality") == 1.0)["output_tokens"]
    assert good.is_between(200, 800).all()


def test_it_covers_languages_features_use_cases_and_output_formats(workload: pl.DataFrame, table: OutcomeTable) -> None:
    assert set(workload["language"]) == {"en", "de", "fr", "es", "zh"}
    assert workload["feature"].n_unique() == 11
    assert workload["tenant"].n_unique() >= 5
    assert workload["session_id"].n_unique() < len(table)
    assert {"interactive_chat", "batch", "inline_classification", "email"} == set(workload["use_case"])
    formats = {request.response_format["type"] for request in table.requests if request.response_format}
    assert formats == {"json_object", "json_schema"}
    assert any(request.tools for request in table.requests)


def test_the_words_and_the_origin_show_difficulty_only_in_part(workload: pl.DataFrame) -> None:
    small = workload.filter(pl.col("model") == "gpt-4o-mini")
    by_feature = small.group_by("feature").agg(pl.col("quality").mean())["quality"]
    assert by_feature.max() - by_feature.min() > 0.3
    by_template = small.group_by("template").agg(pl.col("quality").mean(), pl.len()).sort("len", descending=True)
    head, tail = by_template["len"][0], by_template["len"][-1]
    assert head > 10 * tail, "templates follow Zipf's law"
    assert by_feature.min() > 0.0, "no feature is a sure failure"


def test_good_answers_pass_the_checks_and_part_of_the_bad_ones_do_not(table: OutcomeTable) -> None:
    finish = table.cells("finish_reason")
    caught = np.zeros((len(table), 2), bool)
    for i, request in enumerate(table.requests):
        for k in range(2):
            caught[i, k] = run_checks(request, Answer(table.responses[i, k], finish[i, k])) is not None
    bad = table.quality < 1.0
    assert not caught[~bad].any()
    assert 0.30 <= caught[bad[:, 0], 0].mean() <= 0.50
    assert 0.10 <= caught[bad[:, 1], 1].mean() <= 0.40


def test_a_truncated_answer_fills_its_limit(workload: pl.DataFrame) -> None:
    cut = workload.filter(pl.col("finish_reason") == "length")
    assert 0 < cut.height < workload.height * 0.1
    assert (cut["output_tokens"] == cut["max_tokens"]).all()
    assert (cut["quality"] == 0.0).all()


def test_calls_fail_now_and_then_and_the_disappointed_speak_more_often(workload: pl.DataFrame) -> None:
    assert 0.005 <= workload["error"].is_not_null().mean() <= 0.03
    assert set(workload["error"].drop_nulls()) <= {"timeout", "http_429", "http_500"}
    speaks = pl.col("feedback_delay_s").is_not_null().mean()
    share = dict(workload.group_by("quality").agg(speaks).iter_rows())
    assert share[0.0] > 2 * share[1.0] > 0
    assert workload["feedback_delay_s"].min() > 0


def test_chat_sessions_carry_their_history(workload: pl.DataFrame) -> None:
    later = workload.filter(pl.col("history_tokens") > 0)
    roles = [message["role"] for message in json.loads(later["messages"][0])]
    assert roles[-3:] == ["user", "assistant", "user"]


def test_the_mix_drifts(workload: pl.DataFrame) -> None:
    half = workload.height // 2
    new = set(workload[half:]["template"]) - set(workload[:half]["template"])
    assert len(new) >= 5


def test_what_cannot_be_generated_is_said() -> None:
    with pytest.raises(DataError, match="at least one request"):
        made(0, 1)
    with pytest.raises(UnknownName, match="no price is known for the model 'nope'"):
        made(5, 1, tiers=(*TWO_TIERS, SimulatedTier("x", "nope", 0.9, 1.0, 0.0, 0.5, 1.0, 1.0)))


def test_progress_reaches_the_end() -> None:
    seen: list[int] = []
    made(130, 1, progress=seen.append)
    assert seen == [100, 130]
