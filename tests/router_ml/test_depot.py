"""The depot on a real S3 server: a version is there as a whole or not at all, and never changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router_ml.bundle import load_bundle
from router_ml.depot import Depot
from router_ml.errors import BundleCorrupt, BundleError, ObjectStoreError, UnknownName

pytestmark = pytest.mark.e2e


@pytest.fixture
def depot(objects: Any) -> Depot:
    return Depot(objects.store("prod"))


def test_a_bundle_comes_back_as_it_was(depot: Depot, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bundle("v1")
    (folder.parent / "gates").mkdir()
    (folder.parent / "gates" / "v1.json").write_text("[]")
    depot.push(folder)
    assert depot.versions() == ["v1"]
    depot.pull("v1", tmp_path / "elsewhere")
    assert load_bundle(tmp_path / "elsewhere" / "v1").version == "v1"
    for file in folder.iterdir():
        assert (tmp_path / "elsewhere" / "v1" / file.name).read_bytes() == file.read_bytes()
    assert (tmp_path / "elsewhere" / "gates" / "v1.json").read_text() == "[]"


def test_an_upload_that_was_cut_off_is_invisible_and_goes_on(
    objects_of_its_own: Any, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    depot = Depot(objects_of_its_own.store("prod"))
    folder = make_bundle("v1")
    # The listing and the first file are answered, then the storage refuses.
    objects_of_its_own.require_keys(after=2)
    with pytest.raises(ObjectStoreError, match="denies access"):
        depot.push(folder)
    objects_of_its_own.require_keys(after=10_000)
    (first,) = depot.objects.list()
    assert depot.versions() == []
    with pytest.raises(UnknownName, match="no whole bundle 'v1' is there; known: none"):
        depot.pull("v1", tmp_path / "elsewhere")
    depot.push(folder)
    assert depot.versions() == ["v1"]
    again = {item.key: item for item in depot.objects.list()}
    assert again[first.key].modified == first.modified


def test_a_version_never_changes(depot: Depot, make_bundle: Callable[..., Path], build_model: Any) -> None:
    folder = make_bundle("v1")
    (folder.parent / "gates").mkdir()
    (folder.parent / "gates" / "v1.json").write_text("[]")
    depot.push(folder)
    folder = make_bundle("other")
    other = folder.rename(folder.parent / "moved")
    text = (other / "manifest.json").read_text().replace('"version": "other"', '"version": "v1"')
    (other / "manifest.json").write_text(text)
    depot.push(other)  # the same bundle under the same name
    folder = make_bundle("third", model=build_model(bias=(1.0, 2.0, 3.0)))
    text = (folder / "manifest.json").read_text().replace('"version": "third"', '"version": "v1"')
    (folder / "manifest.json").write_text(text)
    (folder.parent / "gates" / "v1.json").write_text('[{"name": "of another bundle"}]')
    with pytest.raises(
        BundleError, match=r"prod/v1/manifest.json: is another bundle than .*third, under the same name"
    ):
        depot.push(folder)
    gates = depot.objects.get("gates/v1.json")
    assert gates is not None
    assert gates.data == b"[]"


def test_what_another_bundle_left_behind_is_not_written_over(depot: Depot, make_bundle: Callable[..., Path]) -> None:
    depot.objects.put("v1/model.onnx", b"half of another", after=None)
    with pytest.raises(BundleError, match=r"v1/model.onnx: another file is there already, and bundles never change"):
        depot.push(make_bundle("v1"))
    assert depot.versions() == []


def test_a_damaged_object_is_refused_and_nothing_is_left(
    depot: Depot, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    depot.push(make_bundle("v1"))
    depot.objects.put("v1/policy.json", b"{}", after=depot.objects.get("v1/policy.json"))
    with pytest.raises(BundleCorrupt, match=r"s3://[\w-]+/prod/v1/policy.json: does not match its checksum"):
        depot.pull("v1", tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["../v1", "", ".hidden", "v1/.."])
def test_no_name_in_a_bucket_leads_out_of_the_shelf(depot: Depot, name: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no whole bundle"):
        depot.pull(name, tmp_path / "elsewhere")


def test_a_damaged_bundle_is_not_pushed(depot: Depot, make_bundle: Callable[..., Path]) -> None:
    folder = make_bundle("v1")
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleCorrupt, match="checksum"):
        depot.push(folder)
    assert list(depot.objects.list()) == []


def test_pointers_are_written_on_condition(depot: Depot) -> None:
    nothing = depot.state()
    assert (nothing.champion, nothing.challenger, nothing.record) == (None, None, None)
    depot.write({"champion": (None, b"v1\n")})
    with pytest.raises(ObjectStoreError, match="another writer"):
        depot.write({"champion": (None, b"v2\n"), "challenger": (None, b"v3\n")})
    now = depot.state()
    assert now.champion is not None
    assert now.champion.data == b"v1\n"
    assert now.challenger is None
