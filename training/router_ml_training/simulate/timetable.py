"""Who asks when: sessions of tenants with features, spread over days, with a mix that drifts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.random import Generator

from router_ml_training.simulate.company import FEATURES, LANGUAGES, TENANTS, Company

__all__ = ["Call", "timetable"]

# Requests by hour of the day, UTC: a European working day with some of the rest of the world around it.
_HOURS = np.array([1, 1, 1, 1, 1, 2, 4, 7, 10, 11, 11, 10, 9, 10, 11, 11, 10, 8, 5, 4, 3, 3, 2, 1], np.float64)
_LONGEST_SESSION = 6


@dataclass(frozen=True, slots=True)
class Call:
    """One request before it is written: numbers of its parts in the company, and its place in time.

    `progress` runs from 0 at the start of the workload to 1 at its end; `turn` counts from 0 within the session.
    """

    session: int
    turn: int
    tenant: int
    feature: int
    template: int
    language: str
    ts: datetime
    progress: float


def timetable(n: int, company: Company, *, start: datetime, days: int, rng: Generator) -> list[Call]:
    """Draw sessions until they hold n requests, and return these in order of time."""
    calls: list[Call] = []
    session = 0
    while len(calls) < n:
        calls += _session(session, company, start, days, rng)
        session += 1
    return sorted(calls[:n], key=lambda call: (call.ts, call.session, call.turn))


def _session(session: int, company: Company, start: datetime, days: int, rng: Generator) -> list[Call]:
    hour = rng.choice(24, p=_HOURS / _HOURS.sum())
    day = int(rng.integers(days))
    ts = start + timedelta(days=day, hours=int(hour), seconds=float(rng.uniform(0, 3600)))
    progress = (ts - start) / timedelta(days=days)
    tenant = int(rng.choice(len(TENANTS), p=np.array([tenant.share for tenant in TENANTS])))
    # `share` is of the requests, so features with long sessions start fewer of them.
    mix = np.array([feature.share / feature.turns * np.exp(feature.trend * progress) for feature in FEATURES])
    feature = int(rng.choice(len(FEATURES), p=mix / mix.sum()))
    live = np.array([template.live_from <= progress for template in company.templates[feature]])
    weights = company.weights[feature] * live
    template = int(rng.choice(len(weights), p=weights / weights.sum()))
    language = LANGUAGES[rng.choice(len(LANGUAGES), p=np.array(TENANTS[tenant].languages))]
    turns = min(int(rng.geometric(1 / FEATURES[feature].turns)), _LONGEST_SESSION)
    pauses = np.concatenate(([0.0], np.cumsum(rng.uniform(30, 300, turns - 1))))
    return [
        Call(session, turn, tenant, feature, template, language, ts + timedelta(seconds=float(pauses[turn])), progress)
        for turn in range(turns)
    ]
