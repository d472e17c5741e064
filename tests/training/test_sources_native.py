from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from router_ml.errors import DataError, UnknownName
from router_ml.ladder import Ladder, Tier
from router_ml.schema import Interaction, parse_interaction
from router_ml_training.frames import write_parquet
from router_ml_training.sources import SOURCES, Reject, SourceOptions, files
from router_ml_training.sources.native import read

OPTIONS = SourceOptions()
LADDER = Ladder.of(
    [
        Tier(name="small", model="a", input_usd_per_mtok=1, output_usd_per_mtok=1),
        Tier(name="large", model="b", input_usd_per_mtok=9, output_usd_per_mtok=9),
    ]
)


def row(i: int = 0, **fields: Any) -> dict[str, Any]:
    return {"id": f"i{i}", "ts": "2026-01-01T00:00:00Z", "attempts": [{"tier": "small"}], **fields}


def write_lines(path: Path, lines: list[str | bytes]) -> Path:
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return path


def log_of(*items: int) -> list[Interaction]:
    return [parse_interaction(row(i)) for i in items]


def rejected(path: Path, line: str | bytes, options: SourceOptions = OPTIONS) -> Reject:
    """Return what became of the third line of a file whose other lines are good."""
    write_lines(path, [json.dumps(row(0)), "", line, json.dumps(row(1))])
    found = list(read(str(path), options))
    assert [type(item).__name__ for item in found] == ["Interaction", "Reject", "Interaction"]
    bad = found[1]
    assert isinstance(bad, Reject)
    assert (bad.line, bad.file) == (3, str(path))
    return bad


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "not valid JSON"),
        ('"a string"', "row: "),
        ("[]", "row: "),
        (b'{"id": "\xff"}', "not valid JSON"),
        (b"\x00\x01\x02", "not valid JSON"),
        ('{"ts": "2026-01-01T00:00:00Z"}', "id: missing"),
        (json.dumps(row(ts="yesterday")), "ts: Input should be a valid datetime"),
        (json.dumps(row(ts="0001-01-01T00:00:00+14:00")), "ts: "),
        (json.dumps(row(schema="router_ml.interaction/2")), "this release reads 'router_ml.interaction/1'"),
        (json.dumps(row(mode="sometimes")), "mode: Input should be 'live', 'shadow' or 'audit'"),
        (json.dumps(row(attempts=[{"tier": "small", "cost_usd": float("nan")}])), "attempts.0.cost_usd"),
        (json.dumps(row(attempts=[{"tier": "small", "cost_usd": float("inf")}])), "attempts.0.cost_usd"),
        (json.dumps(row(attempts=[{"tier": "small", "cost_usd": -1}])), "attempts.0.cost_usd"),
        (json.dumps(row(attempts=[{"tier": "small", "input_tokens": 10**30}])), "less than 9223372036854775808"),
        (json.dumps(row(attempts=[{"tier": ""}])), "attempts.0.tier"),
        (json.dumps(row(propensity={"small": 0.5})), "sum to 0.5000"),
        ('{"id": ' + "[" * 5000 + "]" * 5000 + "}", "not valid JSON"),
    ],
)
def test_a_row_that_cannot_be_read_is_rejected_with_its_line_and_reason(
    tmp_path: Path, line: str | bytes, reason: str
) -> None:
    assert reason in rejected(tmp_path / "log.jsonl", line).reason


def test_a_reject_keeps_the_beginning_of_what_was_read(tmp_path: Path) -> None:
    assert rejected(tmp_path / "log.jsonl", "{" + "ü" * 5000).raw == "{" + "ü" * 499


@pytest.mark.parametrize(
    "fields",
    [
        {"attempts": [{"tier": "smal"}]},
        {"candidates": ["smal"]},
        {"propensity": {"smal": 1.0}},
        {"feedback": [{"ts": "2026-01-01T00:00:00Z", "source": "user", "tier": "smal"}]},
    ],
)
def test_a_tier_that_the_ladder_does_not_have_is_rejected_with_the_closest_name(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    bad = rejected(tmp_path / "log.jsonl", json.dumps(row(**fields)), SourceOptions(ladder=LADDER))
    assert bad.reason.startswith(f"{next(iter(fields))}: no tier is called 'smal' (did you mean 'small'?)")


def test_fields_nobody_knows_are_kept_in_tags(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.jsonl", [json.dumps(row(region="eu", attempts=[{"tier": "small", "gpu": 3}]))])
    (item,) = read(str(path), OPTIONS)
    assert isinstance(item, Interaction)
    assert item.tags == {"region": "eu", "attempts.0.gpu": 3}


def test_byte_order_marks_windows_line_ends_and_a_missing_last_newline_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(row(i)).encode() for i in range(3)))
    assert list(read(str(path), OPTIONS)) == log_of(0, 1, 2)


def test_compressed_lines_and_parquet_read_like_plain_lines(tmp_path: Path) -> None:
    plain = write_lines(tmp_path / "log.jsonl", [json.dumps(row(i)) for i in range(5)])
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    half = len(plain.read_bytes()) // 2
    with (tmp_path / "log.jsonl.zst").open("wb") as file:  # two frames, as after appending
        for part in (plain.read_bytes()[:half], plain.read_bytes()[half:]):
            file.write(pa.compress(part, codec="zstd", asbytes=True))
    write_parquet(tmp_path / "log.parquet", log_of(0, 1, 2, 3, 4))
    for name in ("log.jsonl", "log.jsonl.gz", "log.jsonl.zst", "log.parquet"):
        assert list(read(str(tmp_path / name), OPTIONS)) == log_of(0, 1, 2, 3, 4), name


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_archive_is_an_error_and_not_a_short_log(tmp_path: Path, suffix: str) -> None:
    plain = "\n".join(json.dumps(row(i)) for i in range(50)).encode()
    packed = gzip.compress(plain) if suffix == ".gz" else pa.compress(plain, codec="zstd", asbytes=True)
    path = tmp_path / f"log.jsonl{suffix}"
    path.write_bytes(packed[:-10])
    with pytest.raises(DataError, match="cannot be read to its end"):
        list(read(str(path), OPTIONS))


def test_a_line_too_long_to_hold_is_rejected_and_the_next_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1000)
    assert "longer than" in rejected(tmp_path / "log.jsonl", "x" * 12_345).reason


def test_one_json_array_is_explained(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.jsonl", [json.dumps([row()])])
    with pytest.raises(DataError, match="one object per line"):
        list(read(str(path), OPTIONS))


def test_a_folder_means_all_its_logs_in_order_without_hidden_files_and_rejects(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "a/1.jsonl", ".tmp/0.jsonl", "a/.1.jsonl", "a/old.rejects.jsonl", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_lines(tmp_path / name, [json.dumps(row(int("".join(c for c in name if c.isdigit()) or 9)))])
    assert list(read(str(tmp_path), OPTIONS)) == log_of(1, 2)
    assert list(read(str(tmp_path / "*" / "[12].jsonl"), OPTIONS)) == log_of(1, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jsonl", "no such file"),
        ("*.jsonl", "no such file"),
        ("empty", "holds no file"),
        ("a.txt", "does not say"),
    ],
)
def test_a_location_with_nothing_to_read_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=message):
        list(read(str(tmp_path / name), OPTIONS))


def test_parquet_nested_as_the_json_is_read_too(tmp_path: Path) -> None:
    log = [
        row(0, request={"messages": [{"role": "user", "content": "hi"}]}, propensity={"small": 0.9, "large": 0.1}),
        row(1, request={"messages": [{"role": "user", "content": "yo", "name": "eve"}]}, propensity={"small": 1.0}),
    ]
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    assert list(read(str(tmp_path / "log.parquet"), OPTIONS)) == [parse_interaction(item) for item in log]


def test_a_bad_row_of_a_parquet_file_is_rejected_with_its_number(tmp_path: Path) -> None:
    write_parquet(tmp_path / "whole.parquet", log_of(0, 1))
    frame = pl.read_parquet(tmp_path / "whole.parquet").with_columns(pl.Series("mode", ["live", "sometimes"]))
    frame.with_columns(pl.col("ts").cast(pl.Datetime("ns", "UTC"))).write_parquet(tmp_path / "log.parquet")
    good, bad = read(str(tmp_path / "log.parquet"), OPTIONS)
    assert good == log_of(0)[0]
    assert isinstance(bad, Reject)
    assert (bad.line, bad.reason[:5]) == (2, "mode:")


def test_parquet_of_something_else_is_refused_and_named(tmp_path: Path) -> None:
    pl.DataFrame({"id": ["a"], "messages": ["hello"]}).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"log\.parquet: not a frame of interactions"):
        list(read(str(tmp_path / "log.parquet"), OPTIONS))


@pytest.mark.parametrize("name", ["native", "outcomes", "store"])
def test_every_source_loads_by_name(name: str) -> None:
    assert callable(SOURCES.load(name))


def test_an_unknown_source_names_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="did you mean 'native'"):
        SOURCES.load("nativ")
