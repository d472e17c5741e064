"""What a retraining leaves for the next one: which run was begun or finished, and which learner won last."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router_ml.durable import replace_file
from router_ml.errors import RouterError

__all__ = ["Begun", "LastCompetition", "RunState", "read_state", "write_state"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Begun(_Record):
    """A run that was begun.

    `request` is a hash of what was asked for; a run that asks for the same takes up an unfinished one with its
    `started`, so that rows which came later wait. `inputs` is a hash of the log and all settings, `made_of` of what the
    bundle is made of, `version` what it is called, `learners` who competes and `why`: known once the log was read.
    `rival` is the champion it was compared with.
    """

    request: str
    started: datetime
    inputs: str = ""
    made_of: str = ""
    version: str = ""
    learners: tuple[str, ...] = ()
    why: str = ""
    rival: str = ""


class LastCompetition(_Record):
    """The last competition of all learners: on how many rows, under which settings, who won; `passed`: its gates.

    `until` is the time of the latest row, in seconds. A refit of the winner that failed its gates sets `passed` to
    false as well.
    """

    n_rows: int
    until: float
    settings: str
    winner: str
    at: datetime
    passed: bool


class RunState(_Record):
    """Everything that is remembered.

    `salt` is part of every key: it changes when all steps are to run again. `kept` are steps and keys of results, of
    the last run and the one before. `last` is the last run that was finished, `record` and `text` what it printed.
    """

    begun: Begun | None = None
    last: Begun | None = None
    finished: datetime | None = None
    salt: str = ""
    competition: LastCompetition | None = None
    kept: tuple[tuple[tuple[str, str], ...], ...] = ()
    record: dict[str, Any] = Field(default_factory=dict)
    text: str = ""


def read_state(file: Path) -> RunState:
    """Return what is remembered; nothing, where the file is not there or another release wrote it."""
    try:
        return RunState.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return RunState()
    except OSError as error:
        raise RouterError(f"{file}: cannot be read ({error.strerror}); check the rights of the folder") from error


def write_state(file: Path, state: RunState) -> None:
    """Replace what is remembered, in one step.

    Raises:
        RouterError: When it cannot be written; what was remembered is still there.
    """
    try:
        replace_file(file, state.model_dump_json(indent=2).encode())
    except OSError as error:
        raise RouterError(f"{file}: cannot be written ({error.strerror}); free some space and run again") from error
