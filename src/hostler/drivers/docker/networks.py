"""Which network the next container joins."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from .options import DockerOptions
from .prefork import PreforkPool

_OWN = {
    "config": ("Domainname", "MacAddress", "ExposedPorts", "NetworkDisabled"),
    "host_config": (
        *("Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "Links"),
        *("PortBindings", "PublishAllPorts", "Runtime", "UsernsMode"),
    ),
}
"""Options that an engine refuses or ignores for a container in another one's name space, or which
may keep it from joining."""


@attrs.frozen
class NetworkLease:
    """What one container uses. ``mode`` is the engine's ``NetworkMode``; ``prepared`` = it names
    a prepared name space. ``release`` is called once; its argument tells whether the container is
    certainly gone, and has left everything as it was."""

    mode: str
    release: Callable[[bool], None]
    prepared: bool = False


def needs_its_own(options: DockerOptions, hostname: str) -> bool:
    """Whether ``options`` have something that only a container with a network name space of its
    own can have. ``hostname`` is the one that prepared name spaces have."""
    return (
        bool(options.networking_config)
        or options.config.get("Hostname", "") not in ("", hostname)
        or any(options.config.get(name) for name in _OWN["config"])
        or any(options.host_config.get(name) for name in _OWN["host_config"])
        or any(name.startswith("net.") for name in options.host_config.get("Sysctls") or ())
    )


def may_change_its_name_space(options: DockerOptions) -> bool:
    """Whether a container with ``options`` may leave something behind for the next one in its name
    space: routes and filters, for which it takes a right, or lines in ``/etc/hosts`` and
    ``/etc/resolv.conf``, which containers of one name space share, and which root may write unless
    the root file system is read-only."""
    host = options.host_config
    if host.get("Privileged") or host.get("CapAdd"):
        return True
    user = str(options.config.get("User", "")).partition(":")[0]
    # Who a name is says the image, and without the option a program may make itself root.
    for_good = "no-new-privileges" in (host.get("SecurityOpt") or ())
    never_root = user.isdecimal() and int(user) != 0 and for_good
    return not (host.get("ReadonlyRootfs") or never_root)


class Networks:
    """Leases of the configured networks, whose containers it counts so that the emptiest can be
    chosen, and of prepared name spaces on them."""

    def __init__(self, names: Iterable[str], prefork: PreforkPool | None = None) -> None:
        self._in_use = dict.fromkeys(names, 0)
        self._prefork = prefork

    def lease(self) -> NetworkLease | None:
        """``None`` = the engine's default network."""
        if (name := self.allocate()) is not None:
            return NetworkLease(name, lambda gone: self.free(name))
        return None

    def lease_prepared(self, instead_of: NetworkLease | None) -> NetworkLease | None:
        """A name space that is ready, on the emptiest network that has one; the other lease is
        released then. ``None`` = there is none."""
        pool = self._prefork
        if pool is None:
            return None
        others = dict(self._in_use)
        if instead_of is not None:
            others[instead_of.mode] -= 1
        space = pool.allocate(others)
        if space is None:
            return None
        if instead_of is not None:
            instead_of.release(True)
        if space.network in self._in_use:
            self._in_use[space.network] += 1

        def release(as_it_was: bool) -> None:
            pool.free(space.holder, as_it_was)
            if space.network in self._in_use:
                self.free(space.network)

        return NetworkLease(f"container:{space.holder}", release, prepared=True)

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
