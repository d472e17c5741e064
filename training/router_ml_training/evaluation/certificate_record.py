"""What is written down of an attempt to certify: the certificate or why there is none, and what it is read beside."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pydantic import JsonValue

from router_ml_training.evaluation.certificate import Certificate
from router_ml_training.evaluation.certificate_slices import SLICE_LOSS, SliceResult
from router_ml_training.evaluation.metrics import Figure

__all__ = ["Beside", "Certification"]


@dataclass(frozen=True, slots=True)
class Beside:
    """What a certified saving has to be read beside, measured on the fully known rows of the same log.

    `gap` is the quality gap g between the cheapest and the best tier, `cost_ratio` r that of their costs; `mix_kept` is
    the share of quality that a random mix keeps at the certified policy's cost, `oracle_saving` what the oracle over
    single tiers saves at the allowed loss, `vacuous` why the claim takes no learning (None: it does).
    """

    gap: float | None
    cost_ratio: float | None
    mix_kept: float | None
    oracle_saving: float | None
    vacuous: str | None


@dataclass(frozen=True, slots=True)
class Certification:
    """A certificate, or why there is none, with everything a reader needs to judge it.

    `n_rows` are the rows that were set aside for it, `n_known` those of them on which every tier's outcome is known
    whatever it was. `pinned` names the slices that are not proven to keep their quality: send those to the best tier.
    `settled` is the share of the outcomes that people or checks gave, `notes` what else a reader should know.
    """

    certificate: Certificate | None
    reason: str | None
    n_rows: int
    n_known: int
    best_tier: str
    beside: Beside | None = None
    slices: tuple[SliceResult, ...] = ()
    slice_loss: float = SLICE_LOSS
    settled: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def beyond_constant(self) -> bool:
        """Whether a policy is certified that is cheaper than always the best tier."""
        return self.certificate is not None and self.certificate.beyond_constant

    @property
    def pinned(self) -> tuple[str, ...]:
        """Names of the slices on which the certified policy is not proven to keep enough."""
        return tuple(one.name for one in self.slices if one.status == "not certified")

    @property
    def labels(self) -> str:
        """Whose word the outcomes are, in one sentence; empty where there are none."""
        if self.settled is None:
            return ""
        said = f"People or checks judged {100 * self.settled:.0f} % of the outcomes"
        if self.settled > 1.0 - 5e-3:
            return f"{said}."
        return f"{said}; the rest are the word of users, judges or rules that nobody has compared with them."

    @property
    def verdict(self) -> str:
        """What to do, in one sentence."""
        if self.certificate is not None:
            return self.certificate.verdict
        return f"No certificate, so nothing is proven about this policy: {self.reason}."

    def to_dict(self) -> dict[str, JsonValue]:
        """Return everything as JSON values, the certified policy's figures at the top."""
        found = {} if self.certificate is None else self.certificate.to_dict()
        record = {
            "verdict": self.verdict,
            "beyond_constant": self.beyond_constant,
            "reason": self.reason,
            **found,
            "n_set_aside": self.n_rows,
            "n_known": self.n_known,
            "beside": None if self.beside is None else asdict(self.beside),
            "slices": [one.to_dict() for one in self.slices],
            "slice_loss": self.slice_loss,
            "pinned": list(self.pinned),
            "settled": self.settled,
            "notes": list(self.notes),
        }
        plain: dict[str, JsonValue] = json.loads(json.dumps(record))
        return plain

    def figures(self) -> dict[str, Figure]:
        """Return the figures by name, as a run is remembered by."""
        if self.certificate is None:
            return {"certified_saving": Figure(None, reason=self.reason)}
        one = self.certificate
        return {
            "certified_saving": one.saving,
            "certified_quality": Figure(one.point.quality),
            "certified_loss_measured": Figure(one.point.loss),
            "certified_least_kept": Figure(one.least_kept),
            "certified_slices_pinned": Figure(float(len(self.pinned))),
        }
