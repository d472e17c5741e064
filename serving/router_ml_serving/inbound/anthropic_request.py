"""A request to Anthropic's Messages API -> a chat body."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from router_ml.errors import RequestError
from router_ml_serving.inbound import Json
from router_ml_serving.inbound.fields import (
    copied,
    image_part,
    object_list,
    optional,
    refused,
    router_key,
    text_part,
)

__all__ = ["chat_body", "ignored"]

# The same in both APIs, or unknown to Anthropic's and asked for by somebody who knows the upstream.
_SAME = (
    "frequency_penalty",
    "logit_bias",
    "model",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "temperature",
    "top_p",
    "verbosity",
)
_TRANSLATED = ("max_tokens", "messages", "metadata", "router", "stop_sequences", "stream", "system", "tools")
_READ = frozenset((*_SAME, *_TRANSLATED, "output_config", "output_format", "tool_choice"))
# Thoughts of a model are of no use to another one.
_THOUGHTS = ("thinking", "redacted_thinking")
_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_body(asked: Json) -> Json:
    """Return the chat body of a Messages request.

    Args:
        asked: The request; it is not changed.

    Raises:
        RequestError: When a field has the wrong type, or asks for what no chat upstream has.
    """
    if asked.get("mcp_servers"):
        raise refused("mcp_servers", "calling tools on the server's side", "call them from the client and list tools")
    messages = asked.get("messages")
    if messages is None:
        raise RequestError("messages is missing: send a list of messages", param="messages")
    body = copied(asked, _SAME)
    body["messages"] = [*_system(asked.get("system")), *_messages(object_list(messages, "messages"))]
    if (max_tokens := optional(asked, "max_tokens", int)) is not None:
        body["max_completion_tokens"] = max_tokens
    if stop := optional(asked, "stop_sequences", list):
        body["stop"] = stop
    if (response_format := _response_format(asked)) is not None:
        body["response_format"] = response_format
    body |= _tools(asked)
    metadata = optional(asked, "metadata", dict) or {}
    if isinstance(user := metadata.get("user_id"), str):
        body["user"] = user
    if router := {name: value for name, value in router_key(asked).items() if name != "user_id"}:
        body["router"] = router
    if optional(asked, "stream", bool):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def ignored(asked: Json) -> list[str]:
    """Return the fields that were not looked at: `thinking`, `top_k`, `container` and what is unknown."""
    return sorted(asked.keys() - _READ)


def _system(system: object) -> list[Json]:
    if system is None or system == "":
        return []
    if isinstance(system, str):
        return [{"role": "system", "content": system}]
    texts = [_text_of(block, f"system[{i}]") for i, block in enumerate(object_list(system, "system"))]
    return [{"role": "system", "content": "\n\n".join(texts)}]


def _messages(messages: list[Json]) -> Iterable[Json]:
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant", "system"):
            raise RequestError(f"{where}.role must be 'user', 'assistant' or 'system'", param=f"{where}.role")
        if isinstance(content, str):
            yield {"role": role, "content": content}
            continue
        blocks = object_list(content, f"{where}.content")
        if role == "assistant":
            yield _assistant(blocks, where)
        elif role == "system":
            yield from _system(blocks)
        else:
            yield from _user(blocks, where)


def _assistant(blocks: list[Json], where: str) -> Json:
    texts: list[str] = []
    calls: list[Json] = []
    for i, block in enumerate(blocks):
        at = f"{where}.content[{i}]"
        if block.get("type") in _THOUGHTS:
            continue
        if block.get("type") == "tool_use":
            calls.append(_call(block, at))
        else:
            texts.append(_text_of(block, at))
    message: Json = {"role": "assistant", "content": "\n".join(texts) or None}
    if calls:
        message["tool_calls"] = calls
    elif not texts:
        message["content"] = ""
    return message


def _call(block: Json, where: str) -> Json:
    name, identity = optional(block, "name", str, f"{where}."), optional(block, "id", str, f"{where}.")
    if not name or not identity:
        raise RequestError(f"{where} needs an id and a name", param=where)
    arguments = orjson.dumps(block.get("input") or {}).decode()
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def _user(blocks: list[Json], where: str) -> list[Json]:
    # Results of tools come right after their calls; chat messages of tools hold text only, so pictures follow.
    results: list[Json] = []
    parts: list[Json] = []
    for i, block in enumerate(blocks):
        at = f"{where}.content[{i}]"
        if block.get("type") != "tool_result":
            parts += _parts(block, at)
            continue
        result, shown = _result(block, at)
        results.append(result)
        parts += shown
    if len(parts) == 1 and parts[0]["type"] == "text":
        return [*results, {"role": "user", "content": parts[0]["text"]}]
    return [*results, {"role": "user", "content": parts}] if parts or not results else results


def _result(block: Json, where: str) -> tuple[Json, list[Json]]:
    identity = optional(block, "tool_use_id", str, f"{where}.")
    if not identity:
        raise RequestError(f"{where}.tool_use_id must be a string", param=f"{where}.tool_use_id")
    content = block.get("content")
    if content is None or isinstance(content, str):
        parts = [text_part(content or "")]
    else:
        inner = object_list(content, f"{where}.content")
        parts = [part for i, one in enumerate(inner) for part in _parts(one, f"{where}.content[{i}]")]
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    if block.get("is_error"):
        text = f"Error: {text}"
    message = {"role": "tool", "tool_call_id": identity, "content": text}
    return message, [part for part in parts if part["type"] != "text"]


def _parts(block: Json, where: str) -> list[Json]:
    kind = block.get("type")
    if kind == "image":
        return [_image(_source(block, where), where)]
    if kind == "document":
        return _document(block, where)
    if kind == "search_result":
        head = "\n".join(str(block[name]) for name in ("title", "source") if block.get(name))
        texts = [_text_of(one, where) for one in object_list(block.get("content"), f"{where}.content")]
        return [text_part("\n\n".join([head, *texts]))]
    return [text_part(_text_of(block, where))]


def _image(source: Json, where: str) -> Json:
    if source.get("type") == "url" and isinstance(source.get("url"), str):
        return image_part(source["url"])
    if source.get("type") == "base64":
        return image_part(_data_url(source, where))
    raise refused(f"{where}.source", f"an image of type '{source.get('type')}'", "send it as base64 or by its URL")


def _document(block: Json, where: str) -> list[Json]:
    source = _source(block, where)
    title = optional(block, "title", str, f"{where}.")
    kind = source.get("type")
    if kind == "base64":
        name = title or ("document.pdf" if source.get("media_type") == "application/pdf" else "document")
        return [{"type": "file", "file": {"filename": name, "file_data": _data_url(source, where)}}]
    if kind == "text":
        text = optional(source, "data", str, f"{where}.source.") or ""
        return [text_part(f"{title}\n\n{text}" if title else text)]
    if kind == "content":
        content = source.get("content")
        if isinstance(content, str):
            return [text_part(content)]
        inner = object_list(content, f"{where}.source.content")
        return [part for i, one in enumerate(inner) for part in _parts(one, f"{where}.source.content[{i}]")]
    raise refused(f"{where}.source", f"a document of type '{kind}'", "send it as base64 or text")


def _source(block: Json, where: str) -> Json:
    source = optional(block, "source", dict, f"{where}.")
    if source is None:
        raise RequestError(f"{where}.source is missing", param=f"{where}.source")
    return source


def _data_url(source: Json, where: str) -> str:
    kind, data = source.get("media_type"), source.get("data")
    if not isinstance(kind, str) or not isinstance(data, str):
        raise RequestError(f"{where}.source needs media_type and data, both strings", param=f"{where}.source")
    return f"data:{kind};base64,{data}"


def _text_of(block: Json, where: str) -> str:
    if block.get("type") != "text":
        raise refused(where, f"a block of type '{block.get('type')}'", "leave it out or send it as text")
    text = block.get("text")
    if not isinstance(text, str):
        raise RequestError(f"{where}.text must be a string", param=f"{where}.text")
    return text


def _tools(asked: Json) -> Json:
    body: Json = {}
    if asked.get("tools"):
        tools = object_list(asked["tools"], "tools")
        body["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    choice = optional(asked, "tool_choice", dict)
    if choice is None:
        return body
    kind = choice.get("type")
    if kind == "tool" and isinstance(choice.get("name"), str):
        body["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif isinstance(kind, str) and kind in _TOOL_CHOICES:
        body["tool_choice"] = _TOOL_CHOICES[kind]
    else:
        raise RequestError("tool_choice must be auto, any, none, or a tool with a name", param="tool_choice")
    if choice.get("disable_parallel_tool_use"):
        body["parallel_tool_calls"] = False
    return body


def _tool(tool: Json, where: str) -> Json:
    if tool.get("type") not in (None, "custom"):
        raise refused(
            where, f"the built-in tool '{tool['type']}'", "describe it with an input_schema and run it yourself"
        )
    name = optional(tool, "name", str, f"{where}.")
    if not name:
        raise RequestError(f"{where}.name must be a string", param=f"{where}.name")
    function: Json = {"name": name, **copied(tool, ("description", "strict"))}
    function["parameters"] = optional(tool, "input_schema", dict, f"{where}.") or {"type": "object"}
    return {"type": "function", "function": function}


def _response_format(asked: Json) -> Json | None:
    config = optional(asked, "output_config", dict) or {}
    wanted: Any = config.get("format") or asked.get("output_format")  # untyped JSON of the wire
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return None
    schema = {"name": "answer", "schema": wanted.get("schema"), "strict": True}
    return {"type": "json_schema", "json_schema": schema}
