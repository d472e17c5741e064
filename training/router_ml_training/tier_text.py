"""What `router-ml tiers` says: of a tier that has joined, of a policy that was solved again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from router_ml.bundle import Bundle, PolicySpec
from router_ml.cli.output import table
from router_ml_training.evaluation.bounds import units_needed
from router_ml_training.joining import Joined, Verdict
from router_ml_training.repricing import Solved

__all__ = ["joined_record", "joined_text", "kept_table", "left_out", "quality_record", "solved_on"]

_SHOWN = (1.0, 0.97, 0.95, 0.9)
_FEW, _MANY = 200, 1000
# What `router-ml certify` asks for by default.
_LOSS, _CONFIDENCE = 0.03, 0.95


def quality_record(joined: Joined) -> dict[str, float | None]:
    """Return the new tier's mean quality and its interval."""
    figure = joined.quality
    return {"value": figure.value, "low": figure.low, "high": figure.high}


def joined_record(joined: Joined, verdict: Verdict) -> dict[str, Any]:
    """Return what is known of a tier that has joined, as JSON."""
    fitted = joined.fitted
    return {
        "tier": joined.name,
        "ladder": list(joined.ladder.names),
        "n_outcomes": joined.n_rows,
        "quality": quality_record(joined),
        "log_loss": {
            "head": fitted.loss,
            "mean_alone": fitted.constant_loss,
            "neighbour": fitted.neighbour_loss,
            "neighbour_tier": joined.neighbour,
        },
        "learned": fitted.learned,
        "answer_length": {"of": joined.length_of, "ratio": joined.lengths.ratio, "n": joined.lengths.n_rows},
        "parity": joined.parity,
        "policy": {"n_rows": joined.solved.n_rows, "estimated": joined.solved.estimated},
        "frontier": [point.model_dump() for point in joined.solved.policy.frontier],
        "gate": asdict(verdict),
        "certificate_needs": units_needed(_LOSS, _CONFIDENCE, test="betting"),
    }


def joined_text(joined: Joined, verdict: Verdict) -> str:
    """Return what is known of a tier that has joined, for people."""
    at = joined.ladder.index(joined.name) + 1
    lines = [f"{joined.name} is tier {at} of {len(joined.ladder)} ({', '.join(joined.ladder.names)})"]
    rows = _rows(joined, verdict)
    width = max(len(name) for name, _ in rows)
    lines += [f"  {name:<{width}}  {said}" for name, said in rows]
    if not joined.fitted.learned:
        lines.append(f"No request could be told from another: the head of {joined.name} is its mean for now.")
    if joined.solved.n_rows < _MANY:
        lines.append(
            f"A frontier solved on {joined.solved.n_rows} requests is cautious: when there are more outcomes, "
            "`router-ml tiers reprice --log LOG` solves it again."
        )
    if joined.n_rows < _FEW:
        lines.append(f"{joined.n_rows} outcomes are few: from 300 on the head is worth most of a full retraining.")
    return "\n".join(lines)


def _rows(joined: Joined, verdict: Verdict) -> list[tuple[str, str]]:
    fitted, figure, lengths = joined.fitted, joined.quality, joined.lengths
    needed = units_needed(_LOSS, _CONFIDENCE, test="betting")
    known = f"from {lengths.n_rows} answers" if lengths.n_rows else "a guess: no answer's length is known"
    return [
        ("quality", f"{figure.value:.3f} ({_end(figure.low)} to {_end(figure.high)}) on {_others(joined)}"),
        (
            "log loss",
            f"{fitted.loss:.3f} on requests its head had not seen; {joined.neighbour}'s scores, calibrated, would have "
            f"{fitted.neighbour_loss:.3f}, its mean alone {fitted.constant_loss:.3f}",
        ),
        ("answer length", f"{lengths.ratio:.2f} of {joined.length_of}'s, {known}"),
        ("policy", solved_on(joined.solved)),
        ("gate", f"{'passed' if verdict.passed else 'not passed'}: {verdict.reason}"),
        (
            "certificate",
            f"none yet: `router-ml certify` needs at least {needed} later requests on which every tier was run to "
            f"prove a loss of at most {100 * _LOSS:g} %, and thousands where the policy is bold",
        ),
    ]


def _others(joined: Joined) -> str:
    dataset = joined.scored.dataset
    known = {
        name: column[~np.isnan(column)] for name, column in zip(dataset.tiers, dataset.free_quality.T, strict=True)
    }
    said = [f"{name} {values.mean():.3f}" for name, values in known.items() if name != joined.name and len(values)]
    return f"{joined.n_rows} requests; in this log {', '.join(said) or 'no other tier is judged'}"


def solved_on(solved: Solved) -> str:
    """Return what a policy was solved on."""
    if solved.estimated:
        return (
            f"solved on {solved.n_rows} requests, of which {solved.n_complete} have every outcome; the model's own "
            "opinion stands in for the others, so what it promises is an estimate"
        )
    return f"solved on {solved.n_rows} requests with every outcome known"


def kept_table(policy: PolicySpec) -> str:
    """Return the table of the qualities that a policy keeps and what it saves there."""
    points = [point for point in policy.frontier if point.quality in _SHOWN]
    if not points:
        return f"no quality is promised below that of {policy.best_tier}: keep the constant model"
    if policy.best_tier == policy.tiers[0].name:
        return (
            f"{policy.best_tier} is the best tier and the cheapest: there is nothing to save; keep the constant model"
        )
    rows = [(f"{point.quality:g}", f"{100 * point.saving:.1f} %", f"{point.shadow_price:.4g}") for point in points]
    return table(("quality", "saving", "price"), rows)


def left_out(bundle: Bundle, policy: PolicySpec, *, verifier: bool) -> list[str]:
    """Return what a bundle had that the one made from it has not, a sentence each.

    Args:
        bundle: The one before.
        policy: Of the one after.
        verifier: Whether the one after has the verifier.
    """
    lost = []
    if bundle.verifier is not None and not verifier:
        lost.append("The verifier is left out: it was learned for other tiers, or another order of them.")
    if bundle.policy.plans is not None and policy.plans is None:
        lost.append("Plans of two attempts are left out: these outcomes cannot tell what they are worth.")
    return [f"{sentence} A retraining brings it back." for sentence in lost]


def _end(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"
