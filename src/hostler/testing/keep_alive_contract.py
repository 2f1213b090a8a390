"""The contract of `hostler.abc.KeepAlive`, as checks that every policy has to pass."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable
from contextlib import nullcontext

import attrs

from ..abc import KeepAlive
from .contracts import Check, check_each, require

MakeKeepAlive = Callable[[], KeepAlive]

_MIB = 2**20
_CALLS = 2000


@attrs.define(eq=False, kw_only=True)
class FakeContainer:
    """A `hostler.abc.KeptContainer` by a script."""

    key: Hashable = "f"
    memory: int = 128 * _MIB
    idle_timeout: float = 30.0
    start_seconds: float = 0.5
    idle_since: float = math.inf
    level: int = 1
    ahead: bool = False


@attrs.define
class _Scene:
    """What an agent with much room would do: at random, but with everything in order."""

    policy: KeepAlive
    rng: random.Random
    now: float = 0.0
    idle: list[FakeContainer] = attrs.Factory(list)
    busy: list[FakeContainer] = attrs.Factory(list)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.now += self.rng.expovariate(1 / self.rng.choice((0.01, 1.0, 100.0)))
            self._look()
            step = self.rng.random()
            if step < 0.5 or not self.busy:
                self._call(self.rng.randrange(5))
            elif step < 0.95:
                container = self.busy.pop(self.rng.randrange(len(self.busy)))
                self._offer(container)
            elif self.idle:
                self._end(min(self.idle, key=self._rank), early=True)

    def _look(self) -> None:
        for container in tuple(self.idle):
            if self.policy.keep_until(container, self.now) <= self.now:
                self._end(container, early=False)
        at = self.policy.next_start()
        for key in self.policy.starts(self.now):
            require(at <= self.now, "starts something before the time that next_start told")
            require(self.policy.starts_ahead, "starts something although starts_ahead is false")
            self._offer(FakeContainer(key=key, ahead=True))
        require(not tuple(self.policy.starts(self.now)), "tells a start twice")
        require(self.policy.next_start() > self.now, "next_start is over, but starts is empty")

    def _call(self, key: int) -> None:
        found = next((one for one in reversed(self.idle) if one.key == key), None)
        if found is None:
            self.policy.missed(key, self.now)
            found = FakeContainer(key=key, memory=(key + 1) * 64 * _MIB)
        else:
            self.idle.remove(found)
            self.policy.taken(found, self.now)
        found.ahead = False
        found.idle_since = math.inf
        self.busy.append(found)

    def _offer(self, container: FakeContainer) -> None:
        container.idle_since = self.now
        container.level = 1 + sum(one.key == container.key for one in self.busy)
        self.idle.append(container)
        self.policy.became_idle(container, self.now)

    def _end(self, container: FakeContainer, *, early: bool) -> None:
        self.idle.remove(container)
        self.policy.left(container, self.now, early=early)

    def _rank(self, container: FakeContainer) -> float:
        rank = self.policy.rank(container, self.now)
        require(not math.isnan(rank), f"the rank of {container} is no number")
        return rank


async def any_order(make: MakeKeepAlive) -> None:
    """Whatever happens, nothing raises, and starts are told once, at the time that was told."""
    for seed in range(3):
        _Scene(make(), random.Random(seed)).run(_CALLS)  # noqa: S311  (no secret)


async def ends_at_last(make: MakeKeepAlive) -> None:
    """A container that is never called again does not stay for ever, and nothing is started for
    ever."""
    policy = make()
    scene = _Scene(policy, random.Random(4))  # noqa: S311
    scene.run(_CALLS)
    for container in tuple(scene.busy):
        scene.busy.remove(container)
        scene._offer(container)
    for _ in range(10 * _CALLS):
        times = [policy.keep_until(container, scene.now) for container in scene.idle]
        soon = min([*times, policy.next_start()])
        if soon == math.inf:
            break
        scene.now = max(scene.now, soon)
        scene._look()
    require(not scene.idle, f"keeps {len(scene.idle)} containers that nobody calls")


async def looks_change_nothing(make: MakeKeepAlive) -> None:
    """To be asked is not to be told: the same answer comes again."""
    policy = make()
    container = FakeContainer(idle_since=10.0)
    policy.missed("f", 9.0)
    policy.became_idle(container, 10.0)
    first = (policy.keep_until(container, 11.0), policy.rank(container, 11.0))
    for _ in range(3):
        again = (policy.keep_until(container, 11.0), policy.rank(container, 11.0))
        require(again == first, f"says {again} where it has said {first}")


async def strangers(make: MakeKeepAlive) -> None:
    """It may be asked for the rank of a container that it was not told of, and hear of calls of
    functions that it has forgotten."""
    policy = make()
    policy.missed("never seen", 1.0)
    require(not math.isnan(policy.rank(FakeContainer(idle_since=1.0), 2.0)), "a rank is no number")


async def without_memory(make: MakeKeepAlive) -> None:
    """A container that is counted with no memory goes after its idle timeout: it costs nothing,
    and status checks rely on that."""
    policy = make()
    container = FakeContainer(memory=0, idle_since=5.0, idle_timeout=1.0)
    policy.became_idle(container, 5.0)
    require(policy.keep_until(container, 5.0) == 6.0, "does not go after its idle timeout")


KEEP_ALIVE_CHECKS: tuple[Check[MakeKeepAlive], ...] = (
    any_order,
    ends_at_last,
    looks_change_nothing,
    strangers,
    without_memory,
)
"""Each takes a function that makes a policy."""


async def check_keep_alive(make_keep_alive: MakeKeepAlive) -> None:
    """Check a keep-alive policy against the whole contract. Takes a second.

    Raises an ``ExceptionGroup`` of `ContractBroken` and whatever else was raised.
    """
    await check_each(KEEP_ALIVE_CHECKS, lambda: nullcontext(make_keep_alive))
