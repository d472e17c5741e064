"""Deterministic checks of an answer in a golden set: what has to hold, and which of it does not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from router_ml.errors import ConfigError
from router_ml.schema import Answer
from router_ml_serving.golden.json_schema import check_schema, conforms

__all__ = ["Checks", "NumberCheck", "failed_checks"]

# 1,234.5 and -3 and .5; a point or comma at the end of a sentence is none of the number's, nor is the dash of 5-10.
_NUMBER = re.compile(r"(?:(?<!\w)[-+])?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
Text = Annotated[str, Field(min_length=1)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NumberCheck(_Record):
    """The last number of the answer has to be `value`, give or take `tolerance`."""

    value: Annotated[float, Field(allow_inf_nan=False)]
    tolerance: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0


class Checks(_Record):
    """What has to hold of an answer; all that is set. Of several texts one has to be equal, or all contained.

    `equals` looks at the text without blanks around it, `regex` is searched for, `number` is the last one in the text,
    `valid_json` and `json_schema` take the whole text, `tool_call` names a function that has to be called, with
    arguments that are a JSON object.
    """

    equals: Text | tuple[Text, ...] | None = None
    contains: Text | tuple[Text, ...] | None = None
    regex: Text | None = None
    number: NumberCheck | None = None
    valid_json: bool = False
    json_schema: dict[str, JsonValue] | None = None
    max_chars: Annotated[int, Field(gt=0)] | None = None
    tool_call: Text | None = None

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        try:
            re.compile(self.regex or "")
            check_schema(self.json_schema if self.json_schema is not None else {})
        except re.error as error:
            message = f"regex: {error}"
            raise ValueError(message) from error
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def any(self) -> bool:
        """Whether anything has to hold."""
        return any(_is_set(getattr(self, name)) for name in _CHECKS)


def failed_checks(checks: Checks, answer: Answer) -> list[str]:
    """Return the names of the checks that an answer does not pass."""
    return [
        name for name, check in _CHECKS.items() if _is_set(value := getattr(checks, name)) and not check(value, answer)
    ]


def _is_set(value: object) -> bool:
    return value is not None and value is not False


def _texts(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _number(wanted: NumberCheck, answer: Answer) -> bool:
    found = _NUMBER.findall(answer.text)
    if not found:
        return False
    # Decimal fractions are not exact: 0.3 is no further from 0.1 + 0.2 than this.
    slack = wanted.tolerance + 1e-9 * max(1.0, abs(wanted.value))
    value = float(found[-1].replace(",", ""))
    return math.isfinite(value) and abs(value - wanted.value) <= slack


def _parsed(text: str) -> tuple[bool, Any]:  # Any: a value of JSON
    try:
        return True, json.loads(text)
    except (ValueError, RecursionError):
        return False, None


def _fits(schema: Mapping[str, Any], answer: Answer) -> bool:
    valid, value = _parsed(answer.text)
    return valid and conforms(value, schema)


def _calls(name: str, answer: Answer) -> bool:
    functions = [call.get("function") for call in answer.tool_calls]
    named = [one for one in functions if isinstance(one, Mapping) and one.get("name") == name]
    return any(isinstance(_parsed(str(one.get("arguments")))[1], dict) for one in named)


_CHECKS: Mapping[str, Callable[[Any, Answer], bool]] = {
    "equals": lambda wanted, answer: answer.text.strip() in {text.strip() for text in _texts(wanted)},
    "contains": lambda wanted, answer: all(text in answer.text for text in _texts(wanted)),
    "regex": lambda wanted, answer: re.search(wanted, answer.text) is not None,
    "number": _number,
    "valid_json": lambda _, answer: _parsed(answer.text)[0],
    "json_schema": _fits,
    "max_chars": lambda wanted, answer: len(answer.text) <= wanted,
    "tool_call": _calls,
}
