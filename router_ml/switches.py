"""The record of switches: one line for every change of who is in service, in a file that only grows.

`<models>/switches.jsonl` has promotions, rollbacks, challengers put up or withdrawn, and canaries begun or ended, each
with its cause and, where a test decided, the numbers it decided on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from router_ml.durable import append_line
from router_ml.errors import BundleCorrupt

__all__ = ["Action", "Cause", "Switch", "append_switch", "parse_switch", "read_switches", "replaced_by"]

Action: TypeAlias = Literal["promote", "rollback", "challenge", "withdraw", "canary"]
Cause: TypeAlias = Literal["person", "automatic"]


@dataclass(frozen=True, slots=True)
class Switch:
    """One change: `before` and `after` are versions; None is the default bundle, or no challenger.

    `promote` and `rollback` change the champion; `challenge`, `withdraw` and `canary` the challenger, the last one only
    its share of the requests. `evidence` holds what the decision rests on.
    """

    ts: str
    action: Action
    before: str | None
    after: str | None
    cause: Cause
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the switch as it is written: a JSON object with `from` and `to`."""
        names = {"before": "from", "after": "to"}
        return {names.get(name, name): value for name, value in asdict(self).items()}


def append_switch(path: Path, switch: Switch) -> None:
    """Add one switch to the record; it is on the disk when this returns.

    Raises:
        OSError: When it cannot be written.
    """
    line = json.dumps(switch.to_dict(), ensure_ascii=False)
    # After half a line, which a crash left, the next one would be lost with it.
    append_line(path, f"\n{line}" if _ends_in_half_a_line(path) else line)


def read_switches(path: Path) -> list[Switch]:
    """Return every switch, oldest first; lines cut off by a crash are left out.

    Raises:
        BundleCorrupt: When the file is there and cannot be read.
    """
    try:
        # Not splitlines: a reason may hold what else counts as the end of a line.
        lines = path.read_bytes().decode().split("\n")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise BundleCorrupt(f"{path}: cannot be read ({error}); move it away to begin a new record") from error
    return [switch for line in lines if (switch := parse_switch(line)) is not None]


def replaced_by(switches: list[Switch]) -> dict[str, str | None]:
    """Return what each version replaced when it was last promoted; None is the default bundle.

    Rollbacks, and promotions of the champion itself, do not matter here.
    """
    return {
        switch.after: switch.before
        for switch in switches
        if switch.action == "promote" and switch.after is not None and switch.before != switch.after
    }


def _ends_in_half_a_line(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except FileNotFoundError:
        return False


def parse_switch(line: str | bytes) -> Switch | None:
    """Return the switch that a line of the record says; None when it says none, as when a crash cut it off."""
    try:
        raw = json.loads(line)
        return Switch(
            ts=str(raw["ts"]),
            action=cast(Action, str(raw["action"])),
            before=_version(raw["from"]),
            after=_version(raw["to"]),
            cause=cast(Cause, str(raw.get("cause", "person"))),
            reason=str(raw.get("reason", "")),
            evidence=dict(raw.get("evidence", {})),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _version(value: object) -> str | None:
    return None if value is None else str(value)
