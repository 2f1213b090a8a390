"""Which network the next container joins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import attrs

from ._prefork import PreforkPool


@attrs.frozen
class Lease:
    """What one container uses. ``mode`` is the engine's ``NetworkMode``. ``release`` is called
    once; its argument tells whether the container is certainly gone."""

    mode: str
    release: Callable[[bool], None]


class Networks:
    """Leases of the prepared network name spaces, and when there is none, of the configured
    networks, whose containers it counts so that the emptiest can be chosen."""

    def __init__(self, names: Iterable[str], prefork: PreforkPool | None = None) -> None:
        self._in_use = dict.fromkeys(names, 0)
        self._prefork = prefork

    def lease(self) -> Lease | None:
        """``None`` = the engine's default network."""
        pool = self._prefork
        if pool is not None and (holder := pool.allocate()) is not None:
            return Lease(f"container:{holder}", partial(pool.free, holder))
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
