"""The service's decisions on known outcomes, without the service: route, judge the answer, escalate, add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.router import Router
from router_ml.schema import Answer, Plan
from router_ml_training.simulate.outcomes import OutcomeTable

__all__ = ["Replay", "replay"]

F64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Replay:
    """What every request would have got: `quality`, `cost_usd` (all attempts), `column` (who answered), (n,) each."""

    quality: F64
    cost_usd: F64
    column: NDArray[np.intp]
    escalated: NDArray[np.bool_]


def replay(router: Router, table: OutcomeTable, *, rng: np.random.Generator) -> Replay:
    """Replay every prompt of a table through a router.

    Args:
        router: Decides and judges as the service would.
        table: What every tier would have answered.
        rng: For exploration.
    """
    n = len(table)
    quality, cost = np.empty(n), np.zeros(n)
    column, escalated = np.empty(n, np.intp), np.zeros(n, np.bool_)
    finish = table.cells("finish_reason")
    for i, request in enumerate(table.requests):
        decision = router.route(request, decision_id=str(i), rng=rng)
        for position, name in enumerate(_order(decision.plan)):
            t = table.tiers.index(name)
            cost[i] += table.cost_usd[i, t]
            column[i], escalated[i] = t, position > 0
            text = table.responses[i, t]
            answer = Answer(text or "", finish[i, t] or "stop", (), int(table.output_tokens[i, t]))
            # A table without answers has nothing to judge.
            verdict = None if text is None else router.judge(request, answer, decision=decision, tier=name)
            if verdict is None or verdict.adequate is not False:
                break
        quality[i] = table.quality[i, column[i]]
    return Replay(quality, cost, column, escalated)


def _order(plan: Plan) -> list[str]:
    return [plan.first] if plan.escalate_to is None else [plan.first, plan.escalate_to]
