import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from router_ml.errors import DataError, UsageError
from router_ml_training.simulate.outcomes import load_outcomes, outcome_table, parse_tiers

TIERS = {"small": "mini", "large": "maxi"}
FOLDER = os.environ.get("ROUTER_ML_OUTCOMES")


@pytest.fixture
def frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "prompt_id": ["b", "a", "a", "b", "c", "c"],
            "prompt": ["Hello,  World!", "Why?", "Why?", "Hello,  World!", "hello world", "hello world"],
            "task": ["greet", "ask", "ask", "greet", "greet", "greet"],
            "model": ["maxi", "mini", "maxi", "mini", "maxi", "mini"],
            "quality": [1.0, 0.0, 1.0, 1.0, 0.5, 1.0],
            "cost_usd": [0.9, 0.1, 1.1, 0.2, 1.0, 0.1],
            "input_tokens": [4, 2, 2, 4, 3, 3],
            "output_tokens": [9, 1, 8, 2, 7, 3],
            "response": ["hi", "no", None, "hey", "hm", "ho"],
        }
    )


def test_arrays_are_aligned_sorted_by_prompt_and_cheapest_first(frame: pl.DataFrame) -> None:
    table = outcome_table(frame, {"large": "maxi", "small": "mini"})
    assert table.tiers == ("small", "large")
    assert table.models == ("mini", "maxi")
    assert table.prompt_ids == ("a", "b", "c")
    assert table.quality.tolist() == [[0.0, 1.0], [1.0, 1.0], [1.0, 0.5]]
    assert table.cost_usd.tolist() == [[0.1, 1.1], [0.2, 0.9], [0.1, 1.0]]
    assert table.output_tokens.tolist() == [[1, 8], [2, 9], [3, 7]]
    assert table.responses.tolist() == [["no", None], ["hey", "hi"], ["ho", "hm"]]
    assert table.requests[0].messages == [{"role": "user", "content": "Why?"}]
    assert not table.failed.any()
    assert not table.simulated


def test_prompts_that_differ_in_case_and_punctuation_share_a_group(frame: pl.DataFrame) -> None:
    table = outcome_table(frame, TIERS)
    a, b, c = table.group.tolist()
    assert b == c != a
    assert table.deduplicated().prompt_ids == ("a", "b")


def test_times_are_kept_by_a_selection_of_rows(frame: pl.DataFrame) -> None:
    table = outcome_table(frame, TIERS)
    assert len(set(table.ts)) == 3
    assert table.take([2, 0]).ts == (table.ts[2], table.ts[0])
    assert table.take([2, 0]).quality.tolist() == [[1.0, 0.5], [0.0, 1.0]]


def test_the_task_is_a_feature_only_when_asked_for(frame: pl.DataFrame) -> None:
    assert outcome_table(frame, TIERS).requests[0].feature is None
    assert outcome_table(frame, TIERS, task_as_feature=True).requests[0].feature == "ask"


def test_without_tiers_every_model_is_one_under_a_plain_name(frame: pl.DataFrame) -> None:
    renamed = frame.with_columns(pl.col("model").replace({"maxi": "org/Maxi v2"}))
    assert outcome_table(renamed).tiers == ("mini", "Maxi-v2")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.drop("quality"), "missing quality"),
        (lambda f: f.drop("prompt"), "prompt (or messages)"),
        (lambda f: f.filter(pl.col("model") != "maxi"), "no rows for model 'maxi'; it has mini"),
        (lambda f: pl.concat([f, f[:1]]), "prompt_id 'b' has 2 rows for model 'maxi'"),
        (lambda f: f[:-1], "1 prompts lack the outcome of a tier (first: prompt_id 'c' has no row for mini)"),
        (lambda f: f.with_columns(quality=pl.lit(float("nan"))), "quality is nan for prompt_id 'a'"),
        (lambda f: f.with_columns(cost_usd=pl.lit(-1.0)), "cost_usd is -1.0 for prompt_id 'a'"),
        (lambda f: f.with_columns(cost_usd=pl.lit(None, pl.Float64)), "cost_usd is None"),
        (lambda f: f.with_columns(quality=pl.lit("good")), "column quality holds String"),
        (lambda f: f[:0], "no rows"),
    ],
)
def test_a_bad_table_is_refused_with_what_and_where(frame: pl.DataFrame, change, said: str, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    change(frame).write_parquet(path)
    with pytest.raises(DataError) as caught:
        load_outcomes(path, TIERS)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_parquet_or_not_there_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no")
    for name, said in (("x.parquet", "cannot be read"), ("absent.parquet", "no such file")):
        with pytest.raises(DataError, match=said):
            load_outcomes(tmp_path / name)


def test_one_model_cannot_be_two_tiers(frame: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="two tiers of different models"):
        outcome_table(frame, {"small": "mini", "large": "mini"})


def test_tiers_are_read_from_the_command_line() -> None:
    assert parse_tiers("small=org/a, large=b") == {"small": "org/a", "large": "b"}
    for text in ("small", "small=", "small=a,small=b", ""):
        with pytest.raises(UsageError, match="--tiers"):
            parse_tiers(text)


@pytest.mark.skipif(FOLDER is None, reason="ROUTER_ML_OUTCOMES names no folder of outcome tables")
def test_every_real_table_loads() -> None:
    paths = sorted(Path(FOLDER or "").glob("*.parquet"))
    assert paths
    for path in paths:
        table = load_outcomes(path)
        n, k = table.quality.shape
        assert (len(table), len(table.tiers)) == (n, k)
        assert len(table.requests) == n == len(table.group)
        assert (np.diff(table.cost_usd.mean(axis=0)) >= 0).all()
        assert len(table.deduplicated()) > 0.9 * n, path.name
