"""The quality knob of a bundle on a log: what every setting saves, loses and sends where; its certificate as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from pydantic import JsonValue

from router_ml.bundle import Bundle
from router_ml.ladder import Ladder
from router_ml.manifest import PriceUnit
from router_ml_training.assessment import plans_sweep
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.canvas import Picture
from router_ml_training.evaluation.curves import Swept, curve_of, price_sweep, share_sweep
from router_ml_training.evaluation.figures import cost_quality
from router_ml_training.evaluation.figures_review import slice_table
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.evaluation.report import Slice
from router_ml_training.evaluation.strategies import Strategy, measure, random_mix
from router_ml_training.reporting import learned_from
from router_ml_training.scored import Scored, score_with_bundle
from router_ml_training.slice_figures import slice_figures

__all__ = ["Knob", "Setting", "certificate_slices", "certificate_steps", "knob_of"]

_DRAWS = 200


@dataclass(frozen=True, slots=True)
class Setting:
    """What one setting of the knob does: `price` and `judged` are what the policy looks up for it.

    The price is quality per USD at the prices of the requests; with the unit "relative", per cost of the dearest tier's
    answer to the same request. `mix_kept` is the share of the quality that a random mix keeps at the same cost.
    """

    quality: float
    price: float
    unit: PriceUnit
    judged: bool
    router: Strategy
    share: Mapping[str, float]
    mix_kept: float | None

    @property
    def worth(self) -> str:
        """What the price means, in one sentence."""
        if self.unit == "relative":
            return f"What the dearest tier costs for a request is worth {self.price:.4g} of quality here."
        return f"A dollar is worth {self.price:.4g} of quality here."

    @property
    def saving(self) -> float | None:
        """Share of the best tier's cost that is saved."""
        return self.router.saving.value

    @property
    def loss(self) -> float | None:
        """Share of the best tier's quality that is lost; negative where quality is won."""
        kept = self.router.quality_kept.value
        return None if kept is None else 1.0 - kept


@dataclass(frozen=True, slots=True, eq=False)
class Knob:
    """A bundle scored once on a log, so that every setting is quick to look at.

    `estimated` says that what the bundle thinks stands in for outcomes that nobody knows.
    """

    bundle: Bundle
    scored: Scored
    outcomes: Outcomes
    rows: np.ndarray[Any, np.dtype[np.int64]]
    swept: Swept
    estimated: bool

    @property
    def note(self) -> str:
        """Which requests are looked at, whose word their outcomes are, and whether the bundle may have seen them."""
        whose = (
            "where an outcome is not known, what the bundle thinks of it stands in for it"
            if self.estimated
            else "those with a known outcome of every tier"
        )
        counted = f"{len(self.rows):,} of {len(self.scored.dataset):,} requests: {whose}."
        return " ".join((counted, *learned_from(self.scored.dataset, self.bundle)))

    def at(self, quality: float) -> Setting:
        """Return what the policy does when it is asked to keep that share of the best tier's quality."""
        policy = self.bundle.policy
        taken = self.scored.taken(policy, quality).rows(self.rows)
        router = measure(
            "router",
            quality=taken.quality(self.outcomes),
            cost=taken.cost(self.outcomes),
            column=taken.last,
            outcomes=self.outcomes,
            escalated=taken.escalated if taken.escalated.any() else None,
            rng=np.random.default_rng(0),
            draws=_DRAWS,
            groups=self.scored.dataset.group[self.rows],
        )
        price, judged = policy.operating(quality)
        share = dict(zip(policy.ladder.names, router.share, strict=True))
        mix = random_mix(self.outcomes, router.cost_usd).quality_kept.value
        return Setting(quality, price * self.scored.price_scale, policy.price_unit, judged, router, share, mix)

    def slices(self, quality: float) -> tuple[Slice, ...]:
        """Return what each part of the traffic keeps and saves at a setting."""
        setting = self.at(quality)
        taken = self.scored.taken(self.bundle.policy, quality).rows(self.rows)
        spent = taken.quality(self.outcomes), taken.cost(self.outcomes)
        part, rng = self.scored.dataset.rows(self.rows), np.random.default_rng(0)
        return slice_figures(part, setting.router, *spent, self.outcomes, rng=rng, draws=2 * _DRAWS)

    def frontier(self) -> pl.DataFrame:
        """Return every tuned point of the policy: quality asked for, price, whether answers are judged, and effect."""
        settings = [self.at(point.quality) for point in self.bundle.policy.frontier]
        rows = [
            (one.quality, one.price, one.judged, one.saving, one.loss, one.router.escalation_rate or 0.0)
            for one in settings
        ]
        numbers = dict.fromkeys(("saving", "loss", "escalated"), pl.Float64)
        schema = {"quality": pl.Float64, "shadow_price": pl.Float64, "judged": pl.Boolean, **numbers}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def curve_picture(self, quality: float) -> Picture:
        """Draw cost against quality with the setting on it."""
        setting = self.at(quality)
        # Where answers are judged, every setting of the price with judging: else the point would lie beside its curve.
        plans = plans_sweep(self.scored, self.bundle.policy, quality, (self.outcomes, self.rows))
        return cost_quality(
            curve_of(plans or self.swept, self.outcomes),
            tiers=self.scored.dataset.tiers,
            title="What the setting costs and keeps",
            operating=(setting.router.cost_usd, setting.router.quality),
            target=quality,
            note=f"asked for {100 * quality:.4g} %",
            name="router" if plans is None else "router, answers judged",
            simulated=self.scored.dataset.simulated,
        )

    def slice_picture(self, quality: float) -> Picture:
        """Draw what each part of the traffic keeps and saves at a setting."""
        simulated = self.scored.dataset.simulated
        return slice_table(self.slices(quality), quality=quality, title="Slices at this setting", simulated=simulated)


def knob_of(bundle: Bundle, dataset: Dataset, ladder: Ladder) -> Knob:
    """Score a log with a bundle, once.

    Raises:
        DataError: When the log is about other tiers than the bundle.
    """
    scored = score_with_bundle(dataset, bundle, ladder)
    outcomes, rows = scored.outcomes()
    adequacy, rng = scored.adequacy[rows], np.random.default_rng(0)
    swept: Swept = (
        share_sweep(adequacy[:, 1] - adequacy[:, 0], rng=rng)
        if adequacy.shape[1] == 2
        else price_sweep(adequacy, scored.cost_in(bundle.policy.price_unit)[rows], rng=rng)
    )
    return Knob(bundle, scored, outcomes, rows, swept, not dataset.complete[rows].all())


def certificate_steps(certificate: Mapping[str, JsonValue] | None) -> pl.DataFrame:
    """Return the walk of a bundle's certificate from safe to bold, one row per policy; no row where there is none."""
    steps = (certificate or {}).get("steps") or []
    names = ("quality", "loss", "saving", "certified", "p_value", "e_value")
    numbers = {name: pl.Boolean if name == "certified" else pl.Float64 for name in names}
    rows = [[step.get(name) for name in names] for step in steps if isinstance(step, dict)]  # type: ignore[union-attr]
    return pl.DataFrame(rows, schema=numbers, orient="row")


def certificate_slices(certificate: Mapping[str, JsonValue] | None) -> pl.DataFrame:
    """Return the slices that a certificate tested: rows, measured loss and saving, and the verdict."""
    slices = (certificate or {}).get("slices") or []
    schema = {"name": pl.String, "n_rows": pl.Int64, "loss": pl.Float64, "saving": pl.Float64, "status": pl.String}
    rows = [[one.get(name) for name in schema] for one in slices if isinstance(one, dict)]  # type: ignore[union-attr]
    return pl.DataFrame(rows, schema=schema, orient="row")
