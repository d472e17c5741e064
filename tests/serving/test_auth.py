"""Who calls: keys and their hashes, tenants that cannot be borrowed, files that change, and the admin key."""

import logging
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.errors import ConfigError
from router_ml_serving import auth
from router_ml_serving.auth import Authorizer, authorizer_of, check_exposure
from router_ml_serving.keys import issue_key, revoke_key
from router_ml_serving.problems import NoPermission, WrongKey, WrongTenant
from router_ml_serving.settings import ServingSettings
from router_ml_serving.tenants import TenantRules, Tenants

NOW = datetime(2026, 3, 4, tzinfo=UTC)
ACME = TenantRules("tenants.acme", requests_per_minute=5.0)
TENANTS = Tenants({"acme": ACME}, TenantRules())


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.jsonl"


@pytest.fixture
def acme(path):
    return issue_key(path, tenant="acme", name="", now=NOW)[1]


@pytest.fixture
def doors(path, acme, clock):
    found = Authorizer(TENANTS, keys_file=path, admin_key="the-admin", clock=clock)
    found.load()
    return found


def bearer(key, scheme="Bearer"):
    return [(b"host", b"x"), (b"authorization", f"{scheme} {key}".encode())]


def test_a_key_says_whose_it_is(doors, acme):
    for headers in (bearer(acme), bearer(acme, "bearer"), [(b"x-api-key", acme.encode())]):
        for _ in range(2):  # read, then remembered
            caller = doors.caller(headers)
            assert (caller.tenant, caller.key_id, caller.rules) == ("acme", acme.split("_")[1], ACME)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key[:-1],
        lambda key: key[:-1] + ("A" if key[-1] != "A" else "B"),
        lambda key: key.replace("rml_", "rml_0", 1),
        lambda key: "rml_000000000000_" + key.split("_", 2)[2],
        lambda key: key.split("_", 2)[2],
        lambda key: "the-admin",
        lambda key: "",
    ],
)
def test_a_key_that_is_nearly_right_is_wrong(doors, acme, spoil):
    doors.caller(bearer(acme))
    for headers in (bearer(spoil(acme)), [(b"x-api-key", spoil(acme).encode())]):
        with pytest.raises(WrongKey) as caught:
            doors.caller(headers)
        assert "rml_" not in str(caught.value)


@pytest.mark.parametrize("headers", [[], [(b"authorization", b"Basic YTpi")], [(b"authorization", b"Bearer")]])
def test_no_key_is_a_wrong_key(doors, headers):
    with pytest.raises(WrongKey):
        doors.caller(headers)


@given(value=st.binary(max_size=200), name=st.sampled_from([b"authorization", b"x-api-key"]))
def test_no_bytes_open_the_door(value, name):
    doors = Authorizer(TENANTS, shared_key="sk-shared", clock=lambda: 0.0)
    with pytest.raises(WrongKey):
        doors.caller([(name, value)])


def test_a_revoked_key_stops_and_a_new_one_starts_within_a_second(doors, path, acme, clock):
    doors.caller(bearer(acme))
    clock.now_s += 0.5
    doors.caller(bearer(acme))
    revoke_key(path, acme.split("_")[1], now=NOW)
    _, other = issue_key(path, tenant="other", name="", now=NOW)
    clock.now_s += 1.0
    with pytest.raises(WrongKey):
        doors.caller(bearer(acme))
    assert doors.caller(bearer(other)).rules == TENANTS.default


@pytest.mark.parametrize("harm", [lambda path: path.write_text("{\n"), lambda path: path.unlink()])
def test_a_broken_file_keeps_what_was_known_and_is_logged_once(doors, path, acme, clock, caplog, harm):
    good = path.read_text()
    harm(path)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            clock.now_s += 2.0
            assert doors.caller(bearer(acme)).tenant == "acme"
    assert [record.message for record in caplog.records] == ["keys_file_refused"]
    path.write_text(good)
    revoke_key(path, acme.split("_")[1], now=NOW)
    clock.now_s += 2.0
    with pytest.raises(WrongKey):
        doors.caller(bearer(acme))


def test_the_shared_key_has_no_tenant(doors):
    found = Authorizer(TENANTS, shared_key="sk-shared").caller(bearer("sk-shared"))
    assert (found.tenant, found.key_id, found.rules) == (None, None, TENANTS.default)


def test_without_any_key_everybody_may_come_in():
    assert Authorizer(TENANTS).caller([]).tenant is None


def test_a_key_with_a_tenant_speaks_for_no_other(doors, acme):
    caller = doors.caller(bearer(acme))
    assert doors.acting_for(caller, None) is caller
    assert doors.acting_for(caller, "acme") is caller
    with pytest.raises(WrongTenant):
        doors.acting_for(caller, "other")


def test_who_has_no_tenant_gets_the_rules_of_the_one_it_names():
    doors = Authorizer(TENANTS)
    nobody = doors.caller([])
    named = doors.acting_for(nobody, "acme")
    assert (named.tenant, named.rules) == ("acme", ACME)
    assert doors.acting_for(nobody, "made-up-7") is nobody


def test_what_is_remembered_is_bounded_and_holds_no_wrong_keys(doors, acme, monkeypatch):
    monkeypatch.setattr(auth, "_MAX_REMEMBERED", 10)
    for i in range(50):
        doors.caller([(b"authorization", b"Bearer " + b" " * i + acme.encode())])
        with pytest.raises(WrongKey):
            doors.caller(bearer(f"wrong-{i}"))
    assert len(doors._ring.passed) <= 10
    assert not any(b"wrong" in given for given in doors._ring.passed)


def test_only_short_headers_are_remembered(doors, acme):
    for blanks in (60_000, 1_000):
        assert doors.caller([(b"authorization", b"Bearer " + b" " * blanks + acme.encode())]).tenant == "acme"
    assert doors._ring.passed == {}


def test_who_bears_the_admin_key_is_known(doors, acme):
    assert doors.is_admin(bearer("the-admin"))
    assert not doors.is_admin(bearer(acme))
    assert not Authorizer(TENANTS).is_admin(bearer(""))


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o644, False), (0o660, True), (0o602, True)])
def test_a_keys_file_that_others_may_write_is_a_warning(doors, path, caplog, mode, warned):
    path.chmod(mode)
    with caplog.at_level(logging.WARNING):
        doors.load()
    assert [record.message for record in caplog.records] == ["keys_file_open_to_others"] * warned


def test_a_short_key_is_a_warning_that_does_not_tell_it(caplog):
    settings = ServingSettings(api_key_env="SHARED_KEY", admin_key_env="ADMIN_KEY")
    with caplog.at_level(logging.WARNING):
        authorizer_of(settings, TENANTS, {"SHARED_KEY": "hunter2", "ADMIN_KEY": "a" * 16})
    (record,) = caplog.records
    assert (record.message, record.variable) == ("key_is_short", "SHARED_KEY")
    assert "hunter2" not in str(vars(record))


def test_the_admin_key_opens_the_admin_door_alone(doors, acme):
    doors.admin(bearer("the-admin"))
    for headers in (bearer(acme), bearer(""), [], [(b"x-api-key", b"the-admin")]):
        with pytest.raises(WrongKey):
            doors.admin(headers)
    with pytest.raises(WrongKey):
        doors.caller(bearer("the-admin"))


def test_without_an_admin_key_the_admin_door_is_shut():
    with pytest.raises(NoPermission, match="THE_KEY"):
        Authorizer(TENANTS, admin_key_env="THE_KEY").admin(bearer("x"))


def test_keys_come_from_the_environment_and_the_file(path, acme):
    settings = ServingSettings(keys_file=path, api_key_env="SHARED_KEY", admin_key_env="ADMIN_KEY")
    doors = authorizer_of(settings, TENANTS, {"SHARED_KEY": "sk-shared", "ADMIN_KEY": "top"})
    assert doors.caller(bearer("sk-shared")).tenant is None
    assert doors.caller(bearer(acme)).tenant == "acme"
    doors.admin(bearer("top"))


@pytest.mark.parametrize(
    ("environ", "part"),
    [
        ({}, "SHARED_KEY is not set"),
        ({"SHARED_KEY": ""}, "SHARED_KEY is not set"),
        ({"SHARED_KEY": "k", "ADMIN_KEY": "k"}, "the same key"),
    ],
)
def test_a_key_that_is_missing_or_too_mighty_stops_the_start(environ, part):
    with pytest.raises(ConfigError, match=part):
        authorizer_of(ServingSettings(api_key_env="SHARED_KEY", admin_key_env="ADMIN_KEY"), TENANTS, environ)


def test_a_missing_keys_file_stops_the_start(path):
    with pytest.raises(ConfigError, match="no such keys file"):
        authorizer_of(ServingSettings(keys_file=path), TENANTS, {})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "", "router.example", "::ffff:127.0.0.1"])
def test_an_open_service_does_not_listen_beyond_the_machine(host, path):
    with pytest.raises(ConfigError, match="allow_anonymous"):
        check_exposure(ServingSettings(host=host))
    for kept in ({"keys_file": path}, {"api_key_env": "SHARED_KEY"}, {"allow_anonymous": True}):
        check_exposure(ServingSettings(host=host, **kept))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_the_machine_itself_no_key_is_needed(host):
    check_exposure(ServingSettings(host=host))
