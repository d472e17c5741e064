"""Where a notebook looks, and what it says where there is nothing to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from router_ml.errors import DataError, RouterError, UsageError
from router_ml_training.review.home import HOME_VARIABLE, Home, attempt, home_folder, open_home, read_sample


@pytest.fixture(scope="module")
def home(review_home: Path) -> Home:
    return open_home(review_home, {})


def test_the_folder_is_named_by_the_argument_then_the_environment_then_is_the_current_one() -> None:
    environ = {HOME_VARIABLE: "from-environment"}
    assert home_folder({"home": "from-argument"}, environ) == Path("from-argument")
    assert home_folder({}, environ) == Path("from-environment")
    assert home_folder({}, {}) == Path()


def test_logs_and_versions_are_those_of_the_folder_wherever_the_notebook_was_started(
    home: Home, review_home: Path
) -> None:
    assert [log.location for log in home.logs] == [str(review_home / "log.jsonl")]
    assert home.versions() == ["router-2026-01-02.1", "router-2026-01-01.1"]
    assert home.bundle().version == "router-2026-01-02.1"
    assert home.bundle("router-2026-01-01.1").manifest.learner == "length"


def test_a_sample_is_the_newest_interactions_in_the_order_of_time_with_its_rows_aligned(home: Home) -> None:
    sample = read_sample(home, most=100)
    assert (len(sample.interactions), len(sample.dataset), sample.n_read) == (100, 100, 1200)
    times = [item.ts for item in sample.interactions]
    assert times == sorted(times)
    assert min(times) > sorted(item.ts for item in read_sample(home).interactions)[1000]
    assert sample.dataset.ts.tolist() == [ts.timestamp() for ts in times]
    assert sample.note == "The newest 100 of 1,200 interactions."
    assert read_sample(home).note == "All 1,200 interactions."


def test_a_folder_without_a_configuration_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no `router.toml` in .* Run `router-ml demo`, .*`-- --home demo-output`"):
        open_home(tmp_path, {})


def test_a_folder_without_a_log_says_what_to_do(tmp_path: Path, review_home: Path) -> None:
    (tmp_path / "router.toml").write_text((review_home / "router.toml").read_text())
    (tmp_path / "table.parquet").write_bytes(b"no table")
    (tmp_path / "notes.jsonl").write_text('{"other": 1}\n')
    empty = open_home(tmp_path, {HOME_VARIABLE: str(tmp_path)})
    assert empty.logs == ()
    with pytest.raises(DataError, match=r"no log of interactions in .*router-ml ingest FILE --out"):
        read_sample(empty)


def test_an_imported_log_is_read_instead_of_the_raw_one_beside_it(tmp_path: Path, review_home: Path) -> None:
    import polars as pl

    (tmp_path / "router.toml").write_text((review_home / "router.toml").read_text())
    (tmp_path / "log.jsonl").write_text((review_home / "log.jsonl").read_text())
    pl.DataFrame({"attempts": [[1]], "messages": ["x"], "ts": [1]}).write_parquet(tmp_path / "log.parquet")
    pl.DataFrame({"prompt_id": [1]}).write_parquet(tmp_path / "outcomes.parquet")
    (tmp_path / "events.db").touch()
    names = [(Path(log.location).name, log.source) for log in open_home(tmp_path, {}).logs]
    assert names == [("log.parquet", "native"), ("events.db", "store")]


def test_an_attempt_returns_the_value_or_the_message_and_hides_no_bug() -> None:
    def fail() -> int:
        raise RouterError("what, and what to do")

    assert attempt(lambda: 7) == (7, "")
    assert attempt(fail) == (None, "what, and what to do")
    with pytest.raises(ZeroDivisionError):
        attempt(lambda: 1 // 0)
