"""The one object a program holds: `route` a request to a tier, `judge` what came back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import Bundle, Scores, load_bundle
from router_ml.checks import run_checks
from router_ml.config import Config, ExplorationSettings, PolicySettings, UseCase
from router_ml.constraints import NOTHING_SPECIAL, Circumstances, Context, eligible, needs_of
from router_ml.errors import ConfigError, RequestError
from router_ml.exploration import Background, beside
from router_ml.features import Features, featurize
from router_ml.features.answer import featurize_answer
from router_ml.features.view import RequestView, view_of
from router_ml.ladder import Ladder
from router_ml.plans import cost_factor
from router_ml.policy import Choice, Knobs, decide
from router_ml.registry import did_you_mean
from router_ml.schema import Answer, Decision, Plan, Request, Verdict
from router_ml.shelf import Shelf

__all__ = ["Router"]

_REMEMBERED_QUALITIES = 64
Spread: TypeAlias = tuple[tuple[float, ...], ...]


class Router:
    """Routes requests with one bundle under one configuration; holds no state that a request changes.

    Args:
        bundle: The verified bundle.
        policy: `[policy]` of the configuration.
        exploration: `[exploration]` of the configuration.
        use_cases: `[use_cases.*]`: the tiers and the time that a kind of request may use.
        ladder: Prices, models and limits that replace the bundle's, tier by tier.

    Raises:
        ConfigError: When ladder, safe tier or a use case name other tiers than the bundle was trained for.
    """

    def __init__(
        self,
        bundle: Bundle,
        policy: PolicySettings,
        exploration: ExplorationSettings,
        use_cases: Mapping[str, UseCase],
        ladder: Ladder | None = None,
    ) -> None:
        self.bundle = bundle
        self.ladder = _agreed(bundle, ladder)
        # Other prices may put the tiers in another order than the one the model scores them in.
        columns = [bundle.ladder.index(name) for name in self.ladder.names]
        self._columns = None if columns == list(range(len(columns))) else np.array(columns)
        plans = bundle.policy.plans
        self._spread = None if plans is None else tuple(tuple(plans.spread[s][t] for t in columns) for s in columns)
        self.knobs = _knobs(bundle, policy, exploration, self._spread, self.ladder)
        # Clients ask for a few qualities again and again.
        self._knobs_of = lru_cache(maxsize=_REMEMBERED_QUALITIES)(self._knobs_at)
        bounds = bundle.policy.bounds
        self._bounds = (
            None
            if bounds is None
            else (np.array(bounds.low, np.float32), np.array(bounds.high, np.float32), bounds.max_outside)
        )
        self._contexts = {name: _context(name, case, bundle) for name, case in use_cases.items()}

    @classmethod
    def load(cls, config: Config, path: Path | None = None) -> Router:
        """Load a bundle, make a router of it, and warm it up: the first real request is as fast as the others.

        Args:
            config: The configuration.
            path: The bundle's folder; None takes the champion, or the default bundle before the first promotion.

        Raises:
            BundleError: When the bundle cannot be used.
            ConfigError: When the configuration names other tiers than the bundle.
        """
        bundle = load_bundle(Shelf(config.models_dir).champion_path() if path is None else path)
        router = cls(bundle, config.policy, config.exploration, config.use_cases, config.ladder)
        nothing = Request(messages=())
        decision = router.route(nothing, decision_id="warm-up", rng=np.random.default_rng(0))
        router.judge(nothing, Answer("warm-up", None), decision=decision)
        return router

    def route(
        self,
        request: Request,
        *,
        decision_id: str,
        rng: np.random.Generator,
        quality: float | None = None,
        circumstances: Circumstances = NOTHING_SPECIAL,
    ) -> Decision:
        """Decide which tier answers.

        Args:
            request: What the client asked.
            decision_id: Name of this decision in the log.
            rng: Source of the exploration draw; the same state gives the same decision.
            quality: Share of the best tier's quality to keep for this request, in (0, 1]; None takes the configured.
            circumstances: What holds at this moment: health, the tenant's tiers, the session, measured latencies.

        Returns:
            The decision; only its `overhead_ms` differs between equal calls.

        Raises:
            RequestError: When `quality` is not in (0, 1].
        """
        started = time.perf_counter()
        knobs = self.knobs if quality is None else self._knobs_of(quality)
        view = view_of(request)
        features = featurize(request, view=view, bag=self.bundle.reads_bag)
        scores = self.bundle.score(features)
        choice = decide(
            scores if self._columns is None else self._in_order(scores, self._columns),
            self.ladder,
            knobs,
            needs_of(request, features),
            self._context(request, circumstances),
            rng,
            in_distribution=self.in_distribution(features),
        )
        return self._decision(choice, knobs, decision_id, started, (view, features, scores))

    def beside(
        self,
        request: Request,
        first: str,
        background: Background,
        *,
        circumstances: Circumstances = NOTHING_SPECIAL,
    ) -> tuple[tuple[str, ...], dict[str, float]]:
        """Return the tiers to run in the background of a request, and the probability of each to be its shadow.

        Nobody waits for them or is shown what they say, so latency budgets and floors do not count; every other rule
        does.

        Args:
            request: What the client asked.
            first: The tier that was drawn to answer first.
            background: The draw, made before the decision.
            circumstances: What held when the request was decided: health and the tenant's tiers count here.

        Returns:
            Names in the ladder's order, possibly none; the probabilities are empty where none was drawn, as in audits.
        """
        case = self._contexts.get(request.use_case or "", _ANY)
        now = Circumstances(unhealthy=circumstances.unhealthy, allowed=circumstances.allowed)
        context = Context(allowed=case.allowed, now=now)
        mask, _ = eligible(needs_of(request, featurize(request, bag=False)), self.ladder, context)
        names = self.ladder.names
        tiers, propensity = beside(background, self.ladder.index(first), mask)
        drawn = {name: p for name, p in zip(names, propensity, strict=True) if p > 0.0}
        return tuple(names[i] for i in tiers), drawn

    def judge(
        self, request: Request, answer: Answer, *, decision: Decision | None = None, tier: str | None = None
    ) -> Verdict | None:
        """Judge an answer: by the response checks, whose refusal is final, then by the bundle's verifier if it has one.

        The verifier needs to know who answered. Its score is v, the chance that the answer is adequate; it is found
        adequate when the decision's plan has a tier to jump to and that one is not worth its price any more. Where
        there is nobody to jump to, or the decision was tuned without judging answers, only the score is given.

        Args:
            request: What was asked.
            answer: What came back.
            decision: The decision that led to it; None judges outside of any plan.
            tier: Name of the tier that answered; None: the one that the decision planned first.

        Returns:
            The verdict; None when no rule fires and no verifier can say more, which is not yet approval.
        """
        reason = run_checks(request, answer)
        if reason is not None:
            return Verdict(adequate=False, source="rule", reason=reason)
        name = tier or (decision.plan.first if decision is not None else None)
        verifier = self.bundle.verifier
        if verifier is None or name not in self.bundle.ladder.names[:-1]:
            return None
        names = self.bundle.ladder.names
        asked, scores = self._basis(request, decision)
        position = names.index(name)
        expected = float(scores.output_tokens[position])
        features = featurize_answer(request, answer, expected_tokens=expected, asked=asked, passed=True)
        posterior = verifier.posterior(features, scores.adequacy, position)
        if not np.isfinite(posterior).all():  # a request without a usable score has no usable judgement either
            return None
        spent = nan if answer.output_tokens is None else self._spent(name, scores.input_tokens, answer.output_tokens)
        return self._verdict(dict(zip(names, posterior.tolist(), strict=True)), name, spent, decision)

    def _basis(self, request: Request, decision: Decision | None) -> tuple[RequestView, Scores]:
        # What the decision looked at, so that a request is not read and scored twice.
        basis = None if decision is None else decision.basis
        if isinstance(basis, tuple):
            asked, _, scores = basis
            return asked, scores
        asked = view_of(request)
        return asked, self.bundle.score(featurize(request, view=asked, bag=self.bundle.reads_bag))

    def _verdict(self, chances: Mapping[str, float], name: str, spent: float, decision: Decision | None) -> Verdict:
        """Keep or refuse an answer of tier `name` by the stopping rule: what it cost is sunk, the next one is not.

        What it cost, `spent` USD, still says something of what the next one will (NaN: unknown).
        """
        v = min(max(chances[name], 0.0), 1.0)
        then = decision.plan.escalate_to if decision is not None and decision.plan.first == name else None
        if decision is None or then is None or not self._judges_at(decision.quality):
            return Verdict(score=v, source="verifier")
        costs = decision.expected_cost_usd
        usd_price = decision.usd_price
        if usd_price is None:  # a decision that was put together by hand
            scale = max(costs.values()) if self.bundle.policy.price_unit == "relative" else 1.0
            usd_price = decision.threshold / (scale or 1.0)
        priced = usd_price * costs[then] * self._factor(name, then, spent, costs[name])
        stays = chances[then] - priced <= v
        facts = f"adequate with probability {v:.2f}; {then} would be at {chances[then]:.2f} for {costs[then]:.2g} USD"
        return Verdict(adequate=stays, score=v, source="verifier", reason=f"verifier: {facts}")

    def _spent(self, name: str, input_tokens: float, output_tokens: int) -> float:
        return self.ladder.tier(name).cost_usd(round(input_tokens), output_tokens)

    def _factor(self, name: str, then: str, spent: float, expected: float) -> float:
        plans, ladder = self.bundle.policy.plans, self.bundle.ladder
        if plans is None or plans.elasticity is None or plans.shift is None:
            return 1.0
        s, t = ladder.index(name), ladder.index(then)
        bend = 0.0 if plans.curvature is None else plans.curvature[s][t]
        now, before = np.array(spent), np.array(expected)
        return float(cost_factor(now, before, plans.elasticity[s][t], plans.shift[s][t], bend))

    def _judges_at(self, quality: float) -> bool:
        return self.bundle.policy.operating(quality, attempts=self.knobs.max_attempts)[1]

    def in_distribution(self, features: Features) -> bool:
        """Return whether the features are within the usual range of the training data (True when it is unknown)."""
        if self._bounds is None:
            return True
        low, high, max_outside = self._bounds
        inside = (features.dense >= low) & (features.dense <= high)
        return bool(inside.size - np.count_nonzero(inside) <= max_outside)

    def _context(self, request: Request, circumstances: Circumstances) -> Context:
        case = self._contexts.get(request.use_case or "", _ANY)
        if circumstances is NOTHING_SPECIAL:
            return case
        return Context(case.allowed, case.ttft_ms, case.total_ms, circumstances)

    @staticmethod
    def _in_order(scores: Scores, columns: NDArray[np.intp]) -> Scores:
        return Scores(scores.adequacy[columns], scores.output_tokens[columns], scores.input_tokens)

    def _knobs_at(self, quality: float) -> Knobs:
        if not 0.0 < quality <= 1.0:
            hint = f" (did you mean {quality / 100:g}?)" if 1.0 < quality <= 100.0 else ""
            raise RequestError(f"quality: expected a share in (0, 1], got {quality:g}{hint}", param="quality")
        policy = self.bundle.policy
        price, judged = policy.operating(quality, attempts=self.knobs.max_attempts)
        price *= policy.price_scale(self.ladder)
        return replace(self.knobs, quality=quality, shadow_price=price, spread=self._spread if judged else None)

    def _decision(
        self,
        choice: Choice,
        knobs: Knobs,
        decision_id: str,
        started: float,
        basis: tuple[RequestView, Features, Scores],
    ) -> Decision:
        names, tier = self.ladder.names, self.ladder.tiers[choice.index]
        return Decision(
            decision_id=decision_id,
            tier=tier.name,
            model=tier.model,
            plan=Plan(
                tier.name,
                None if choice.escalate_to is None else names[choice.escalate_to],
                None if choice.on_error is None else names[choice.on_error],
            ),
            policy_version=self.bundle.manifest.version,
            adequacy=dict(zip(names, choice.adequacy, strict=True)),
            expected_cost_usd=dict(zip(names, choice.expected_cost_usd, strict=True)),
            propensity=dict(zip(names, choice.propensity, strict=True)),
            quality=knobs.quality,
            threshold=knobs.shadow_price,
            explored=choice.explored,
            reason=choice.reason,
            constraints_applied=choice.constraints,
            overhead_ms=(time.perf_counter() - started) * 1e3,
            judged=choice.judged,
            utility=dict(zip(names, choice.utility, strict=True)),
            may_hold=choice.may_hold,
            usd_price=choice.usd_price,
            planned=names[choice.planned] if choice.explored else None,
            basis=basis,
        )


_ANY = Context()


def _agreed(bundle: Bundle, ladder: Ladder | None) -> Ladder:
    if ladder is None:
        return bundle.ladder
    if set(ladder.names) != set(bundle.ladder.names):
        message = (
            f"the configuration has the tiers {', '.join(ladder.names)}, the bundle {bundle.version} was trained for "
            f"{', '.join(bundle.ladder.names)}; rename the tiers in router.toml, or train a bundle for them"
        )
        raise ConfigError(message)
    return ladder


def _knobs(
    bundle: Bundle, policy: PolicySettings, exploration: ExplorationSettings, spread: Spread | None, ladder: Ladder
) -> Knobs:
    if policy.safe_tier is not None:
        _require_tiers("policy.safe_tier", (policy.safe_tier,), bundle)
    price, judged = bundle.policy.operating(policy.quality, attempts=policy.max_attempts)
    return Knobs(
        quality=policy.quality,
        shadow_price=price * bundle.policy.price_scale(ladder),
        explore_up=exploration.up,
        max_attempts=policy.max_attempts,
        safe_tier=policy.safe_tier or bundle.policy.best_tier,
        best_tier=bundle.policy.best_tier,
        price_unit=bundle.policy.price_unit,
        spread=spread if judged else None,
    )


def _context(name: str, case: UseCase, bundle: Bundle) -> Context:
    _require_tiers(f"use_cases.{name}.tiers", case.tiers or (), bundle)
    return Context(
        allowed=None if case.tiers is None else frozenset(case.tiers),
        ttft_ms=case.ttft_ms,
        total_ms=case.total_ms,
    )


def _require_tiers(key: str, named: Sequence[str], bundle: Bundle) -> None:
    known = bundle.ladder.names
    for name in named:
        if name not in known:
            hint = did_you_mean(name, list(known))
            raise ConfigError(
                f"{key}: the bundle {bundle.version} has no tier '{name}'{hint}; tiers: {', '.join(known)}"
            )
