"""Answer block: its numbers and calculations: where they come from, and whether they are right."""

# ruff: noqa: RUF001 - another sign for minus

from __future__ import annotations

from math import log1p, log10, nan

from router_ml.features.answer_sums import Sum, sums_of
from router_ml.features.answer_view import AnswerView, Number, numbers_of

__all__ = ["COLUMNS", "compute"]

# Numbers that a request gives in words, and units whose size everybody knows.
_IN_WORDS: dict[str, tuple[float, ...]] = {
    "half": (2.0, 0.5, 50.0),
    "halves": (2.0, 0.5),
    "quarter": (4.0, 0.25, 25.0),
    "third": (3.0,),
    "twice": (2.0,),
    "double": (2.0,),
    "triple": (3.0,),
    "thrice": (3.0,),
    "dozen": (12.0,),
    "one": (1.0,),
    "two": (2.0,),
    "three": (3.0,),
    "four": (4.0,),
    "five": (5.0,),
    "six": (6.0,),
    "seven": (7.0,),
    "eight": (8.0,),
    "nine": (9.0,),
    "ten": (10.0,),
    "week": (7.0,),
    "day": (24.0, 7.0),
    "year": (12.0, 365.0, 52.0),
    "month": (30.0, 12.0, 4.0),
    "hour": (60.0, 24.0),
    "minute": (60.0,),
    "percent": (100.0,),
    "foot": (12.0,),
    "feet": (12.0, 3.0),
    "inch": (12.0,),
    "cent": (100.0,),
    "quarters": (0.25, 25.0),
    "dime": (10.0, 0.1),
    "nickel": (5.0, 0.05),
}
_ALWAYS = frozenset((0.0, 1.0, 2.0, 100.0))
_REACH = 12

COLUMNS: tuple[str, ...] = (
    "log_given",
    "log_said",
    "unused_given",
    "used_given_share",
    "new_number_share",
    "new_numbers",
    "log_sums",
    "wrong_sums",
    "wrong_sum_share",
    "last_sum_wrong",
    "ungrounded_operands",
    "ungrounded_share",
    "largest_operands",
    *(f"log_{name}" for name in ("additions", "subtractions", "products", "quotients")),
    "sums_per_given",
    "given_not_in_sums",
    "given_in_sums_share",
    "dangling_results",
    "negative_results",
    "given_as_result",
    "final_from_sum",
    "has_final",
    "log_final",
    "final_decimals",
    "final_is_whole",
    "final_negative",
    "final_is_given",
    "final_is_last_sum",
    "final_said_before",
    "final_over_largest_given",
    "most_decimals",
    "fraction_results",
)


def compute(view: AnswerView) -> list[float]:
    """Return one value per column; NaN for what a missing final number leaves unknown."""
    given = {number.value for number in view.given}
    said = {number.value for number in view.said}
    sums = sums_of(view.text)
    unused = sum(1 for value in given if value not in said)
    results = {one.written for one in sums}
    known = given | _spelled(view) | _ALWAYS
    new = sum(1 for value in said if value not in known and value not in results)
    wrong = sum(one.wrong for one in sums)
    ungrounded, operands = _ungrounded(sums, known)
    values = [
        log1p(len(given)),
        log1p(len(said)),
        float(min(unused, 20)),
        1.0 - unused / len(given) if given else nan,
        new / len(said) if said else nan,
        float(min(new, 30)),
        log1p(len(sums)),
        float(wrong),
        wrong / len(sums) if sums else nan,
        float(sums[-1].wrong) if sums else nan,
        float(ungrounded),
        ungrounded / operands if operands else nan,
        float(max((len(one.operands) for one in sums), default=0)),
    ]
    final = _final_number(view)
    return values + _flow(sums, given, final) + _final(view, sums, given, final)


def _flow(sums: tuple[Sum, ...], given: set[float], final: tuple[Number, int] | None) -> list[float]:
    """Say which operations are used, which numbers of the request enter them, and whether each result leads on."""
    operators = "".join(one.operators for one in sums)
    counts = [log1p(operators.count(operator)) for operator in "+-*/"]
    used = {value for one in sums for value in one.operands}
    aside = sum(1 for value in given if value not in used)
    end = final[0].value if final is not None else nan
    dangling, later = 0, {end}
    for one in reversed(sums):
        dangling += one.written not in later
        later.update(one.operands)
        later.add(one.written)
    return [
        *counts,
        len(sums) / (1.0 + len(given)),
        float(min(aside, 20)),
        1.0 - aside / len(given) if given else nan,
        float(dangling),
        float(sum(1 for one in sums if one.computed < 0)),
        float(sum(1 for one in sums if one.written in given)),
        float(any(one.written == end for one in sums)) if sums else nan,
    ]


def _spelled(view: AnswerView) -> set[float]:
    lowered = view.asked.asked.lower()
    return {value for word, values in _IN_WORDS.items() if word in lowered for value in values}


def _ungrounded(sums: tuple[Sum, ...], known: set[float]) -> tuple[int, int]:
    """Count operands that are neither known nor the result of an earlier calculation."""
    seen = set(known)
    ungrounded = operands = 0
    for one in sums:
        operands += len(one.operands)
        ungrounded += sum(
            1 for value in one.operands if value not in seen and value / 100 not in seen and value * 100 not in seen
        )
        seen.add(one.written)
        seen.update(one.operands)
    return ungrounded, operands


def _final(view: AnswerView, sums: tuple[Sum, ...], given: set[float], final: tuple[Number, int] | None) -> list[float]:
    decimals = max((number.decimals for number in view.said), default=0)
    fractions = sum(1 for one in sums if one.written != int(one.written)) if sums else 0
    if final is None:
        return [0.0, *[nan] * 8, float(min(decimals, 8)), float(fractions)]
    number, sign = final
    earlier = view.said[:-1] if view.announced < 0 else [one for one in view.said if one.start < view.announced]
    largest = max((abs(value) for value in given), default=0.0)
    return [
        1.0,
        log10(1.0 + number.value),
        float(min(number.decimals, 8)),
        float(number.value == int(number.value)),
        float(sign < 0),
        float(number.value in given),
        float(sums[-1].written == number.value) if sums else nan,
        float(sum(1 for one in earlier if one.value == number.value)),
        log10((1.0 + number.value) / (1.0 + largest)),
        float(min(decimals, 8)),
        float(fractions),
    ]


def _final_number(view: AnswerView) -> tuple[Number, int] | None:
    """Return the first number after the marker, else the last of the answer, with its sign."""
    if view.announced >= 0:
        after = numbers_of(view.conclusion)
        if not after:
            return None
        before = view.conclusion[: after[0].start].rstrip("$ ")
        return after[0], -1 if before.endswith(("-", "−")) else 1
    if not view.said:
        return None
    last = view.said[-1]
    before = view.text[max(last.start - _REACH, 0) : last.start].rstrip("$ ")
    return last, -1 if before.endswith(("(-", " -", "=-", "= -", "−")) else 1
