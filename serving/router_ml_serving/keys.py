"""API keys at rest: a file of JSON lines that holds their SHA-256, never the keys; who writes it only appends."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from router_ml.durable import append_line
from router_ml.errors import ConfigError, UnknownName, UsageError
from router_ml.registry import did_you_mean
from router_ml_serving.tenants import EVERYBODY_ELSE

__all__ = ["KeyRecord", "digest_of", "issue_key", "read_keys", "revoke_key", "split_key"]

_PREFIX = b"rml"
_ID_BYTES = 6
_SECRET_BYTES = 32
_PRIVATE = 0o600
# Clients repeat the name in a header, where other characters arrive in more than one encoding.
_TENANT = re.compile(r"[!-~]{1,128}")


class KeyRecord(BaseModel):
    """One key as it is kept: `sha256` of its secret, in hexadecimal; `revoked` None while it works."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    tenant: str = Field(min_length=1)
    name: str = ""
    created: AwareDatetime
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    revoked: AwareDatetime | None = None


class _Revocation(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    revoke: str
    at: AwareDatetime


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    fields: Mapping[str, Any]  # JSON of the file


def issue_key(path: Path, *, tenant: str, name: str, now: datetime) -> tuple[KeyRecord, str]:
    """Make a key and write its digest down.

    Args:
        path: The keys file; made, readable by its owner only, when it is not there.
        tenant: Who the key stands for.
        name: What it is for, for people.
        now: The time of day, with a time zone.

    Returns:
        The record, and the key itself: this is the only moment at which it is known.

    Raises:
        UsageError: When the tenant's name will not do, or the file cannot be written.
        ConfigError: When the file is broken.
    """
    if not _TENANT.fullmatch(tenant) or tenant == EVERYBODY_ELSE:
        raise UsageError(
            f"--tenant: expected 1 to 128 ASCII characters without spaces, other than '{EVERYBODY_ELSE}', "
            f"got {tenant!r:.150}"
        )
    taken = read_keys(path) if path.exists() else {}
    id_ = secrets.token_hex(_ID_BYTES)
    while id_ in taken:
        id_ = secrets.token_hex(_ID_BYTES)
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    record = KeyRecord(id=id_, tenant=tenant, name=name, created=now, sha256=digest_of(secret.encode()).hex())
    _append(path, record.model_dump(mode="json", exclude={"revoked"}))
    return record, f"{_PREFIX.decode()}_{id_}_{secret}"


def revoke_key(path: Path, key_id: str, *, now: datetime) -> KeyRecord:
    """Write down that a key does not work any more; of a key that was revoked before nothing changes.

    Raises:
        UnknownName: When the file has no such key.
        UsageError: When the file cannot be written.
        ConfigError: When the file is missing or broken.
    """
    keys = read_keys(path)
    if key_id not in keys:
        raise UnknownName(f"{path}: no key has the id '{key_id}'{did_you_mean(key_id, list(keys))}; see `keys list`")
    if keys[key_id].revoked is not None:
        return keys[key_id]
    _append(path, _Revocation(revoke=key_id, at=now).model_dump(mode="json"))
    return keys[key_id].model_copy(update={"revoked": now})


def read_keys(path: Path) -> dict[str, KeyRecord]:
    """Return every key of a file by its id, revoked ones included, oldest first.

    Raises:
        ConfigError: When it cannot be read, naming the line; never its content.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such keys file; make a first key with `router-ml keys create`") from error
    except OSError as error:
        raise ConfigError(f"{path}: the keys file cannot be read ({error.strerror}); see serving.keys_file") from error
    keys: dict[str, KeyRecord] = {}
    for number, raw in enumerate(lines, 1):
        if raw.strip():
            _apply(_parsed(raw, number, path), keys, path)
    return keys


def split_key(token: bytes) -> tuple[str, bytes] | None:
    """Return the id and the secret of a key as clients send it, or None when it is no key of ours."""
    prefix, _, rest = token.partition(b"_")
    id_, _, secret = rest.partition(b"_")
    return (id_.decode("latin-1"), secret) if prefix == _PREFIX and secret else None


def digest_of(secret: bytes) -> bytes:
    """Return what is kept of a secret.

    One SHA-256 is right for 256 random bits: a slow hash protects secrets that can be guessed, and these cannot.
    """
    return hashlib.sha256(secret).digest()


def _append(path: Path, record: Mapping[str, Any]) -> None:  # JSON of the file
    # Lines are only ever added: two commands at once lose nothing, and the file's owner stays the same.
    try:
        # A file that a person edited may lack its last line's end.
        glue = "" if not path.exists() or path.read_bytes()[-1:] in (b"", b"\n") else "\n"
        append_line(path, glue + json.dumps(record, ensure_ascii=False), mode=_PRIVATE)
    except OSError as error:
        raise UsageError(f"{path}: the keys file cannot be written ({error.strerror})") from error


def _parsed(raw: bytes, number: int, path: Path) -> _Line:
    try:
        fields = json.loads(raw)
    except ValueError as error:
        raise _broken(path, number, "is not JSON") from error
    if not isinstance(fields, dict):
        raise _broken(path, number, "is not a JSON object")
    return _Line(number, fields)


def _apply(line: _Line, keys: dict[str, KeyRecord], path: Path) -> None:
    try:
        if "revoke" in line.fields:
            gone = _Revocation.model_validate(line.fields)
            # A key whose line somebody deleted does not work either way.
            if gone.revoke in keys:
                keys[gone.revoke] = keys[gone.revoke].model_copy(update={"revoked": gone.at})
            return
        record = KeyRecord.model_validate(line.fields)
    except ValidationError as error:
        fields = ", ".join(sorted({str(item["loc"][0]) for item in error.errors() if item["loc"]}))
        raise _broken(path, line.number, f"is no key (look at: {fields or 'all of it'})") from None
    if record.id in keys:
        raise _broken(path, line.number, f"has the id of an earlier key, {record.id}")
    keys[record.id] = record


def _broken(path: Path, number: int, what: str) -> ConfigError:
    return ConfigError(f"{path}: line {number} {what}; take it out, or restore the file")
