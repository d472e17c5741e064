"""A golden set as people write it: one JSON object per line, each a request and what its answer must be like."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from router_ml.errors import ConfigError, RequestError
from router_ml_serving.golden.checks import Checks
from router_ml_serving.wire import Chat, read_chat

__all__ = ["GoldenItem", "GoldenSet", "read_golden"]

_DIGEST_CHARS = 16


class GoldenItem(BaseModel):
    """One request that is asked again and again.

    `request` is a chat body without `model`; its `router` object may name the feature. With `judge`, an answer that
    passes the checks is judged by a model as well, against the `reference` where there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
    request: dict[str, JsonValue]
    checks: Checks = Checks()
    reference: str | None = None
    judge: bool = False

    @cached_property
    def chat(self) -> Chat:
        """The request as the service would read it."""
        return read_chat(self.request)

    @cached_property
    def digest(self) -> str:
        """What the item is: another question, or another idea of a good answer, is another item."""
        return _digest(orjson.dumps(self.model_dump(mode="json", exclude={"id"}), option=orjson.OPT_SORT_KEYS))


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """A golden set; `digest` is that of its items in any order."""

    items: tuple[GoldenItem, ...]
    digest: str


def read_golden(path: Path) -> GoldenSet:
    """Read a golden set.

    Raises:
        ConfigError: With every line that is wrong, its number and why; prompts are not repeated.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); set golden.file or pass --file") from error
    items: list[GoldenItem] = []
    mistakes: list[str] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                items.append(_item(line))
            except ConfigError as error:
                mistakes.append(f"  line {number}: {error}")
    mistakes += [f"  {why}" for why in _twice(items)]
    if mistakes or not items:
        listed = "\n".join(mistakes or ["  no items"])
        raise ConfigError(f"{path}: not a golden set (docs/howto/golden-set.md)\n{listed}")
    return GoldenSet(tuple(items), _digest("".join(sorted(item.id + item.digest for item in items)).encode()))


def _item(line: bytes) -> GoldenItem:
    try:
        item = GoldenItem.model_validate_json(line)
        chat = item.chat
    except ValidationError as error:
        said = (f"{'.'.join(map(str, one['loc'])) or 'line'}: {one['msg']}" for one in error.errors())
        raise ConfigError("; ".join(said)) from error
    except RequestError as error:
        raise ConfigError(f"request: {error}") from error
    if not item.checks.any and not item.judge:
        raise ConfigError("checks: nothing would be looked at; add a check, or judge: true")
    if chat.model != "auto" or chat.stream:
        raise ConfigError("request: leave out model and stream; every tier is asked, for whole answers")
    if item.request.get("n") not in (None, 1):
        raise ConfigError("request: leave out n; one answer is looked at, and all are paid for")
    return item


def _twice(items: Sequence[GoldenItem]) -> list[str]:
    seen: set[str] = set()
    return [f"id {item.id!r}: there twice" for item in items if item.id in seen or seen.add(item.id)]  # type: ignore[func-returns-value]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGEST_CHARS]
