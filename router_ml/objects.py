"""Objects on S3-compatible storage: list, read, and write them, on condition where two writers could meet.

Needs the extra `objects`. What fails is tried again by the client itself; what fails for good becomes one clear
message. Keys are read from the environment when a store is opened, and shown nowhere.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

from router_ml.config import ObjectSettings
from router_ml.errors import ConfigError, ObjectStoreError, UsageError
from router_ml.registry import require

__all__ = [
    "Connection",
    "Found",
    "Listed",
    "ObjectConflict",
    "ObjectStore",
    "connect",
    "explain",
    "is_object_url",
    "open_objects",
    "split_url",
]

SCHEME = "s3://"
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
# What S3-compatible servers are content with when nobody names a region.
_ANY_REGION = "us-east-1"
_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
_READ_BYTES = 4 * 2**20
# Beyond this an upload goes in parts; the object is there when the last one is.
_PART_BYTES = 16 * 2**20


class ObjectConflict(ObjectStoreError):
    """Another writer was faster: the object is not what the condition of a write or a read said."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing: its key below the store's prefix, size in bytes, ETag, and when it was written."""

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """The content of an object, and the ETag that a write on condition names."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the storage; `endpoint` is None for AWS itself. Without keys the machine's own role is used."""

    endpoint: str | None
    region: str
    path_style: bool
    retry_s: float
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        """The endpoint, as errors name it."""
        return self.endpoint or f"AWS S3 ({self.region})"


def is_object_url(location: str) -> bool:
    """Return whether a location is on object storage."""
    return location.startswith(SCHEME)


def split_url(url: str) -> tuple[str, str]:
    """Return the bucket, and the rest without a slash at its ends.

    Raises:
        UsageError: When it is no such URL.
    """
    bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
    if not is_object_url(url) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]+", bucket):
        raise UsageError(f"expected a URL such as s3://bucket/prefix, got '{url.rpartition('@')[2]}'")
    return bucket, prefix.strip("/")


def connect(settings: ObjectSettings, environ: Mapping[str, str]) -> Connection:
    """Return how to reach the storage, with the keys that the environment holds.

    Args:
        settings: `[objects]`.
        environ: Has the keys, and what `settings` leaves to the standard AWS variables.

    Raises:
        ConfigError: When one of the two keys is there without the other.
    """
    access, secret = environ.get(settings.access_key_env), environ.get(settings.secret_key_env)
    if bool(access) != bool(secret):
        there, missing = settings.access_key_env, settings.secret_key_env
        if not access:
            there, missing = missing, there
        raise ConfigError(f"objects: the environment has {there} but not {missing}; set both, or neither")
    endpoint = settings.endpoint_url or next((environ[name] for name in _ENDPOINTS if environ.get(name)), None)
    region = settings.region or next((environ[name] for name in _REGIONS if environ.get(name)), _ANY_REGION)
    token = environ.get(settings.session_token_env) if access else None
    return Connection(
        endpoint, region, settings.path_style, settings.retry_s, access or None, secret or None, token or None
    )


def open_objects(url: str, settings: ObjectSettings, environ: Mapping[str, str]) -> ObjectStore:
    """Return the objects below a URL; nothing is asked of the storage yet.

    Args:
        url: `s3://bucket/prefix`.
        settings: `[objects]`.
        environ: See `connect`.

    Raises:
        UsageError: When it is no such URL.
        ConfigError: When the keys are incomplete.
        MissingExtra: When `obstore` is not installed.
    """
    bucket, prefix = split_url(url)
    connection = connect(settings, environ)
    api = require("obstore", extra="objects", why="read and write s3:// URLs")
    require("obstore.store", extra="objects", why="read and write s3:// URLs")
    options = {
        "region": connection.region,
        "virtual_hosted_style_request": not connection.path_style,
        "endpoint": connection.endpoint,
        "access_key_id": connection.access_key,
        "secret_access_key": connection.secret_key,
        "session_token": connection.session_token,
    }
    client = api.store.S3Store(
        bucket,
        config={name: value for name, value in options.items() if value is not None},
        client_options={"allow_http": (connection.endpoint or "").startswith("http:"), "timeout": "120s"},
        retry_config={"max_retries": 10, "retry_timeout": timedelta(seconds=connection.retry_s)},
    )
    return ObjectStore(api, client, bucket, prefix, connection)


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """The objects below one prefix of a bucket; keys are relative to it. `open_objects` makes one.

    Every method raises ObjectStoreError: when the bucket is missing, access is denied, or the storage does not answer.
    """

    api: Any  # obstore, which is optional
    client: Any
    bucket: str
    prefix: str
    connection: Connection

    @property
    def url(self) -> str:
        """Where this is, without keys."""
        return self.url_of("")

    def url_of(self, key: str) -> str:
        """Return the URL of one object."""
        return f"{SCHEME}{self.bucket}/{self._path(key)}"

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """Yield the objects below this prefix, in order of their keys as far as the storage keeps it."""
        below = f"{self.prefix}/" if self.prefix else ""
        with self._explained(prefix):
            for page in self.api.list(self.client, prefix=self._path(prefix) or None):
                for meta in page:
                    key = str(meta["path"])
                    if key.startswith(below):
                        yield Listed(
                            key.removeprefix(below), int(meta["size"]), meta["e_tag"] or "", meta["last_modified"]
                        )

    def get(self, key: str) -> Found | None:
        """Return one object; None when there is none of that key."""
        try:
            with self._explained(key):
                found = self.api.get(self.client, self._path(key))
                return Found(bytes(found.bytes()), found.meta["e_tag"] or "")
        except _NoSuchObject:
            return None

    def put(self, key: str, data: bytes, *, after: Found | None) -> str:
        """Write one object, whole or not at all, if it is what it was.

        Args:
            key: Where.
            data: The content.
            after: What was found there; None: nothing.

        Returns:
            The new ETag. What is there already with this content is left as it is.

        Raises:
            ObjectConflict: When it is neither `after` nor this content any more; nothing was written.
        """
        mode: Any = "create" if after is None else {"e_tag": after.etag}
        try:
            with self._explained(key):
                written = self.api.put(self.client, self._path(key), data, mode=mode, use_multipart=False)
                return str(written["e_tag"] or "")
        except ObjectConflict:
            # Also after an answer that was lost: the client tried again and met its own write.
            there = self.get(key)
            if there is None or there.data != data:
                raise
            return there.etag

    def replace(self, key: str, file: Path) -> None:
        """Write one object from a file of any size, whatever is there; readers see the old one until it is whole."""
        with self._explained(key):
            self.api.put(self.client, self._path(key), file, chunk_size=_PART_BYTES, max_concurrency=2)

    def open(self, item: Listed) -> BinaryIO:
        """Return an object as a file that can be read and sought in; each piece is one request."""
        return cast(BinaryIO, io.BufferedReader(_ObjectFile(self, item), _READ_BYTES))

    def get_range(self, item: Listed, start: int, length: int) -> bytes:
        """Return a piece of an object as it was listed.

        Raises:
            ObjectConflict: When it has been written anew since.
        """
        options: dict[str, Any] = {"range": (start, start + length)}
        if item.etag:
            options["if_match"] = item.etag
        with self._explained(item.key):
            return bytes(self.api.get(self.client, self._path(item.key), options=options).bytes())

    def check(self, item: Listed) -> None:
        """Ask whether an object is still as it was listed.

        Raises:
            ObjectConflict: When it has been written anew since.
        """
        with self._explained(item.key):
            etag = self.api.head(self.client, self._path(item.key))["e_tag"]
        if item.etag and etag != item.etag:
            raise ObjectConflict(_changed(self.url_of(item.key)))

    def _path(self, key: str) -> str:
        return "/".join(part for part in (self.prefix, key) if part)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        try:
            yield
        except (self.api.exceptions.BaseError, OSError) as error:
            raise explain(error, self.url_of(key), self.connection) from error


class _NoSuchObject(ObjectStoreError):
    pass


class _ObjectFile(io.RawIOBase):
    def __init__(self, store: ObjectStore, item: Listed) -> None:
        self._store, self._item, self._at = store, item, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._item.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._item.size - self._at)
        if length <= 0:
            return 0
        data = self._store.get_range(self._item, self._at, length)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def explain(error: Exception, url: str, connection: Connection) -> ObjectStoreError:
    """Return what a failed request means, in one message without keys.

    Args:
        error: Of the client that made it.
        url: What was asked for.
        connection: Where.
    """
    text = str(error)
    kind = type(error).__name__
    code = next(iter(re.findall(r"<Code>(\w+)</Code>", text)), "")
    bucket = url.removeprefix(SCHEME).partition("/")[0]
    if code == "NoSuchBucket":
        return ObjectStoreError(
            f"{url}: there is no bucket '{bucket}' at {connection.where}; make it, or correct the URL"
        )
    if code in _DENIED or kind.startswith(("Permission", "Unauthenticated")) or " 403 " in text or " 401 " in text:
        said = f" ({code})" if code else ""
        return ObjectStoreError(
            f"{url}: {connection.where} denies access{said}; check the keys that [objects] names, and their rights"
        )
    if kind in ("AlreadyExistsError", "PreconditionError"):
        return ObjectConflict(_changed(url))
    if isinstance(error, FileNotFoundError) or kind == "NotFoundError":
        return _NoSuchObject(f"{url}: no such object")
    if code or "status code" in text:
        found = code or next(iter(re.findall(r"status code: (\d+)", text)), "an error")
        return ObjectStoreError(f"{url}: {connection.where} refuses: {found}")
    return ObjectStoreError(
        f"{url}: {connection.where} does not answer; check that it is up, and the endpoint_url of [objects]"
    )


def _changed(url: str) -> str:
    return f"{url}: another writer has changed it meanwhile; look at what is there, and try again"
