"""Where calls may go: the URL and the headers of every tier, checked once; nothing in a request can change them."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from aiohttp import ThreadedResolver
from aiohttp.abc import ResolveResult
from multidict import CIMultiDict
from yarl import URL

from router_ml import __version__
from router_ml.errors import ConfigError
from router_ml.ladder import Tier

__all__ = ["CarefulResolver", "Destination", "destination_of"]

# Where clouds keep the credentials of the machine, besides the link-local networks: no model lives there.
_METADATA = frozenset({"fd00:ec2::254", "100.100.100.200", "168.63.129.16"})
# NAT64, and the IPv4-compatible addresses of RFC 4291.
_WITH_IPV4_AT_THE_END = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))


@dataclass(frozen=True, slots=True)
class Destination:
    """What every call of one tier has in common."""

    tier: Tier
    url: URL
    headers: CIMultiDict[str]


class CarefulResolver(ThreadedResolver):
    """Resolves names as the system does, but to no address that holds a machine's credentials."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises:
            OSError: When it has none, or none but forbidden ones.
        """
        found = [one for one in await super().resolve(host, port, family) if not _is_forbidden(one["host"])]
        if not found:
            message = f"{host} is a link-local or metadata address"
            raise OSError(message)
        return found


def destination_of(tier: Tier, environ: Mapping[str, str], hosts: Sequence[str] = ()) -> Destination | None:
    """Check where a tier is served, and put together what all its calls share.

    Args:
        tier: A tier of the configuration.
        environ: Where its key is looked up.
        hosts: `serving.upstream_hosts`: patterns of `host` or `host:port`; none allow any host.

    Returns:
        None for a tier without a `base_url`.

    Raises:
        ConfigError: When its `base_url` or key cannot be used, or lies outside of `hosts`.
    """
    if tier.base_url is None:
        return None
    return Destination(tier, _url(tier, tier.base_url, hosts), _headers(tier, environ))


def _url(tier: Tier, base_url: str, hosts: Sequence[str]) -> URL:
    # Not quoted in the messages: it may hold a password.
    where = f"base_url of the tier '{tier.name}'"
    try:
        url = URL(base_url.rstrip("/") + "/chat/completions")
        host, port = url.host, url.port
    except ValueError as error:
        raise ConfigError(f"{where}: not a URL; expected one such as https://api.openai.com/v1") from error
    if url.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{where}: not an http:// or https:// URL; expected one such as https://api.openai.com/v1")
    if url.user is not None or url.password is not None:
        raise ConfigError(f"{where}: holds a user or password; name a variable with the key in api_key_env instead")
    if url.query_string or url.fragment or "?" in base_url or "#" in base_url:
        raise ConfigError(f"{where}: has a query or fragment; it must end before /chat/completions, as in …/v1")
    if _is_forbidden(host):
        raise ConfigError(f"{where}: {host} is a link-local or metadata address, where no model is served")
    if hosts and not _is_among(host.lower(), port, hosts):
        raise ConfigError(
            f"{where}: {host}:{port} is not among serving.upstream_hosts ({', '.join(hosts)}); "
            "add it there, or correct the URL"
        )
    return url


def _headers(tier: Tier, environ: Mapping[str, str]) -> CIMultiDict[str]:
    headers = CIMultiDict(
        {
            "content-type": "application/json",
            # Compressed events arrive in clumps, and unpacking whole answers costs more than the bytes on the wire.
            "accept-encoding": "identity",
            "user-agent": f"router-ml/{__version__}",
        }
    )
    # Keys read from files come with a line end, which no header can carry.
    key = environ.get(tier.api_key_env, "").strip() if tier.api_key_env else ""
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the variable {tier.api_key_env} (api_key_env of the tier '{tier.name}') holds no usable key"
        )
    if key:
        headers["authorization"] = f"Bearer {key}"
    return headers


def _is_among(host: str, port: int | None, hosts: Sequence[str]) -> bool:
    shown = f"[{host}]" if ":" in host else host
    return any(
        fnmatchcase(shown, pattern) or fnmatchcase(f"{shown}:{port}", pattern)
        for pattern in (pattern.lower().replace("[", "[[]") for pattern in hosts)
    )


def _is_forbidden(host: str) -> bool:
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False  # a name: looked at again when it is resolved
    meant: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        meant += _inside(address)
    return any(one.is_link_local or one.is_multicast or str(one) in _METADATA for one in meant)


def _inside(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    # Addresses of the old Internet in those of the new one: gateways on the way may unpack them.
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _WITH_IPV4_AT_THE_END):
        found.append(ipaddress.IPv4Address(address.packed[-4:]))
    return [one for one in found if one is not None]
