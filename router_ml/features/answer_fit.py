"""Answer block: is it the kind of answer that was asked for: an option, a number, JSON, code, a list, yes or no."""

from __future__ import annotations

import json
import re
from math import log1p, nan
from typing import NamedTuple

from router_ml.features.answer_view import AnswerView, Number, numbers_of

__all__ = ["COLUMNS", "compute"]

_OPTION = re.compile(r"^[ \t]*\(?([A-Z])[.):][ \t]+(\S.*)$", re.MULTILINE)
_MIN_OPTIONS, _MAX_OPTIONS = 2, 26
_MAX_OPTION_CHARS = 300
_LETTER = re.compile(r"(?<![A-Za-z'])\(?\**([A-Z])\**(?![A-Za-z'])")
# Outside of an announcement "I" and "A" are words more often than options.
_LETTER_ALONE = re.compile(_LETTER.pattern + r"(?! [a-z])")
_LONE_LETTER = re.compile(r"\(([A-Z])\)")
_WORD = re.compile(r"\w{4,}")
_ASKS_NUMBER = (
    *("how many", "how much", "how long", "how far", "how old", "what is the total", "calculate", "compute"),
    *("what percent", "wie viel", "wie lange", "berechne", "combien", "calcule", "cuánt", "quanto", "quant"),
    *("多少", "几", "いくつ"),
)
_ASKS_CODE = ("code", "function", "script", "python", "javascript", "sql", "regex", "program")
_ASKS_LIST = ("list ", "steps", "bullet", "liste", "lista", "schritte", "列出")
_YES_NO = ("is ", "are ", "does ", "do ", "did ", "can ", "was ", "were ", "will ", "has ", "have ", "should ")
_YES = (
    "yes",
    "no",
    "true",
    "false",
    "ja",
    "nein",
    "oui",
    "non",
    "sí",
    "si",
    "sim",
    "não",
    "是",
    "不",
    "はい",
    "いいえ",
)

COLUMNS: tuple[str, ...] = (
    "announced",
    "after_announcement",
    "log_conclusion_words",
    "asks_number",
    "number_missing",
    "asks_json",
    "is_json",
    "json_keys",
    "asks_code",
    "code_missing",
    "asks_list",
    "list_missing",
    "asks_yes_no",
    "yes_no_missing",
    "asks_option",
    "log_options",
    "option_named",
    "option_offered",
    "option_rank",
    "options_mentioned",
    "option_changed",
    "option_text_said",
    "option_text_lead",
    "option_number_gap",
    "option_number_exact",
    "option_number_nearest",
    "option_number_said",
    "option_is_outlier",
)


class _Chosen(NamedTuple):
    letter: str
    options: dict[str, str]


def compute(view: AnswerView) -> list[float]:
    """Return one value per column; NaN for what does not apply to this request."""
    asked = view.asked.asked.lower()
    text = view.text
    announced = view.announced >= 0
    after = 1.0 - view.announced / max(len(text), 1) if announced else nan
    values = [float(announced), after, log1p(len(view.conclusion.split()))]
    asks_number = any(phrase in asked for phrase in _ASKS_NUMBER)
    values += [float(asks_number), float(asks_number and not _has_digit(view.conclusion))]
    values += _json(view, asked)
    asks_code, asks_list = any(word in asked for word in _ASKS_CODE), any(word in asked for word in _ASKS_LIST)
    listed = "\n-" in text or "\n*" in text or "\n1." in text or "\n2." in text
    values += [float(asks_code), float(asks_code and "```" not in text and "def " not in text)]
    values += [float(asks_list), float(asks_list and not listed)]
    asks_yes = asked.lstrip().startswith(_YES_NO)
    values += [float(asks_yes), float(asks_yes and not any(word in text[:80].lower() for word in _YES))]
    return values + _option(view)


def _has_digit(text: str) -> bool:
    return any(char.isdigit() for char in text)


def _json(view: AnswerView, asked: str) -> list[float]:
    form = view.asked.request.response_format or {}
    wanted = form.get("type") in ("json_object", "json_schema") or "json" in asked
    text = view.answer.text.strip()
    keys = -1.0
    if len(text) <= 50_000 and text[:1] in ("{", "[", "`"):
        try:
            value = json.loads(text.strip("`").removeprefix("json"))
            keys = float(min(len(value), 50)) if isinstance(value, dict | list) else 0.0
        except (ValueError, RecursionError):
            keys = -1.0
    return [float(wanted), float(keys >= 0), keys]


def _option(view: AnswerView) -> list[float]:
    options = {letter: body[:_MAX_OPTION_CHARS] for letter, body in _OPTION.findall(view.asked.asked)[:_MAX_OPTIONS]}
    if len(options) < _MIN_OPTIONS or "A" not in options:
        return [0.0, *[nan] * (len(COLUMNS) - COLUMNS.index("log_options"))]
    named = _LETTER.search(view.conclusion) if view.announced >= 0 else _last_letter(view)
    letter = named.group(1) if named else ""
    mentioned = set(_LONE_LETTER.findall(view.text)) & options.keys()
    values = [
        1.0,
        log1p(len(options)),
        float(bool(letter)),
        float(letter in options),
        (ord(letter) - ord("A")) / len(options) if letter in options else nan,
        float(len(mentioned)),
        float(bool(mentioned - {letter})),
    ]
    if letter not in options:
        return values + [nan] * (len(COLUMNS) - COLUMNS.index("option_text_said"))
    body = view.text if view.announced < 0 else view.text[: view.announced]
    chosen = _Chosen(letter, options)
    return values + _text_support(chosen, body) + _number_support(chosen, view, len(body))


def _last_letter(view: AnswerView) -> re.Match[str] | None:
    found = list(_LETTER_ALONE.finditer(view.conclusion))
    return found[-1] if found else None


def _text_support(chosen: _Chosen, body: str) -> list[float]:
    """Return the share of the chosen option's words that the reasoning says, and its lead over the best other one."""
    said = set(_WORD.findall(body.lower()))
    shares = {letter: _said_share(option, said) for letter, option in chosen.options.items()}
    mine = shares.pop(chosen.letter)
    others = [share for share in shares.values() if share == share]
    lead = mine - max(others) if others else nan
    return [mine, lead]


def _said_share(option: str, said: set[str]) -> float:
    words = set(_WORD.findall(option.lower()))
    return len(words & said) / len(words) if words else nan


def _number_support(chosen: _Chosen, view: AnswerView, end: int) -> list[float]:
    """Compare the chosen option's number with the numbers that the reasoning arrived at."""
    first = {letter: numbers[0].value for letter, body in chosen.options.items() if (numbers := numbers_of(body))}
    mine = first.get(chosen.letter)
    said = [number for number in view.said if number.end <= end]
    if mine is None or not said:
        return [nan] * 5
    values = {number.value for number in said}
    gap = _gap(mine, said[-1])
    others = [_gap(value, said[-1]) for letter, value in first.items() if letter != chosen.letter]
    ordered = sorted(first.values())
    outlier = float(mine in (ordered[0], ordered[-1])) if len(ordered) > 2 else nan
    nearest = float(gap <= min(others)) if others else nan
    return [min(gap, 3.0), float(gap < 1e-3), nearest, float(mine in values), outlier]


def _gap(value: float, number: Number) -> float:
    return abs(value - number.value) / max(abs(value), abs(number.value), 1e-9)
