"""Runner targets: addresses and names as operators write them, and what they resolve to. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

import attrs

from ..config import is_runner_target
from ..errors import ConfigError, HostlerError


@attrs.frozen
class FixedTarget:
    """One runner at ``address``."""

    address: str


@attrs.frozen
class NameTarget:
    """A runner at ``port`` of each address of ``name``."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"dns://{self.name}:{self.port}"


@attrs.frozen
class ServiceTarget:
    """Runners at the hosts and ports in the SRV records of ``name``."""

    name: str

    def __str__(self) -> str:
        return f"srv://{self.name}"


Target = FixedTarget | NameTarget | ServiceTarget


class LookupFailed(HostlerError):
    """A name has no addresses, or its servers don't answer. The text says which."""


@attrs.frozen
class ResolvedTarget:
    """The runners that a target stands for now."""

    names: Mapping[str, str]
    """Addresses (``host:port``, sorted), each with the host name that its certificate should
    have."""
    ttl: float
    """Seconds that the answer holds: the least TTL of its records."""


def parse_targets(texts: Iterable[str]) -> tuple[Target, ...]:
    """Parse targets. Raises `ConfigError` for a text that is not ``host:port``, ``dns://…`` or
    ``srv://…``."""
    return tuple(_parse(text) for text in texts)


def _parse(text: str) -> Target:
    if not is_runner_target(text):
        raise ConfigError(f"runner target {text!r}: takes host:port, dns://name:port or srv://name")
    scheme, separator, rest = text.partition("://")
    if not separator:
        return FixedTarget(text)
    if scheme == "srv":
        return ServiceTarget(rest)
    host, _, port = rest.rpartition(":")
    return FixedTarget(rest) if _is_address(host) else NameTarget(host, int(port))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
