from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from router_ml.cli import main
from router_ml.errors import DataError, StoreError, UsageError
from router_ml.ladder import Ladder, Tier
from router_ml.schema import Interaction, parse_interaction
from router_ml_training import ingest as ingest_module
from router_ml_training.frames import read_parquet
from router_ml_training.ingest import IngestReport, ingest, rejects_path, report_path
from router_ml_training.sources import SOURCES, Reject, SourceOptions

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LADDER = Ladder.of(
    [
        Tier(name="small", model="a", input_usd_per_mtok=1, output_usd_per_mtok=2, cached_input_usd_per_mtok=0.5),
        Tier(name="large", model="b", input_usd_per_mtok=10, output_usd_per_mtok=20),
    ]
)
CONFIG = """
[[tiers]]
name = "small"
model = "gpt-4o-mini"
[[tiers]]
name = "large"
model = "gpt-4o"
"""


def row(i: int = 0, **fields: Any) -> dict[str, Any]:
    attempt = {"tier": "small", "cost_usd": 0.1, "verdicts": [{"adequate": i % 2 == 0, "source": "judge"}]}
    return {"id": f"i{i}", "ts": f"2026-01-01T00:00:{i % 60:02d}Z", "attempts": [attempt], **fields}


def log(path: Path, *rows: dict[str, Any] | str) -> str:
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in rows))
    return str(path)


def run(out: Path, *locations: str, ladder: Ladder | None = None, **options: Any) -> IngestReport:
    return ingest(SOURCES.load("native"), locations, SourceOptions(ladder=ladder), out=out, now=NOW, **options)


def rejects_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rejects_path(out).read_text().splitlines()]


def test_valid_rows_go_to_parquet_and_bad_ones_to_the_reject_file_with_line_and_reason(tmp_path: Path) -> None:
    location = log(
        tmp_path / "log.jsonl",
        row(0),
        "{",
        row(2, schema="router_ml.interaction/2"),
        row(3, attempts=[{"tier": "smal"}]),
        row(4, attempts=[{"tier": "small", "cost_usd": float("nan")}]),
        row(5),
    )
    out = tmp_path / "out" / "log.parquet"
    report = run(out, location, ladder=LADDER, max_rejects=0.9)
    assert [item.id for item in read_parquet(out)] == ["i0", "i5"]
    assert [(item["file"], item["line"], item["reason"].partition(",")[0]) for item in rejects_of(out)] == [
        (location, 2, "not valid JSON (EOF while parsing an object at line 1 column 1)"),
        (location, 3, "schema: got 'router_ml.interaction/2'"),
        (location, 4, "attempts: no tier is called 'smal' (did you mean 'small'?); the ladder has small"),
        (location, 5, "attempts.0.cost_usd: Input should be a finite number"),
    ]
    assert rejects_of(out)[0]["raw"] == "{"
    assert (report.n_read, report.n_written, report.n_rejected, report.refused) == (6, 2, 4, None)
    assert json.loads(report_path(out).read_text()) == json.loads(json.dumps(report.to_dict()))
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "log.parquet",
        "log.rejects.jsonl",
        "log.report.json",
    ]


def test_too_many_bad_rows_refuse_the_import_and_leave_the_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "log.parquet"
    run(out, log(tmp_path / "good.jsonl", row(7)))
    bad = log(tmp_path / "bad.jsonl", *(row(i) for i in range(17)), "{", '{"id": "x"}', '{"id": "y"}')
    with pytest.raises(DataError) as caught:
        run(out, bad)
    assert "3 of 20 rows cannot be read, more than the 5% allowed; nothing was imported" in str(caught.value)
    assert "Most frequent (2 x): ts: missing" in str(caught.value)
    assert f"is in {rejects_path(out)}; correct them, or allow more with --max-rejects" in str(caught.value)
    assert [item.id for item in read_parquet(out)] == ["i7"]
    assert [item["line"] for item in rejects_of(out)] == [18, 19, 20]
    assert json.loads(report_path(out).read_text())["refused"] == str(caught.value)
    assert run(out, bad, max_rejects=0.15).n_written == 17


@pytest.mark.parametrize(
    ("rows", "message"),
    [((), "the log is empty"), (("", "  "), "the log is empty"), (("{",), "1 of 1 rows cannot be read, so none is")],
)
def test_a_log_without_a_valid_row_is_an_error(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(DataError, match=message):
        run(out, log(tmp_path / "log.jsonl", *rows), max_rejects=1.0)
    assert not out.exists()


def test_a_log_of_one_tier_is_imported_with_a_warning(tmp_path: Path) -> None:
    report = run(tmp_path / "out.parquet", log(tmp_path / "log.jsonl", *(row(i) for i in range(4))))
    assert "only the tier 'small' was ever tried: nothing can be learned about choosing another one" in (
        report.quality.warnings
    )


def test_repeated_rows_are_kept_once_and_conflicting_ones_are_told_apart(tmp_path: Path) -> None:
    first = log(tmp_path / "a.jsonl", row(0), row(1), row(0))
    second = log(tmp_path / "b.jsonl", row(1, tenant="acme"), row(2), json.dumps(row(0)).replace(" ", "  "))
    out = tmp_path / "out.parquet"
    report = run(out, first, second)
    assert [item.id for item in read_parquet(out)] == ["i0", "i1", "i2"]
    assert next(item for item in read_parquet(out) if item.id == "i1").tenant is None
    assert (report.n_read, report.n_duplicates, report.n_conflicting, report.n_rejected) == (6, 2, 1, 0)
    (conflict,) = rejects_of(out)
    assert conflict["file"] == second
    assert "'i1' was there before with other content" in conflict["reason"]


def test_repeats_are_found_after_the_ids_were_sorted_away() -> None:
    seen = ingest_module._Seen()
    items = [parse_interaction({"id": f"i{i}", "ts": "2026-01-01T00:00:00Z"}) for i in range(3000)]
    for i, item in enumerate(items):
        assert seen.add(item) is None
        if i % 1000 == 999:
            seen._sort_away()
    assert all(seen.add(item) is True for item in items)
    assert all(seen.add(item.model_copy(update={"tenant": "b"})) is False for item in items)
    assert seen.add(parse_interaction({"id": "new", "ts": "2026-01-01T00:00:00Z"})) is None


def test_missing_costs_are_computed_from_tokens_and_the_prices_of_the_ladder(tmp_path: Path) -> None:
    attempts = [
        {"tier": "small", "input_tokens": 1_000_000, "cached_tokens": 500_000, "output_tokens": 1_000_000},
        {"tier": "large", "input_tokens": 7, "output_tokens": 7, "cost_usd": 0.25},
        {"tier": "large", "input_tokens": 7},
    ]
    out = tmp_path / "out.parquet"
    report = run(out, log(tmp_path / "log.jsonl", row(0, attempts=attempts)), ladder=LADDER)
    (item,) = read_parquet(out)
    assert [attempt.cost_usd for attempt in item.attempts] == [pytest.approx(2.75), 0.25, None]
    assert (report.n_costs_filled, report.quality.n_missing_cost) == (1, 1)


def test_a_source_that_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing(location: str, options: SourceOptions) -> Iterator[Interaction | Reject]:
        for i in range(2000):
            yield parse_interaction(row(i))
        raise StoreError(f"{location}: the connection was lost")

    with pytest.raises(StoreError, match="lost"):
        ingest(failing, ["store"], SourceOptions(), out=tmp_path / "out.parquet", now=NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("log.csv", "name that ends in .parquet"),
        ("in/log.parquet", "would be written among the files that are read"),
        ("in/a.jsonl/log.parquet", "would be written among|cannot be written"),
        ("file/log.parquet", "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_a_usage_error(tmp_path: Path, out: str, message: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "file").touch()
    log(tmp_path / "in" / "a.jsonl", row(0))
    with pytest.raises(UsageError, match=message):
        run(tmp_path / out, str(tmp_path / "in"))


def test_progress_is_told_every_thousand_rows_and_at_the_end(tmp_path: Path) -> None:
    told: list[int] = []
    run(tmp_path / "out.parquet", log(tmp_path / "log.jsonl", *(row(i) for i in range(2500))), progress=told.append)
    assert told == [1000, 2000, 2500]


def test_the_reasons_of_many_different_mistakes_stay_few(tmp_path: Path) -> None:
    rows = [json.dumps({**row(i), "attempts": [{"tier": "small", "cost_usd": f"{i} cents"}]}) for i in range(50)]
    report = run(tmp_path / "out.parquet", log(tmp_path / "log.jsonl", row(99), *rows), max_rejects=1.0)
    assert len(report.reasons) == 1
    assert list(report.reasons.values()) == [50]


# The command.


def command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["ingest", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_prints_a_report_for_people_or_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log(tmp_path / "log.jsonl", row(0), row(1))
    code, out, err = command(capsys, "log.jsonl", "--out", "out.parquet")
    assert (code, err) == (0, "")
    assert "2 of 2 rows imported into out.parquet" in out
    assert "warning: only 2 interactions" in out
    code, out, err = command(capsys, "log.jsonl", "--out", "out.parquet", "--json", "--rejects", "bad.jsonl")
    assert (code, err) == (0, "")
    assert json.loads(out)["n_written"] == 2
    assert json.loads(out)["rejects"] == "bad.jsonl"
    assert (tmp_path / "bad.jsonl").read_text() == ""


def test_the_command_holds_rows_against_the_ladder_of_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "router.toml").write_text(CONFIG)
    location = log(tmp_path / "log.jsonl", row(0, attempts=[{"tier": "largo"}]))
    code, out, err = command(capsys, location, "--out", tmp_path / "out.parquet", "--config", tmp_path / "router.toml")
    assert (code, out) == (2, "")
    assert "no tier is called 'largo' (did you mean 'large'?)" in err


def test_the_command_imports_a_table_of_outcomes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "router.toml").write_text(CONFIG + "[training]\nadequate_bar = 0.6\n")
    header = "prompt_id,prompt,model,quality,cost_usd,input_tokens,output_tokens\n"
    (tmp_path / "t.csv").write_text(header + "p,hi,m1,0.7,0.1,1,1\np,hi,m2,0.5,0.2,1,1\n")
    arguments = ("t.csv", "--source", "outcomes", "--tiers", "cheap=m1, dear=m2", "--out", "out.parquet", "--json")
    code, out, _ = command(capsys, *arguments)
    assert code == 0
    tiers = json.loads(out)["quality"]["tiers"]
    assert (tiers["cheap"]["n_failed"], tiers["dear"]["n_failed"]) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--source", "nativ"), "no source is called 'nativ' (did you mean 'native'?)"),
        (("--tiers", "small=a"), "only --source outcomes takes it"),
        (("--source", "outcomes", "--tiers", "small"), "expected small=MODEL,large=MODEL, got 'small'"),
        (("--source", "outcomes", "--tiers", "a=x,a=y"), "the tier 'a' is given twice"),
        (("--max-rejects", "5"), "expected a share from 0 to 1, got 5"),
        (("--source", "store"), "no such event store"),
        ((), "no such file or folder"),
    ],
)
def test_a_wrong_argument_ends_with_exit_code_2_and_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = command(capsys, tmp_path / "absent.jsonl", "--out", tmp_path / "out.parquet", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


_MEASURE = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from router_ml_training.ingest import ingest
from router_ml_training.sources import SOURCES, SourceOptions

read = SOURCES.load("native")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out = Path(sys.argv[1]).with_suffix(".parquet")
report = ingest(read, [sys.argv[1]], SourceOptions(), out=out, now=datetime.now(UTC))
print(report.n_written, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    filler = "lorem ipsum dolor sit amet " * 40
    with path.open("w") as file:
        for i in range(200_000):
            file.write(
                f'{{"id":"i{i}","ts":"2026-01-01T00:00:00Z","request":{{"messages":[{{"role":"user",'
                f'"content":"{i} {filler}"}}]}},"attempts":[{{"tier":"small","cost_usd":0.1}}]}}\n'
            )
    assert path.stat().st_size > 200 * 2**20
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path)], check=True, capture_output=True, text=True, timeout=120
    )
    n_written, grown_mib = done.stdout.split()
    assert int(n_written) == 200_000
    assert float(grown_mib) < 300  # of which the interpreter, the row group and the ids are about 140
