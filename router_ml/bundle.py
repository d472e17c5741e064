"""One bundle: write it atomically, verify it, load it, score requests with it.

A bundle is an immutable folder `<version>/` with `model.onnx`, `policy.json` and `manifest.json`, with `verifier.onnx`
where looking at answers was found to help, and with `profile.json` where the traffic it was trained on was summed up.
Whatever is wrong with one is found when it is written or loaded, never while a request waits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from router_ml.durable import place_folder
from router_ml.errors import BundleCorrupt, BundleError, BundleMismatch
from router_ml.features import DENSE_NAMES, SCHEMA_HASH, FeatureBatch, Features
from router_ml.graph import GRAPH_ERRORS, INPUTS, OUTPUTS, check_graph, first_line, inputs_read, open_graph
from router_ml.ladder import Ladder
from router_ml.manifest import (
    FORMAT,
    FeatureBounds,
    FrontierPoint,
    Manifest,
    ManifestDraft,
    Metric,
    PolicySpec,
    TrainedOn,
)
from router_ml.records import record
from router_ml.scorer import Scorer
from router_ml.verifier import Verifier, open_verifier

__all__ = [
    "MANIFEST",
    "PROFILE",
    "Bundle",
    "FeatureBounds",
    "FrontierPoint",
    "Manifest",
    "ManifestDraft",
    "Metric",
    "PolicySpec",
    "Scores",
    "TrainedOn",
    "default_bundle_path",
    "load_bundle",
    "write_bundle",
]

MANIFEST = "manifest.json"
POLICY = "policy.json"
MODEL = "model.onnx"
VERIFIER = "verifier.onnx"
# For training alone: deciding does not need it, so nobody here reads what is in it.
PROFILE = "profile.json"
# Rows per call of the graph: n-gram lookups of one call stay in tens of megabytes.
_CHUNK = 1024

R = TypeVar("R", bound=BaseModel)
Doubles: TypeAlias = NDArray[np.float64]


@record
class Scores:
    """What the model says about one request, per tier of the bundle's ladder.

    `adequacy` (K,) is the calibrated P(tier adequate), `output_tokens` (K,) the expected answer length,
    `input_tokens` the estimated prompt length.
    """

    adequacy: Doubles
    output_tokens: Doubles
    input_tokens: float


@dataclass(frozen=True)
class Bundle:
    """A verified bundle in memory; `load_bundle` makes one.

    `verifier` is None when it judges answers by rules only. `reads` are the inputs that its graph computes from.
    """

    path: Path
    manifest: Manifest
    policy: PolicySpec
    session: Any  # onnxruntime ships no types
    verifier: Verifier | None = None
    reads: frozenset[str] = frozenset(INPUTS)

    @property
    def version(self) -> str:
        """The version written in the manifest."""
        return self.manifest.version

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer(self.session, len(DENSE_NAMES), len(self.policy.tiers), bag=self.reads_bag)

    @cached_property
    def reads_bag(self) -> bool:
        """Whether the graph looks at words and metadata at all, or at dense columns only."""
        return not self.reads.isdisjoint(("ids", "counts"))

    @cached_property
    def ladder(self) -> Ladder:
        """The tiers the bundle was trained for, cheapest first."""
        return self.policy.ladder

    def score(self, features: Features) -> Scores:
        """Score one request; its bag may be empty where the graph does not read it."""
        adequacy, tokens = self._scorer.run(features.dense, features.ids, features.counts)
        return Scores(adequacy, tokens, features.input_tokens)

    def score_many(self, batch: FeatureBatch) -> tuple[Doubles, Doubles]:
        """Score many requests.

        Args:
            batch: Features of n requests.

        Returns:
            Adequacy and expected output tokens, float64 (n, K) each.
        """
        shape = (len(batch.dense), len(self.ladder))
        adequacy, tokens = np.empty(shape), np.empty(shape)
        for start in range(0, shape[0], _CHUNK):
            rows = slice(start, start + _CHUNK)
            adequacy[rows], tokens[rows] = self._run(batch.dense[rows], batch.ids[rows], batch.counts[rows])
        return adequacy, tokens

    def _run(self, dense: NDArray[Any], ids: NDArray[Any], counts: NDArray[Any]) -> list[NDArray[np.float32]]:
        if ids.shape[1] == 0:  # a reduction over no n-grams is undefined in some graphs; one that counts 0 is not
            ids, counts = np.zeros((len(ids), 1), np.int64), np.zeros((len(ids), 1), np.float32)
        scored: list[NDArray[np.float32]] = self.session.run(
            list(OUTPUTS), {"dense": dense, "ids": ids, "counts": counts}
        )
        return scored


def write_bundle(
    shelf_dir: Path,
    *,
    manifest: ManifestDraft | Mapping[str, Any],
    policy: PolicySpec,
    model: bytes,
    verifier: bytes | None = None,
    profile: bytes | None = None,
) -> Path:
    """Write `<shelf_dir>/<version>/`, whole or not at all.

    The bundle is written beside its place, loaded as the service would load it, and renamed.

    Args:
        shelf_dir: Folder of all bundles; made if it is not there.
        manifest: What the maker knows; checksums, shapes and feature schema are added here.
        policy: What becomes `policy.json`.
        model: The serialised ONNX graph.
        verifier: The serialised graph that judges answers, or None.
        profile: The summary of the traffic it was trained on, which later traffic is compared with, or None.

    Returns:
        The folder of the bundle.

    Raises:
        BundleError: When the version exists already or the folder cannot be written.
        BundleCorrupt: When the graph cannot be loaded.
        BundleMismatch: When graph, policy and features do not fit each other.
    """
    draft = manifest if isinstance(manifest, ManifestDraft) else ManifestDraft.model_validate(dict(manifest))
    final = shelf_dir / draft.version
    session = open_graph(model, MODEL)
    contents = {MODEL: model, POLICY: policy.model_dump_json(indent=2).encode() + b"\n"}
    if verifier is not None:
        contents[VERIFIER] = verifier
    if profile is not None:
        contents[PROFILE] = profile
    full = Manifest(
        **draft.model_dump(),
        feature_schema_hash=SCHEMA_HASH,
        inputs={node.name: list(node.shape) for node in session.get_inputs()},
        outputs={node.name: list(node.shape) for node in session.get_outputs()},
        files={name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    )
    contents[MANIFEST] = full.model_dump_json(indent=2).encode() + b"\n"
    _place(contents, final)
    return final


def load_bundle(path: Path) -> Bundle:
    """Read a bundle and verify everything about it.

    Args:
        path: The bundle's folder.

    Raises:
        BundleCorrupt: When a file is missing, unreadable, or does not match its checksum.
        BundleMismatch: When it has another format, other features, or parts that do not fit each other.
    """
    raw = _read(path, MANIFEST)
    _check_format(path, raw)
    manifest = _parse(Manifest, path, MANIFEST, raw)
    contents = {name: _verified(path, name, sha256) for name, sha256 in manifest.files.items()}
    for name in (MODEL, POLICY):
        if name not in contents:
            raise BundleCorrupt(f"{path}: manifest.json lists no {name}; export the bundle again")
    if manifest.feature_schema_hash != SCHEMA_HASH:
        message = (
            f"{path}: made for feature schema {manifest.feature_schema_hash[:12]}, "
            f"this release has {SCHEMA_HASH[:12]}; "
            "train the bundle again with this release, or run the release it was made with"
        )
        raise BundleMismatch(message)
    policy = _parse(PolicySpec, path, POLICY, contents[POLICY])
    session = open_graph(contents[MODEL], str(path / MODEL))
    check_graph(session, policy, str(path / MODEL))
    _check_bounds(path, policy)
    judging = contents.get(VERIFIER)
    verifier = None if judging is None else open_verifier(judging, policy.ladder.names, str(path / VERIFIER))
    if verifier is None:
        _check_needs_no_verifier(path, policy)
    reads = inputs_read(contents[MODEL])
    bundle = Bundle(path=path, manifest=manifest, policy=policy, session=session, verifier=verifier, reads=reads)
    _try_graph(bundle)
    return bundle


def default_bundle_path() -> Path:
    """Return the bundle that ships with the project: the installed package's, else the checkout's."""
    package = Path(__file__).resolve().parent
    installed = package / "default_bundle"
    return installed if installed.is_dir() else package.parent / "models" / "default"


def _place(contents: Mapping[str, bytes], final: Path) -> None:
    try:
        place_folder(final, contents, verify=load_bundle)
    except OSError as error:
        if final.exists():
            message = f"{final}: this version exists already, and bundles never change; choose another version"
            raise BundleError(message) from error
        raise BundleError(f"{final}: cannot be written ({error.strerror}); check the folder and its rights") from error


def _read(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except FileNotFoundError as error:
        missing = f"no {name} in it" if path.is_dir() else "no such bundle"
        raise BundleCorrupt(f"{path}: {missing}; `router-ml models` lists the bundles there are") from error
    except OSError as error:
        raise BundleCorrupt(f"{path / name}: cannot be read ({error.strerror})") from error


def _verified(path: Path, name: str, sha256: str) -> bytes:
    data = _read(path, name)
    if hashlib.sha256(data).hexdigest() != sha256:
        message = f"{path / name}: does not match its checksum in manifest.json; copy or export the bundle again"
        raise BundleCorrupt(message)
    return data


def _check_format(path: Path, raw: bytes) -> None:
    try:
        found = json.loads(raw)
    except ValueError as error:
        message = f"{path / MANIFEST}: not valid JSON ({error}); copy or export the bundle again"
        raise BundleCorrupt(message) from error
    version = found.get("format") if isinstance(found, dict) else None
    if version != FORMAT:
        message = f"{path}: bundle format {version!r}, this release reads {FORMAT}; train it again with this release"
        raise BundleMismatch(message)


def _parse(record: type[R], path: Path, name: str, data: bytes) -> R:
    try:
        return record.model_validate_json(data)
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg']}" for item in error.errors()
        )
        raise BundleCorrupt(f"{path / name}: {mistakes}; export the bundle again") from error


def _check_bounds(path: Path, policy: PolicySpec) -> None:
    if policy.bounds is not None and len(policy.bounds.low) != len(DENSE_NAMES):
        message = f"{path / POLICY}: bounds for {len(policy.bounds.low)} features, expected {len(DENSE_NAMES)}"
        raise BundleMismatch(message)


def _check_needs_no_verifier(path: Path, policy: PolicySpec) -> None:
    # Without its opinion plans would be chosen and then never stopped: another policy than the one that was tuned.
    if policy.plans is not None or any(point.judged for point in policy.frontier):
        message = (
            f"{path / POLICY}: its plans judge answers, but there is no {VERIFIER} to judge them; "
            "copy the whole bundle again, or export it with its verifier"
        )
        raise BundleMismatch(message)


def _try_graph(bundle: Bundle) -> None:
    # Some graphs load and fail, or give NaN, at their first call; this is also what warms the session up.
    no_request = Features(np.zeros(len(DENSE_NAMES), np.float32), np.zeros(1, np.int64), np.zeros(1, np.float32), 0.0)
    try:
        scores = bundle.score(no_request)
    except GRAPH_ERRORS as error:
        raise BundleCorrupt(f"{bundle.path / MODEL}: {first_line(error)}; export the bundle again") from error
    for name, values in (("adequacy", scores.adequacy), ("output_tokens", scores.output_tokens)):
        if values.shape != (len(bundle.ladder),) or not np.isfinite(values).all():
            message = (
                f"{bundle.path / MODEL}: '{name}' of an empty request is {values.tolist()}, "
                f"expected {len(bundle.ladder)} finite numbers; train the bundle again"
            )
            raise BundleMismatch(message)
