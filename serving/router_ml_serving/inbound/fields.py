"""Reading a request of another API: fields of the right type, or an error that names the field."""

from __future__ import annotations

from typing import Any, TypeVar

from router_ml.errors import RequestError
from router_ml_serving.inbound import Json

__all__ = ["copied", "image_part", "object_list", "optional", "refused", "router_key", "text_part"]

T = TypeVar("T")

# Names of a request's metadata that routing itself looks at (`wire.read_chat`).
_ROUTING_METADATA = ("tenant", "feature", "use_case", "session_id")
# What a message quotes of a client's words: errors are logged and traced, and a word may have megabytes.
_SHOWN_CHARS = 100
_NAMES: dict[type[Any], str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "an integer",
    bool: "a boolean",
}


def optional(body: Json, name: str, kind: type[T], where: str = "") -> T | None:
    """Return a field of this type, or None when it is missing or null.

    Args:
        body: An object of the request.
        name: The field.
        kind: What it must be.
        where: Path of the object, with the dot at its end.

    Raises:
        RequestError: When it is something else.
    """
    value = body.get(name)
    if value is None or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
        return value
    raise RequestError(f"{where}{name} must be {_NAMES[kind]}", param=f"{where}{name}")


def object_list(value: object, where: str) -> list[Json]:
    """Return a value that must be a list of objects.

    Raises:
        RequestError: When it is not.
    """
    if not isinstance(value, list):
        raise RequestError(f"{where} must be a list of objects", param=where)
    for i, item in enumerate(value):
        if not isinstance(item, dict):
            raise RequestError(f"{where}[{i}] must be an object", param=f"{where}[{i}]")
    return value


def refused(where: str, what: str, instead: str) -> RequestError:
    """Return the error for what chat upstreams cannot be asked for.

    Args:
        where: The field.
        what: What it holds.
        instead: What the client can do.
    """
    shown = what if len(what) <= _SHOWN_CHARS else f"{what[:_SHOWN_CHARS]}…"
    return RequestError(f"{where}: {shown} is not supported by this router; {instead}", param=where)


def copied(body: Json, names: tuple[str, ...]) -> Json:
    """Return the fields that mean the same in a chat body."""
    return {name: body[name] for name in names if body.get(name) is not None}


def router_key(body: Json) -> Json:
    """Return the `router` object of the chat body: the client's own, and the metadata.

    Metadata is for the router and its log. Chat upstreams refuse it, or store it.

    Raises:
        RequestError: When one of the two is no object.
    """
    metadata = optional(body, "metadata", dict) or {}
    router = optional(body, "router", dict) or {}
    told = {
        name: value
        for name, value in metadata.items()
        if name != "quality" and (name not in _ROUTING_METADATA or (isinstance(value, str) and value))
    }
    return {**told, **router}


def text_part(text: str) -> Json:
    """Return a text part of a chat message."""
    return {"type": "text", "text": text}


def image_part(url: str, detail: object = None) -> Json:
    """Return an image part of a chat message; `url` may be a data URL."""
    image = {"url": url} if detail is None else {"url": url, "detail": detail}
    return {"type": "image_url", "image_url": image}
