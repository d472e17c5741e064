"""Logs on S3-compatible object storage: which objects a location stands for, their frames and their lines.

Parquet is scanned a row group at a time, so that memory does not grow with the log. Row groups whose statistics rule
out what is asked for are never fetched, nor are days that the name of their folder (`day=2026-11-22/`) rules out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from router_ml.config import ObjectSettings
from router_ml.errors import DataError, UsageError
from router_ml.objects import Connection, Listed, ObjectStore, explain, open_objects, split_url

__all__ = [
    "ROWS_AT_ONCE",
    "Objects",
    "day_of",
    "find_objects",
    "frames_of",
    "is_of_storage",
    "lazy_table",
    "list_objects",
    "scan",
]

ROWS_AT_ONCE = 2048
_DAY = re.compile(r"(?:^|/)day=(\d{4}-\d{2}-\d{2})/")
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Objects:
    """What a location stands for: a bucket and some of its objects, in order of their keys."""

    store: ObjectStore
    items: tuple[Listed, ...]

    def url_of(self, item: Listed) -> str:
        """Return the URL of one of them."""
        return self.store.url_of(item.key)

    def open(self, item: Listed) -> BinaryIO:
        """Return one of them as a file that is read piece by piece."""
        return self.store.open(item)


def list_objects(url: str, settings: ObjectSettings, suffixes: Sequence[str] = (".parquet",)) -> list[Listed]:
    """Return the objects a location stands for; `key` counts from the bucket. ETag and size say whether one changed.

    Args:
        url: See `find_objects`.
        settings: `[objects]`.
        suffixes: Endings of the names that count.

    Raises:
        DataError: When there is none.
        ObjectStoreError: When the storage cannot be read.
    """
    return list(find_objects(url, settings, suffixes).items)


def find_objects(
    location: str, settings: ObjectSettings, suffixes: Sequence[str], *, since: datetime | None = None
) -> Objects:
    """Find the objects a location stands for.

    Args:
        location: `s3://bucket/` and a key, a folder, or a pattern (`logs/**/*.parquet`; `**` goes into folders).
        settings: `[objects]`; keys come from the environment.
        suffixes: Endings of the names that can be read. Hidden ones and `*.rejects.jsonl` are left out.
        since: Leave out folders of earlier days.

    Raises:
        UsageError: When it is no such URL.
        DataError: When there is no such object; not when all are of earlier days.
        ObjectStoreError: When the storage cannot be read.
    """
    bucket, path = split_url(location)
    store = open_objects(f"s3://{bucket}", settings, os.environ)
    wild = _WILD.search(path)
    fixed = path if wild is None else path[: wild.start()].rpartition("/")[0]
    try:
        wanted = re.compile(_expression(path) if wild else rf"{re.escape(path)}(/.*)?" if path else ".*", re.DOTALL)
    except re.error as error:
        raise UsageError(f"{location}: is no pattern ({error}); [a-z] stands for one of these characters") from error
    found = list(store.list(fixed))
    # A listing below a key does not show the object of that key itself.
    found = found or [item for item in store.list(fixed.rpartition("/")[0]) if item.key == fixed]
    items = sorted((item for item in found if wanted.fullmatch(item.key)), key=lambda item: item.key)
    items = [item for item in items if _is_readable(item.key, fixed, suffixes)]
    if not items:
        raise DataError(f"{location}: no object to read there; expected names that end in {', '.join(suffixes)}")
    if since is not None:
        first = since.astimezone(UTC).date()
        items = [item for item in items if (day := day_of(item.key)) is None or day >= first]
    return Objects(store, tuple(items))


def day_of(key: str) -> date | None:
    """Return the day (UTC) that a key names as `day=2026-11-22/`; None when it names none."""
    named = _DAY.search(key)
    try:
        return None if named is None else date.fromisoformat(named[1])
    except ValueError:
        return None


def scan(
    location: str,
    settings: ObjectSettings,
    *,
    since: datetime | None = None,
    tenant: str | None = None,
    mode: str | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[pl.DataFrame]:
    """Stream the rows of Parquet objects for which all holds, at most `ROWS_AT_ONCE` in a frame.

    Args:
        location: See `find_objects`.
        settings: `[objects]`.
        since: Rows from this time on, by the column `ts` where it holds times; text is not looked at.
        tenant: Rows of this tenant.
        mode: Rows of this mode.
        columns: Only these columns; the others are never fetched. None: all.

    Raises:
        DataError: When there is no such object, or one cannot be read as Parquet; the message names it.
        ObjectStoreError: When the storage cannot be read, also midway.
    """
    found = find_objects(location, settings, (".parquet",), since=since)
    for item in found.items:
        yield from frames_of(found, item, since, tenant=tenant, mode=mode, columns=columns)


def frames_of(
    found: Objects,
    item: Listed,
    since: datetime | None = None,
    *,
    tenant: str | None = None,
    mode: str | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[pl.DataFrame]:
    """Stream the rows of one Parquet object; see `scan`."""
    url, wanted = found.url_of(item), _Wanted(since, tenant, mode)
    connection = found.store.connection
    try:
        with found.open(item) as file:
            metadata = pq.ParquetFile(file).metadata
        columns_there = metadata.schema.to_arrow_schema()
        table = pl.scan_parquet(
            url, glob=False, hive_partitioning=False, storage_options=_options(connection), credential_provider=None
        )
        for first, n_rows in _row_groups(metadata, wanted):
            rows = table.slice(first, n_rows).filter(*wanted.predicates(columns_there))
            frame = (rows if columns is None else rows.select(columns)).collect(engine="streaming")
            found.store.check(item)  # polars reads without a condition: rows of two writers would be mixed
            yield from frame.iter_slices(ROWS_AT_ONCE)
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
        if is_of_storage(error):
            raise explain(error, url, connection) from error
        found.store.check(item)
        said = str(error).splitlines()[0]
        raise DataError(f"{url}: cannot be read as Parquet: {said}; delete it, or upload it again") from error


def lazy_table(location: str, settings: ObjectSettings, suffixes: Sequence[str]) -> tuple[pl.LazyFrame, Objects]:
    """Return objects of one kind as one table that is read when it is asked for, and which objects they are.

    Args:
        location: See `find_objects`.
        settings: `[objects]`.
        suffixes: `.parquet`, `.csv` or both.

    Raises:
        DataError: When there is no such object, or there are both kinds.
        ObjectStoreError: When the storage cannot be read.
    """
    found = find_objects(location, settings, suffixes)
    urls, options = [found.url_of(item) for item in found.items], _options(found.store.connection)
    kinds = {url.lower().endswith(".parquet") for url in urls}
    if len(kinds) > 1:
        raise DataError(f"{location}: Parquet and CSV files cannot be read as one table; name one kind")
    if kinds == {True}:
        table = pl.scan_parquet(
            urls, glob=False, hive_partitioning=False, storage_options=options, credential_provider=None
        )
    else:
        table = pl.scan_csv(urls, glob=False, storage_options=options, credential_provider=None)
    return table, found


def is_of_storage(error: Exception) -> bool:
    """Return whether an error is about reaching the storage, and not about what lies there."""
    return isinstance(error, OSError) or "object-store error" in str(error) or "Generic S3 error" in str(error)


@dataclass(frozen=True, slots=True)
class _Wanted:
    since: datetime | None
    tenant: str | None
    mode: str | None

    def predicates(self, schema: pa.Schema) -> list[pl.Expr]:
        found = [pl.lit(value=True)]
        kind = schema.field("ts").type if "ts" in schema.names else None
        # Times as text are compared by whoever reads them; those without a zone are in UTC.
        if self.since is not None and kind is not None and pa.types.is_timestamp(kind):
            edge = self.since.astimezone(UTC)
            found.append(pl.col("ts") >= (edge if kind.tz is not None else edge.replace(tzinfo=None)))
        found += [pl.col(name) == value for name, value in self._equal() if name in schema.names]
        return found

    def rules_out(self, name: str, low: Any, high: Any) -> bool:
        """Whether a row group with these least and greatest values of a column has no row that is wanted."""
        if name == "ts" and self.since is not None and isinstance(high, datetime):
            return bool(high.replace(tzinfo=high.tzinfo or UTC) < self.since.astimezone(UTC))
        return any(name == one and isinstance(low, str) and not low <= value <= high for one, value in self._equal())

    def _equal(self) -> list[tuple[str, str]]:
        return [(name, value) for name, value in (("tenant", self.tenant), ("mode", self.mode)) if value is not None]


def _row_groups(metadata: Any, wanted: _Wanted) -> Iterator[tuple[int, int]]:
    first = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        columns = (group.column(j) for j in range(group.num_columns))
        known = [
            (one.path_in_schema, one.statistics) for one in columns if one.path_in_schema in ("ts", "tenant", "mode")
        ]
        ruled_out = any(
            stats is not None and stats.has_min_max and wanted.rules_out(name, stats.min, stats.max)
            for name, stats in known
        )
        if not ruled_out:
            yield first, group.num_rows
        first += group.num_rows


def _options(connection: Connection) -> Any:
    options = {
        "aws_region": connection.region,
        "aws_endpoint_url": connection.endpoint,
        "aws_access_key_id": connection.access_key,
        "aws_secret_access_key": connection.secret_key,
        "aws_session_token": connection.session_token,
        "aws_virtual_hosted_style_request": str(not connection.path_style).lower(),
        "aws_allow_http": str((connection.endpoint or "").startswith("http:")).lower(),
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    return {**given, "max_retries": 10, "retry_timeout_ms": int(connection.retry_s * 1e3)}


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        known.get(part, part.replace("[!", "[^", 1) if part.startswith("[") else re.escape(part)) for part in parts
    )


def _is_readable(key: str, fixed: str, suffixes: Sequence[str]) -> bool:
    below = key.removeprefix(fixed).strip("/").split("/")
    name = key.rpartition("/")[2]
    hidden = any(part.startswith(".") for part in below)
    return not hidden and name.lower().endswith(tuple(suffixes)) and not name.endswith(".rejects.jsonl")
