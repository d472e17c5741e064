"""Gates about what the challenger is worth: proven, no worse, in agreement with the log, everywhere."""

from __future__ import annotations

import math

import numpy as np

from router_ml.errors import DataError
from router_ml_training.evaluation.compare import standard_error
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.gates import GateLine
from router_ml_training.offpolicy_report import offpolicy_report
from router_ml_training.retrain.gating import GateCase
from router_ml_training.slice_figures import ALL

__all__ = ["calibration", "certificate", "off_policy", "saving", "slices"]

# Fewer than this show no slice, and no calibration: chance alone moves both past any limit. Of models that are
# calibrated a fifth are off by 0.1 beyond their interval on 100 outcomes, and none on 200.
_ENOUGH, _ENOUGH_OUTCOMES = 100, 200
# Two estimates that differ by more standard errors than this contradict each other.
_ERRORS = 3.0
_NORMAL = 1.959964


def certificate(case: GateCase) -> GateLine:
    """Quality is certified at what the policy is asked for, or at what the champion's certificate says."""
    asked, found = case.run.assessment.quality, case.run.certification.certificate
    theirs = _certified_quality(case)
    limit = asked if theirs is None else max(asked, theirs)
    if found is None or not case.run.certification.beyond_constant:
        return GateLine("certificate", False, case.run.certification.verdict, None, limit)
    # The bolder the point, the lower its quality: everything safer than it is certified too.
    value = found.point.quality
    if value <= limit + 1e-9:
        return GateLine("certificate", True, case.run.certification.verdict, value, limit)
    detail = f"certified from quality {value:g} upwards only, and the policy is asked for {asked:g}"
    if theirs is not None:
        detail += f" (the champion is certified from {theirs:g})"
    return GateLine("certificate", False, detail, value, limit)


def saving(case: GateCase) -> GateLine:
    """The challenger is not worse than the champion on the same held-out rows; see `gate.compare`."""
    found, spent = case.comparison, case.comparison.spent
    if spent is None:
        return GateLine("saving", found.passed, found.reason)
    low, high = (-spent.mean + sign * _NORMAL * spent.standard_error for sign in (-1.0, 1.0))
    said = f"it saves {100 * -spent.mean:+.1f} points of the bill against it ({100 * low:+.1f} to {100 * high:+.1f})"
    return GateLine("saving", found.passed, f"{found.reason}; {said}", -spent.mean, None)


def off_policy(case: GateCase) -> GateLine:
    """What the log's own policy and propensities say of the first choices agrees with the held-out outcomes."""
    test, policy, quality = case.run.trained.test, case.run.trained.policy, case.run.assessment.quality
    try:
        found = offpolicy_report(test, policy, quality=quality)
    except DataError as error:
        return GateLine("off_policy", False, f"no off-policy estimate: {error}")
    estimate = found.quality.figures["dr"]
    if found.quality.overlap.reason is not None or estimate.value is None:
        reason = found.quality.overlap.reason or estimate.reason
        return GateLine("off_policy", False, f"the off-policy estimate is refused: {reason}")
    outcomes, rows = test.outcomes()
    replayed = outcomes.quality[np.arange(len(rows)), test.first(policy, quality)[rows]]
    group = test.dataset.group[rows]
    noise = standard_error(replayed, group) if len(np.unique(group)) > 1 else math.inf
    gap = abs(estimate.value - float(replayed.mean()))
    allowed = _ERRORS * math.hypot(_error_of(estimate), noise)
    verb = "agrees with" if gap <= allowed else "contradicts"
    detail = f"doubly robust {estimate.value:.4f} {verb} {float(replayed.mean()):.4f} on held-out outcomes"
    return GateLine("off_policy", gap <= allowed, detail, gap, allowed)


def calibration(case: GateCase) -> GateLine:
    """No tier's adequacy is further from what happened than the limit, beyond noise."""
    found = case.run.assessment
    errors = {
        tier: figures["ece"]
        for tier, figures in found.calibration.items()
        if float(found.reliability[tier].count.sum()) >= _ENOUGH_OUTCOMES and figures["ece"].value is not None
    }
    limit = case.limits.max_ece
    if not errors:
        return GateLine(
            "calibration", True, f"no tier has {_ENOUGH_OUTCOMES} held-out outcomes to judge by", None, limit
        )
    tier, worst = max(errors.items(), key=lambda one: _least(one[1]))
    ok = _least(worst) <= limit
    value = float(worst.value or 0.0)
    detail = f"'{tier}' is off by {value:.3f} (at least {_least(worst):.3f}), the worst tier of {len(errors)}"
    return GateLine("calibration", ok, detail, value, limit)


def slices(case: GateCase) -> GateLine:
    """No slice of the traffic loses more than the limit on top of what the quality asked for allows, beyond noise."""
    found = case.run.assessment
    limit = 1.0 - found.quality + case.limits.max_slice_loss
    judged = {
        one.name: 1.0 - one.quality_kept.high
        for one in found.slices
        if one.name != ALL and one.n >= _ENOUGH and one.quality_kept.high is not None
    }
    if not judged:
        return GateLine("slices", True, f"no slice has {_ENOUGH} held-out requests to judge by", None, limit)
    name, least = max(judged.items(), key=lambda one: one[1])
    kept = next(one.quality_kept.value for one in found.slices if one.name == name)
    lost = 1.0 - float(kept or 0.0)
    shown, least_shown = (round(100 * share, 1) + 0.0 for share in (lost, least))  # + 0.0: never "-0.0 %"
    detail = f"'{name}' loses {shown:.1f} % (at least {least_shown:.1f} %), the worst slice of {len(judged)}"
    return GateLine("slices", least <= limit, detail, lost, limit)


def _certified_quality(case: GateCase) -> float | None:
    theirs = None if case.champion is None else case.champion.manifest.certificate
    quality = None if theirs is None or not theirs.get("beyond_constant") else theirs.get("quality")
    return float(quality) if isinstance(quality, (int, float)) else None


def _least(figure: Figure) -> float:
    return float(figure.value or 0.0) if figure.low is None else figure.low


def _error_of(figure: Figure) -> float:
    if figure.low is None or figure.high is None:
        return math.inf
    return (figure.high - figure.low) / (2.0 * _NORMAL)
