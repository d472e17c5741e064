"""Two bundles on the same rows: figures side by side, where they decide otherwise, and what each case is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import JsonValue

from router_ml.bundle import Bundle
from router_ml.ladder import Ladder
from router_ml.shelf import Shelf
from router_ml_training.assessment import Assessment, assess
from router_ml_training.evaluation.bootstrap import mean_figure
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.outcomes import Floats
from router_ml_training.plans import Taken
from router_ml_training.review.home import Sample
from router_ml_training.review.logbook import prompt_of
from router_ml_training.scored import Scored, score_with_bundle

__all__ = ["Duel", "Side", "duel", "figure_text", "gate_table", "shelf_table", "unseen"]

Rows: TypeAlias = NDArray[np.int64]

_DRAWS = 400
# With fewer judged rows that neither bundle has learned from, all rows are compared.
_FEWEST_UNSEEN = 100
_PERCENT = ("saving", "quality_kept", "cs_95", "cs_97", "cs_99", "cs_100")
_PLAIN = ("apgr", "aiq")


@dataclass(frozen=True, slots=True)
class Side:
    """One bundle on the rows: its scores there, what it does, and what that is worth."""

    bundle: Bundle
    scored: Scored
    taken: Taken
    assessment: Assessment

    @property
    def name(self) -> str:
        """Version of the bundle."""
        return self.bundle.version

    def figures(self) -> dict[str, Figure]:
        """Return its figures with intervals, by name."""
        router = self.assessment.router
        found = {"saving": router.saving, "quality_kept": router.quality_kept, **self.assessment.figures}
        figures = {name: found[name] for name in (*_PERCENT, *_PLAIN) if name in found}
        for tier, calibration in self.assessment.calibration.items():
            figures |= {f"{name}, {tier}": calibration[name] for name in ("ece", "brier") if name in calibration}
        return figures


@dataclass(frozen=True, slots=True)
class Duel:
    """A champion and a challenger on the same rows.

    `figures` has one row per figure, `difference` the paired differences (challenger less champion) with intervals,
    `disagreements` one row per request that the two send to different tiers. `notes` say what to keep in mind.
    """

    champion: Side
    challenger: Side
    n_rows: int
    figures: pl.DataFrame
    difference: pl.DataFrame
    disagreements: pl.DataFrame
    notes: tuple[str, ...]

    def worst(self, n: int = 8) -> pl.DataFrame:
        """Return the disagreements that the challenger loses most by, the worst first."""
        return self.disagreements.filter(pl.col("worth") <= 0).head(n)

    def best(self, n: int = 8) -> pl.DataFrame:
        """Return the disagreements that the challenger wins most by, the best first."""
        return self.disagreements.filter(pl.col("worth") > 0).tail(n).reverse()

    @property
    def disagree(self) -> float:
        """Share of the rows that get another answer."""
        return len(self.disagreements) / self.n_rows


def duel(
    sample: Sample, champion: Bundle, challenger: Bundle, ladder: Ladder, *, quality: float, rng: Generator
) -> Duel:
    """Let two bundles decide the same requests.

    Args:
        sample: The log.
        champion: What is in service, or any bundle to compare with.
        challenger: What wants its place.
        ladder: Prices for both.
        quality: Share of the best tier's quality that both are asked to keep.
        rng: Draws bootstrap samples.

    Raises:
        DataError: When the log is about other tiers than a bundle.
    """
    index, notes = unseen(sample, (champion, challenger))
    data = sample.dataset.rows(index)
    both = [score_with_bundle(data, one, ladder) for one in (champion, challenger)]
    outcomes, rows = both[0].outcomes()
    if not data.complete[rows].all():
        notes = (*notes, f"Where an outcome is not known, what {champion.version} thinks of it stands in for it.")
    elif len(rows) < len(data):
        notes = (*notes, f"The figures are of the {len(rows):,} of them whose outcome is known for every tier.")
    sides = []
    for bundle, scored in zip((champion, challenger), both, strict=True):
        n_train = bundle.manifest.trained_on.n_interactions
        measured = assess(
            scored,
            bundle.policy,
            quality=quality,
            n_train=n_train,
            rng=rng.spawn(1)[0],
            draws=_DRAWS,
            ground=(outcomes, rows),
        )
        sides.append(Side(bundle, scored, scored.taken(bundle.policy, quality).rows(rows), measured))
    worth = [side.taken.quality(outcomes) for side in sides]
    cost = [side.taken.cost(outcomes) for side in sides]
    group = data.group[rows]
    difference = {
        "quality per request": mean_figure(worth[1] - worth[0], rng=rng, draws=_DRAWS, groups=group),
        "USD per 1,000 requests": mean_figure(1000 * (cost[1] - cost[0]), rng=rng, draws=_DRAWS, groups=group),
    }
    return Duel(
        sides[0],
        sides[1],
        len(rows),
        _figures(sides[0], sides[1]),
        pl.DataFrame(
            [(name, one.value, one.low, one.high, _who(one, name)) for name, one in difference.items()],
            schema={"challenger less champion": pl.String, **_ENDS, "says": pl.String},
            orient="row",
        ),
        _disagreements(sample, index[rows], sides, worth, cost, rows),
        notes,
    )


def unseen(sample: Sample, bundles: tuple[Bundle, ...]) -> tuple[Rows, tuple[str, ...]]:
    """Return the rows later than anything that any of the bundles was trained on, and what is to be said about them.

    Where those are too few, all rows are returned, and the note says that they flatter whoever learned from them.
    """
    ends = [bundle.manifest.trained_on.last_ts for bundle in bundles]
    latest = max((end.timestamp() for end in ends if end is not None), default=float("-inf"))
    known = np.asarray(~np.isnan(sample.dataset.free_quality).all(axis=1), np.bool_)
    later = np.flatnonzero(sample.dataset.ts > latest)
    if known[later].sum() >= _FEWEST_UNSEEN:
        return later, (f"{len(later):,} requests later than anything that either has learned from.",)
    everything = np.arange(len(sample.dataset))
    return everything, (
        f"Judged requests that are later than what both have learned from: {int(known[later].sum())}, too few. So all "
        f"{len(everything):,} are taken, and the figures flatter whoever learned from them.",
    )


def shelf_table(shelf: Shelf) -> pl.DataFrame:
    """Return the versions on the shelf, the newest first: learner, role, saving and quality of their own test rows."""
    rows = [
        (
            entry.version,
            entry.created,
            "champion" if entry.champion else "challenger" if entry.challenger else "",
            entry.learner,
            *(metric.value if (metric := entry.metrics.get(name)) else None for name in ("cs_97", "apgr", "aiq")),
            entry.problem,
        )
        for entry in reversed(shelf.versions())
    ]
    metrics = dict.fromkeys(("cs_97", "apgr", "aiq"), pl.Float64)
    named: dict[str, Any] = {
        "version": pl.String,
        "created": pl.Datetime("us", "UTC"),
        "role": pl.String,
        "learner": pl.String,
    }
    return pl.DataFrame(rows, schema={**named, **metrics, "problem": pl.String}, orient="row")


def gate_table(lines: tuple[Mapping[str, JsonValue], ...]) -> pl.DataFrame:
    """Return the gates of a version as the shelf keeps them, one row each."""
    rows = [
        (
            str(line["name"]),
            "passed" if line["passed"] else "failed" if line.get("required", True) else "warns only",
            line.get("value"),
            line.get("limit"),
            str(line["detail"]),
        )
        for line in lines
    ]
    schema = {"gate": pl.String, "result": pl.String, "measured": pl.Float64, "limit": pl.Float64, "why": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


_ENDS = {"value": pl.Float64, "low": pl.Float64, "high": pl.Float64}


def figure_text(figure: Figure | None, *, percent: bool) -> str:
    """Return a figure with its interval, or why there is none."""
    if figure is None:
        return "-"
    if figure.value is None:
        return f"undefined: {figure.reason}"
    scale, digits = (100.0, 1) if percent else (1.0, 4)
    unit = " %" if percent else ""
    ends = [None if end is None else f"{scale * end:.{digits}f}" for end in (figure.low, figure.high)]
    between = f" ({ends[0] or '?'} to {ends[1] or '?'})" if any(ends) else ""
    return f"{scale * figure.value:.{digits}f}{unit}{between}"


def _figures(champion: Side, challenger: Side) -> pl.DataFrame:
    mine, theirs = champion.figures(), challenger.figures()
    rows = [
        (name, *(figure_text(side.get(name), percent=name in _PERCENT) for side in (mine, theirs)))
        for name in dict.fromkeys((*mine, *theirs))
    ]
    return pl.DataFrame(rows, schema=["figure", "champion", "challenger"], orient="row")


def _who(figure: Figure, name: str) -> str:
    if figure.low is None or figure.high is None or figure.low <= 0.0 <= figure.high:
        return "no difference that can be told from noise"
    more = figure.low > 0.0
    return (
        ("the challenger is dearer" if more else "the challenger is cheaper")
        if "USD" in name
        else ("the challenger is better" if more else "the challenger is worse")
    )


def _disagreements(
    sample: Sample, at: Rows, sides: list[Side], worth: list[Floats], cost: list[Floats], rows: Rows
) -> pl.DataFrame:
    tiers = sample.dataset.tiers
    differ = np.flatnonzero(sides[0].taken.last != sides[1].taken.last)
    # What a dollar is worth in quality on each request, as the challenger was tuned.
    policy, expected = sides[1].bundle.policy, sides[1].scored.cost_usd[rows].max(axis=1)
    unit = expected if policy.price_unit == "relative" else np.ones(len(rows))
    per_unit = policy.operating(sides[1].assessment.quality)[0] * sides[1].scored.price_scale
    price = per_unit / np.where(unit > 0, unit, 1.0)
    best = len(tiers) - 1
    found = [
        (
            prompt_of(sample.interactions[at[i]]),
            sample.interactions[at[i]].feature,
            tiers[sides[0].taken.last[i]],
            tiers[sides[1].taken.last[i]],
            *(_moved(sides, rows[i], tier) for tier in (0, best)),
            float(worth[1][i] - worth[0][i]),
            1000 * float(cost[0][i] - cost[1][i]),
            float(worth[1][i] - worth[0][i] + price[i] * (cost[0][i] - cost[1][i])),
            bool(sample.dataset.complete[at[i]]),
        )
        for i in differ
    ]
    numbers = ("quality won", "USD saved per 1,000", "worth")
    chances = (f"P({tiers[0]})", f"P({tiers[best]})")
    words = dict.fromkeys(("prompt", "feature", "champion", "challenger", *chances), pl.String)
    schema = {**words, **dict.fromkeys(numbers, pl.Float64), "outcomes known": pl.Boolean}
    return pl.DataFrame(found, schema=schema, orient="row").sort("worth")


def _moved(sides: list[Side], row: np.int64, tier: int) -> str:
    """What the champion gives a tier, and what the challenger does."""
    return " → ".join(f"{side.scored.adequacy[row, tier]:.2f}" for side in sides)
