"""A window of traffic summed up: what came, what the model thought of it, what the tiers did, what it cost.

A bundle keeps the summary of the traffic it was trained on (`profile.json`), so that later traffic can be compared with
it when the log is long gone. It holds counts and hashes, no text and nothing about a single request.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router_ml.bundle import PROFILE
from router_ml.errors import BundleCorrupt
from router_ml.features import DENSE_NAMES, N_TEXT_BUCKETS
from router_ml_training.dataset import Dataset
from router_ml_training.histograms import Histogram, category_histogram, histogram, share_histogram
from router_ml_training.outcome_streams import StreamKind, streams_of

__all__ = ["OTHER_CLASS", "Profile", "StreamMean", "load_profile", "profile_of"]

F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]

# Classes of requests that are kept by themselves; the others, and those of few requests, are one.
OTHER_CLASS = -1
_CLASSES = 200
_FEW = 5


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StreamMean(_Record):
    """The mean of one stream of outcomes: over `n` sessions or prompts a day; `scale` as in `Stream`."""

    n: Annotated[int, Field(ge=1)]
    mean: Annotated[float, Field(ge=0.0, le=1.0)]
    scale: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None


class Profile(_Record):
    """The summary of `n` requests.

    `features` by name, and `classes` (same tenant, feature, template, tools and turn; None where the log was read
    without words) say what came. `adequacy` by tier is what the model expected. What follows depends on the policy that
    logged it: `first_tier` (index in `tiers`) of what a policy drew, `escalation` of those (0 or 1); by tier, of what
    it ran live (of everything, where nothing was drawn), `input_tokens`, `output_tokens`, `cost_usd` and `feedback`,
    the outcome of judged answers. `streams` are means to hold later outcomes against, by kind and tier.
    """

    format: Literal[1] = 1
    tiers: tuple[str, ...]
    n: Annotated[int, Field(ge=0)]
    first_ts: datetime | None = None
    last_ts: datetime | None = None
    features: dict[str, Histogram]
    classes: Histogram | None = None
    adequacy: dict[str, Histogram] = Field(default_factory=dict)
    first_tier: Histogram | None = None
    escalation: Histogram | None = None
    input_tokens: dict[str, Histogram] = Field(default_factory=dict)
    output_tokens: dict[str, Histogram] = Field(default_factory=dict)
    cost_usd: dict[str, Histogram] = Field(default_factory=dict)
    feedback: dict[str, Histogram] = Field(default_factory=dict)
    streams: dict[StreamKind, dict[str, StreamMean]] = Field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return what `profile.json` holds."""
        return self.model_dump_json(exclude_none=True).encode() + b"\n"

    @property
    def scales(self) -> dict[StreamKind, dict[str, float]]:
        """The lengths in tokens that streams to be compared with this have to be measured in."""
        return {
            kind: {tier: one.scale for tier, one in means.items() if one.scale is not None}
            for kind, means in self.streams.items()
        }


def profile_of(dataset: Dataset, adequacy: F64 | None = None) -> Profile:
    """Sum up a window of traffic.

    Args:
        dataset: The rows; with or without words.
        adequacy: What the model that decides says of each row and tier, (n, K); NaN for rows it was fitted on, which it
            knows better than any later one. None: not asked.
    """
    group, tiers = dataset.group, dataset.tiers
    live = dataset.action >= 0
    ran = live if live.any() else np.ones(len(dataset), np.bool_)
    answered = np.isfinite(dataset.output_tokens) | np.isfinite(dataset.cost_usd)
    dated = dataset.dated and len(dataset) > 0
    return Profile(
        tiers=tiers,
        n=len(dataset),
        first_ts=datetime.fromtimestamp(float(dataset.ts.min()), UTC) if dated else None,
        last_ts=datetime.fromtimestamp(float(dataset.ts.max()), UTC) if dated else None,
        features=_named(DENSE_NAMES, dataset.dense, group),
        classes=_classes(dataset),
        adequacy={} if adequacy is None else _named(tiers, adequacy, group, shares=True),
        first_tier=category_histogram(dataset.action[live], group[live]),
        escalation=share_histogram(dataset.escalated[live].any(axis=1), group[live]),
        input_tokens=_named(tiers, np.where(answered, dataset.input_tokens[:, None], np.nan)[ran], group[ran]),
        output_tokens=_named(tiers, dataset.output_tokens[ran], group[ran]),
        cost_usd=_named(tiers, dataset.cost_usd[ran], group[ran]),
        feedback=_named(tiers, dataset.quality[ran], group[ran], shares=True),
        streams=_stream_means(dataset),
    )


def load_profile(bundle: Path) -> Profile | None:
    """Read the profile of a bundle that was loaded, hence verified; None when it has none.

    Args:
        bundle: The bundle's folder.

    Raises:
        BundleCorrupt: When the file is no profile.
    """
    try:
        return Profile.model_validate_json((bundle / PROFILE).read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        raise BundleCorrupt(f"{bundle / PROFILE}: not a profile of traffic; train the bundle again") from error


def _named(
    names: tuple[str, ...], values: NDArray[np.floating], group: I64, *, shares: bool = False
) -> dict[str, Histogram]:
    of = share_histogram if shares else histogram
    found = {name: of(values[:, i], group) for i, name in enumerate(names)}
    return {name: one for name, one in found.items() if one is not None}


def _classes(dataset: Dataset) -> Histogram | None:
    text = dataset.text
    if text.nnz == 0:
        return None
    is_metadata = text.indices >= N_TEXT_BUCKETS
    codes = np.empty(len(dataset), np.int64)
    for row, (start, end) in enumerate(zip(text.indptr[:-1], text.indptr[1:], strict=True)):
        facts = np.sort(text.indices[start:end][is_metadata[start:end]]).astype("<i8")
        codes[row] = zlib.crc32(facts.tobytes())
    found, member, counts = np.unique(codes, return_inverse=True, return_counts=True)
    frequent = np.zeros(len(found), np.bool_)
    frequent[np.argsort(-counts, kind="stable")[:_CLASSES]] = True
    kept = np.where(frequent & (counts >= _FEW), found, OTHER_CLASS)
    return category_histogram(kept[member], dataset.group)


def _stream_means(dataset: Dataset) -> dict[StreamKind, dict[str, StreamMean]]:
    found: dict[StreamKind, dict[str, StreamMean]] = {}
    for stream in streams_of(dataset):
        mean = float(np.clip(stream.values.mean(), 0.0, 1.0))
        found.setdefault(stream.kind, {})[stream.tier] = StreamMean(n=len(stream.values), mean=mean, scale=stream.scale)
    return found
