"""A local shelf and a depot kept in step: push what was made here, pull what others put into service, watch for it.

What a shelf does by itself (an automatic rollback) must not be undone by the next look at a depot that still says what
it said before. A pull therefore obeys the depot where it has *changed* since the last look, and leaves the rest alone;
a push changes only what is still as it was last seen. `.depot.json` in the folder of the shelf remembers that.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from router_ml.bundle import load_bundle
from router_ml.depot import CHALLENGER, CHAMPION, RECORD, Depot, DepotState
from router_ml.durable import append_line, replace_file
from router_ml.errors import BundleCorrupt, BundleError, ObjectStoreError, RouterError, UnknownName
from router_ml.objects import Found, ObjectConflict
from router_ml.pointers import Pointers, parse_challenger
from router_ml.shelf import DEFAULT, Shelf
from router_ml.switches import Switch, parse_switch, replaced_by

__all__ = ["Synced", "pull", "push", "watch"]

_SEEN = ".depot.json"
_ACTIONS = {CHAMPION: ("promote", "rollback"), CHALLENGER: ("challenge", "withdraw", "canary", "promote")}


@dataclass(frozen=True, slots=True)
class Synced:
    """What a push or pull did: the versions that were copied, and who serves on the side that was written.

    `changed` says that a pointer was moved.
    """

    versions: tuple[str, ...]
    champion: str
    challenger: str | None
    changed: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON can hold them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Local:
    record: bytes
    champion: bytes
    challenger: bytes


def push(shelf: Shelf, depot: Depot, versions: Sequence[str] = ()) -> Synced:
    """Upload bundles, then say there who serves.

    Args:
        shelf: From where.
        depot: To where.
        versions: Which bundles; none: all that the depot lacks. Champion and challenger are always among them.

    Raises:
        ObjectConflict: When the depot has switches that this shelf does not know of, or gets them meanwhile.
        UnknownName: When the shelf has no such version.
        BundleError: When a bundle cannot be used, or the depot has another one of its version.
        ObjectStoreError: When the storage cannot be written. Pointers are written last.
    """
    pointers = Pointers(shelf.directory)
    state, local = depot.state(), _read_local(pointers)
    _refuse_unknown_switches(depot, state, local)
    champion, challenger = shelf.champion(), shelf.challenger()
    serving = [champion, None if challenger is None else challenger.version]
    known = set(depot.versions())
    wanted = list(versions) or [entry.version for entry in shelf.versions() if not entry.problem]
    wanted = list(dict.fromkeys(one for one in (*wanted, *serving) if one is not None))
    copied = [version for version in wanted if version not in known]
    for version in copied:
        depot.push(shelf.path(version))
    for version in (one for one in wanted if one in known and one in (*versions, *serving)):
        depot.confirm(version, shelf.path(version))
    pairs = {
        RECORD: (state.record, local.record),
        CHAMPION: (state.champion, local.champion),
        CHALLENGER: (state.challenger, local.challenger),
    }
    changed = {key: pair for key, pair in pairs.items() if _data(pair[0]) != pair[1]}
    _refuse_unseen(depot, changed, _recall(shelf.directory, depot))
    etags = {key: found.etag for key, (found, _) in pairs.items() if found is not None} | depot.write(changed)
    _remember(shelf.directory, depot, etags)
    moved = CHAMPION in changed or CHALLENGER in changed
    return Synced(tuple(copied), champion or DEFAULT, serving[1], moved)


def pull(shelf: Shelf, depot: Depot, versions: Sequence[str] = (), *, if_any: bool = False) -> Synced:
    """Download bundles, verify them, and follow what the depot says anew about who serves.

    Args:
        shelf: To where; its folder is made when it is not there.
        depot: From where.
        versions: Which bundles besides champion, challenger, and the one that the champion replaced.
        if_any: Leave the shelf as it is when the depot holds nothing yet, unless versions are named.

    Raises:
        UnknownName: When the depot has no such version.
        BundleError: When a bundle cannot be used, or the shelf cannot be written; who serves stays.
        ObjectStoreError: When the storage cannot be read, or holds nothing; who serves stays.
    """
    pointers, state = Pointers(shelf.directory), depot.state()
    if state.champion is None and state.challenger is None and not depot.versions():
        if if_any and not versions:
            return Synced((), shelf.champion() or DEFAULT, _challenger(shelf), False)
        raise ObjectStoreError(f"{depot.objects.url}: no bundle and no champion there; `router-ml sync push` first")
    try:
        shelf.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"{shelf.directory}: cannot be written ({error.strerror})") from error
    _check_pointers(depot, state)
    copied = _pull_versions(shelf, depot, state, versions)
    # Before the lock, which the service may wait for: this asks the storage.
    for version in filter(None, (_version(getattr(state, key)) for key in _moved(pointers, depot, state)[1])):
        depot.confirm(version, shelf.path(version))
    with pointers.locked():
        new, moved = _moved(pointers, depot, state)
        if CHAMPION in moved:
            _verify(shelf, _version(state.champion))
        _write_local(pointers, new, {key: _data(getattr(state, key)) for key in moved})
    found = {CHAMPION: state.champion, CHALLENGER: state.challenger, RECORD: state.record}
    _remember(shelf.directory, depot, {key: one.etag for key, one in found.items() if one is not None})
    return Synced(tuple(copied), shelf.champion() or DEFAULT, _challenger(shelf), bool(moved))


def watch(
    shelf: Shelf, depot: Depot, *, every_s: float, stop: threading.Event, say: Callable[[str, Synced | None], None]
) -> None:
    """Pull again and again; what fails leaves the shelf as it is, and is tried again.

    Args:
        shelf: To where.
        depot: From where.
        every_s: Seconds between two looks.
        stop: Ends it.
        say: Told once about every change of state: in words, and what was pulled (None: nothing could be).
    """
    before = ""
    while not stop.is_set():
        synced: Synced | None = None
        try:
            synced = pull(shelf, depot)
            challenger = "" if synced.challenger is None else f", challenger {synced.challenger}"
            state = f"in step with {depot.objects.url}: champion {synced.champion}{challenger}"
        except RouterError as error:
            state = f"the shelf stays as it is: {error}"
        if state != before:
            say(state, synced)
        before = state
        stop.wait(every_s)


def _pull_versions(shelf: Shelf, depot: Depot, state: DepotState, versions: Sequence[str]) -> list[str]:
    here = {entry.version for entry in shelf.versions()} if shelf.directory.is_dir() else set()
    wanted = [*versions, *(_version(found) for found in (state.champion, state.challenger))]
    copied = [version for version in dict.fromkeys(wanted) if version and version not in here]
    for version in copied:
        depot.pull(version, shelf.directory)
    earlier = _replaced(state)
    if earlier and earlier not in here and earlier not in copied:
        try:
            depot.pull(earlier, shelf.directory)
            copied.append(earlier)
        except UnknownName:  # pruned: then there is nothing to roll back to, and that is no fault
            pass
    return copied


def _challenger(shelf: Shelf) -> str | None:
    challenger = shelf.challenger()
    return None if challenger is None else challenger.version


def _replaced(state: DepotState) -> str | None:
    return replaced_by(_switches(_lines(state.record))).get(_version(state.champion))


def _check_pointers(depot: Depot, state: DepotState) -> None:
    """Refuse what no shelf has written, before any of it is written here: anybody may write into a bucket."""
    where = depot.objects.url_of(CHAMPION)
    words = _data(state.champion).decode(errors="replace").split()
    if len(words) > 1:
        raise BundleCorrupt(f"{where}: expected one version, got {' '.join(words)!r}; promote again and push")
    parse_challenger(_data(state.challenger).decode(errors="replace"), depot.objects.url_of(CHALLENGER))


def _moved(pointers: Pointers, depot: Depot, state: DepotState) -> tuple[list[bytes], list[str]]:
    """Return the lines of the record that are new here, and the pointers that shall be followed."""
    local, seen = _read_local(pointers), _recall(pointers.directory, depot)
    here = set(local.record.split(b"\n"))
    new = [line for line in _lines(state.record) if line not in here]
    anew = [key for key in (CHAMPION, CHALLENGER) if _says_anew(key, state, seen, new)]
    return new, [key for key in anew if _data(getattr(state, key)).strip() != getattr(local, key).strip()]


def _says_anew(key: str, state: DepotState, seen: dict[str, str], new: Sequence[bytes]) -> bool:
    found: Found | None = getattr(state, key)
    if found is None:
        return False
    if seen.get(key) != found.etag:
        return True
    # Away and back again between two looks: the content is as before, but somebody meant it anew.
    return any(one.action in _ACTIONS[key] and (one.after or "") == _version(found) for one in _switches(new))


def _verify(shelf: Shelf, version: str) -> None:
    if version:
        load_bundle(shelf.path(version))


def _read_local(pointers: Pointers) -> _Local:
    files = (pointers.record_file, pointers.champion_file, pointers.challenger_file)
    return _Local(*(file.read_bytes() if file.exists() else b"" for file in files))


def _write_local(pointers: Pointers, new: Sequence[bytes], texts: dict[str, bytes]) -> None:
    files = {CHAMPION: pointers.champion_file, CHALLENGER: pointers.challenger_file}
    try:
        if new:
            append_line(pointers.record_file, b"\n".join(new).decode())
        for key, text in texts.items():
            if text.strip():
                replace_file(files[key], text)
            else:
                files[key].unlink(missing_ok=True)
    except OSError as error:
        raise BundleError(f"{pointers.directory}: cannot be written ({error.strerror})") from error


def _refuse_unknown_switches(depot: Depot, state: DepotState, local: _Local) -> None:
    here = set(local.record.split(b"\n"))
    unknown = [line for line in _lines(state.record) if line not in here]
    if unknown:
        last = _switches(unknown)[-1]
        raise ObjectConflict(
            f"{depot.objects.url}: somebody else has switched there ({last.action} {last.after}, {last.ts}); "
            "`router-ml sync pull`, look at `router-ml models`, and switch again"
        )


def _refuse_unseen(depot: Depot, changed: Mapping[str, tuple[Found | None, bytes]], seen: Mapping[str, str]) -> None:
    # Its record may be known here already: a writer in between writes the record first.
    for key, (found, _) in changed.items():
        if key != RECORD and found is not None and seen.get(key) != found.etag:
            raise ObjectConflict(
                f"{depot.objects.url_of(key)}: says '{found.data.decode(errors='replace').strip()}', which this shelf "
                "has not seen yet; `router-ml sync pull`, look at `router-ml models`, and switch again"
            )


def _lines(record: Found | None) -> list[bytes]:
    return [line for line in _data(record).split(b"\n") if parse_switch(line) is not None]


def _switches(lines: Sequence[bytes]) -> list[Switch]:
    return [switch for line in lines if (switch := parse_switch(line)) is not None]


def _data(found: Found | None) -> bytes:
    return b"" if found is None else found.data


def _version(found: Found | None) -> str:
    return next(iter(_data(found).decode(errors="replace").split()), "")


def _remember(directory: Path, depot: Depot, etags: dict[str, str]) -> None:
    seen = {"url": depot.objects.url, **etags}
    if _recall(directory, depot) == seen:
        return
    try:
        replace_file(directory / _SEEN, json.dumps(seen).encode())
    except OSError as error:
        raise BundleError(f"{directory}: cannot be written ({error.strerror})") from error


def _recall(directory: Path, depot: Depot) -> dict[str, str]:
    try:
        seen = json.loads((directory / _SEEN).read_bytes())
    except (OSError, ValueError):
        return {}
    # Of another depot: nothing was ever seen of this one.
    return seen if isinstance(seen, dict) and seen.get("url") == depot.objects.url else {}
