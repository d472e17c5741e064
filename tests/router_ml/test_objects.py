"""Object storage against a real S3 server: what is written is read, conditions hold, every failure is one sentence."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from router_ml.config import ObjectSettings
from router_ml.errors import ConfigError, MissingExtra, ObjectStoreError, UsageError
from router_ml.objects import Listed, ObjectConflict, connect, is_object_url, open_objects, split_url

KEYS = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-word-not-to-be-seen"}
AWAY = ObjectSettings(endpoint_url="http://127.0.0.1:9", retry_s=0.2)


def test_a_url_is_a_bucket_and_a_prefix() -> None:
    assert split_url("s3://bucket/models/prod/") == ("bucket", "models/prod")
    assert split_url("s3://bucket") == ("bucket", "")
    assert is_object_url("s3://bucket/log.parquet")
    assert not is_object_url("logs/log.parquet")


@pytest.mark.parametrize("url", ["s3://", "s3:///prefix", "https://bucket/prefix", "s3://user:word@bucket/x"])
def test_what_is_no_bucket_is_refused_without_showing_keys(url: str) -> None:
    with pytest.raises(UsageError, match="expected a URL such as s3://bucket/prefix") as caught:
        split_url(url)
    assert "word" not in str(caught.value)


def test_the_standard_variables_fill_what_the_configuration_leaves_open() -> None:
    environ = {**KEYS, "AWS_ENDPOINT_URL": "http://minio:9000", "AWS_DEFAULT_REGION": "eu-central-1"}
    found = connect(ObjectSettings(), environ)
    assert (found.endpoint, found.region) == ("http://minio:9000", "eu-central-1")
    own = connect(ObjectSettings(endpoint_url="http://localhost:1", region="local"), environ)
    assert (own.endpoint, own.region) == ("http://localhost:1", "local")


def test_keys_come_from_the_named_variables_and_are_never_shown() -> None:
    settings = ObjectSettings(access_key_env="MY_ID", secret_key_env="MY_KEY")
    found = connect(settings, {**KEYS, "MY_ID": "mine", "MY_KEY": "a-word-not-to-be-seen"})
    assert found.access_key == "mine"
    assert "a-word" not in repr(found)
    assert connect(settings, KEYS).access_key is None


def test_one_key_without_the_other_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="has AWS_SECRET_ACCESS_KEY but not AWS_ACCESS_KEY_ID"):
        connect(ObjectSettings(), {name: word for name, word in KEYS.items() if "SECRET" in name})


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(MissingExtra, match=r"pip install 'router-ml\[objects\]'"):
        open_objects("s3://bucket", ObjectSettings(), KEYS)


@pytest.mark.e2e
def test_an_object_is_read_as_it_was_written(objects: Any, tmp_path: Path) -> None:
    store = objects.store("some/prefix")
    assert store.get("a/b.txt") is None
    store.put("a/b.txt", b"hello", after=None)
    found = store.get("a/b.txt")
    assert found is not None
    assert found.data == b"hello"
    (listed,) = store.list("a")
    assert (listed.key, listed.size, listed.etag) == ("a/b.txt", 5, found.etag)
    (tmp_path / "large").write_bytes(bytes(range(256)) * 2**10)
    store.replace("large", tmp_path / "large")
    with store.open(next(item for item in store.list() if item.key == "large")) as file:
        file.seek(-6, 2)
        assert file.read() == b"\xfa\xfb\xfc\xfd\xfe\xff"
        file.seek(256)
        assert file.read(3) == b"\x00\x01\x02"
    assert [item.key for item in objects.store().list()] == ["some/prefix/a/b.txt", "some/prefix/large"]


@pytest.mark.e2e
def test_of_two_writers_with_the_same_knowledge_one_wins(objects: Any) -> None:
    store = objects.store()
    store.put("champion", b"v1", after=None)
    seen = store.get("champion")
    store.put("champion", b"v2", after=seen)
    with pytest.raises(ObjectConflict, match="another writer has changed it meanwhile"):
        store.put("champion", b"v3", after=seen)
    with pytest.raises(ObjectConflict, match=f"{objects.url}/champion: another writer"):
        store.put("champion", b"v3", after=None)
    assert store.get("champion").data == b"v2"


@pytest.mark.e2e
def test_what_is_there_already_is_no_conflict(objects: Any) -> None:
    store = objects.store()
    seen = store.get("champion")
    first = store.put("champion", b"v1", after=seen)
    assert store.put("champion", b"v1", after=seen) == first


@pytest.mark.e2e
def test_an_object_that_is_written_anew_while_it_is_read_is_not_read_on(objects: Any, tmp_path: Path) -> None:
    store = objects.store()
    (tmp_path / "old").write_bytes(b"old" * 4)
    (tmp_path / "new").write_bytes(b"new" * 4)
    store.replace("log", tmp_path / "old")
    (item,) = store.list()
    store.check(item)
    assert store.get_range(item, 3, 3) == b"old"
    store.replace("log", tmp_path / "new")
    for attempt in (lambda: store.get_range(item, 3, 3), lambda: store.open(item).read(), lambda: store.check(item)):
        with pytest.raises(ObjectConflict, match="another writer has changed it meanwhile"):
            attempt()


@pytest.mark.e2e
def test_a_missing_bucket_is_named(objects: Any) -> None:
    store = open_objects("s3://no-such-bucket/models", objects.settings, KEYS)
    for attempt in (
        lambda: store.get("champion"),
        lambda: list(store.list()),
        lambda: store.put("champion", b"", after=None),
        lambda: store.get_range(Listed("champion", 1, "", datetime(2026, 11, 22, tzinfo=UTC)), 0, 1),
    ):
        with pytest.raises(
            ObjectStoreError, match=f"there is no bucket 'no-such-bucket' at {objects.endpoint}; make it"
        ):
            attempt()


@pytest.mark.e2e
def test_wrong_keys_are_denied_and_not_shown(objects_of_its_own: Any) -> None:
    objects_of_its_own.require_keys(after=0)
    store = open_objects(objects_of_its_own.url, objects_of_its_own.settings, KEYS)
    for attempt in (lambda: store.get("a"), lambda: list(store.list()), lambda: store.put("a", b"", after=None)):
        with pytest.raises(ObjectStoreError, match=r"denies access \(InvalidAccessKeyId\)") as caught:
            attempt()
        assert "a-word" not in str(caught.value)
        assert "an-id" not in str(caught.value)


@pytest.mark.e2e
def test_a_large_upload_that_is_cut_off_is_not_seen(objects_of_its_own: Any, tmp_path: Path) -> None:
    store = objects_of_its_own.store()
    (tmp_path / "large").write_bytes(bytes(40 * 2**20))
    # It is begun, and its first part arrives.
    objects_of_its_own.require_keys(after=2)
    with pytest.raises(ObjectStoreError, match=r"large: .* denies access"):
        store.replace("large", tmp_path / "large")
    objects_of_its_own.require_keys(after=10_000)
    assert list(store.list()) == []
    store.replace("large", tmp_path / "large")
    assert [item.size for item in store.list()] == [40 * 2**20]


@pytest.mark.e2e
def test_a_storage_that_dies_during_an_upload_is_one_sentence(objects_of_its_own: Any) -> None:
    store = objects_of_its_own.store()
    # It takes the connection, and never answers.
    objects_of_its_own.process.send_signal(signal.SIGSTOP)
    dying = threading.Timer(0.3, objects_of_its_own.stop)
    dying.start()
    with pytest.raises(ObjectStoreError, match=f"{objects_of_its_own.endpoint} does not answer"):
        store.put("a", bytes(2**20), after=None)
    dying.join()


def test_a_storage_that_is_away_is_one_sentence() -> None:
    store = open_objects("s3://bucket/models", AWAY, KEYS)
    for attempt in (lambda: store.get("a"), lambda: list(store.list()), lambda: store.put("a", b"", after=None)):
        with pytest.raises(
            ObjectStoreError, match=r"http://127.0.0.1:9 does not answer; check that it is up"
        ) as caught:
            attempt()
        assert "\n" not in str(caught.value)
