"""The files of a shelf that say who serves: `champion`, `challenger` and the record of switches, and their lock.

Each pointer is a text file that is replaced in one step. A change writes the record first: a line about a switch that a
crash prevented is harmless when it is read, while a switch without its line could not be rolled back.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from router_ml.durable import replace_file
from router_ml.errors import BundleCorrupt, BundleError
from router_ml.switches import Switch, append_switch, read_switches

__all__ = ["LARGEST_SHARE", "Challenger", "Pointers", "parse_challenger"]

# Never all of the requests: the rest is what the challenger is compared with.
LARGEST_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Challenger:
    """Who wants the champion's place; `share` is what it answers of the requests (None: what is configured)."""

    version: str
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Pointers:
    """The pointer files in one folder."""

    directory: Path

    @property
    def champion_file(self) -> Path:
        """Where the champion is named."""
        return self.directory / "champion"

    @property
    def challenger_file(self) -> Path:
        """Where the challenger is named, with the share that a person set."""
        return self.directory / "challenger"

    @property
    def record_file(self) -> Path:
        """The record of switches."""
        return self.directory / "switches.jsonl"

    def champion(self) -> str | None:
        """Return the version that the champion file names; None for the default bundle.

        Raises:
            BundleCorrupt: When it cannot be read.
        """
        return _text_of(self.champion_file)

    def challenger(self) -> Challenger | None:
        """Return who the challenger file names; None for nobody.

        Raises:
            BundleCorrupt: When it cannot be read as a version and a share.
        """
        return parse_challenger(_text_of(self.challenger_file) or "", self.challenger_file)

    def replaceable(self) -> str | None:
        """Return the version in the challenger file, which is about to be replaced; None also when it is unreadable."""
        try:
            found = self.challenger()
        except BundleCorrupt:
            return None
        return None if found is None else found.version

    def switches(self) -> list[Switch]:
        """Return every switch there was, oldest first.

        Raises:
            BundleCorrupt: When the record cannot be read.
        """
        return read_switches(self.record_file)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from switching: what is read inside still holds when it is written.

        Raises:
            BundleError: When the folder cannot be written.
        """
        try:
            file = (self.directory / ".lock").open("ab")
        except OSError as error:
            raise self._not_written(error) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def set_champion(self, switch: Switch) -> None:
        """Record a switch and name its `after` as the champion, who is no challenger any more.

        Raises:
            BundleError: When the folder cannot be written; the pointers stay.
        """
        self._write(switch, self.champion_file, switch.after)
        if switch.after is not None and self.replaceable() == switch.after:
            self._replace(self.challenger_file, None)

    def set_challenger(self, switch: Switch, share: float | None) -> None:
        """Record a switch and name its `after` as the challenger, with its share of the requests.

        Raises:
            BundleError: When the folder cannot be written; the pointers stay.
        """
        text = switch.after if share is None or switch.after is None else f"{switch.after} {share:g}"
        self._write(switch, self.challenger_file, text)

    def _write(self, switch: Switch, file: Path, text: str | None) -> None:
        try:
            append_switch(self.record_file, switch)
        except OSError as error:
            raise self._not_written(error) from error
        self._replace(file, text)

    def _replace(self, file: Path, text: str | None) -> None:
        try:
            if text is None:
                file.unlink(missing_ok=True)
            else:
                replace_file(file, f"{text}\n".encode())
        except OSError as error:
            raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> BundleError:
        return BundleError(f"{self.directory}: cannot be written ({error.strerror}); who serves stays as it was")


def parse_challenger(text: str, where: object) -> Challenger | None:
    """Return who a challenger file names; None for nobody.

    Args:
        text: Its content.
        where: The file, for messages.

    Raises:
        BundleCorrupt: When it is no version and perhaps a share.
    """
    words = text.split()
    if not words:
        return None
    try:
        share = float(words[1]) if len(words) > 1 else None
    except ValueError:
        share = -1.0
    if len(words) > 2 or (share is not None and not 0.0 <= share <= LARGEST_SHARE):
        message = (
            f"{where}: expected a version and perhaps a share in [0, 0.9], got {' '.join(words)!r}; "
            "`router-ml challenge VERSION` writes it again"
        )
        raise BundleCorrupt(message)
    return Challenger(words[0], share)


def _text_of(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:  # of the system and not of the file, such as too many open ones
        raise BundleCorrupt(f"{file}: cannot be read ({error.strerror}); it is left as it is") from error
    except UnicodeDecodeError as error:
        message = f"{file}: cannot be read ({error}); delete it, then promote or challenge again"
        raise BundleCorrupt(message) from error
