"""Every error a user can meet, each with a stable code and the exit and HTTP status it maps to.

RouterError
├── UsageError            what a person gave is wrong (exit 2, HTTP 400)
│   ├── ConfigError       router.toml or an environment variable
│   ├── UnknownName       a name that no registry, ladder or shelf knows
│   ├── RecordError       one log row, or the schema version it claims
│   ├── DataError         a whole log or table: empty, one tier only, no known outcome
│   └── RequestError      an HTTP body or a request that cannot be read
├── MissingExtra          an optional dependency is not installed
├── BundleError           a bundle cannot be used
│   ├── BundleCorrupt     a file is missing, truncated, or does not match its checksum
│   └── BundleMismatch    made for other features or by another format version
├── ParityError           an exported graph does not reproduce the trained model
├── StoreError            the event store cannot be opened, read or written
├── ObjectStoreError      object storage cannot be reached, read or written
└── UpstreamError         a model endpoint failed; never evidence about adequacy
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BundleCorrupt",
    "BundleError",
    "BundleMismatch",
    "ConfigError",
    "DataError",
    "MissingExtra",
    "ObjectStoreError",
    "ParityError",
    "RecordError",
    "RequestError",
    "RouterError",
    "StoreError",
    "UnknownName",
    "UpstreamError",
    "UsageError",
]


class RouterError(Exception):
    """The root: catch this to catch everything that router-ml raises on purpose."""

    code: ClassVar[str] = "router_error"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1


class UsageError(RouterError):
    """What a person gave is wrong; the message says what, where, and what to do."""

    code = "usage_error"
    http_status = 400
    exit_code = 2


class ConfigError(UsageError):
    """router.toml, or an environment variable that overrides it, is wrong."""

    code = "config_error"


class UnknownName(UsageError):
    """A name that is not in the registry, ladder or shelf it was looked up in."""

    code = "unknown_name"


class RecordError(UsageError):
    """One log row cannot be read as an interaction."""

    code = "bad_record"


class DataError(UsageError):
    """A log or table as a whole cannot be learned from."""

    code = "bad_data"


class RequestError(UsageError):
    """A request body cannot be read.

    Args:
        message: What is wrong and what was expected.
        param: The field at fault, as OpenAI's error body names it; None for the whole body.
    """

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class MissingExtra(RouterError):
    """An optional dependency is needed and not installed."""

    code = "missing_extra"
    exit_code = 2


class BundleError(RouterError):
    """A bundle cannot be used; the service keeps the one it has."""

    code = "bundle_error"
    http_status = 503


class BundleCorrupt(BundleError):
    """A bundle file is missing, truncated, or does not match its checksum."""

    code = "bundle_corrupt"


class BundleMismatch(BundleError):
    """A bundle was made for other features, or by another bundle format."""

    code = "bundle_mismatch"


class ParityError(RouterError):
    """An exported graph does not reproduce the trained model; nothing was written."""

    code = "parity_failed"


class StoreError(RouterError):
    """The event store cannot be opened, read or written."""

    code = "store_error"
    http_status = 503


class ObjectStoreError(RouterError):
    """Object storage (`s3://`) cannot be reached, read or written."""

    code = "object_store_error"
    http_status = 503


class UpstreamError(RouterError):
    """A model endpoint failed. This is never evidence about the adequacy of its tier.

    Args:
        message: What happened, without prompt text or secrets.
        kind: `timeout`, `connect`, `reset`, `status`, `protocol`, or `open` (not called: it has been failing).
        status: HTTP status of the upstream, if it answered with one.
        body: The upstream's own error body, handed on to the client as it was.
    """

    code = "upstream_error"
    http_status = 502

    def __init__(self, message: str, *, kind: str, status: int | None = None, body: bytes = b"") -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.body = body
