"""Whatever happens to a bundle, the one in service answers on; metrics, log and `/admin/rollout` say what is wrong."""

import json
import os
import shutil
import time

import pytest

ADMIN = {"authorization": "Bearer sk-admin"}


@pytest.fixture(scope="module")
def shared(start_service):
    return start_service(env={"ROUTER_ML_ADMIN_KEY": "sk-admin"})


@pytest.fixture
def running(shared, call):
    """A service that serves `one`, and nothing it has refused."""
    name_as(shared, "champion", "one")
    shared.before = (shared.metric(REFUSED), len(log_of(shared)))
    yield shared
    (shared.home / "models" / "challenger").unlink(missing_ok=True)
    name_as(shared, "champion", "one")
    wait_for(lambda: not refused(shared, call) and champion_of(shared) == "one")


REFUSED = 'router_ml_bundle_reloads_total{result="refused"}'


def log_of(service):
    return service.process.log.read_text()


def champion_of(service):
    return service.ask("Hello").json["router"]["policy_version"]


def refused(service, call):
    return call(f"{service.url}/admin/rollout", headers=ADMIN).json["refused"]


def name_as(service, role, text):
    pointer = service.home / "models" / role
    fresh = pointer.with_suffix(".new")
    fresh.write_bytes(text if isinstance(text, bytes) else f"{text}\n".encode())
    fresh.replace(pointer)


def wait_for(condition, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def flip_a_bit(bundle):
    raw = bytearray((bundle / "model.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(raw)


def cut_a_file_off(bundle):
    raw = (bundle / "policy.json").read_bytes()
    (bundle / "policy.json").write_bytes(raw[: len(raw) // 2])


def change_the_manifest(bundle, **changes):
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | changes))


def make_it_of_another_schema(bundle):
    change_the_manifest(bundle, feature_schema_hash="0" * 64)


def make_it_of_another_format(bundle):
    change_the_manifest(bundle, format="router_ml.bundle/99")


def cut_the_manifest_off(bundle):
    (bundle / "manifest.json").write_text((bundle / "manifest.json").read_text()[:40])


def empty_the_folder(bundle):
    for file in bundle.iterdir():
        file.unlink()


HARMS = {
    flip_a_bit: "does not match its checksum",
    cut_a_file_off: "does not match its checksum",
    make_it_of_another_schema: "made for feature schema 000000000000",
    make_it_of_another_format: "bundle format 'router_ml.bundle/99'",
    cut_the_manifest_off: "not valid JSON",
    empty_the_folder: "which is not on the shelf",
}


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_champion_that_cannot_be_used_leaves_the_old_one_in_service(running, call, put_bundle, harm):
    harm(put_bundle(running.home / "models", f"bad-{harm.__name__}"))
    name_as(running, "champion", f"bad-{harm.__name__}")
    wait_for(lambda: refused(running, call))
    time.sleep(0.3)
    assert HARMS[harm] in refused(running, call)["champion"]
    metric, length = running.before
    assert running.metric(REFUSED) == metric + 1
    said = log_of(running)[length:]
    assert said.count("bundle_refused") == 1
    assert "Traceback" not in said
    assert champion_of(running) == "one"
    reply = call(f"{running.url}/admin/reload", b"", headers=ADMIN)
    assert reply.status == 503
    assert HARMS[harm] in reply.json["error"]["message"]


def test_a_champion_that_goes_away_while_it_is_read_leaves_the_old_one_in_service(running, call, put_bundle):
    bundle = put_bundle(running.home / "models", "fading")
    model = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").unlink()
    os.mkfifo(bundle / "model.onnx")
    name_as(running, "champion", "fading")
    # Opening waits for the reader: the manifest has been read by then, and the policy has not.
    with (bundle / "model.onnx").open("wb") as pipe:
        assert champion_of(running) == "one"
        (bundle / "policy.json").unlink()
        pipe.write(model)
    wait_for(lambda: "no policy.json" in refused(running, call).get("champion", ""))
    assert champion_of(running) == "one"
    shutil.rmtree(bundle)


def test_a_champion_that_is_removed_while_it_serves_goes_on_serving(running, call, put_bundle):
    bundle = put_bundle(running.home / "models", "gone")
    name_as(running, "champion", "gone")
    wait_for(lambda: champion_of(running) == "gone")
    shutil.rmtree(bundle)
    wait_for(lambda: "which is not on the shelf" in refused(running, call).get("champion", ""))
    assert champion_of(running) == "gone"


def test_a_bundle_that_is_still_being_copied_is_served_when_it_is_whole(running, call, put_bundle):
    bundle = put_bundle(running.home / "models", "copied")
    model = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(model[:100])
    name_as(running, "champion", "copied")
    wait_for(lambda: refused(running, call))
    (bundle / "model.onnx").write_bytes(model)
    wait_for(lambda: champion_of(running) == "copied")
    assert refused(running, call) == {}


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b"../one", b"no such version"])
def test_a_pointer_that_names_nothing_leaves_the_old_one_in_service(running, call, text):
    name_as(running, "champion", text)
    wait_for(lambda: refused(running, call))
    assert champion_of(running) == "one"


@pytest.mark.parametrize("harm", [flip_a_bit, make_it_of_another_schema, empty_the_folder])
def test_a_challenger_that_cannot_be_used_is_left_out(running, call, put_bundle, harm):
    harm(put_bundle(running.home / "models", f"rival-{harm.__name__}"))
    name_as(running, "challenger", f"rival-{harm.__name__} 0.9")
    wait_for(lambda: refused(running, call))
    found = call(f"{running.url}/admin/rollout", headers=ADMIN).json
    assert (found["champion"], found["challenger"], found["share"]) == ("one", None, 0.0)
    assert list(found["refused"]) == ["challenger"]
    assert {champion_of(running) for _ in range(5)} == {"one"}
