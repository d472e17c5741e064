"""One look at the latest traffic: has it drifted, and does an alarm ring; what is written down and told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from router_ml.bundle import Bundle
from router_ml.watch import Watch, WatchedAlarm, WatchedDrift
from router_ml_training.alerts import Alert
from router_ml_training.audit_alarms import Alarm, alarms_text, listen
from router_ml_training.dataset import Dataset
from router_ml_training.drift import ALPHA, POLICY_KINDS, TRAFFIC_KINDS, Drift, DriftLine, drift_between
from router_ml_training.outcome_streams import AUDITED, CHOSEN, Stream, StreamKind, streams_of, whole_days
from router_ml_training.profile import Profile, StreamMean, profile_of
from router_ml_training.traffic_windows import TrafficWindows, expected_adequacy

__all__ = ["Watched", "golden_alarms", "watch_record", "watch_traffic"]

# Found by others and kept when the traffic is looked at again.
_NOT_OURS: StreamKind = "golden"


@dataclass(frozen=True, slots=True)
class Watched:
    """What a look found.

    `traffic` compares the window with what the bundle was trained on, `own` what the bundle's policy did in it with
    what it did before; None where there is nothing to compare with, and `notes` say why.
    """

    bundle: str
    since: datetime
    until: datetime
    n: int
    traffic: Drift | None
    own: Drift | None
    alarms: tuple[Alarm, ...]
    notes: tuple[str, ...]

    @property
    def lines(self) -> tuple[DriftLine, ...]:
        """All comparisons."""
        return tuple(line for drift in (self.traffic, self.own) if drift is not None for line in drift.lines)

    @property
    def quiet(self) -> bool:
        """Whether nothing has drifted and no alarm rings."""
        return not any(line.drifted for line in self.lines) and not any(alarm.rings for alarm in self.alarms)

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """What people should know."""
        drifted = [Alert("drift", line.name, _drift_text(line)) for line in self.lines if line.drifted]
        ringing = [
            Alert(alarm.kind, f"{alarm.tier} {alarm.direction}", alarm.text) for alarm in self.alarms if alarm.rings
        ]
        return (*ringing, *drifted)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "bundle": self.bundle,
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "n": self.n,
            "quiet": self.quiet,
            "traffic": None if self.traffic is None else self.traffic.to_dict(),
            "own": None if self.own is None else self.own.to_dict(),
            "alarms": [alarm.to_dict() for alarm in self.alarms],
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """Return everything as tables."""
        span = f"{self.since:%Y-%m-%d %H:%M} to {self.until:%Y-%m-%d %H:%M} UTC"
        parts = [f"{self.n:,} requests, {span}, against what {self.bundle} knows"]
        for title, drift in (("What came", self.traffic), ("What the policy did with it", self.own)):
            if drift is not None:
                against = f"{drift.n_current:,} requests against {drift.n_reference:,} before"
                parts.append(f"{title}, {against}\n{drift.to_text()}")
        if self.alarms:
            parts.append(alarms_text(self.alarms))
        parts += [f"Note: {note}." for note in self.notes]
        found = [alert.text for alert in self.alerts]
        parts.append("\n".join(found) if found else "nothing has drifted, and no alarm rings")
        return "\n\n".join(parts)


def watch_traffic(
    windows: TrafficWindows, bundle: Bundle, reference: Profile | None, *, rng: np.random.Generator
) -> Watched:
    """Look at the latest traffic.

    What came is held against the profile of the bundle's training window. What its policy did (escalations, tokens,
    costs, feedback) is held against what the same policy did before the window: another policy does other things, and
    its own training log was written by one.

    Args:
        windows: The latest window and the time before it.
        bundle: The bundle in service.
        reference: What it was trained on; None takes the time before the window.
        rng: Draws the rows on which the model is asked, where there are many.
    """
    window, notes = windows.window(), []
    current = _profile(window, bundle, rng)
    if window.tiers != bundle.ladder.names:
        notes.append(f"the log is of other tiers than {bundle.version}, so that adequacy is not compared")
    audits_after = windows.since
    if reference is None:
        before = windows.before()
        reference = None if before is None else _profile(before, bundle, rng)
        where = "there is nothing older to compare with" if before is None else "the time before the window stands in"
        notes.append(f"{bundle.version} keeps no profile of what it was trained on; {where}")
    elif reference.last_ts is not None:
        audits_after = reference.last_ts
    earlier, later = windows.own_before(), windows.own_window()
    record = None if earlier is None else profile_of(earlier)
    if record is None or later is None:
        notes.append(f"{bundle.version} has not decided long enough to be compared with itself")
    traffic = None if reference is None else drift_between(reference, current, kinds=TRAFFIC_KINDS, alpha=ALPHA / 2)
    own = None
    if record is not None and later is not None:
        own = drift_between(record, profile_of(later), kinds=POLICY_KINDS, alpha=ALPHA / 2)
    streams, references = _streams(windows, reference, audits_after, record, later)
    return Watched(
        bundle.version,
        windows.since,
        windows.until,
        len(window),
        traffic,
        own,
        listen(streams, references),
        tuple(notes),
    )


def watch_record(found: Watched, *, now: datetime, previous: Watch | None) -> Watch:
    """Return what is written down of a look; what others found before is kept, and what people were told.

    Args:
        found: What was found.
        now: When.
        previous: What was written down before.
    """
    kept = golden_alarms(previous)
    return Watch(
        checked=now,
        bundle=found.bundle,
        since=found.since,
        until=found.until,
        n=found.n,
        drift=tuple(
            WatchedDrift(name=line.name, kind=line.kind, distance=line.distance, limit=line.limit, drifted=line.drifted)
            for line in found.lines
        ),
        alarms=(
            *(
                WatchedAlarm(
                    kind=alarm.kind,
                    tier=alarm.tier,
                    direction=alarm.direction,
                    evidence=alarm.evidence,
                    limit=alarm.limit,
                    rings=alarm.rings,
                    text=alarm.text,
                )
                for alarm in found.alarms
            ),
            *kept,
        ),
        sent={} if previous is None else dict(previous.sent),
    )


def golden_alarms(watch: Watch | None) -> tuple[WatchedAlarm, ...]:
    """Return the alarms of a record that golden sets found."""
    return () if watch is None else tuple(alarm for alarm in watch.alarms if alarm.kind == _NOT_OURS)


def _profile(dataset: Dataset, bundle: Bundle, rng: np.random.Generator) -> Profile:
    same = dataset.tiers == bundle.ladder.names
    return profile_of(dataset, expected_adequacy(dataset, bundle, rng=rng) if same else None)


def _streams(
    windows: TrafficWindows,
    reference: Profile | None,
    audits_after: datetime,
    record: Profile | None,
    later: Dataset | None,
) -> tuple[list[Stream], Mapping[StreamKind, Mapping[str, StreamMean]]]:
    """Return what alarms listen to, and what they hold it against."""
    streams: list[Stream] = []
    references: dict[StreamKind, Mapping[str, StreamMean]] = {}
    ts, begin = windows.dataset.ts, max(audits_after, windows.earliest)
    recent = np.flatnonzero((ts > audits_after.timestamp()) & whole_days(ts, begin, windows.until))
    if reference is not None and len(recent):
        heard = streams_of(windows.dataset.rows(recent), reference.scales)
        streams += [one for one in heard if one.kind in AUDITED]
        references |= {kind: reference.streams[kind] for kind in AUDITED if kind in reference.streams}
    if record is not None and later is not None:
        days = later.rows(np.flatnonzero(whole_days(later.ts, windows.since, windows.until)))
        streams += [one for one in streams_of(days, record.scales) if one.kind in CHOSEN]
        references |= {kind: record.streams[kind] for kind in CHOSEN if kind in record.streams}
    return streams, references


def _drift_text(line: DriftLine) -> str:
    means = "" if line.reference is None else f", mean {line.reference:.4g} before and {line.current:.4g} now"
    return f"{line.name} has drifted: distance {line.distance:.3f}, limit {line.limit:g}{means}"
