"""Bundles: what is written can be loaded, and whatever is wrong with one is refused with a clear message."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from router_ml.bundle import Bundle, default_bundle_path, load_bundle, write_bundle
from router_ml.errors import BundleCorrupt, BundleError, BundleMismatch
from router_ml.features import DENSE_NAMES, SCHEMA_HASH, Features, featurize, stack
from router_ml.schema import Request

Make = Callable[..., Path]
Build = Callable[..., Any]
LENGTH = DENSE_NAMES.index("structure.log_input_tokens")

PROMPTS = ["", "hello", "What is the capital of France? " * 40, "日本語の質問です。" * 10]
REQUESTS = [Request(messages=[{"role": "user", "content": text}]) for text in PROMPTS]


def edit(path: Path, **changes: Any) -> None:
    """Change fields of manifest.json, as a hand or a bug would."""
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_written_bundle_is_loaded_with_everything_that_was_given(make_bundle: Make, build_policy: Build) -> None:
    bundle = load_bundle(make_bundle(metrics={"apgr": {"value": 0.8, "low": 0.7, "high": 0.9}}, simulated=True))
    assert isinstance(bundle, Bundle)
    assert bundle.version == "v1"
    assert bundle.ladder.names == ("small", "medium", "large")
    assert bundle.policy == build_policy()
    assert bundle.manifest.simulated
    assert bundle.manifest.metrics["apgr"].high == 0.9
    assert bundle.manifest.feature_schema_hash == SCHEMA_HASH
    assert bundle.manifest.inputs["dense"] == ["n", len(DENSE_NAMES)]
    assert bundle.manifest.outputs["adequacy"] == ["n", 3]
    assert sorted(bundle.manifest.files) == ["model.onnx", "policy.json"]


def test_scores_are_those_of_the_graph_alone_and_in_a_batch(make_bundle: Make) -> None:
    bundle = load_bundle(make_bundle())
    features = [featurize(request) for request in REQUESTS]
    adequacy, tokens = bundle.score_many(stack(features))
    lengths = np.array([one.dense[LENGTH] for one in features], np.float64)[:, None]
    expected = 1 / (1 + np.exp(-(np.array([4.0, 5.0, 6.0]) + lengths * np.array([-1.0, -0.8, -0.5]))))
    assert adequacy == pytest.approx(expected, abs=1e-5)
    assert (tokens == 200).all()
    for i, one in enumerate(features):
        scores = bundle.score(one)
        assert scores.adequacy.dtype == scores.output_tokens.dtype == np.float64
        assert scores.adequacy == pytest.approx(adequacy[i], abs=1e-7)
        assert scores.input_tokens == one.input_tokens


def test_a_bundle_knows_whether_its_graph_looks_at_words(make_bundle: Make, build_model: Callable[..., Any]) -> None:
    assert load_bundle(make_bundle()).reads_bag
    model = onnx.load_from_string(build_model())
    for node in model.graph.node:
        node.input[:] = ["tokens" if name in ("ids", "counts") else name for name in node.input]
    bundle = load_bundle(make_bundle("v2", model=model.SerializeToString()))
    assert not bundle.reads_bag
    for request in REQUESTS:
        with_bag, without = (bundle.score(featurize(request, bag=bag)) for bag in (True, False))
        assert with_bag.adequacy.tolist() == without.adequacy.tolist()


def test_a_batch_of_any_size_is_scored(make_bundle: Make) -> None:
    bundle = load_bundle(make_bundle())
    one = [featurize(REQUESTS[1])]
    for n in (0, 1, 1024, 2500):
        adequacy, tokens = bundle.score_many(stack(one * n))
        assert adequacy.shape == tokens.shape == (n, 3)
        assert (adequacy == adequacy[:1]).all()


def test_a_request_without_any_id_is_scored(make_bundle: Make) -> None:
    dense = np.zeros(len(DENSE_NAMES), np.float32)
    scores = load_bundle(make_bundle()).score(Features(dense, np.zeros(0, np.int64), np.zeros(0, np.float32), 0.0))
    assert np.isfinite(scores.adequacy).all()


def test_an_existing_version_is_never_overwritten(make_bundle: Make) -> None:
    path = make_bundle()
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(BundleError, match="this version exists already"):
        make_bundle(learner="other")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_the_manifest_may_be_given_as_a_mapping(
    tmp_path: Path, build_draft: Build, build_policy: Build, build_model: Build
) -> None:
    draft = build_draft("v7").model_dump()
    assert write_bundle(tmp_path, manifest=draft, policy=build_policy(), model=build_model()) == tmp_path / "v7"


@pytest.mark.parametrize("model", [b"", b"garbage", b"\x08\x09\x12"])
def test_what_is_no_graph_is_not_written(tmp_path: Path, make_bundle: Make, model: bytes) -> None:
    with pytest.raises(BundleCorrupt, match="not a graph that onnxruntime can load"):
        make_bundle(model=model)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"schema_hash": "0" * 16}, "made for feature schema '0000"),
        ({"metadata": {}}, "made for feature schema None"),
        ({"metadata": {"feature_schema_hash": SCHEMA_HASH, "tiers": "small"}}, "made for the tiers 'small'"),
        ({"tiers": ("large", "medium", "small")}, "made for the tiers"),
        ({"tiers": ("small", "large"), "bias": (1, 1), "slope": (0, 0)}, "'adequacy' has 2 columns, expected 3"),
        ({"dense": 60}, f"'dense' has 60 columns, expected {len(DENSE_NAMES)}"),
        ({"outputs": ("p", "output_tokens")}, "expected the outputs adequacy"),
        ({"bias": (float("nan"), 1, 1)}, "expected 3 finite numbers"),
    ],
)
def test_a_graph_that_does_not_fit_is_not_written(
    tmp_path: Path, make_bundle: Make, build_model: Build, graph: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleMismatch, match=message):
        make_bundle(model=build_model(**graph))
    assert list((tmp_path / "models").iterdir()) == []


def test_bounds_of_other_features_are_refused(make_bundle: Make, build_policy: Build) -> None:
    bounds = {"low": [0.0] * 3, "high": [1.0] * 3, "max_outside": 0}
    with pytest.raises(BundleMismatch, match=f"bounds for 3 features, expected {len(DENSE_NAMES)}"):
        make_bundle(policy=build_policy(bounds=bounds))


@pytest.mark.parametrize("name", ["model.onnx", "policy.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "one bit", "a folder"])
def test_a_damaged_file_is_refused(make_bundle: Make, name: str, damage: str) -> None:
    file = make_bundle() / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage != "gone":
        file.write_bytes({"empty": b"", "half": bytes(data[: len(data) // 2]), "one bit": bytes(data)}[damage])
    with pytest.raises(BundleCorrupt, match=name):
        load_bundle(file.parent)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"format": 1}'])
def test_an_unreadable_manifest_is_refused(make_bundle: Make, content: bytes) -> None:
    path = make_bundle()
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleCorrupt, match=r"manifest\.json"):
        load_bundle(path)


@pytest.mark.parametrize("content", [b"[]", b"{}", b"null", b'{"format": 2}', b'{"format": "1"}'])
def test_another_format_is_refused_before_anything_else_is_read(make_bundle: Make, content: bytes) -> None:
    path = make_bundle()
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleMismatch, match="this release reads 1"):
        load_bundle(path)


def test_other_features_are_refused(make_bundle: Make) -> None:
    path = make_bundle()
    edit(path, feature_schema_hash="another")
    with pytest.raises(BundleMismatch, match="made for feature schema another, this release has"):
        load_bundle(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": {}}, r"lists no model\.onnx"),
        ({"files": {"../../etc/passwd": "0" * 64}}, "should match pattern"),
        ({"created": "yesterday"}, "created"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_manifest_is_refused(make_bundle: Make, changes: dict[str, Any], message: str) -> None:
    path = make_bundle()
    edit(path, **changes)
    with pytest.raises(BundleCorrupt, match=message):
        load_bundle(path)


def test_a_policy_that_contradicts_itself_is_refused(make_bundle: Make) -> None:
    path = make_bundle()
    text = (path / "policy.json").read_text().replace('"best_tier": "large"', '"best_tier": "huge"')
    (path / "policy.json").write_text(text)
    manifest = json.loads((path / "manifest.json").read_text())
    edit(path, files={**manifest["files"], "policy.json": hashlib.sha256(text.encode()).hexdigest()})
    with pytest.raises(BundleCorrupt, match="no tier is called 'huge'"):
        load_bundle(path)


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleCorrupt, match=r"nowhere: no such bundle"):
        load_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleCorrupt, match=r"no manifest\.json in it"):
        load_bundle(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, build_draft: Build, build_policy: Build, build_model: Build
) -> None:
    (tmp_path / "models").write_text("a file")
    draft, policy, model = build_draft(), build_policy(), build_model()
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(tmp_path / "models", manifest=draft, policy=policy, model=model)


def test_the_default_bundle_is_the_packages_or_the_checkouts() -> None:
    assert default_bundle_path().parts[-2:] in {("router_ml", "default_bundle"), ("models", "default")}


KILLED = """
import sys, os, signal
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import conftest, router_ml.bundle as bundle
def die(path):
    print("verifying", flush=True)
    signal.pause()
bundle.load_bundle = die
bundle.write_bundle(Path(sys.argv[1]), manifest=conftest.build_draft(), policy=conftest.build_policy(),
                    model=conftest.build_model())
"""


@pytest.mark.e2e
def test_a_writer_killed_at_the_last_moment_leaves_no_bundle_and_no_obstacle(tmp_path: Path, make_bundle: Make) -> None:
    shelf = tmp_path / "models"
    command = [sys.executable, "-c", KILLED, str(shelf), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "verifying\n"
        time.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
    assert [path.name for path in shelf.iterdir() if not path.name.startswith(".")] == []
    assert load_bundle(make_bundle()).version == "v1"
