"""Who calls: API keys checked against their hashes, the tenant that a key stands for, the admin key."""

from __future__ import annotations

import hmac
import logging
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from router_ml.errors import ConfigError
from router_ml_serving.keys import digest_of, read_keys, split_key
from router_ml_serving.locality import Fence, is_loopback
from router_ml_serving.problems import NoPermission, WrongKey, WrongTenant
from router_ml_serving.settings import ServingSettings
from router_ml_serving.tenants import TenantRules, Tenants

__all__ = ["Authorizer", "Caller", "authorizer_of", "check_exposure"]

log = logging.getLogger(__name__)

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]
_Signature: TypeAlias = tuple[int, int, int]

# How often the keys file is looked at: a revoked key works this much longer at most.
_LOOK_EVERY_S = 1.0
# Only headers that passed are remembered, so real clients need one entry per key; a client that varies the spelling of
# a valid header cannot make it grow beyond this.
_MAX_REMEMBERED = 4096
# A key takes some 80; blanks around it are allowed, and would be kept with it.
_MAX_REMEMBERED_BYTES = 256
# Keys that somebody thought up instead of drawing them.
_SHORT_KEY = 16
_MISSING = "the API key is missing or wrong; send it as 'Authorization: Bearer …' or 'x-api-key: …'"
# What unknown ids are compared with, so that they take as long as known ones with a wrong secret.
_NOBODY = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, and what holds for them.

    `tenant` None: nobody in particular, who may name any tenant. `key_id` None: the shared key, or no key at all.
    """

    tenant: str | None
    key_id: str | None
    rules: TenantRules


@dataclass(slots=True)
class _Ring:
    """The keys of one state of the file: digest and caller by id, and the headers that passed since it was read.

    The whole header is the key of a dictionary, which compares its bytes only with those of an entry of the same
    64-bit hash. That hash is seeded with a secret of the process, so the time of a look-up says nothing about how much
    of a key was right. The headers themselves stay in memory: no more than what a request leaves there anyway.
    """

    keys: dict[str, tuple[bytes, Caller]] = field(default_factory=dict)
    passed: dict[bytes, Caller] = field(default_factory=dict)


class Authorizer:
    """Says who calls; `authorizer_of` makes one.

    Args:
        tenants: The rules of every tenant.
        keys_file: Digests of API keys; None when there are none.
        shared_key: One key for everybody, without a tenant; None when there is none.
        admin_key: The key of the admin endpoints; None switches them off.
        admin_key_env: Where the admin key comes from, for messages.
        fence: What is looked at while no key is asked for; None: nothing.
        clock: Seconds that only go up.
    """

    def __init__(
        self,
        tenants: Tenants,
        *,
        keys_file: Path | None = None,
        shared_key: str | None = None,
        admin_key: str | None = None,
        admin_key_env: str = "",
        fence: Fence | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tenants = tenants
        self._file = keys_file
        self._shared = None if shared_key is None else digest_of(shared_key.encode())
        self._admin = None if admin_key is None else digest_of(admin_key.encode())
        self._admin_env = admin_key_env
        self._clock = clock
        self._open = keys_file is None and shared_key is None
        self._fence = fence if self._open else None
        self._nobody = Caller(None, None, tenants.default)
        self._claimed = {name: Caller(name, None, rules) for name, rules in tenants.named.items()}
        self._ring = _Ring()
        self._seen: _Signature | None = None
        self._look_at_s = clock()

    def caller(self, headers: Headers) -> Caller:
        """Return who sent a request.

        Args:
            headers: Raw ASGI pairs with lower-case names; `authorization: Bearer …` counts before `x-api-key`.

        Raises:
            WrongKey: When the key is missing, unknown, wrong or revoked.
            NoPermission: When no key is asked for, and a page of another site asks.
        """
        if self._open:
            if self._fence is not None:
                self._fence.check(headers)
            return self._nobody
        if self._file is not None and self._clock() >= self._look_at_s:
            self.refresh()
        given = _given(headers)
        found = self._ring.passed.get(given)
        return self._check(given) if found is None else found

    def acting_for(self, caller: Caller, claimed: str | None) -> Caller:
        """Return whose rules hold for a request that names a tenant, in a header or in its body.

        A key with a tenant speaks for that one alone. Who has none may name any; the rules of that tenant hold then,
        and if it has no section of its own, those of everybody else, counted together.

        Args:
            caller: Who sent it.
            claimed: The tenant that the request names, if any.

        Raises:
            WrongTenant: When the key belongs to another one.
        """
        if caller.tenant is None:
            return caller if claimed is None else self._claimed.get(claimed, caller)
        if claimed is None or claimed == caller.tenant:
            return caller
        raise WrongTenant(
            "the API key belongs to another tenant than the one that the request names; leave out x-router-tenant, "
            "router.tenant and metadata.tenant, or use a key of that tenant"
        )

    def admin(self, headers: Headers) -> None:
        """Check the admin key; API keys never open these endpoints, nor does the admin key the others.

        Raises:
            NoPermission: When the service has none, so that nobody may.
            WrongKey: When it is missing or wrong.
        """
        if self._admin is None:
            raise NoPermission(
                f"the admin endpoints are off; set {self._admin_env} in the service's environment to use them"
            )
        if not self.is_admin(headers):
            raise WrongKey("the admin key is missing or wrong; send it as 'Authorization: Bearer …'")

    def is_admin(self, headers: Headers) -> bool:
        """Say whether a request bears the admin key, and there is one."""
        if self._admin is None:
            return False
        token = _bearer(next((value for name, value in headers if name == b"authorization"), b""))
        return hmac.compare_digest(digest_of(token), self._admin)

    def load(self) -> None:
        """Read the keys file, if there is one.

        Raises:
            ConfigError: When it is missing or broken; the keys that were known before still hold.
        """
        if self._file is None:
            return
        # Looked at before it is read: what is written in between is read again at the next look.
        self._seen = _signature(self._file)
        keys = read_keys(self._file)
        self._ring = _Ring(
            {
                one.id: (bytes.fromhex(one.sha256), Caller(one.tenant, one.id, self._tenants.rules(one.tenant)))
                for one in keys.values()
                if one.revoked is None
            }
        )
        if _others_may_write(self._file):
            log.warning("keys_file_open_to_others", extra={"path": str(self._file), "advice": "chmod go-w"})
        log.info("keys_loaded", extra={"path": str(self._file), "keys": len(self._ring.keys)})

    def refresh(self) -> None:
        """Read the keys file again if it has changed; one that is broken changes nothing, and is logged."""
        self._look_at_s = self._clock() + _LOOK_EVERY_S
        if self._file is None or _signature(self._file) == self._seen:
            return
        try:
            self.load()
        except ConfigError as error:
            log.error("keys_file_refused", extra={"reason": str(error)})  # noqa: TRY400  said in full, once per change

    def _check(self, given: bytes) -> Caller:
        token = _bearer(given)
        id_, secret = split_key(token) or ("", token)
        digest, caller = self._ring.keys.get(id_, (_NOBODY, self._nobody))
        right = hmac.compare_digest(digest_of(secret), digest)
        if not right and self._shared is not None:
            right, caller = hmac.compare_digest(digest_of(token), self._shared), self._nobody
        if not right:
            raise WrongKey(_MISSING)
        if len(given) <= _MAX_REMEMBERED_BYTES:
            if len(self._ring.passed) >= _MAX_REMEMBERED:
                self._ring.passed.clear()
            self._ring.passed[given] = caller
        return caller


def authorizer_of(
    settings: ServingSettings,
    tenants: Tenants,
    environ: Mapping[str, str],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Authorizer:
    """Put an authorizer together, its keys read.

    Args:
        settings: `[serving]` of the configuration.
        tenants: The rules of every tenant.
        environ: Where the shared key and the admin key are looked up.
        clock: Seconds that only go up.

    Raises:
        ConfigError: When a key that was asked for is not set, the keys file is missing or broken, or one key is to be
            both the clients' and the administrators'.
    """
    shared, admin = None, environ.get(settings.admin_key_env) or None
    if settings.api_key_env is not None:
        shared = environ.get(settings.api_key_env)
        if not shared:
            raise ConfigError(
                f"serving.api_key_env: the environment variable {settings.api_key_env} is not set; "
                "set it to the clients' key"
            )
        if shared == admin:
            raise ConfigError(
                f"serving.admin_key_env: {settings.admin_key_env} and {settings.api_key_env} hold the same key, so "
                "every client could switch bundles; set different ones"
            )
    for variable, key in ((settings.api_key_env, shared), (settings.admin_key_env, admin)):
        if key is not None and len(key) < _SHORT_KEY:
            log.warning("key_is_short", extra={"variable": variable, "advice": f"draw one of {_SHORT_KEY} or more"})
    found = Authorizer(
        tenants,
        keys_file=settings.keys_file,
        shared_key=shared,
        admin_key=admin,
        admin_key_env=settings.admin_key_env,
        # Who says allow_anonymous has something in front, which passes the name on that it is known by.
        fence=Fence(settings.host, check_host=not settings.allow_anonymous),
        clock=clock,
    )
    found.load()
    return found


def check_exposure(settings: ServingSettings) -> None:
    """Refuse to listen beyond this machine without asking for a key.

    Raises:
        ConfigError: When everybody who reaches the address could spend the upstreams' money.
    """
    if settings.keys_file is not None or settings.api_key_env is not None or settings.allow_anonymous:
        return
    if not is_loopback(settings.host):
        raise ConfigError(
            f"serving.host: on {settings.host!r} everybody who reaches this machine could call your models at your "
            "cost; set serving.keys_file (see `router-ml keys create`) or serving.api_key_env, listen on 127.0.0.1, "
            "or say serving.allow_anonymous = true if something in front asks for keys"
        )


def _given(headers: Headers) -> bytes:
    fallback = b""
    for name, value in headers:
        if name == b"authorization":
            return value
        if name == b"x-api-key":
            fallback = b"Bearer " + value
    return fallback


def _bearer(value: bytes) -> bytes:
    scheme, _, token = value.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _signature(path: Path) -> _Signature | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _others_may_write(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    except OSError:
        return False
