"""Load tracker: own calls, load hints, idle hot containers and free memory of each runner.

There are two sources: the calls that this placer has sent, and the `LoadHint` that comes with each
answer of a runner that gives hints. A runner without hints, such as Fn's, is judged by the calls
alone: where a call has just ended well, a hot container of its function is idle.

All of this may be wrong, since other load balancers use the same runners. It decides which runner
is tried first, never whether one is tried. Times are seconds of one clock, given by the caller.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Set

import attrs
from msgspec.structs import replace

from .._launch_policy import WEIGHT, LaunchPolicy
from .._stats import LRUDict
from ..abc import NotPlaced, Outcome
from ..calls import Timings
from ..protocol import LEAVE_SECONDS, MAX_SLOT_EXTENSIONS, MAX_WARM_KEYS, LoadHint

SPARE_CPUS = 250
"""Milli-CPUs that a machine must have idle to be preferred for the start of a container."""

FULL_SECONDS = 1.0
"""Seconds that a runner counts as full after it has refused a call, unless a call ends there
earlier."""

MAX_RUNNERS = 8192
"""Runners that are remembered, beside runners with own calls."""

_NO_WARM: Mapping[bytes, int] = {}


class LoadTracker:
    """What one placer knows of its runners. Runners are identified by their addresses.

    ``now`` is `trio.current_time`, in seconds. All methods are synchronous. A runner's report of
    its calls is believed for `HINT_SECONDS`. Its report of its memory is believed as long, or
    without limit if the runner reports changes by itself.
    """

    def __init__(self) -> None:
        self._runners: dict[str, RunnerLoad] = {}
        self._warm = IdleIndex()
        self._in_flight = 0
        self._others = 0
        """Calls of other load balancers on the runners in `_hinted`."""
        self._hinted: OrderedDict[str, None] = OrderedDict()
        """Runners whose report of their calls is believed, the oldest report first."""
        self._reporting: set[str] = set()
        self.reporting_version = 0
        """Grows when a runner begins or ceases to report its load by itself."""
        self._free = FreeMemoryIndex()
        self._room = {spare_warm: FreeMemoryIndex() for spare_warm in (False, True)}
        """Memory that is free or would be after evictions, of runners that report by themselves.
        Under ``True``, for calls that spare warm containers, without protected containers."""
        self._changed: dict[str, None] = {}
        """Runners whose entries in these indexes are out of date: hints come more often than the
        indexes are used."""
        self.policies = LaunchPolicies()
        self.slot_extensions: tuple[str, ...] = ()
        """Names of the extensions that the runners' drivers read for slot keys."""

    def __repr__(self) -> str:
        return f"<LoadTracker runners={len(self._runners)} warm={len(self._warm)}>"

    # --- what placers ask ---

    def load(self, address: str, need: CallNeed, now: float) -> float:
        """Calls on the runner; infinite if it has just refused such a call."""
        runner = self._runners.get(address)
        if runner is None:
            return 0
        if now < runner.full_until and need.memory >= runner.full_for:
            return math.inf
        return runner.calls(now)

    def total(self, now: float) -> int:
        """Calls on all runners together."""
        while self._hinted:
            address = next(iter(self._hinted))
            runner = self._runners[address]
            if now <= runner.hinted_at + HINT_SECONDS:
                break
            self._others -= runner.others
            runner.others = 0
            del self._hinted[address]
        return self._in_flight + self._others

    def warm(self, need: CallNeed, now: float, limit: int) -> list[str]:
        """Addresses with an idle hot container for ``need``: the ``limit`` that were heard of
        last."""
        return self._warm.addresses(need, now, limit)

    def warm_count(self, address: str, need: CallNeed, now: float) -> int:
        """Idle hot containers for ``need`` that are believed to be at the runner."""
        return self._warm.count(address, need, now)

    def has_cpu(self, address: str, now: float) -> bool:
        """Whether the runner's machine has idle CPUs; true if that is not known."""
        runner = self._runners.get(address)
        return runner is None or runner.idle_cpus is None or runner.idle_cpus >= SPARE_CPUS

    def any_warm(self, need: CallNeed, now: float) -> bool:
        """Whether `warm` returns any."""
        return self._warm.latest(need, now) is not None

    def warmest(self, need: CallNeed, now: float) -> str | None:
        """The first of `warm`, unless the runner's capacity is held for other load balancers."""
        address = self._warm.latest(need, now)
        return None if address is None or self.is_held(address, now) else address

    def has_room(self, address: str, need: CallNeed, now: float) -> bool:
        """Whether one more container fits there without an eviction; true if that is not known."""
        runner = self._runners.get(address)
        if runner is None or runner.hint is None:
            return True
        if now < runner.held_until:
            return False
        if not runner.reports and now > runner.hinted_at + HINT_SECONDS:
            return True
        return runner.left() >= need.memory and _fits(need.cpus, runner.cpus_left())

    def spare(
        self, need: CallNeed, count: int, rng: random.Random, *, spare_warm: bool = False
    ) -> list[str]:
        """Addresses of runners that probably have room without an eviction, then of runners that
        have it with one: up to ``count`` of each."""
        self._index()
        free = self._free.some(need.memory, count, rng)
        return free + self._room[spare_warm].some(need.memory, count, rng)

    def room(self, address: str, *, spare_warm: bool) -> int:
        """Bytes that are free at the runner or would be after evictions; 0 if that is not known."""
        runner = self._runners.get(address)
        return 0 if runner is None else runner.room(spare_warm=spare_warm)

    def is_full(
        self, address: str, need: CallNeed, now: float, *, spare_warm: bool = False
    ) -> bool:
        """Whether the runner would certainly refuse such a call: it reports changes by itself, and
        has neither room nor a hot container."""
        runner = self._runners.get(address)
        if runner is None or address not in self._reporting:
            return False
        if now < runner.held_until:
            return True
        if self._warm.count(address, need, now):
            return False
        memory, cpus = runner.room(spare_warm=spare_warm), runner.cpus(spare_warm=spare_warm)
        return memory < need.memory or not _fits(need.cpus, cpus)

    def all_full(self, need: CallNeed, now: float, *, spare_warm: bool = False) -> bool:
        """Whether `is_full` is certainly true of all runners that report changes by themselves."""
        if self.any_warm(need, now):
            return False
        self._index()
        return not self._room[spare_warm].may_have(need.memory)

    def all_report(self, addresses: Set[str]) -> bool:
        """Whether each of these runners reports changes by itself, and what evictions would
        free."""
        return addresses <= self._reporting

    # --- what happens ---

    def note(self, address: str, hint: LoadHint | None, now: float) -> None:
        """The runner has reported its load by itself; ``None`` = it can't be heard any more."""
        runner = self._runners.get(address)
        if runner is None:
            if hint is None:
                return
            self._make_room()
            runner = self._runners[address] = RunnerLoad()
        runner.reports = hint is not None
        if hint is None:
            self._note_reporter(address, runner)
        else:
            self._learn(runner, address, hint, now)
            if hint.complete:
                self._warm.replace(address, hint.warm, now)

    def is_held(self, address: str, now: float) -> bool:
        """Whether the runner's free capacity is held for other load balancers."""
        runner = self._runners.get(address)
        return runner is not None and now < runner.held_until

    def begin(self, address: str, need: CallNeed, now: float) -> bool:
        """A call goes to the runner. Returns whether it is believed to find a hot container
        there."""
        runner = self._runners.get(address)
        if runner is None:
            self._make_room()
            runner = self._runners[address] = RunnerLoad()
        runner.in_flight += 1
        self._in_flight += 1
        warm = self._warm.take(address, need, now)
        if not warm:
            runner.unseen_memory += need.memory
            runner.unseen_cpus += need.cpus
            if runner.hint is not None:
                self._changed[address] = None
        return warm

    def end(self, address: str, need: CallNeed, outcome: Outcome | None, now: float) -> None:
        """A call that `begin` counted is over; ``None`` = it was cancelled."""
        runner = self._runners[address]
        runner.in_flight -= 1
        self._in_flight -= 1
        if outcome is None:
            return
        hint, ran = outcome.load, False
        if isinstance(outcome, NotPlaced):
            self._warm.set(address, need, 0, now)
            self._refused(runner, need, outcome.retry_after, now)
        else:
            runner.full_until = -math.inf
            ran = outcome.error is None
        if hint is None:
            if ran:
                self._warm.set(address, need, self._warm.count(address, need, now) + 1, now)
            return
        self._learn(runner, address, hint, now)
        if hint.leave:
            runner.held_until = now + LEAVE_SECONDS
        if hint.slot:
            self._warm.learn(hint.slot, need)
        if hint.complete:
            self._warm.replace(address, hint.warm, now)
        elif hint.slot:
            self._warm.set(address, need, hint.warm.get(hint.slot, 0), now)

    # --- inside ---

    @staticmethod
    def _refused(runner: RunnerLoad, need: CallNeed, retry_after: float | None, now: float) -> None:
        still_full = now < runner.full_until
        runner.full_for = min(runner.full_for, need.memory) if still_full else need.memory
        runner.full_until = now + min(retry_after or FULL_SECONDS, FULL_SECONDS)

    def _learn(self, runner: RunnerLoad, address: str, hint: LoadHint, now: float) -> None:
        self._hinted[address] = None
        self._hinted.move_to_end(address)
        others = hint.active - runner.in_flight
        if others < 0:
            others = 0
        self._others += others - runner.others  # (0 for runners that are not in `_hinted`)
        runner.others = others
        if runner.unseen_memory or not _same_room(runner.hint, hint):
            self._changed[address] = None
        if hint.idle_cpus is not None:
            runner.idle_cpus = hint.idle_cpus
        if hint.slot_extensions and hint.slot_extensions != self.slot_extensions:
            names = sorted({*self.slot_extensions, *hint.slot_extensions})
            self.slot_extensions = tuple(names[:MAX_SLOT_EXTENSIONS])
        # `_warm` keeps the idle containers, of which there may be many.
        runner.hint = replace(hint, warm=_NO_WARM) if hint.complete else hint
        runner.hinted_at = now
        runner.unseen_memory = runner.unseen_cpus = 0
        if (runner.reports and knows_all(hint)) != (address in self._reporting):
            self._note_reporter(address, runner)

    def _index(self) -> None:
        """Bring the indexes up to date."""
        for address in self._changed:
            runner = self._runners[address]
            self._free.put(address, runner.left())
            if address in self._reporting:
                for spare_warm, index in self._room.items():
                    index.put(address, runner.room(spare_warm=spare_warm))
        self._changed.clear()

    def _note_reporter(self, address: str, runner: RunnerLoad) -> None:
        reports = runner.reports_all
        if reports == (address in self._reporting):
            return
        self.reporting_version += 1
        if reports:
            self._reporting.add(address)
            self._changed[address] = None
        else:
            self._reporting.remove(address)
            for index in self._room.values():
                index.drop(address)

    def _make_room(self) -> None:
        if len(self._runners) < MAX_RUNNERS:
            return
        for address in [name for name, one in self._runners.items() if not one.in_flight]:
            self._forget(address)

    def _forget(self, address: str) -> None:
        runner = self._runners.pop(address)
        if address in self._hinted:
            self._others -= runner.others
            del self._hinted[address]
        if address in self._reporting:
            self._reporting.remove(address)
            self.reporting_version += 1
        self._changed.pop(address, None)
        for index in (self._free, *self._room.values()):
            index.drop(address)
        self._warm.clear(address)


def _same_room(one: LoadHint | None, other: LoadHint) -> bool:
    """Whether two hints agree in memory."""
    return (
        one is not None
        and one.free_memory == other.free_memory
        and one.reclaimable_memory == other.reclaimable_memory
        and one.protected_memory == other.protected_memory
    )


def _fits(cpus: int, room: float) -> bool:
    """Whether ``cpus`` fit. A call that needs none fits anywhere."""
    return cpus <= 0 or cpus <= room


HINT_SECONDS = 10.0
"""Seconds that a runner's report of its calls and memory is believed."""


@attrs.define(eq=False)
class RunnerLoad:
    """The load of one runner, by own calls and its hints."""

    in_flight: int = 0
    """Own calls that are at the runner, or on their way."""
    hint: LoadHint | None = None
    """The last one."""
    hinted_at: float = -math.inf
    others: int = 0
    """Calls of other load balancers, by the last hint."""
    unseen_memory: int = 0
    """Bytes that own calls may have taken since the last hint."""
    unseen_cpus: int = 0
    """Milli-CPUs that own calls may have taken since the last hint."""
    idle_cpus: int | None = None
    """Milli-CPUs of its machine that nothing used, by its last report of them."""
    reports: bool = False
    """The runner reports changes by itself, so the last hint does not age."""
    full_until: float = -math.inf
    full_for: int = 0
    """Bytes; the smallest need that was refused."""
    held_until: float = -math.inf
    """Until then the runner's free capacity is for other load balancers."""

    def calls(self, now: float) -> int:
        return self.in_flight + (self.others if now <= self.hinted_at + HINT_SECONDS else 0)

    @property
    def reports_all(self) -> bool:
        """Whether the runner reports changes, and what evictions would free."""
        return self.reports and self.hint is not None and knows_all(self.hint)

    def left(self) -> int:
        """Bytes of free memory; 0 or less if that is not known."""
        return (0 if self.hint is None else self.hint.free_memory) - self.unseen_memory

    def room(self, *, spare_warm: bool) -> int:
        """Bytes of free memory with what evictions would free, as far as is known."""
        room, hint = self.left(), self.hint
        if hint is not None:
            room += hint.reclaimable_memory if knows_all(hint) else 0
            room -= hint.protected_memory if spare_warm else 0
        return room

    def cpus_left(self) -> float:
        """Free milli-CPUs; infinite if the runner does not report them."""
        hint = self.hint
        return (
            math.inf
            if hint is None or hint.free_cpus is None
            else hint.free_cpus - self.unseen_cpus
        )

    def cpus(self, *, spare_warm: bool) -> float:
        """Free milli-CPUs with what evictions would free."""
        cpus, hint = self.cpus_left(), self.hint
        if hint is not None:
            cpus += hint.reclaimable_cpus - (hint.protected_cpus if spare_warm else 0)
        return cpus


def knows_all(hint: LoadHint) -> bool:
    """Whether the runner reports what evictions would free."""
    return hint.complete or hint.free_cpus is not None


MAX_NEEDS = 4096
"""Needs, and slot keys, that are remembered."""

CROSSING_SECONDS = 0.05
"""Seconds by which a runner's list of all containers may be older than other news of the runner."""

_NONE = 0, -math.inf


@attrs.frozen
class CallNeed:
    """What a call needs of a runner. Calls with equal keys may use the same container, as far as a
    load balancer can tell."""

    key: Hashable
    memory: int
    """Bytes."""
    idle_seconds: float
    """How long its container stays hot."""
    cpus: int = 0
    """Milli-CPUs."""


class IdleIndex:
    """Where idle hot containers are believed to be: counts by need and by the runner's address.
    Pure."""

    def __init__(self) -> None:
        self._needs: OrderedDict[Hashable, dict[str, tuple[int, float]]] = OrderedDict()
        """By need and address: how many, and until when. The address heard of last comes last. A
        need may have no addresses, because the next call that ends most often adds one again. Such
        a need comes first, to be dropped first."""
        self._runners: dict[str, dict[Hashable, float]] = {}
        """When each need of a runner was heard of."""
        self._digests: OrderedDict[bytes, CallNeed] = OrderedDict()

    def __len__(self) -> int:
        """Pairs of a need and an address that are remembered."""
        return sum(map(len, self._needs.values()))

    def count(self, address: str, need: CallNeed, now: float) -> int:
        found = self._needs.get(need.key)
        count, until = (found and found.get(address)) or _NONE
        return count if now < until else 0

    def addresses(self, need: CallNeed, now: float, limit: int) -> list[str]:
        """Addresses with at least one: the ``limit`` that were heard of last."""
        found = self._needs.get(need.key)
        if not found:
            return []
        latest = itertools.islice(reversed(found.items()), limit)
        return [name for name, (_, until) in latest if now < until]

    def latest(self, need: CallNeed, now: float) -> str | None:
        """The address that was heard of last, if its container is still there."""
        found = self._needs.get(need.key)
        if not found:
            return None
        address = next(reversed(found))
        return address if now < found[address][1] else None

    def set(self, address: str, need: CallNeed, count: int, now: float) -> None:
        """The runner has ``count``, by news of this moment."""
        if count <= 0:
            self._forget(address, need.key)
            return
        key = need.key
        found = self._needs.get(key)
        if found is None:
            found = self._needs[key] = {}
            self._shrink()
        else:
            self._needs.move_to_end(key)
            found.pop(address, None)  # the address heard of last comes last
        found[address] = count, now + need.idle_seconds
        keys = self._runners.get(address)
        if keys is None:
            self._runners[address] = {key: now}
        else:
            keys[key] = now

    def take(self, address: str, need: CallNeed, now: float) -> bool:
        """A call goes to the runner. Returns whether it is believed to find a hot container
        there."""
        found = self._needs.get(need.key)
        entry = found and found.get(address)
        if not found or not entry:
            return False
        count, until = entry
        if count > 1 and now < until:
            found[address] = count - 1, until
        else:
            del found[address]
            self._runners[address].pop(need.key, None)
            if not found:
                self._needs.move_to_end(need.key, last=False)
        return now < until

    def learn(self, digest: bytes, need: CallNeed) -> None:
        """Calls with ``need`` use the slot key of ``digest``."""
        known = self._digests.get(digest)
        self._digests[digest] = need  # (no `LRUDict`, whose items cost a hot call one more call)
        if known is not None:
            self._digests.move_to_end(digest)
        elif len(self._digests) > MAX_NEEDS:
            self._digests.popitem(last=False)

    def replace(self, address: str, counts: Mapping[bytes, int], now: float) -> None:
        """These counts, by digest, are all idle containers of the runner. Exceptions: a list of the
        greatest length may lack some; and it may be older than calls that ended a moment ago, whose
        containers are kept. Digests that were not learned are left out. The counts of one need are
        added up."""
        sums: dict[Hashable, int] = {}
        needs = [(self._digests.get(digest), count) for digest, count in counts.items()]
        for need, count in needs:
            if need is not None:
                sums[need.key] = sums.get(need.key, 0) + count
                self.set(address, need, sums[need.key], now)
        if len(counts) < MAX_WARM_KEYS:
            known = self._runners.get(address, {})
            for key in known.keys() - sums.keys():
                if known[key] <= now - CROSSING_SECONDS:
                    self._forget(address, key)

    def clear(self, address: str) -> None:
        """Forget the runner."""
        for key in self._runners.pop(address, ()):
            self._drop(address, key)

    def _forget(self, address: str, key: Hashable) -> None:
        keys = self._runners.get(address)
        if keys is not None:
            keys.pop(key, None)
            if not keys:
                del self._runners[address]
        self._drop(address, key)

    def _drop(self, address: str, key: Hashable) -> None:
        found = self._needs.get(key)
        if found is not None:
            found.pop(address, None)
            if not found:
                del self._needs[key]

    def _shrink(self) -> None:
        while len(self._needs) > MAX_NEEDS:
            key = next(iter(self._needs))
            for address in tuple(self._needs[key]):
                self._forget(address, key)
            self._needs.pop(key, None)


STEPS = 2
"""Bits of a level after the highest one: the runners of a level differ by at most a quarter."""


class _Bag:
    """A set that gives random members quickly."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self._places: dict[str, int] = {}

    def add(self, item: str) -> None:
        self._places[item] = len(self.items)
        self.items.append(item)

    def remove(self, item: str) -> None:
        place, last = self._places.pop(item), self.items.pop()
        if last != item:
            self.items[place] = last
            self._places[last] = place


class FreeMemoryIndex:
    """Addresses by free bytes, in levels whose width grows with the size."""

    def __init__(self) -> None:
        self._levels: dict[str, int] = {}
        self._bags: dict[int, _Bag] = {}
        self._filled = 0
        """A bit for each level that has runners."""

    def __repr__(self) -> str:
        return f"<FreeMemoryIndex runners={len(self._levels)} levels={len(self._bags)}>"

    def put(self, address: str, memory: int) -> None:
        """The runner has ``memory`` bytes now."""
        level = _level(memory)
        old = self._levels.get(address)
        if old == level:
            return
        if old is not None:
            self._take_out(address, old)
        self._levels[address] = level
        bag = self._bags.get(level)
        if bag is None:
            bag = self._bags[level] = _Bag()
            self._filled |= 1 << level
        bag.add(address)

    def drop(self, address: str) -> None:
        """Forget the runner."""
        level = self._levels.pop(address, None)
        if level is not None:
            self._take_out(address, level)

    def may_have(self, memory: int) -> bool:
        """Whether a runner may have so many bytes; false is certain."""
        return bool(self._filled >> _level(memory))

    def some(self, memory: int, count: int, rng: random.Random) -> list[str]:
        """Up to ``count`` addresses that may have so many bytes, the smallest sufficient ones
        first, at random among about equal ones."""
        found: list[str] = []
        level = _level(memory)
        filled = self._filled >> level
        while filled and len(found) < count:
            skipped = (filled & -filled).bit_length()
            level += skipped
            filled >>= skipped
            items = self._bags[level - 1].items
            found += rng.sample(items, min(count - len(found), len(items)))
        return found

    def _take_out(self, address: str, level: int) -> None:
        bag = self._bags[level]
        bag.remove(address)
        if not bag.items:
            del self._bags[level]
            self._filled &= ~(1 << level)


def _level(memory: int) -> int:
    """The level of ``memory``. It grows with the highest bit and the `STEPS` bits after it."""
    if memory <= 0:
        return 0
    bits = memory.bit_length()
    return (bits << STEPS) + ((memory << STEPS >> bits - 1) & (1 << STEPS) - 1)


EVICTION_GRACE = 2.0
"""Factor on the time of a start and a run: for so long a call spares other functions' warm
containers."""

MAX_EVICTION_GRACE = 10.0
"""Seconds. Bounds for how long idle containers of other functions can keep a call waiting."""


class LaunchPolicies:
    """The launch policies of functions, one for all calls with the same need. The most recently
    used ones are remembered."""

    def __init__(self) -> None:
        self._policies = LRUDict[Hashable, LaunchPolicy](MAX_NEEDS)
        self._start_seconds = 0.0
        """Mean of all functions, for functions whose starts are not known; 0 = not known."""

    def __repr__(self) -> str:
        return f"<LaunchPolicies functions={len(self._policies)} start={self._start_seconds:.3f}>"

    def of(self, need: CallNeed) -> LaunchPolicy:
        """The policy of calls with ``need``."""
        policy = self._policies.get(need.key)
        if policy is None:
            policy = self._policies[need.key] = LaunchPolicy()
        else:
            self._policies.move_to_end(need.key)
        if not policy.start_seconds and self._start_seconds:
            policy.started(self._start_seconds)
        return policy

    def ran(self, need: CallNeed, timings: Timings, began: float, now: float) -> None:
        """A call with ``need``, which went to its runner at ``began``, has run well. ``timings``
        are the runner's, if it sent them."""
        policy = self._policies.get(need.key)
        if policy is None:
            return
        policy.ran(timings.execution_ns / 1e9 or now - began, now)
        if timings.ctr_create_ns:
            # The wait of the call is shorter than the start if the call came later and got the
            # container first, and longer if the start had to wait for its turn.
            start = max(timings.start_seconds, timings.scheduler_ns / 1e9)
            policy.started(start)
            mean = self._start_seconds
            self._start_seconds = mean + WEIGHT * (start - mean) if mean else start

    def eviction_grace(self, need: CallNeed) -> float:
        """Seconds for which a call with ``need`` waits rather than have containers evicted that are
        worth keeping. The longer its start and run take, the less a wait means to it. A start that
        waits in the engine's queue takes longer."""
        policy = self.of(need)
        return min(MAX_EVICTION_GRACE, EVICTION_GRACE * (policy.run_seconds + policy.start_seconds))
