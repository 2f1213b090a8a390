"""Load tracker: own calls, hints, idle hot containers and free memory of each runner.

Two sources: the calls that this placer has sent, and the `LoadHint` that comes with each answer
of a runner that gives hints. A runner that gives none, such as Fn's, is judged by the calls
alone: one where a call has just ended well has a hot container of its function.

All of it may be wrong, since other LBs use the same runners. It decides which runner is tried
first, never whether one is tried. Times are seconds of one clock, given by the caller.

Where idle hot containers are believed to be. Pure; times are seconds of one clock, given by
the caller.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Set
from typing import TypeVar

import attrs
from msgspec.structs import replace

from .._launch_policy import WEIGHT, LaunchPolicy
from ..abc import NotPlaced, Outcome
from ..call import Timings
from ..protocol import LEAVE_SECONDS, MAX_WARM_KEYS, LoadHint

SPARE_CPUS = 250
"""Milli-CPUs that a machine has to have idle for a container to be started there rather than
elsewhere."""

FULL_SECONDS = 1.0
"""How long a runner that has refused a call counts as full at most, if no call ends there."""

MAX_RUNNERS = 8192
"""Runners that are remembered at most, beside those with own calls."""

_NO_WARM: Mapping[bytes, int] = {}


class LoadTracker:
    """What one placer knows. Runners are known by their addresses.

    ``now`` is `trio.current_time`, in seconds. All methods are synchronous. A runner's word about
    its calls is believed for `HINT_SECONDS` (10), that about its memory as long, or for good if it
    tells of changes by itself.
    """

    def __init__(self) -> None:
        self._runners: dict[str, RunnerLoad] = {}
        self._warm = IdleIndex()
        self._in_flight = 0
        self._others = 0
        """Calls of other LBs on those of `_hinted`."""
        self._hinted: OrderedDict[str, None] = OrderedDict()
        """Whose word about its calls is believed, the oldest first."""
        self._reporting: set[str] = set()
        self.reporting_version = 0
        """Grows when a runner begins or ceases to tell its load by itself."""
        self._free = FreeMemoryIndex()
        self._room = {spare_warm: FreeMemoryIndex() for spare_warm in (False, True)}
        """The same with what evictions would free, of those that tell; with ``spare_warm``, without
        what is worth keeping."""
        self._changed: dict[str, None] = {}
        """Whose room these indexes don't know as it is: hints come more often than anybody asks."""
        self.policies = LaunchPolicies()

    def __repr__(self) -> str:
        return f"<LoadTracker runners={len(self._runners)} warm={len(self._warm)}>"

    # --- what placers ask ---

    def load(self, address: str, need: CallNeed, now: float) -> float:
        """Calls that are there; infinite for a runner that has just refused such a call."""
        runner = self._runners.get(address)
        if runner is None:
            return 0
        if now < runner.full_until and need.memory >= runner.full_for:
            return math.inf
        return runner.calls(now)

    def total(self, now: float) -> int:
        """Calls that are on all runners together."""
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
        """Addresses with an idle hot container for ``need``: the first ``limit`` of those that
        were heard of last."""
        return self._warm.addresses(need, now, limit)

    def warm_count(self, address: str, need: CallNeed, now: float) -> int:
        """Idle hot containers for ``need`` that are believed to be there."""
        return self._warm.count(address, need, now)

    def has_cpu(self, address: str, now: float) -> bool:
        """Whether the runner's machine has CPUs to spare; true if nobody knows."""
        runner = self._runners.get(address)
        return runner is None or runner.idle_cpus is None or runner.idle_cpus >= SPARE_CPUS

    def any_warm(self, need: CallNeed, now: float) -> bool:
        """Whether `warm` has any."""
        return self._warm.latest(need, now) is not None

    def warmest(self, need: CallNeed, now: float) -> str | None:
        """The first of `warm`, unless what is free there is for others."""
        address = self._warm.latest(need, now)
        return None if address is None or self.is_held(address, now) else address

    def has_room(self, address: str, need: CallNeed, now: float) -> bool:
        """Whether one more container fits there without an eviction; true if nobody knows."""
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
        """Some that probably have room without an eviction, and then some that have it with one:
        up to ``count`` of each."""
        self._index()
        free = self._free.some(need.memory, count, rng)
        return free + self._room[spare_warm].some(need.memory, count, rng)

    def room(self, address: str, *, spare_warm: bool) -> int:
        """Bytes that are free there or would be after evictions; 0 if nobody knows."""
        runner = self._runners.get(address)
        return 0 if runner is None else runner.room(spare_warm=spare_warm)

    def is_full(
        self, address: str, need: CallNeed, now: float, *, spare_warm: bool = False
    ) -> bool:
        """Whether such a call would certainly be refused there: the runner, which tells of
        changes by itself, has no room, and no hot container."""
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
        """Whether `is_full` is certainly true of all runners that tell of changes by themselves."""
        if self.any_warm(need, now):
            return False
        self._index()
        return not self._room[spare_warm].may_have(need.memory)

    def all_report(self, addresses: Set[str]) -> bool:
        """Whether each of them tells of changes by itself, and what it could free."""
        return addresses <= self._reporting

    # --- what happens ---

    def note(self, address: str, hint: LoadHint | None, now: float) -> None:
        """The runner has told its load by itself; ``None`` = it can't be heard any more."""
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
        """Whether what is free there is for others."""
        runner = self._runners.get(address)
        return runner is not None and now < runner.held_until

    def begin(self, address: str, need: CallNeed, now: float) -> bool:
        """A call goes there; whether it is believed to find a hot container."""
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
        """That call is over; ``None`` = it was cancelled. Once for each `begin`."""
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
        self._others += others - runner.others  # (those of whom is not in `_hinted` are 0)
        runner.others = others
        if runner.unseen_memory or not _same_room(runner.hint, hint):
            self._changed[address] = None
        if hint.idle_cpus is not None:
            runner.idle_cpus = hint.idle_cpus
        # What is warm there is kept elsewhere, and may be much.
        runner.hint = replace(hint, warm=_NO_WARM) if hint.complete else hint
        runner.hinted_at = now
        runner.unseen_memory = runner.unseen_cpus = 0
        if (runner.reports and knows_all(hint)) != (address in self._reporting):
            self._note_reporter(address, runner)

    def _index(self) -> None:
        """Have the indexes know how much room there is now."""
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
    """Whether the memory is that of ``one``, as far as they tell of it."""
    return (
        one is not None
        and one.free_memory == other.free_memory
        and one.reclaimable_memory == other.reclaimable_memory
        and one.protected_memory == other.protected_memory
    )


def _fits(cpus: int, room: float) -> bool:
    """Whoever asks for no CPUs fits anywhere."""
    return cpus <= 0 or cpus <= room


HINT_SECONDS = 10.0
"""How long a runner's word about its calls and memory is believed."""


@attrs.define(eq=False)
class RunnerLoad:
    """One runner, as far as own calls and its hints tell."""

    in_flight: int = 0
    """Own calls that are there, or on their way."""
    hint: LoadHint | None = None
    """The last."""
    hinted_at: float = -math.inf
    others: int = 0
    """Calls of other LBs, by the last hint."""
    unseen_memory: int = 0
    """Bytes that own calls may have taken since the last hint."""
    unseen_cpus: int = 0
    """The same in milli-CPUs."""
    idle_cpus: int | None = None
    """Milli-CPUs of its machine that nothing used, when it last said so."""
    reports: bool = False
    """The runner tells of changes by itself: the last hint does not age."""
    full_until: float = -math.inf
    full_for: int = 0
    """Bytes; the least that was refused."""
    held_until: float = -math.inf
    """What is free there until then is for others."""

    def calls(self, now: float) -> int:
        return self.in_flight + (self.others if now <= self.hinted_at + HINT_SECONDS else 0)

    @property
    def reports_all(self) -> bool:
        """Whether it tells of changes, and of what evictions would free."""
        return self.reports and self.hint is not None and knows_all(self.hint)

    def left(self) -> int:
        """Bytes of free memory; 0 or less if nobody knows."""
        return (0 if self.hint is None else self.hint.free_memory) - self.unseen_memory

    def room(self, *, spare_warm: bool) -> int:
        """Bytes with what evictions would free, as far as it is known."""
        room, hint = self.left(), self.hint
        if hint is not None:
            room += hint.reclaimable_memory if knows_all(hint) else 0
            room -= hint.protected_memory if spare_warm else 0
        return room

    def cpus_left(self) -> float:
        """Free milli-CPUs; infinite if the runner does not tell."""
        hint = self.hint
        return (
            math.inf
            if hint is None or hint.free_cpus is None
            else hint.free_cpus - self.unseen_cpus
        )

    def cpus(self, *, spare_warm: bool) -> float:
        """The same with what evictions would free."""
        cpus, hint = self.cpus_left(), self.hint
        if hint is not None:
            cpus += hint.reclaimable_cpus - (hint.protected_cpus if spare_warm else 0)
        return cpus


def knows_all(hint: LoadHint) -> bool:
    """Whether the runner tells what evictions would free."""
    return hint.complete or hint.free_cpus is not None


K = TypeVar("K")

V = TypeVar("V")

MAX_NEEDS = 4096
"""Kinds of calls, and slot keys, that are remembered."""

CROSSING_SECONDS = 0.05
"""How much earlier than other news a runner's list of all containers may have been made."""

_NONE = 0, -math.inf


@attrs.frozen
class CallNeed:
    """What a call asks of a runner. Calls with equal keys may use the same container, as far as
    a load balancer can tell."""

    key: Hashable
    memory: int
    """Bytes."""
    idle_seconds: float
    """How long a container of it stays hot."""
    cpus: int = 0
    """Milli-CPUs."""


class IdleIndex:
    """Counts of idle containers, by need and by the runner's address."""

    def __init__(self) -> None:
        self._needs: OrderedDict[Hashable, dict[str, tuple[int, float]]] = OrderedDict()
        """How many, and until when; those heard of last come last. May be empty: most often the
        next call that ends has one again. Such a need comes first, to go before all others."""
        self._runners: dict[str, dict[Hashable, float]] = {}
        """When each need was heard of."""
        self._digests: OrderedDict[bytes, CallNeed] = OrderedDict()

    def __len__(self) -> int:
        """Pairs of a need and an address that are remembered."""
        return sum(map(len, self._needs.values()))

    def count(self, address: str, need: CallNeed, now: float) -> int:
        found = self._needs.get(need.key)
        count, until = (found and found.get(address)) or _NONE
        return count if now < until else 0

    def addresses(self, need: CallNeed, now: float, limit: int) -> list[str]:
        """Where there is at least one: the first ``limit`` of those that were heard of last."""
        found = self._needs.get(need.key)
        if not found:
            return []
        latest = itertools.islice(reversed(found.items()), limit)
        return [name for name, (_, until) in latest if now < until]

    def latest(self, need: CallNeed, now: float) -> str | None:
        """Where one was heard of last, if it is still there."""
        found = self._needs.get(need.key)
        if not found:
            return None
        address = next(reversed(found))
        return address if now < found[address][1] else None

    def set(self, address: str, need: CallNeed, count: int, now: float) -> None:
        """There are ``count``, which have been heard of just now."""
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
            found.pop(address, None)  # the one heard of last comes last
        found[address] = count, now + need.idle_seconds
        keys = self._runners.get(address)
        if keys is None:
            self._runners[address] = {key: now}
        else:
            keys[key] = now

    def take(self, address: str, need: CallNeed, now: float) -> bool:
        """A call goes there; whether it is believed to find a hot container."""
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
        self._digests[digest] = need
        if known is not None:
            self._digests.move_to_end(digest)
        else:
            drop_oldest(self._digests, MAX_NEEDS)

    def replace(self, address: str, counts: Mapping[bytes, int], now: float) -> None:
        """These, by digest, are all that are there, unless they are as many as can be told, and
        beside those that were heard of a moment ago: their calls have ended after this was said.
        Digests that nobody has learned are left out; the counts of one need are added up."""
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
        """Nothing is known of that runner any more."""
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


def drop_oldest(items: OrderedDict[K, V], limit: int) -> None:
    """Keep the youngest ``limit`` items."""
    while len(items) > limit:
        items.popitem(last=False)


STEPS = 2
"""Bits of a level beside the highest one: a level's runners differ by a quarter at most."""


class _Bag:
    """A set of which a random member is found at once."""

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
    """Addresses by bytes, in levels that get wider with the size."""

    def __init__(self) -> None:
        self._levels: dict[str, int] = {}
        self._bags: dict[int, _Bag] = {}
        self._filled = 0
        """A bit for each level that has runners."""

    def __repr__(self) -> str:
        return f"<FreeMemoryIndex runners={len(self._levels)} levels={len(self._bags)}>"

    def put(self, address: str, memory: int) -> None:
        """That runner has so many bytes now."""
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
        """Nothing is known of that runner any more."""
        level = self._levels.pop(address, None)
        if level is not None:
            self._take_out(address, level)

    def may_have(self, memory: int) -> bool:
        """Whether one may have so many bytes; false is certain."""
        return bool(self._filled >> _level(memory))

    def some(self, memory: int, count: int, rng: random.Random) -> list[str]:
        """Up to ``count`` that may have so many bytes, those with the least first; which ones of
        those that have about the same is left to chance."""
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
    """Grows with ``memory``: its magnitude, and the `STEPS` bits after the first."""
    if memory <= 0:
        return 0
    bits = memory.bit_length()
    return (bits << STEPS) + ((memory << STEPS >> bits - 1) & (1 << STEPS) - 1)


EVICTION_GRACE = 2.0
"""Times of a start and a run for which a call leaves others the hot containers that they need."""

MAX_EVICTION_GRACE = 10.0
"""Seconds. It bounds for how long a call can be kept waiting by idle containers."""


class LaunchPolicies:
    """Calls with the same need have one. Those used last are remembered."""

    def __init__(self) -> None:
        self._policies: OrderedDict[Hashable, LaunchPolicy] = OrderedDict()
        self._start_seconds = 0.0
        """Mean of all functions, for those of which no start is known; 0 = not known."""

    def __repr__(self) -> str:
        return f"<LaunchPolicies functions={len(self._policies)} start={self._start_seconds:.3f}>"

    def of(self, need: CallNeed) -> LaunchPolicy:
        """The policy of such calls."""
        policy = self._policies.get(need.key)
        if policy is None:
            policy = self._policies[need.key] = LaunchPolicy()
            drop_oldest(self._policies, MAX_NEEDS)
        else:
            self._policies.move_to_end(need.key)
        if not policy.start_seconds and self._start_seconds:
            policy.started(self._start_seconds)
        return policy

    def ran(self, need: CallNeed, timings: Timings, began: float, now: float) -> None:
        """Such a call, which went to its runner when it ``began``, has run well; ``timings`` are
        what the runner told, if it did."""
        policy = self._policies.get(need.key)
        if policy is None:
            return
        policy.ran(timings.execution_ns / 1e9 or now - began, now)
        if timings.ctr_create_ns:
            # Less than the start, if the call came later and was the first in line for it; more,
            # if the start had to wait for its turn.
            start = max(timings.start_seconds, timings.scheduler_ns / 1e9)
            policy.started(start)
            mean = self._start_seconds
            self._start_seconds = mean + WEIGHT * (start - mean) if mean else start

    def run_seconds(self, need: CallNeed) -> float:
        """The mean time that such a call runs; 0 = not known."""
        policy = self._policies.get(need.key)
        return 0.0 if policy is None else policy.run_seconds

    def eviction_grace(self, need: CallNeed) -> float:
        """For how long such a call should rather wait than have containers evicted that are worth
        keeping: the longer it takes anyhow, start and run, the less a wait means to it. A start
        that stands in the engine's queue takes longer."""
        policy = self.of(need)
        return min(MAX_EVICTION_GRACE, EVICTION_GRACE * (policy.run_seconds + policy.start_seconds))
