"""MLflow's alias `champion` and the shelf's champion, kept in step: told at once, or when MLflow can be reached again.

`<models>/.retrain/alias.json` says what the alias pointed at when it was seen last, and who served then;
`<models>/.retrain/outbox/aliases.json` what it is to point at, and what it pointed at when that was wished.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from router_ml.durable import replace_file
from router_ml.errors import BundleError, RouterError, UnknownName
from router_ml.shelf import DEFAULT, Shelf
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking_outbox import outbox_of
from router_ml_training.tracking_registry import Named, bundle_digest, named, set_alias

__all__ = ["Seen", "name_champion", "note_champion", "seen_champion", "tell_aliases"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the alias pointed at when it was seen last (a bundle's digest; None: nothing), and who served then."""

    digest: str | None
    champion: str | None


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the alias is to point at (None: nothing), and the digest of what it pointed at when that was wished."""

    version: str | None
    digest: str | None = None
    was: str | None = None


def name_champion(version: str | None, shelf: Shelf, settings: MlflowSettings) -> bool:
    """Point MLflow's alias `champion` at a bundle that was put into service.

    The shelf has switched already: where MLflow cannot be reached, a warning says so and the wish waits in the outbox.

    Args:
        version: The bundle's; None for the default bundle, of which MLflow knows nothing.
        shelf: Where it is.
        settings: `[mlflow]`.

    Returns:
        Whether the alias points at it now.

    Raises:
        RouterError: When that can neither be done nor kept.
    """
    wish = _wish(version, shelf)
    try:
        _point(wish, shelf, settings)
    except UnknownName as error:
        if not (outbox_of(shelf.directory) / str(version)).exists():
            _log.warning("MLflow's alias 'champion' stays where it is: %s", error)
            return False
        _keep(wish, shelf, error)  # its run waits to be recorded, and the alias with it
        return False
    except RouterError as error:
        _keep(wish, shelf, error)
        return False
    _wishes_file(shelf).unlink(missing_ok=True)
    return True


def tell_aliases(shelf: Shelf, settings: MlflowSettings) -> None:
    """Point MLflow's alias at what it was to point at while MLflow was away, unless somebody moved it since.

    Args:
        shelf: Whose outbox.
        settings: `[mlflow]`.

    Raises:
        RouterError: When MLflow cannot be used, or what was kept cannot be read; it stays for the next time.
    """
    wish = _waiting(shelf)
    if wish is None:
        return
    try:
        now = named("champion", settings=settings)
        digest = None if now is None else now.digest
        if digest != wish.digest and digest != wish.was:
            _log.warning("MLflow's alias 'champion' stays at %s: %s", _shown(now), _moved(wish))
        else:
            _point(wish, shelf, settings)
    except UnknownName as error:
        _log.warning("MLflow's alias 'champion' stays where it is: %s", error)
    if _waiting(shelf) == wish:
        _wishes_file(shelf).unlink(missing_ok=True)


def seen_champion(shelf: Shelf) -> Seen | None:
    """Return what the alias pointed at when it was seen last from this shelf; None when it never was.

    Raises:
        RouterError: When that cannot be read.
    """
    file = _seen_file(shelf)
    try:
        return Seen(**_read(file)) if file.exists() else None
    except TypeError as error:
        raise _unreadable(file, error) from error


def note_champion(digest: str | None, shelf: Shelf) -> None:
    """Remember what the alias points at, and who serves.

    Args:
        digest: The digest of what it points at; None: nothing.
        shelf: Where that is remembered.

    Raises:
        RouterError: When it cannot be written.
    """
    _write(_seen_file(shelf), asdict(Seen(digest, shelf.champion())))


def _point(wish: _Wish, shelf: Shelf, settings: MlflowSettings) -> None:
    set_alias("champion", wish.version, settings=settings, digest=wish.digest)
    note_champion(wish.digest, shelf)


def _wish(version: str | None, shelf: Shelf) -> _Wish:
    waiting, seen = _waiting(shelf), seen_champion(shelf)
    if waiting is not None:
        was = waiting.was
    elif seen is not None:
        was = seen.digest
    else:
        was = _replaced(shelf)
    return _Wish(version, None if version is None else bundle_digest(shelf.path(version)), was)


def _replaced(shelf: Shelf) -> str | None:
    """Return the digest of the bundle that the champion replaced: what the alias should point at."""
    before = next((one.before for one in reversed(shelf.switches()) if one.action in ("promote", "rollback")), None)
    return None if before in (None, DEFAULT) else _digest(before, shelf)


def _digest(version: str, shelf: Shelf) -> str | None:
    try:
        return bundle_digest(shelf.path(version))
    except (BundleError, UnknownName):
        return None


def _keep(wish: _Wish, shelf: Shelf, error: RouterError) -> None:
    _write(_wishes_file(shelf), {"champion": asdict(wish)})
    _log.warning("MLflow's alias 'champion' waits in %s: %s", _wishes_file(shelf), error)


def _waiting(shelf: Shelf) -> _Wish | None:
    file = _wishes_file(shelf)
    if not file.exists():
        return None
    try:
        said = _read(file)["champion"]
        if isinstance(said, str):  # an earlier release kept the version alone
            return _Wish(said, _digest(said, shelf), _replaced(shelf))
        return _Wish(**said)
    except (KeyError, TypeError) as error:
        raise _unreadable(file, error) from error


def _moved(wish: _Wish) -> str:
    what = "it was to be taken away" if wish.version is None else f"it was to be moved to {wish.version}"
    return f"{what} while MLflow was away, and somebody has moved it since; `router-ml follow` obeys it"


def _shown(found: Named | None) -> str:
    return "nothing" if found is None else found.version


def _wishes_file(shelf: Shelf) -> Path:
    return outbox_of(shelf.directory) / "aliases.json"


def _seen_file(shelf: Shelf) -> Path:
    return shelf.directory / ".retrain" / "alias.json"


def _write(file: Path, content: Mapping[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps(content).encode())
    except OSError as error:
        message = f"{file}: cannot be written ({error.strerror}); check the folder, its rights and space"
        raise RouterError(message) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error
    return found


def _unreadable(file: Path, error: Exception) -> RouterError:
    return RouterError(f"{file}: cannot be read ({error}); delete it: what it says of MLflow's alias is then forgotten")
