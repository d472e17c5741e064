"""What a trained router is worth on rows it has never seen: curves, figures with intervals, strategies, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import PolicySpec
from router_ml.features import DENSE_NAMES
from router_ml_training.evaluation.baselines import always, baseline_sweeps, oracle_choice
from router_ml_training.evaluation.bootstrap import curve_figures
from router_ml_training.evaluation.calibration_metrics import Reliability, calibration_figures, ece, reliability
from router_ml_training.evaluation.curves import Swept, curve_of, price_sweep, share_sweep
from router_ml_training.evaluation.metrics import Figure, cs, curve_metrics, random_cs
from router_ml_training.evaluation.outcomes import Curve, Outcomes
from router_ml_training.evaluation.report import Slice
from router_ml_training.evaluation.strategies import Strategy, measure, random_mix, strategy_of, vacuity
from router_ml_training.frontier import price_grid
from router_ml_training.judgements import Judgements, judgements_of
from router_ml_training.plans import Taken, act, grid_of
from router_ml_training.scored import Scored
from router_ml_training.slice_figures import slice_figures

__all__ = ["Assessment", "Ground", "assess", "headline", "plans_sweep"]

F64: TypeAlias = NDArray[np.float64]
# What every tier did, and the rows it is said of.
Ground: TypeAlias = tuple[Outcomes, NDArray[np.int64]]

_LENGTH = DENSE_NAMES.index("text.log_chars")


@dataclass(frozen=True, slots=True)
class Assessment:
    """The held-out result of one run.

    `estimated` says that the outcomes of untried tiers were filled in by the model itself, so that the figures are
    its own opinion. `vacuous` holds the reason why the saving proves nothing, if there is one. `slices` begin with all
    requests; `judgements` is None where there is no verifier.
    """

    quality: float
    tiers: tuple[str, ...]
    n_train: int
    n_test: int
    n_known: int
    estimated: bool
    outcomes: Outcomes
    curve: Curve
    baselines: Mapping[str, Curve]
    figures: Mapping[str, Figure]
    strategies: tuple[Strategy, ...]
    vacuous: str | None
    reliability: Mapping[str, Reliability]
    calibration: Mapping[str, Mapping[str, Figure]]
    ece: float | None
    score: F64
    slices: tuple[Slice, ...] = ()
    judgements: Judgements | None = None

    @property
    def router(self) -> Strategy:
        """The router at its operating point."""
        return self.strategies[0]


def assess(
    test: Scored,
    policy: PolicySpec,
    *,
    quality: float,
    n_train: int,
    rng: np.random.Generator,
    draws: int = 1000,
    ground: Ground | None = None,
) -> Assessment:
    """Measure a policy on rows it has never seen.

    Args:
        test: The rows, with the scores the policy decides with.
        policy: Its ladder and solved frontier.
        quality: Share of the best tier's quality that the operating point is to keep.
        n_train: Rows the model was fitted on, for the record.
        rng: Breaks ties and draws bootstrap samples.
        draws: Bootstrap draws; 0 leaves intervals out.
        ground: The outcomes it is measured against, so that two policies stand on the same; None: those of the rows,
            with the policy's own estimates where they are unknown.
    """
    outcomes, rows = test.outcomes() if ground is None else ground
    adequacy, cost = test.adequacy[rows], test.cost_in(policy.price_unit)[rows]
    group = test.dataset.group[rows]
    alone = _sweep(adequacy, cost, outcomes, rng)
    figures = dict(curve_figures(alone, outcomes, rng=rng, draws=draws, groups=group))
    swept = plans_sweep(test, policy, quality, (outcomes, rows)) or alone
    if swept is not alone:
        # APGR and CPT speak of a share of calls, so they stay those of the scores before the call.
        metrics = [metric for metric in curve_metrics() if not metric.name.startswith(("apgr", "cpt"))]
        figures |= curve_figures(swept, outcomes, rng=rng, metrics=metrics, draws=draws, groups=group)
    taken = test.taken(policy, quality).rows(rows)
    router = _operating(taken, outcomes, rng, draws, group)
    calibration, curves = _calibration(test, rng, draws)
    errors = [ece(test.adequacy[known, t], test.dataset.quality[known, t]) for t, known in _known(test) if known.any()]
    baselines = baseline_sweeps(outcomes, test.dataset.dense[rows, _LENGTH], rng=rng)
    strategies = (router, *_constants(policy.ladder.names, outcomes, router, rng, draws, group))
    spent = taken.quality(outcomes), taken.cost(outcomes)
    return Assessment(
        quality=quality,
        tiers=policy.ladder.names,
        n_train=n_train,
        n_test=len(rows),
        n_known=int(test.dataset.complete.sum()),
        estimated=not test.dataset.complete[rows].all(),
        outcomes=outcomes,
        curve=curve_of(swept, outcomes),
        baselines={name: curve_of(sweep, outcomes) for name, sweep in baselines.items()},
        figures=figures,
        strategies=strategies,
        vacuous=vacuity(outcomes, router, quality),
        reliability=curves,
        calibration=calibration,
        ece=float(np.mean(errors)) if errors else None,
        score=adequacy[:, outcomes.best_tier] - adequacy[:, 0],
        slices=slice_figures(test.dataset.rows(rows), router, *spent, outcomes, rng=rng, draws=draws),
        judgements=judgements_of(test, policy, quality=quality),
    )


def headline(assessment: Assessment) -> dict[str, object]:
    """Return the figures a script wants, by name; what is undefined is null, with its reason beside it."""
    curve, oracle = assessment.curve, assessment.baselines["oracle"]
    best = assessment.outcomes.best_tier
    figures: dict[str, Figure] = {
        "saving_at_97": assessment.figures.get("cs_97", cs(curve, 0.97)),
        "apgr": assessment.figures["apgr"],
        "aiq": assessment.figures["aiq"],
        "random_saving_at_97": random_cs(curve, 0.97),
        "length_saving_at_97": cs(assessment.baselines["prompt_length"], 0.97),
        "oracle_saving_at_97": cs(oracle, 0.97),
        "quality_gap": assessment.figures["quality_gap"],
        "cost_ratio": assessment.figures["cost_ratio"],
    }
    undefined = {name: figure.reason for name, figure in figures.items() if figure.value is None}
    return {
        "n_train": assessment.n_train,
        "n_test": assessment.n_test,
        "quality": {
            "always_small": float(curve.tier_quality[0]),
            "always_large": float(curve.tier_quality[best]),
            "routed": assessment.router.quality,
        },
        **{name: figure.value for name, figure in figures.items()},
        "ece": assessment.ece,
        "intervals": {name: [figure.low, figure.high] for name, figure in figures.items() if figure.low is not None},
        "reasons": undefined,
        "operating_point": {
            "quality_asked": assessment.quality,
            "quality_kept": assessment.router.quality_kept.to_dict(),
            "saving": assessment.router.saving.to_dict(),
            "share": dict(zip(assessment.tiers, assessment.router.share, strict=True)),
        },
        "vacuous": assessment.vacuous,
        "estimated": assessment.estimated,
    }


def plans_sweep(test: Scored, policy: PolicySpec, quality: float, ground: Ground) -> Swept | None:
    """Return the curve of the policy's plans; None where it judges nothing at that quality.

    Args:
        test: The rows, with the scores the policy decides with.
        policy: Its ladder and solved frontier.
        quality: Share of the best tier's quality that is asked for.
        ground: The outcomes it is measured against, and their rows.
    """
    outcomes, rows = ground
    if policy.plans is None or not policy.operating(quality)[1]:
        return None
    judged = test.judged(policy.price_unit, policy.plans)
    if judged is None:
        return None
    judged = judged.rows(rows)
    prices = price_grid(*judged.opinions())[::-1]
    return grid_of(prices, [act(judged, float(price)) for price in prices], outcomes)


def _operating(
    taken: Taken, outcomes: Outcomes, rng: np.random.Generator, draws: int, group: NDArray[np.int64]
) -> Strategy:
    return measure(
        "router",
        quality=taken.quality(outcomes),
        cost=taken.cost(outcomes),
        column=taken.last,
        outcomes=outcomes,
        escalated=taken.escalated if taken.escalated.any() else None,
        rng=rng,
        draws=draws,
        groups=group,
    )


def _sweep(adequacy: F64, cost: F64, outcomes: Outcomes, rng: np.random.Generator) -> Swept:
    if adequacy.shape[1] == 2:
        return share_sweep(adequacy[:, 1] - adequacy[:, 0], rng=rng)
    return price_sweep(adequacy, cost, rng=rng)


def _constants(
    names: tuple[str, ...],
    outcomes: Outcomes,
    router: Strategy,
    rng: np.random.Generator,
    draws: int,
    group: NDArray[np.int64],
) -> list[Strategy]:
    singles = [
        strategy_of(f"always {name}", always(t, outcomes), outcomes, rng=rng, draws=draws, groups=group)
        for t, name in enumerate(names)
    ]
    mix = random_mix(outcomes, router.cost_usd, name="random mix at the same cost")
    oracle = strategy_of("oracle", oracle_choice(outcomes), outcomes, rng=rng, draws=draws, groups=group)
    return [*singles, mix, oracle]


def _known(test: Scored) -> list[tuple[int, NDArray[np.bool_]]]:
    # Outcomes that are known because a cheaper tier failed would make every tier look worse than it is.
    known = ~np.isnan(test.dataset.quality) & ~test.dataset.escalated
    return [(t, np.asarray(known[:, t], np.bool_)) for t in range(known.shape[1])]


def _calibration(
    test: Scored, rng: np.random.Generator, draws: int
) -> tuple[dict[str, Mapping[str, Figure]], dict[str, Reliability]]:
    figures: dict[str, Mapping[str, Figure]] = {}
    curves: dict[str, Reliability] = {}
    for t, known in _known(test):
        if known.sum() < 2:
            continue
        name = test.dataset.tiers[t]
        p, y = test.adequacy[known, t], test.dataset.quality[known, t]
        figures[name] = calibration_figures(p, y, rng=rng, draws=draws, groups=test.dataset.group[known])
        curves[name] = reliability(p, y)
    return figures, curves
