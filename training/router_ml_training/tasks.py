"""What is learned: adequacy per tier before the call.

A tier whose outcome was seen whatever the cheaper ones did gets a *marginal* head, P(ok). A tier that was mostly seen
because a cheaper one had failed gets a *chained* head, P(ok given the cheaper failed); its adequacy is then
P(cheaper ok) (1 - slip) + P(cheaper fails) P(ok given the cheaper failed), where `slip` is the chance that the dearer
tier fails although the cheaper one does not. Where most requests were answered by one tier only, the linear heads are
*shared*: marginal heads fitted together. What is uncertain about who failed is filled in by EM (see `censored`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml_training.censored import (
    Form,
    Lesson,
    exact,
    first_lessons,
    form_of,
    informed_lessons,
    smoothed,
    spoken_of,
)
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import Design, Encoder
from router_ml_training.learners import linear
from router_ml_training.learners.boosting import Grow, grow_here
from router_ml_training.learners.calibration import Platt, fit_platt
from router_ml_training.learners.parts import HasParts, draw_logits
from router_ml_training.learners.protocol import Fit, Head, Learner
from router_ml_training.onnx_graph import GraphBuilder
from router_ml_training.shared import fit_shared, one_outcome_each
from router_ml_training.slips import PUBLIC_SLIP, SlipLaw, fit_slip

__all__ = ["AdequacyModel", "TierModel", "cross_fit_adequacy", "fit_adequacy", "forms"]

F64: TypeAlias = NDArray[np.float64]

# Each round fits every head again, so there are few; not tuned.
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class TierModel:
    """One tier's calibrated head; `slip` is used by the chained form only."""

    form: Form
    head: Head
    platt: Platt
    slip: SlipLaw = PUBLIC_SLIP


@dataclass(frozen=True, slots=True)
class AdequacyModel:
    """Calibrated P(adequate) per tier, cheapest first."""

    tiers: tuple[str, ...]
    encoder: Encoder
    models: tuple[TierModel, ...]

    def predict(self, design: Design) -> F64:
        """Return adequacy, shape (n, K)."""
        return self.adequacy_of(self.logits(design))

    def logits(self, design: Design) -> F64:
        """Return the heads' uncalibrated logits, shape (n, K)."""
        return np.stack([model.head.logit(design) for model in self.models], axis=1)

    def adequacy_of(self, logits: F64) -> F64:
        """Return the adequacy that logits (n, K) stand for: calibrated, and chained where the form says so."""
        rise, slip = self.transitions(logits)
        adequacy = rise.copy()
        for t, model in enumerate(self.models):
            if model.form == "chained":
                cheaper = adequacy[:, t - 1]
                adequacy[:, t] = cheaper * (1.0 - slip[:, t]) + (1.0 - cheaper) * rise[:, t]
        return adequacy

    def transitions(self, logits: F64) -> tuple[F64, F64]:
        """Return the chain that logits (n, K) stand for.

        Returns:
            P(adequate given that the tier before failed) and P(inadequate given that it did not), (n, K) each. For a
            tier that is learned by itself the tier before makes no difference.
        """
        rise = np.stack([model.platt.probability(logits[:, t]) for t, model in enumerate(self.models)], axis=1)
        slip = 1.0 - rise
        adequacy = rise[:, 0]
        for t, model in enumerate(self.models):
            if model.form == "chained":
                slip[:, t] = model.slip.probability(adequacy, rise[:, t])
                adequacy = adequacy * (1.0 - slip[:, t]) + (1.0 - adequacy) * rise[:, t]
            else:
                adequacy = rise[:, t]
        return rise, slip

    def add_to_graph(self, graph: GraphBuilder) -> str:
        """Add all heads, their calibration and the chain; return the tensor (n, K)."""
        self.encoder.define(graph)
        parts = [
            model.head.parts().calibrated(model.platt.slope, model.platt.shift)
            for model in self.models
            if isinstance(model.head, HasParts)
        ]
        if len(parts) == len(self.models):
            rise = graph.add("Sigmoid", draw_logits(graph, self.encoder, parts))
            if all(model.form != "chained" for model in self.models):
                return rise
            found = graph.split(rise, [1] * len(parts))
        else:
            found = [model.platt.add_to_graph(graph, model.head.add_to_graph(graph)) for model in self.models]
        return self._draw_chain(graph, found)

    def _draw_chain(self, graph: GraphBuilder, found: Sequence[str]) -> str:
        columns: list[str] = []
        for model, p in zip(self.models, found, strict=True):
            if model.form == "chained":
                cheaper, one = columns[-1], graph.scalar(1.0)
                slip = model.slip.add_to_graph(graph, cheaper, p)
                kept = graph.add("Mul", cheaper, graph.add("Sub", one, slip))
                p = graph.add("Add", kept, graph.add("Mul", graph.add("Sub", one, cheaper), p))
            columns.append(p)
        return graph.add("Concat", *columns, axis=1)


def fit_adequacy(
    train: Dataset,
    tune: Dataset,
    encoder: Encoder,
    learner: Learner,
    *,
    seed: int,
    num_threads: int = 1,
    grow: Grow = grow_here,
    draft: Learner | None = None,
) -> AdequacyModel:
    """Fit one head per tier on the train rows and calibrate it on the tune rows.

    Args:
        train: Rows to learn from; at least one known outcome per tier.
        tune: Rows to calibrate on; a tier unknown there keeps its raw probabilities.
        encoder: Fitted on the same train rows.
        learner: The learner of every head.
        seed: For whatever the learner draws.
        num_threads: Threads the learner may use.
        grow: Boosts trees.
        draft: A quicker learner for all rounds of EM but the last; None: the same.
    """
    design, parts = encoder.encode(train), _forms(train, learner)
    work = _Work(train, encoder, design, learner, parts, seed, num_threads, grow, draft or learner)
    model = work.fit(np.arange(len(train)))
    return _calibrated(model, model.logits(encoder.encode(tune)), tune)


def cross_fit_adequacy(
    data: Dataset,
    fold: NDArray[np.int64],
    encoder: Encoder,
    learner: Learner,
    *,
    seed: int,
    num_threads: int = 1,
    grow: Grow = grow_here,
) -> tuple[AdequacyModel, F64]:
    """Fit on all rows, and calibrate on scores that every row got from models that had not seen it.

    Args:
        data: Rows to learn from.
        fold: Fold of each row, (n,); rows that belong together share one.
        encoder: Fitted on the same rows.
        learner: The learner of every head.
        seed: For whatever the learner draws.
        num_threads: Threads the learner may use.
        grow: Boosts trees.

    Returns:
        The model, and the calibrated held-out adequacy of every row, (n, K).
    """
    work = _Work(data, encoder, encoder.encode(data), learner, _forms(data, learner), seed, num_threads, grow, learner)
    logits = np.zeros((len(data), len(data.tiers)))
    for number in np.unique(fold):
        unseen = np.flatnonzero(fold == number)
        logits[unseen] = work.fit(np.flatnonzero(fold != number)).logits(work.design.rows(unseen))
    model = _calibrated(work.fit(np.arange(len(data))), logits, data)
    return model, model.adequacy_of(logits)


@dataclass(frozen=True, slots=True)
class _Work:
    """One learning problem: encoded rows, and how each tier is to be modelled."""

    data: Dataset
    encoder: Encoder
    design: Design
    learner: Learner
    forms: tuple[Form, ...]
    seed: int
    num_threads: int
    grow: Grow
    draft: Learner

    def fit(self, index: NDArray[np.int64]) -> AdequacyModel:
        """Fit uncalibrated heads on some of the rows; by EM where the evidence on them is uncertain."""
        part = self.data.rows(index)
        design = self.design.rows(index)
        lessons = first_lessons(part, self.forms)
        if exact(part, self.forms):
            return self._heads(part, design, lessons, self.learner)
        heads: tuple[Head, ...] = ()
        for _ in range(_ROUNDS):
            model = self._heads(part, design, lessons, self.draft, after=heads, roughly=True)
            heads = tuple(one.head for one in model.models)
            posterior = smoothed(part, *model.transitions(model.logits(design)))
            lessons = informed_lessons(part, self.forms, posterior)
        return self._heads(part, design, lessons, self.learner, after=heads)

    def _heads(
        self,
        part: Dataset,
        design: Design,
        lessons: tuple[Lesson, ...],
        learner: Learner,
        *,
        after: Sequence[Head] = (),
        roughly: bool = False,
    ) -> AdequacyModel:
        if "shared" in self.forms:
            heads = fit_shared(design, lessons, seed=self.seed, after=after, roughly=roughly)
        else:
            heads = tuple(self._head(part, design, t, lesson, learner) for t, lesson in enumerate(lessons))
        models = [TierModel(form, head, Platt(1.0, 0.0)) for form, head in zip(self.forms, heads, strict=True)]
        return AdequacyModel(self.data.tiers, self.encoder, tuple(models))

    def _head(self, part: Dataset, design: Design, t: int, lesson: Lesson, learner: Learner) -> Head:
        fit = Fit(
            design.rows(lesson.rows),
            lesson.target,
            lesson.weight,
            part.group[lesson.rows],
            self.seed + t,
            self.num_threads,
            part.ts[lesson.rows] if part.dated else None,
            self.grow,
        )
        return learner(fit)


def _calibrated(model: AdequacyModel, logits: F64, held_out: Dataset) -> AdequacyModel:
    """Calibrate every head, then the slips, on rows whose logits (n, K) come from models that had not seen them."""
    parts = tuple(one.form for one in model.models)
    lessons = first_lessons(held_out, parts)
    if not exact(held_out, parts):
        lessons = informed_lessons(held_out, parts, smoothed(held_out, *model.transitions(logits)))
    models = []
    for t, (one, lesson) in enumerate(zip(model.models, lessons, strict=True)):
        models.append(replace(one, platt=fit_platt(logits[lesson.rows, t], lesson.target, lesson.weight)))
    model = replace(model, models=tuple(models))
    for t, form in enumerate(parts):
        if form == "chained":
            models[t] = replace(models[t], slip=_slip(model, logits, held_out, t))
            model = replace(model, models=tuple(models))
    return model


def _slip(model: AdequacyModel, logits: F64, held_out: Dataset, t: int) -> SlipLaw:
    # Only rows on which both were run whatever came out can tell.
    spoken = spoken_of(held_out)
    both = spoken[:, t - 1] & spoken[:, t] & ~held_out.escalated[:, t]
    rise, _ = model.transitions(logits)
    posterior = smoothed(held_out, *model.transitions(logits))
    cheaper = model.adequacy_of(logits)[both, t - 1]
    return fit_slip(cheaper, rise[both, t], 1.0 - posterior.ok[both, t], posterior.ok[both, t - 1])


def forms(model: AdequacyModel) -> Mapping[str, str]:
    """Return tier name to the form of its head, for reports."""
    return {name: one.form for name, one in zip(model.tiers, model.models, strict=True)}


def _forms(data: Dataset, learner: Learner) -> tuple[Form, ...]:
    found = tuple(form_of(data, t) for t in range(len(data.tiers)))
    if learner is linear.learn and "chained" not in found and len(found) > 1 and one_outcome_each(data):
        return tuple("shared" for _ in found)
    return found
