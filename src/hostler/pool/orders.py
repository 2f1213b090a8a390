"""The placers by name: each an order in which runners are tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TypeVar

import trio

from ..abc import Runner, RunnerCall
from ..config import PlacerConfig
from .load_tracker import CallNeed
from .placer import SweepPlacer, need_of
from .runner_set import RunnerSet


class NaivePlacer(SweepPlacer):
    """Starts each sweep at a random runner, and continues in ring order."""

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        return ring(runners, self.rng.randrange(len(runners)) if runners else 0)


class ConsistentHashPlacer(SweepPlacer):
    """Tries each function's own runner first, so that its containers stay hot.

    The order follows from the function's id and the runners' addresses by rendezvous hashing, not
    from places in the pool's list as in Fn's placer. So a runner that comes or goes moves only its
    own share of the functions.
    """

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        return self.runner_sets.of(runners).preferred(call.model.fn_id)


class LeastLoadedPlacer(SweepPlacer):
    """Picks two random runners and tries the one with fewer calls first; then all others, in ring
    order.

    Mitzenmacher, "The power of two choices in randomized load balancing", IEEE Transactions on
    Parallel and Distributed Systems 12(10), 2001.
    """

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        need, now = need_of(call, self.loads.slot_extensions), trio.current_time()
        two = self.rng.sample(range(len(runners)), min(2, len(runners)))
        two.sort(key=lambda index: self.loads.load(runners[index].address, need, now))
        for index in two:
            yield runners[index]
        for index in ring(range(len(runners)), two[-1]):
            if index not in two:
                yield runners[index]


class BoundedPlacer(SweepPlacer):
    """Consistent hashing with bounded loads.

    Each function has its own order of the runners, by rendezvous hashing over their addresses. The
    first runner takes the function's calls, up to the even share of all calls and a fraction more
    (``config.load_spill_percent``); then the next runner does. Sources: see `load_limit` and
    `hostler.pool.runner_set`.
    """

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        preferred = self.runner_sets.of(runners).preferred(call.model.fn_id)
        return within(preferred, self.bound(call, len(runners)))

    def bound(self, call: RunnerCall, count: int) -> Callable[[Runner], bool]:
        """A test that tells which of ``count`` runners may have one more call."""
        need, now = need_of(call, self.loads.slot_extensions), trio.current_time()
        share = self.config.load_spill_percent / 100
        limit = load_limit(self.loads.total(now), count, share)
        return lambda runner: self.loads.load(runner.address, need, now) < limit


MAX_HOT = 16
"""Runners believed to have a hot container that are tried first."""

MAX_SPARE = 8
"""Runners with free memory that are looked at beside the function's preferred ones."""


class WarmPlacer(BoundedPlacer):
    """Tries the runners first that are believed to have an idle hot container for the call.

    A call whose function has only busy containers waits for one of them, until the function's
    `LaunchPolicy` says that another is to be started. Without any container the order is that of
    `BoundedPlacer`, but runners come first that can start a container without evicting another
    function's. What is known of containers and memory comes from the runners' load hints and from
    the placer's own calls.
    """

    def waits(self, call: RunnerCall, need: CallNeed, now: float) -> bool:
        return call.model.type != "detached" and not self.loads.any_warm(need, now)

    def eviction_grace(self, need: CallNeed) -> float:
        return self.loads.policies.eviction_grace(need)

    def first_choice(
        self, call: RunnerCall, need: CallNeed, runners: Sequence[Runner], now: float
    ) -> Runner | None:
        address = self.loads.warmest(need, now)
        return None if address is None else self.runner_sets.of(runners).find(address)

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        need = need_of(call, self.loads.slot_extensions)
        runner_set = self.runner_sets.of(runners)
        tried: set[Runner] = set()
        for address in self.loads.warm(need, trio.current_time(), MAX_HOT):
            if (runner := runner_set.find(address)) is not None:
                tried.add(runner)
                yield runner
        # Nearly always that was enough.
        yield from once(chain.from_iterable(self._colder(call, need, runner_set)), tried)

    def _colder(
        self, call: RunnerCall, need: CallNeed, runner_set: RunnerSet
    ) -> Iterator[Iterable[Runner]]:
        """Groups of runners where a container has to be started, and in the end all runners."""
        key, now, fits = call.model.fn_id, trio.current_time(), self.bound(call, len(runner_set))
        spare_warm = self.eviction_grace(need) > 0

        def has_room(runner: Runner) -> bool:
            return self.loads.has_room(runner.address, need, now)

        def takes(runner: Runner) -> bool:
            return has_room(runner) and fits(runner) and self.loads.has_cpu(runner.address, now)

        def room(runner: Runner) -> int:
            return self.loads.room(runner.address, spare_warm=spare_warm)

        # The near runners are nearly always enough, however many runners there are.
        near = runner_set.near(key)
        yield filter(takes, near)
        addresses = self.loads.spare(need, MAX_SPARE, self.rng, spare_warm=spare_warm)
        spare = tuple(filter(None, map(runner_set.find, addresses)))
        yield filter(takes, spare)
        # Where many containers are idle, the evicted one is needed least.
        yield sorted(filter(fits, near + spare), key=room, reverse=True)
        yield within(within(runner_set.preferred(key), fits), has_room)


PLACERS: Mapping[str, Callable[[PlacerConfig], SweepPlacer]] = {
    "naive": NaivePlacer,
    "ch": ConsistentHashPlacer,
    "least-loaded": LeastLoadedPlacer,
    "bounded": BoundedPlacer,
    "warm": WarmPlacer,
}

T = TypeVar("T")


def ring(items: Iterable[T], first: int) -> Iterator[T]:
    """Each item once, in ring order from index ``first``."""
    held = tuple(items)
    yield from held[first:]
    yield from held[:first]


def load_limit(total: float, count: int, epsilon: float) -> int:
    """The most calls that one of ``count`` runners may have, including the next one, while all have
    ``total`` together: the even share and a fraction of ``epsilon`` more.

    Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2016
    (arXiv:1608.01350).
    """
    return math.ceil((1 + epsilon) * (total + 1) / max(count, 1))


def within(items: Iterable[T], fits: Callable[[T], bool]) -> Iterator[T]:
    """The items that fit, then the others; both keep their order. Takes an item only when asked for
    one more."""
    others: list[T] = []
    for item in items:
        if fits(item):
            yield item
        else:
            others.append(item)
    yield from others


def once(items: Iterable[T], seen: set[T]) -> Iterator[T]:
    """Each item the first time only, and none that is in ``seen``, to which it adds them. Takes an
    item only when asked for one more."""
    for item in items:
        if item not in seen:
            seen.add(item)
            yield item
