"""Which network the next container joins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import attrs

from ._options import DockerOptions
from ._prefork import PreforkPool

_OWN = {
    "config": ("Hostname", "Domainname", "MacAddress", "ExposedPorts", "NetworkDisabled"),
    "host_config": (
        *("Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "Links"),
        *("PortBindings", "PublishAllPorts", "Runtime", "UsernsMode"),
    ),
}
"""Options that an engine refuses or ignores for a container in another one's name space, or which
may keep it from joining."""


@attrs.frozen
class Lease:
    """What one container uses. ``mode`` is the engine's ``NetworkMode``; ``prepared`` = it names
    a prepared name space. ``release`` is called once; its argument tells whether the container is
    certainly gone."""

    mode: str
    release: Callable[[bool], None]
    prepared: bool = False


def needs_its_own(options: DockerOptions) -> bool:
    """Whether ``options`` have something that only a container with a network name space of its
    own can have."""
    return (
        bool(options.networking_config)
        or any(options.config.get(name) for name in _OWN["config"])
        or any(options.host_config.get(name) for name in _OWN["host_config"])
        or any(name.startswith("net.") for name in options.host_config.get("Sysctls") or ())
    )


class Networks:
    """Leases of the prepared network name spaces, and when there is none, of the configured
    networks, whose containers it counts so that the emptiest can be chosen."""

    def __init__(self, names: Iterable[str], prefork: PreforkPool | None = None) -> None:
        self._in_use = dict.fromkeys(names, 0)
        self._prefork = prefork

    def lease(self, *, prepared: bool = True) -> Lease | None:
        """``None`` = the engine's default network. Not ``prepared`` = a name space of its own."""
        pool = self._prefork if prepared else None
        if pool is not None and (holder := pool.allocate()) is not None:
            return Lease(f"container:{holder}", partial(pool.free, holder), prepared=True)
        if (name := self.allocate()) is not None:
            return Lease(name, lambda gone: self.free(name))
        return None

    def allocate(self) -> str | None:
        """The network with the fewest containers (the first of equals), now with one more.
        ``None`` if no networks are configured."""
        if not self._in_use:
            return None
        name = min(self._in_use, key=self._in_use.__getitem__)
        self._in_use[name] += 1
        return name

    def free(self, name: str) -> None:
        """Give back what ``allocate`` returned, once."""
        assert self._in_use[name] > 0
        self._in_use[name] -= 1

    def in_use(self) -> dict[str, int]:
        """Containers by network."""
        return dict(self._in_use)
