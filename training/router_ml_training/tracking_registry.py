"""The registered model in MLflow: which bundle an alias names, aliases moved, bundles fetched back.

A bundle is known by its digest: two machines that share a server may give two bundles one name.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from router_ml.bundle import MANIFEST, load_bundle
from router_ml.durable import place_folder
from router_ml.errors import BundleCorrupt, BundleError, UnknownName
from router_ml_training.settings import MlflowSettings
from router_ml_training.tracking_client import connected

__all__ = ["BUNDLE", "DIGEST", "Alias", "Named", "bundle_digest", "fetch_bundle", "named", "set_alias"]

Alias: TypeAlias = Literal["challenger", "champion"]

BUNDLE, DIGEST = "router.bundle", "router.digest"
_GATE = "gate."
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Named:
    """The bundle that an alias points at: version and digest, the run that made it, the required gates it failed."""

    version: str
    digest: str
    run_id: str
    failed: tuple[str, ...]


def bundle_digest(bundle: Path) -> str:
    """Return what tells a bundle from every other: the SHA-256 of its manifest, which has that of every file.

    Args:
        bundle: The bundle's folder.

    Raises:
        BundleCorrupt: When the manifest cannot be read.
    """
    try:
        return hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise BundleCorrupt(
            f"{bundle / MANIFEST}: cannot be read ({error.strerror}); fetch or train it again"
        ) from error


def named(alias: Alias, *, settings: MlflowSettings) -> Named | None:
    """Return the bundle that an alias points at; None when it points at nothing.

    Args:
        alias: Which one.
        settings: `[mlflow]`: where.

    Raises:
        UnknownName: When it points at something that holds no bundle of a router.
        RouterError: When the tracking server, database or artifact store cannot be used.
    """
    name = settings.registered_model
    with connected(settings) as mlflow:
        client = mlflow.MlflowClient()
        models = client.search_registered_models(f"name = '{name}'")
        number = models[0].aliases.get(alias) if models else None
        if number is None:
            return None
        found = client.get_model_version(name, number)
        tags: Mapping[str, str] = found.tags
        if BUNDLE not in tags:
            raise UnknownName(
                f"models:/{name}@{alias} is version {number}, which has no tag {BUNDLE}: router-ml did not register "
                "it; point the alias at a version that has one"
            )
        _check_name(tags[BUNDLE])
        digest = _digest_of(mlflow, found)
    failed = (name.removeprefix(_GATE) for name in sorted(tags) if name.startswith(_GATE) and tags[name] == "failed")
    return Named(tags[BUNDLE], digest, str(found.run_id), tuple(failed))


def set_alias(alias: Alias, version: str | None, *, settings: MlflowSettings, digest: str | None = None) -> int | None:
    """Point an alias of the registered model at the version that holds a bundle.

    Args:
        alias: `champion` when its bundle is promoted or rolled back to, `challenger` while it is a candidate.
        version: The version of the bundle; None: at nothing.
        settings: `[mlflow]`: where.
        digest: The bundle's `bundle_digest`; None: the newest of that name.

    Returns:
        The version of the registered model.

    Raises:
        UnknownName: When no version there holds that bundle.
        RouterError: When the tracking server, database or artifact store cannot be used.
    """
    name = settings.registered_model
    with connected(settings) as mlflow:
        client = mlflow.MlflowClient()
        if version is None:
            if client.search_registered_models(f"name = '{name}'"):
                client.delete_registered_model_alias(name, alias)
            return None
        found = _version_of(mlflow, version, settings, digest)
        client.set_registered_model_alias(name, alias, found.version)
        return int(found.version)


def fetch_bundle(version: str, into: Path, *, settings: MlflowSettings, digest: str | None = None) -> Path:
    """Bring a bundle from MLflow to this machine, whole and verified, or not at all.

    Args:
        version: The version of the bundle.
        into: The folder of all bundles; one that is there already stays as it is.
        settings: `[mlflow]`: where.
        digest: The bundle's `bundle_digest`; None: the newest of that name.

    Returns:
        The folder of the bundle.

    Raises:
        UnknownName: When no registered version holds that bundle, or it is no version.
        BundleError: When what came is damaged, is another bundle, or cannot be written, or when another bundle of that
            name is there already.
        RouterError: When the tracking server, database or artifact store cannot be used.
    """
    _check_name(version)
    final = into / version
    if final.exists():
        _check_same(final, version, digest)
        load_bundle(final)
        return final
    with connected(settings) as mlflow, tempfile.TemporaryDirectory(prefix="router-ml-") as folder:
        run_id = _version_of(mlflow, version, settings, digest).run_id
        came = Path(mlflow.MlflowClient().download_artifacts(run_id, "bundle", folder))
        contents = {file.name: file.read_bytes() for file in came.iterdir() if file.is_file()}
    try:
        place_folder(final, contents, verify=lambda path: _is(path, version, digest))
    except OSError as error:
        raise BundleError(f"{final}: cannot be written ({error.strerror}); check the folder and its rights") from error
    return final


def _check_same(path: Path, version: str, digest: str | None) -> None:
    if digest is not None and bundle_digest(path) != digest:
        raise BundleError(
            f"MLflow means another bundle by {version} than the one in {path}: two machines that share it have each "
            "made one of that name. Give each of them a [mlflow] registered_model of its own; to have the other one "
            f"here, put another version into service, move {path} away, and run this again"
        )


def _is(path: Path, version: str, digest: str | None) -> None:
    found = load_bundle(path).version
    if found != version or digest not in (None, bundle_digest(path)):
        raise BundleError(f"MLflow has another bundle ({found}) under the name of {version}; record it again")


def _check_name(version: str) -> None:
    if not _VERSION.fullmatch(version):  # a tag, which anybody may set, becomes a path
        raise UnknownName(
            f"{version!r} is no version of a bundle: point the alias at a version that router-ml registered"
        )


def _version_of(mlflow: Any, version: str, settings: MlflowSettings, digest: str | None) -> Any:
    name = settings.registered_model
    _check_name(version)
    found = mlflow.MlflowClient().search_model_versions(f"name = '{name}' and tags.`{BUNDLE}` = '{version}'")
    same = [one for one in found if digest is None or _digest_of(mlflow, one) == digest]
    if not same:
        others = "; it has another one of that name, of another machine" if found else ""
        raise UnknownName(
            f"MLflow has no version of '{name}' that holds the bundle {version}: it was not recorded there{others}"
        )
    return max(same, key=lambda one: int(one.version))


def _digest_of(mlflow: Any, found: Any) -> str:
    """Return the digest of a registered version's bundle; versions of earlier releases have no tag that says it."""
    tags: Mapping[str, str] = found.tags
    if DIGEST in tags:
        return tags[DIGEST]
    with tempfile.TemporaryDirectory(prefix="router-ml-") as folder:
        manifest = mlflow.MlflowClient().download_artifacts(found.run_id, f"bundle/{MANIFEST}", folder)
        return bundle_digest(Path(manifest).parent)
