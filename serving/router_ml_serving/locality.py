"""Requests that a web page makes: while nobody is asked for a key, a browser could spend the money of whoever runs it.

A page of a stranger may call services of the machine that shows it: with its own `Origin`, or, where its name was made
to mean this machine (DNS rebinding), with its own `Host`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from router_ml_serving.problems import NoPermission

__all__ = ["Fence", "is_loopback"]

# Every port is a spelling of its own; real clients use one or two.
_MAX_REMEMBERED = 64


class Fence:
    """Keeps web pages out that do not come from this machine.

    Args:
        host: Where the service listens, which is as good a `Host` as one of this machine's.
        check_host: Whether the `Host` of a request is looked at, too.
    """

    def __init__(self, host: str, *, check_host: bool) -> None:
        self._host = host.lower()
        self._check_host = check_host
        self._passed: set[bytes] = set()

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Look at a request.

        Args:
            headers: Raw ASGI pairs with lower-case names.

        Raises:
            NoPermission: When a page of another site made it.
        """
        for name, value in headers:
            if name == b"host":
                if self._check_host and value not in self._passed:
                    self._pass(value, _host_of, "Host")
            elif name == b"origin" and value not in self._passed:
                self._pass(value, _host_of_origin, "Origin")

    def _pass(self, value: bytes, host_of: Callable[[str], str | None], what: str) -> None:
        host = host_of(value.decode("latin-1"))
        if host is None or (not is_loopback(host) and host != self._host):
            raise NoPermission(
                f"no key is asked for here, so requests with this {what} are refused: it may be a web page that calls; "
                "name the service as localhost, or give its clients a key (serving.keys_file)"
            )
        if len(self._passed) >= _MAX_REMEMBERED:
            self._passed.clear()
        self._passed.add(value)


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches an address, or this name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: only this one is known to stay on the machine
        return host == "localhost"


def _host_of_origin(origin: str) -> str | None:
    scheme, found, rest = origin.partition("://")
    return _host_of(rest) if found and scheme in ("http", "https") else None


def _host_of(value: str) -> str | None:
    try:
        parts = urlsplit(f"//{value}")
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None
    # Nothing but a host and a port: "localhost/@evil" and the like are nobody's.
    return host if host and parts.netloc == value and "@" not in value else None
