"""A request to OpenAI's Responses API -> a chat body."""

from __future__ import annotations

from typing import Any

from router_ml.errors import RequestError
from router_ml_serving.inbound import Json
from router_ml_serving.inbound.fields import copied, image_part, object_list, optional, refused, router_key, text_part

__all__ = ["chat_body", "ignored"]

_SAME = (
    "frequency_penalty",
    "logit_bias",
    "model",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt_cache_key",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "temperature",
    "top_p",
    "user",
)
_TRANSLATED = (
    "input",
    "instructions",
    "max_output_tokens",
    "metadata",
    "reasoning",
    "router",
    "store",
    "stream",
    "text",
)
_READ = frozenset((*_SAME, *_TRANSLATED, "include", "tool_choice", "tools", "top_logprobs"))
# What lives on the server between two requests; nothing lives here.
_STATE = {
    "previous_response_id": "send the earlier items in input",
    "conversation": "send the earlier items in input",
    "prompt": "send the prompt's text in instructions or input",
    "background": "leave it out, and stream the answer if it takes long",
}
_WITH_LOGPROBS = "message.output_text.logprobs"


def chat_body(asked: Json) -> Json:
    """Return the chat body of a Responses request.

    Args:
        asked: The request; it is not changed.

    Raises:
        RequestError: When a field has the wrong type, or asks for what no chat upstream has.
    """
    for name, instead in _STATE.items():
        if asked.get(name):
            raise refused(name, "state kept on the server", instead)
    body = copied(asked, _SAME)
    body["messages"] = [*_instructions(asked), *_messages(asked.get("input"))]
    if (max_tokens := optional(asked, "max_output_tokens", int)) is not None:
        body["max_completion_tokens"] = max_tokens
    reasoning = optional(asked, "reasoning", dict) or {}
    if reasoning.get("effort") is not None:
        body["reasoning_effort"] = reasoning["effort"]
    body |= _text_options(optional(asked, "text", dict) or {})
    body |= _tools(asked)
    if _WITH_LOGPROBS in (optional(asked, "include", list) or ()):
        body |= {"logprobs": True, **copied(asked, ("top_logprobs",))}
    if router := router_key(asked):
        body["router"] = router
    if optional(asked, "stream", bool):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def ignored(asked: Json) -> list[str]:
    """Return the fields that were not looked at, such as `truncation`, `max_tool_calls` and what is unknown."""
    return sorted(name for name in asked.keys() - _READ if asked[name] is not None and name not in _STATE)


def _instructions(asked: Json) -> list[Json]:
    text = optional(asked, "instructions", str)
    return [{"role": "system", "content": text}] if text else []


def _messages(given: object) -> list[Json]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if given is None:
        raise RequestError("input is missing: send a string or a list of items", param="input")
    talk = _Talk()
    for i, item in enumerate(object_list(given, "input")):
        talk.add(item, f"input[{i}]")
    return talk.finished()


class _Talk:
    # Chat messages wrap what the Responses API lists one by one: all calls of a turn are one message, and nothing may
    # come between calls and their results; chat messages of tools hold text only, so pictures follow afterwards.
    def __init__(self) -> None:
        self.messages: list[Json] = []
        self.shown: list[Json] = []

    def add(self, item: Json, where: str) -> None:
        kind = item.get("type") or "message"
        if kind == "reasoning":
            return
        if kind == "function_call":
            self._call(item, where)
        elif kind == "function_call_output":
            self._output(item, where)
        elif kind == "message":
            self.finished()
            self.messages.append(_message(item, where))
        else:
            raise refused(where, f"an item of type '{kind}'", "send messages, function calls and their outputs")

    def finished(self) -> list[Json]:
        if self.shown:
            self.messages.append({"role": "user", "content": self.shown})
            self.shown = []
        return self.messages

    def _call(self, item: Json, where: str) -> None:
        identity, name = optional(item, "call_id", str, f"{where}."), optional(item, "name", str, f"{where}.")
        if not identity or not name:
            raise RequestError(f"{where} needs a call_id and a name", param=where)
        arguments = optional(item, "arguments", str, f"{where}.") or "{}"
        call = {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
        last = self.messages[-1] if self.messages else {}
        if last.get("role") != "assistant" or self.shown:
            self.finished()
            last = {"role": "assistant", "content": None}
            self.messages.append(last)
        last.setdefault("tool_calls", []).append(call)

    def _output(self, item: Json, where: str) -> None:
        identity = optional(item, "call_id", str, f"{where}.")
        if not identity:
            raise RequestError(f"{where}.call_id must be a string", param=f"{where}.call_id")
        output = item.get("output")
        parts = [text_part(output)] if isinstance(output, str) else _parts(output, f"{where}.output")
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        self.messages.append({"role": "tool", "tool_call_id": identity, "content": text})
        self.shown += [part for part in parts if part["type"] != "text"]


def _message(item: Json, where: str) -> Json:
    role, content = item.get("role"), item.get("content")
    if role not in ("user", "assistant", "system", "developer"):
        raise RequestError(f"{where}.role must be user, assistant, system or developer", param=f"{where}.role")
    # Every chat server knows `system`; those that know `developer` take one for the other.
    role = "system" if role == "developer" else role
    if isinstance(content, str):
        return {"role": role, "content": content}
    parts = _parts(content, f"{where}.content")
    if role != "user" or [part["type"] for part in parts] == ["text"]:
        return {"role": role, "content": "\n".join(part["text"] for part in parts if part["type"] == "text")}
    return {"role": role, "content": parts}


def _parts(content: object, where: str) -> list[Json]:
    return [_part(part, f"{where}[{i}]") for i, part in enumerate(object_list(content, where))]


def _part(part: Json, where: str) -> Json:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return text_part(optional(part, "text", str, f"{where}.") or "")
    if kind == "refusal":
        return text_part(optional(part, "refusal", str, f"{where}.") or "")
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return image_part(part["image_url"], part.get("detail"))
    if kind == "input_file" and (part.get("file_data") or part.get("file_id")):
        return {"type": "file", "file": copied(part, ("filename", "file_data", "file_id"))}
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    raise refused(where, f"content of type '{kind}' in this form", "send text, image_url, file_data or input_audio")


def _text_options(text: Json) -> Json:
    body = copied(text, ("verbosity",))
    wanted = optional(text, "format", dict, "text.") or {}
    if wanted.get("type") == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif wanted.get("type") == "json_schema":
        schema = copied(wanted, ("name", "schema", "strict", "description"))
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif wanted.get("type") not in (None, "text"):
        raise RequestError("text.format.type must be text, json_object or json_schema", param="text.format")
    return body


def _tools(asked: Json) -> Json:
    if not asked.get("tools"):
        return {}
    tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(object_list(asked["tools"], "tools"))]
    choice: Any = asked.get("tool_choice")  # a string, or one of several objects
    if choice is None:
        return {"tools": tools}
    if isinstance(choice, str):
        return {"tools": tools, "tool_choice": choice}
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"tools": tools, "tool_choice": {"type": "function", "function": {"name": choice.get("name")}}}
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        # The others are left out: servers that know no such choice then do the same.
        allowed = [tool.get("name") for tool in object_list(choice.get("tools"), "tool_choice.tools")]
        left = [tool for tool in tools if tool["function"]["name"] in allowed]
        return {"tools": left, "tool_choice": choice.get("mode", "auto")} if left else {}
    raise RequestError("tool_choice must be auto, none, required, a function or allowed_tools", param="tool_choice")


def _tool(tool: Json, where: str) -> Json:
    if tool.get("type") != "function":
        raise refused(where, f"the built-in tool '{tool.get('type')}'", "describe a function and run it yourself")
    name = optional(tool, "name", str, f"{where}.")
    if not name:
        raise RequestError(f"{where}.name must be a string", param=f"{where}.name")
    return {"type": "function", "function": copied(tool, ("name", "description", "parameters", "strict"))}
