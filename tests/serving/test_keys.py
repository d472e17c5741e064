"""The keys file and the command that writes it: keys are shown once, kept as digests, and revoked for good."""

import hashlib
import json
import multiprocessing
import re
import stat
from datetime import UTC, datetime

import pytest

from router_ml.cli import main
from router_ml.errors import ConfigError, UnknownName, UsageError
from router_ml_serving.keys import issue_key, read_keys, revoke_key, split_key

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.jsonl"


def issue(path, tenant="acme"):
    return issue_key(path, tenant=tenant, name="ci", now=NOW)


def test_a_key_is_kept_as_the_digest_of_its_secret(path):
    record, key = issue(path)
    assert re.fullmatch(r"rml_[0-9a-f]{12}_[\w-]{43}", key)
    id_, secret = split_key(key.encode())
    assert (id_, read_keys(path)) == (record.id, {record.id: record})
    assert record.sha256 == hashlib.sha256(secret).hexdigest()
    assert secret.decode() not in path.read_text()


def test_the_file_is_for_its_owner_alone(path):
    issue(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_revoked_key_stays_on_record_and_keeps_its_first_date(path):
    first, second = issue(path)[0], issue(path, "other")[0]
    assert revoke_key(path, first.id, now=NOW).revoked == NOW
    again = revoke_key(path, first.id, now=datetime(2027, 1, 1, tzinfo=UTC))
    assert again == read_keys(path)[first.id]
    assert again.revoked == NOW
    assert read_keys(path)[second.id].revoked is None


def test_an_unknown_id_is_explained(path):
    record, _ = issue(path)
    with pytest.raises(UnknownName, match=f"did you mean '{record.id}'"):
        revoke_key(path, record.id[:-1] + "x", now=NOW)


@pytest.mark.parametrize("tenant", ["", "default", "a b", "a\nb", "x" * 129, "müller"])
def test_a_tenant_that_no_header_could_name_is_refused(path, tenant):
    with pytest.raises(UsageError, match="--tenant"):
        issue(path, tenant)
    assert not path.exists()


def test_a_last_line_without_an_end_is_no_trap(path):
    first, _ = issue(path)
    path.write_text(path.read_text().rstrip("\n"))
    second, _ = issue(path)
    assert list(read_keys(path)) == [first.id, second.id]


@pytest.mark.parametrize("line", ["{", "[]", "7", '{"id": "x"}', '{"revoke": 1, "at": "now"}', '{"sha256": "hunter2"}'])
def test_a_broken_line_is_named_and_not_shown(path, line):
    issue(path)
    with path.open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(ConfigError, match="line 3") as caught:
        read_keys(path)
    assert "hunter2" not in str(caught.value)


def test_an_id_that_is_there_twice_is_refused(path):
    issue(path)
    path.write_text(path.read_text() * 2)
    with pytest.raises(ConfigError, match="line 2 has the id of an earlier key"):
        read_keys(path)


def test_a_missing_file_says_how_to_make_one(path):
    with pytest.raises(ConfigError, match="router-ml keys create"):
        read_keys(path)


def many(path):
    for _ in range(10):
        record, _ = issue(path)
        revoke_key(path, record.id, now=NOW)


def test_commands_that_run_at_once_lose_nothing(path):
    workers = [multiprocessing.get_context("fork").Process(target=many, args=(path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    keys = read_keys(path)
    assert len(keys) == 40
    assert all(one.revoked is not None for one in keys.values())


@pytest.mark.parametrize("token", [b"", b"rml_", b"rml_abc", b"rml_abc_", b"sk-abc_def", b"RML_a_b", b"\xff_\xff_\xff"])
def test_what_is_no_key_is_not_taken_for_one(token):
    assert split_key(token) is None


def test_the_command_makes_lists_and_revokes(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "router.toml").write_text('[serving]\nkeys_file = "keys.jsonl"\n')
    assert main(["keys", "create", "--tenant", "acme", "--name", "ci"]) == 0
    key = capsys.readouterr().out.splitlines()[0]
    id_ = key.split("_")[1]
    assert main(["keys", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["keys"]
    assert [(one["id"], one["tenant"], one["name"], one["revoked"]) for one in listed] == [(id_, "acme", "ci", None)]
    assert main(["keys", "revoke", id_]) == 0
    assert main(["keys", "--json", "list"]) == 0
    out = capsys.readouterr().out
    assert key.split("_", 2)[2] not in out
    assert hashlib.sha256(key.split("_", 2)[2].encode()).hexdigest() not in out
    assert read_keys(path)[id_].revoked is not None


def test_the_command_needs_a_file_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["keys", "list"]) == 2
    assert "set keys_file" in capsys.readouterr().err
    assert main(["keys", "create", "--tenant", "acme", "--file", "nowhere/keys"]) == 2
    assert "cannot be written" in capsys.readouterr().err
