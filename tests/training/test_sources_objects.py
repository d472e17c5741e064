"""Logs on a real S3 server: found by folder and pattern, pruned by day and statistics, read in bounded memory."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from router_ml.cli import main
from router_ml.errors import DataError, ObjectStoreError, UsageError
from router_ml.objects import ObjectConflict
from router_ml.schema import Interaction, parse_interaction
from router_ml_training.corpus.units import units_of
from router_ml_training.frames import write_parquet
from router_ml_training.ingest import ingest
from router_ml_training.reading import Log
from router_ml_training.sources import SOURCES, Reject, SourceOptions
from router_ml_training.sources.native import read
from router_ml_training.sources.objects import day_of, find_objects, list_objects, scan

START = datetime(2026, 11, 20, tzinfo=UTC)
PARQUET = (".parquet",)


def interaction(i: int, **fields: Any) -> Interaction:
    ts = (START + timedelta(hours=i)).isoformat()
    return parse_interaction({"id": f"i{i:04d}", "ts": ts, "attempts": [{"tier": "small"}], **fields})


def put_parquet(objects: Any, key: str, items: list[Interaction], tmp_path: Path) -> None:
    write_parquet(tmp_path / "part.parquet", items)
    objects.store().replace(key, tmp_path / "part.parquet")


def put_table(objects: Any, key: str, table: pa.Table, tmp_path: Path, *, rows: int) -> bytes:
    pq.write_table(table, tmp_path / "part.parquet", row_group_size=rows)
    objects.store().replace(key, tmp_path / "part.parquet")
    return (tmp_path / "part.parquet").read_bytes()


def keys_of(location: str, objects: Any, **options: Any) -> list[str]:
    return [item.key for item in find_objects(location, objects.settings, PARQUET, **options).items]


@pytest.fixture
def days(objects: Any, tmp_path: Path) -> Any:
    """Three days of 24 interactions each, one object per day."""
    for day in range(3):
        name = (START + timedelta(days=day)).date()
        items = [interaction(i) for i in range(24 * day, 24 * day + 24)]
        put_parquet(objects, f"logs/day={name}/part-0.parquet", items, tmp_path)
    return objects


def test_a_key_may_name_its_day() -> None:
    assert day_of("logs/day=2026-11-22/part-0.parquet") == date(2026, 11, 22)
    assert day_of("logs/day=2026-11-99/part-0.parquet") is None
    assert day_of("logs/holiday=2026-11-22/part-0.parquet") is None
    assert day_of("logs/part-0.parquet") is None


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("/logs", ["logs/a.parquet", "logs/b/c.parquet", "logs/b/d.parquet"]),
        ("/logs/", ["logs/a.parquet", "logs/b/c.parquet", "logs/b/d.parquet"]),
        ("/logs/a.parquet", ["logs/a.parquet"]),
        ("/logs/*.parquet", ["logs/a.parquet"]),
        ("/logs/**.parquet", ["logs/a.parquet", "logs/b/c.parquet", "logs/b/d.parquet"]),
        ("/logs/**/*.parquet", ["logs/a.parquet", "logs/b/c.parquet", "logs/b/d.parquet"]),
        ("/logs/b/[!c].parquet", ["logs/b/d.parquet"]),
        ("/logs/?/c.parquet", ["logs/b/c.parquet"]),
        ("", ["logs/a.parquet", "logs/b/c.parquet", "logs/b/d.parquet", "logs2/e.parquet"]),
    ],
)
def test_a_location_is_an_object_a_folder_or_a_pattern(objects: Any, location: str, found: list[str]) -> None:
    others = ["logs/readme.txt", "logs/.hidden/x.parquet", "logs/a.rejects.jsonl"]
    for key in ("logs/a.parquet", "logs/b/c.parquet", "logs/b/d.parquet", "logs2/e.parquet", *others):
        objects.store().put(key, b"", after=None)
    assert keys_of(objects.url + location, objects) == found


@pytest.mark.e2e
def test_an_empty_place_is_said_to_be_empty(objects: Any) -> None:
    with pytest.raises(DataError, match=f"{objects.url}/logs: no object to read there; expected names that end in"):
        list(scan(f"{objects.url}/logs", objects.settings))


@pytest.mark.e2e
def test_a_listing_tells_when_an_object_changed(days: Any, tmp_path: Path) -> None:
    before = list_objects(f"{days.url}/logs", days.settings)
    put_parquet(days, "logs/day=2026-11-21/part-0.parquet", [interaction(24)], tmp_path)
    after = list_objects(f"{days.url}/logs", days.settings)
    changed = [new.key for old, new in zip(before, after, strict=True) if (old.etag, old.size) != (new.etag, new.size)]
    assert changed == ["logs/day=2026-11-21/part-0.parquet"]


@pytest.mark.e2e
def test_rows_come_back_in_order(days: Any) -> None:
    frames = list(scan(f"{days.url}/logs", days.settings))
    assert pl.concat(frames)["id"].to_list() == [f"i{i:04d}" for i in range(72)]


@pytest.mark.e2e
def test_earlier_days_are_not_even_opened(days: Any) -> None:
    # Were it opened, this would be an error.
    days.store().put("logs/day=2026-11-19/part-0.parquet", b"no Parquet", after=None)
    since = START + timedelta(days=1, hours=5)
    frame = pl.concat(scan(f"{days.url}/logs", days.settings, since=since))
    assert frame["id"].to_list() == [f"i{i:04d}" for i in range(29, 72)]
    assert list(scan(f"{days.url}/logs", days.settings, since=START + timedelta(days=9))) == []


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({"since": START + timedelta(hours=3)}, [3, 4, 5]),
        ({"tenant": "acme"}, [0, 1]),
        ({"mode": "audit"}, [2, 4]),
        ({"tenant": "zeta", "mode": "audit"}, [4]),
    ],
)
def test_what_is_not_wanted_is_left_out(objects: Any, tmp_path: Path, wanted: dict[str, Any], ids: list[int]) -> None:
    modes, tenants = ("live", "live", "audit", "live", "audit", "live"), ("acme", "acme", "beta", None, "zeta", "zeta")
    items = [interaction(i, mode=mode, tenant=who) for i, (mode, who) in enumerate(zip(modes, tenants, strict=True))]
    put_parquet(objects, "log.parquet", items, tmp_path)
    frame = pl.concat(scan(f"{objects.url}/log.parquet", objects.settings, **wanted, columns=["id"]))
    assert frame.columns == ["id"]
    assert frame["id"].to_list() == [f"i{i:04d}" for i in ids]


@pytest.mark.e2e
@pytest.mark.parametrize("ts", [pl.Datetime("ms"), pl.Datetime("ns", "UTC"), pl.String], ids=["naive", "ns", "text"])
def test_times_may_be_of_other_kinds(objects: Any, tmp_path: Path, ts: Any) -> None:
    hours = [START + timedelta(hours=i) for i in range(4)]
    text = pl.Series("ts", [f"{hour:%Y-%m-%dT%H:%M:%SZ}" for hour in hours])
    times = text if ts == pl.String else pl.Series("ts", hours).dt.replace_time_zone(None).cast(ts)
    request = {"messages": [{"role": "user", "content": "hi"}]}
    frame = pl.DataFrame({"id": [f"i{i}" for i in range(4)], "ts": times, "request": [request] * 4})
    frame.write_parquet(tmp_path / "other.parquet")
    objects.store().replace("other.parquet", tmp_path / "other.parquet")
    options = SourceOptions(objects=objects.settings, since=START + timedelta(hours=2))
    found = list(read(f"{objects.url}/other.parquet", options))
    assert [item.id for item in found if isinstance(item, Interaction)] == ["i2", "i3"]


@pytest.mark.e2e
def test_a_pattern_that_is_none_is_said_so(objects: Any) -> None:
    with pytest.raises(UsageError, match=r"\[z-a\].parquet: is no pattern"):
        list(scan(f"{objects.url}/[z-a].parquet", objects.settings))


@pytest.mark.e2e
@pytest.mark.parametrize(
    "wanted",
    [{"since": START + timedelta(hours=3)}, {"tenant": "beta"}, {"mode": "live"}],
    ids=["ts", "tenant", "mode"],
)
def test_row_groups_that_statistics_rule_out_are_never_fetched(
    objects: Any, tmp_path: Path, wanted: dict[str, Any]
) -> None:
    table = pa.table(
        {
            "ts": pa.array([START + timedelta(hours=i) for i in range(6)], pa.timestamp("us", "UTC")),
            "tenant": ["acme"] * 3 + ["beta"] * 3,
            "mode": ["audit"] * 3 + ["live"] * 3,
            "text": [f"words of row {i}" for i in range(6)],
        }
    )
    whole = put_table(objects, "log.parquet", table, tmp_path, rows=3)
    column = pq.ParquetFile(tmp_path / "part.parquet").metadata.row_group(0).column(0)
    first = column.dictionary_page_offset or column.data_page_offset
    # What would be the first row group is no Parquet any more.
    second = pq.ParquetFile(tmp_path / "part.parquet").metadata.row_group(1).column(0)
    end = second.dictionary_page_offset or second.data_page_offset
    objects.store().put("bad.parquet", whole[:first] + bytes([255]) * (end - first) + whole[end:], after=None)
    frame = pl.concat(scan(f"{objects.url}/bad.parquet", objects.settings, **wanted))
    assert frame["text"].to_list() == [f"words of row {i}" for i in (3, 4, 5)]
    with pytest.raises(DataError, match=f"{objects.url}/bad.parquet: cannot be read as Parquet"):
        list(scan(f"{objects.url}/bad.parquet", objects.settings))


@pytest.mark.e2e
@pytest.mark.parametrize("cut", [0, 10, 400])
def test_a_truncated_part_is_named(days: Any, cut: int, tmp_path: Path) -> None:
    key = "logs/day=2026-11-21/part-0.parquet"
    found = days.store().get(key)
    days.store().put(key, found.data[:cut], after=found)
    seen = []
    with pytest.raises(DataError, match=f"{days.url}/{key}: cannot be read as Parquet: .*; delete it, or upload"):
        seen.extend(scan(f"{days.url}/logs", days.settings))
    assert sum(map(len, seen)) == 24


@pytest.mark.e2e
def test_a_storage_that_goes_away_midway_is_one_sentence(objects_of_its_own: Any, tmp_path: Path) -> None:
    table = pa.table({"id": [str(i) for i in range(40)]})
    put_table(objects_of_its_own, "log.parquet", table, tmp_path, rows=10)
    frames = scan(f"{objects_of_its_own.url}/log.parquet", objects_of_its_own.settings)
    assert len(next(frames)) == 10
    objects_of_its_own.stop()
    with pytest.raises(ObjectStoreError, match=r"log.parquet: http://127.0.0.1:\d+ does not answer") as caught:
        list(frames)
    assert "\n" not in str(caught.value)


@pytest.mark.e2e
def test_wrong_keys_midway_are_one_sentence(objects_of_its_own: Any, tmp_path: Path) -> None:
    put_table(objects_of_its_own, "log.parquet", pa.table({"id": ["1", "2"]}), tmp_path, rows=1)
    frames = scan(f"{objects_of_its_own.url}/log.parquet", objects_of_its_own.settings)
    next(frames)
    objects_of_its_own.require_keys(after=0)
    with pytest.raises(ObjectStoreError, match=r"denies access \(InvalidAccessKeyId\)"):
        list(frames)


@pytest.mark.e2e
def test_the_native_source_reads_objects_of_every_kind(objects: Any, tmp_path: Path) -> None:
    put_parquet(objects, "logs/a.parquet", [interaction(0)], tmp_path)
    lines = (interaction(1).to_json() + "\n" + "no JSON\n").encode()
    objects.store().put("logs/b.jsonl", lines, after=None)
    objects.store().put("logs/c.jsonl.gz", gzip.compress(interaction(2).to_json().encode()), after=None)
    zst = pa.compress(interaction(3).to_json().encode(), codec="zstd", asbytes=True)
    objects.store().put("logs/d.jsonl.zst", zst, after=None)
    found = list(read(f"{objects.url}/logs", SourceOptions(objects=objects.settings)))
    assert [item.id for item in found if isinstance(item, Interaction)] == ["i0000", "i0001", "i0002", "i0003"]
    (bad,) = (item for item in found if isinstance(item, Reject))
    assert (bad.file, bad.line) == (f"{objects.url}/logs/b.jsonl", 2)
    options = SourceOptions(objects=objects.settings, since=START + timedelta(hours=2))
    later = [item for item in read(f"{objects.url}/logs", options) if isinstance(item, Interaction)]
    assert [item.id for item in later] == ["i0002", "i0003"]


@pytest.mark.e2e
def test_a_log_is_imported_from_objects(days: Any, tmp_path: Path) -> None:
    source = SOURCES.load("native")
    options = SourceOptions(objects=days.settings)
    report = ingest(source, [f"{days.url}/logs/**.parquet"], options, out=tmp_path / "log.parquet", now=START)
    assert (report.n_written, report.n_rejected) == (72, 0)


@pytest.mark.e2e
def test_a_lines_object_longer_than_one_piece_is_streamed(objects: Any) -> None:
    text = "word " * 40_000
    items = [interaction(i, request={"messages": [{"role": "user", "content": text}]}) for i in range(30)]
    data = "\n".join(item.to_json() for item in items).encode()
    assert len(data) > 5 * 2**20
    objects.store().put("log.jsonl", data, after=None)
    assert list(read(f"{objects.url}/log.jsonl", SourceOptions(objects=objects.settings))) == items


@pytest.mark.e2e
def test_an_object_that_is_written_anew_while_it_is_read_is_an_error_and_no_mixture(
    objects: Any, tmp_path: Path
) -> None:
    table = pa.table({"id": [f"i{i}" for i in range(40)]})
    put_table(objects, "log/a.parquet", table, tmp_path, rows=10)
    frames = scan(f"{objects.url}/log", objects.settings)
    assert next(frames)["id"].to_list() == [f"i{i}" for i in range(10)]
    put_table(objects, "log/a.parquet", pa.table({"id": [f"j{i}" for i in range(40)]}), tmp_path, rows=10)
    with pytest.raises(ObjectConflict, match=r"log/a\.parquet: another writer has changed it meanwhile"):
        next(frames)


MEASURE = """
import json, sys
from router_ml.config import ObjectSettings
from router_ml_training.sources.objects import scan

def peak_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

settings = ObjectSettings(endpoint_url=sys.argv[1], retry_s=5.0)
n = sum(len(frame) for frame in scan(sys.argv[2], settings))
before = peak_kb()
m = sum(len(frame) for frame in scan(sys.argv[3], settings))
print(json.dumps([n, m, (peak_kb() - before) / 1024]))
"""


@pytest.mark.e2e
@pytest.mark.slow
def test_memory_does_not_grow_with_the_log(objects: Any, tmp_path: Path) -> None:
    # 64 row groups of 2 MB of noise, against one of them: 128 MB more if the log were held.
    rows = 2_000
    schema = pa.schema([("ts", pa.timestamp("us", "UTC")), ("text", pa.string())])

    def write(name: str, n_groups: int) -> None:
        with pq.ParquetWriter(tmp_path / name, schema, compression="zstd") as writer:
            for _ in range(n_groups):
                text = [os.urandom(500).hex() for _ in range(rows)]
                writer.write_table(pa.table([[START] * rows, text], schema=schema))
        objects.store().replace(name, tmp_path / name)

    write("small.parquet", 2)
    write("large.parquet", 64)
    command = [sys.executable, "-c", MEASURE, objects.endpoint]
    command += [f"{objects.url}/small.parquet", f"{objects.url}/large.parquet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    n_small, n_large, grown_mb = json.loads(done.stdout)
    assert (n_small, n_large) == (2 * rows, 64 * rows)
    assert grown_mb < 40


@pytest.mark.e2e
def test_a_corpus_reads_only_the_objects_that_changed(days: Any, tmp_path: Path) -> None:
    log = Log(f"{days.url}/logs", objects=days.settings)
    before = units_of(log)
    assert [unit.day for unit in before] == ["2026-11-20", "2026-11-21", "2026-11-22"]
    put_parquet(days, "logs/day=2026-11-21/part-0.parquet", [interaction(24)], tmp_path)
    changed = [new.day for old, new in zip(before, units_of(log), strict=True) if old.fingerprint != new.fingerprint]
    assert changed == ["2026-11-21"]


@pytest.mark.e2e
def test_the_commands_read_objects(
    world: Any, config: str, objects: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    put_parquet(objects, "logs/part-0.parquet", world.log(300, 3), tmp_path)
    monkeypatch.chdir(tmp_path)
    section = f'[objects]\nendpoint_url = "{objects.endpoint}"\n'
    (tmp_path / "router.toml").write_text(config + section)
    assert main(["ingest", f"{objects.url}/logs", "--out", "log.parquet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_written"] == 300
    assert main(["train", f"{objects.url}/logs", "--no-mlflow", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["learner"] in ("constant", "linear")
