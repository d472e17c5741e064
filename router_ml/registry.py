"""Lazy registries, name -> "module:attribute": the only plug-in mechanism of the project."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Generic, TypeVar

from router_ml.errors import MissingExtra, UnknownName

__all__ = ["Registry", "did_you_mean", "require"]

T = TypeVar("T")
# Comparing a name of megabytes with others takes seconds, and nobody mistyped it.
_LONGEST_NAME = 100


def did_you_mean(name: str, known: Mapping[str, object] | list[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest known name, or "" when none is close."""
    if len(name) > _LONGEST_NAME:
        return ""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def require(module: str, *, extra: str, why: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    Args:
        module: Import name, such as `mlflow`.
        extra: The extra of router-ml that installs it.
        why: What it is needed for, to end the sentence "... is needed to".

    Raises:
        MissingExtra: When the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        message = f"{module} is needed to {why}. Install it: pip install 'router-ml[{extra}]'"
        raise MissingExtra(message) from error


class Registry(Generic[T]):
    """Names of one kind of part, and where each part lives; nothing is imported before it is asked for.

    Args:
        kind: What the names stand for, for error messages ("learner", "source").
        entries: Name to "package.module:attribute".
        extra: The extra that installs what the parts need.
    """

    def __init__(self, kind: str, entries: Mapping[str, str], *, extra: str = "training") -> None:
        self.kind = kind
        self.extra = extra
        self._entries = dict(entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def load(self, name: str) -> T:
        """Import and return the part of that name.

        Raises:
            UnknownName: When no part has that name; the message lists those that exist.
            MissingExtra: When the part needs a package that is not installed.
        """
        if name not in self._entries:
            known = ", ".join(sorted(self._entries))
            hint = did_you_mean(name, self._entries)
            raise UnknownName(f"no {self.kind} is called '{name}'{hint}; known: {known}")
        path, _, attribute = self._entries[name].partition(":")
        try:
            part: T = getattr(importlib.import_module(path), attribute)
        except ModuleNotFoundError as error:
            message = (
                f"{error.name} is needed to use the {self.kind} '{name}'. "
                f"Install it: pip install 'router-ml[{self.extra}]'"
            )
            raise MissingExtra(message) from error
        return part
