"""An explanation as a person reads it: tables for figures, one sentence for everything else, no wider than asked."""

from __future__ import annotations

import textwrap

from router_ml.cli.output import table, width_of
from router_ml.explain import Explanation, QualityRange
from router_ml.schema import Decision, Plan

__all__ = ["explained"]

# A plan is worth more than its first tier alone by more than this, or it is none.
_SAME = 1e-9
_WIDEST = 120
_NARROWEST = 40
_MAX_NAME = 32
_MAX_PLANS = 6


def explained(head: str, decision: Decision, explanation: Explanation, *, relative: bool, width: int) -> str:
    """Return the text of `router-ml route --explain`.

    Args:
        head: The decision itself, a few lines.
        decision: The decision.
        explanation: What is behind it.
        relative: Whether its price is per cost of the dearest answer, and not per USD.
        width: Columns of the terminal.
    """
    parts = [
        _wrapped(head, width),
        _tiers(decision),
        _wrapped(_utility(decision, relative=relative), width),
        _plans(decision, explanation),
        _qualities(explanation),
        _features(decision, explanation, width),
        _wrapped(_rest(decision, explanation), width),
    ]
    return "\n\n".join(part for part in parts if part)


def _wrapped(text: str, width: int) -> str:
    columns = min(max(width, _NARROWEST), _WIDEST)
    return "\n".join(
        textwrap.fill(line, columns, subsequent_indent="  ", break_on_hyphens=False) for line in text.splitlines()
    )


def _tiers(decision: Decision) -> str:
    utility, cost = decision.utility, decision.expected_cost_usd
    rows = [
        [name, f"{p:.3f}", f"{cost[name]:.6f}", f"{utility[name]:.3f}", f"{share:.3f}"]
        for (name, p), share in zip(decision.adequacy.items(), decision.propensity.values(), strict=True)
    ]
    return table(["tier", "adequacy", "cost_usd", "utility", "propensity"], rows)


def _utility(decision: Decision, *, relative: bool) -> str:
    # The price is per USD, or per cost of the dearest answer to this very request.
    unit = (max(decision.expected_cost_usd.values()) if relative else 1.0) or 1.0
    alone = {
        name: p - decision.threshold / unit * decision.expected_cost_usd[name] for name, p in decision.adequacy.items()
    }
    cost = "cost / cost of the dearest tier" if relative else "cost_usd"
    single = f"adequacy - {decision.threshold:g} x {cost}"
    if all(decision.utility[name] <= worth + _SAME for name, worth in alone.items()):
        return f"utility = {single}"
    return (
        f"utility = worth of the best plan that begins with the tier: {single} where it answers alone, else its answer "
        "is judged, and a dearer tier answers instead, and is paid for too, where that is worth its price"
    )


def _plans(decision: Decision, explanation: Explanation) -> str:
    made = decision.plan if decision.judged else Plan(decision.tier)
    if all(one.plan.escalate_to is None and one.allowed for one in explanation.plans):
        return ""  # the tiers' own table says it all
    rows = [
        [_named(one.plan), f"{one.utility:.3f}", _remark(one.plan == made, allowed=one.allowed)]
        for one in explanation.plans[:_MAX_PLANS]
    ]
    return table(["plan", "utility", ""], rows)


def _remark(made: bool, *, allowed: bool) -> str:
    if made:
        return "made"
    return "" if allowed else "not allowed"


def _named(plan: Plan) -> str:
    return plan.first if plan.escalate_to is None else f"{plan.first}, judged, then {plan.escalate_to}"


def _qualities(explanation: Explanation) -> str:
    ranges = explanation.qualities
    if len(ranges) == 1:
        return f"every quality: {_named(ranges[0].plan)}"
    return table(["quality", "plan"], [[_range(one), _named(one.plan)] for one in ranges])


def _range(one: QualityRange) -> str:
    return f"up to {one.high:g}" if one.low == 0.0 else f"above {one.low:g}, to {one.high:g}"


def _features(decision: Decision, explanation: Explanation, width: int) -> str:
    if not explanation.contributions:
        return _wrapped("no single feature of this request changes what the model says of it", width)
    rows = [
        [_short(one.name), *(f"{one.change[name]:+.3f}" for name in decision.adequacy)]
        for one in explanation.contributions
    ]
    what = (
        "What each feature does to the adequacy of each tier, all else left as it is; a number is compared with its "
        "usual value. They do not add up."
    )
    return f"{_wrapped(what, width)}\n{table(['feature', *decision.adequacy], rows)}"


def _short(name: str) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in name)
    while width_of(shown) > _MAX_NAME:
        shown = f"{shown[:-2]}…" if shown.endswith("…") else f"{shown[:-1]}…"
    return shown


def _rest(decision: Decision, explanation: Explanation) -> str:
    return "\n".join((_knob(decision, explanation), _odds(explanation), _judges(explanation), *_range_of(explanation)))


def _knob(decision: Decision, explanation: Explanation) -> str:
    point, saving = explanation.frontier_point, explanation.saving
    if point is None or saving is None:
        return f"knob: quality {decision.quality:g} is above every tuned point, so cost does not count"
    saved = f"{saving * 100:.2g} % of the cost"
    return f"knob: quality {decision.quality:g} is kept by the tuned point {point:g}, which saved {saved}"


def _odds(explanation: Explanation) -> str:
    if explanation.exploration <= _SAME:
        return "exploration: none for this request"
    return f"exploration: a dearer tier answers with probability {explanation.exploration:.3g}"


def _judges(explanation: Explanation) -> str:
    who = "response checks and the bundle's verifier" if explanation.verifier else "response checks; no verifier"
    return f"judged by: {who}"


def _range_of(explanation: Explanation) -> list[str]:
    if not explanation.unusual:
        return []
    so = "still within what the model knows" if explanation.in_distribution else "too many: the safe tier answers"
    return [f"unusual: {', '.join(explanation.unusual)} ({so})"]
