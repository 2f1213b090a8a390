"""What a placer knows of its runners: own calls there, and what the runners say. Pure.

Two sources: the calls that this placer has sent, and the `LoadHint` that comes with each answer
of a runner that gives hints. A runner that gives none, such as Fn's, is judged by the calls
alone: one where a call has just ended well has a hot container of its function.

All of it may be wrong, since other LBs use the same runners. It decides which runner is tried
first, never whether one is tried. Times are seconds of one clock, given by the caller.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Mapping, Set

from msgspec.structs import replace

from ..abc import NotPlaced, Outcome
from ..protocol import LEAVE_SECONDS, LoadHint
from ._known_runner import HINT_SECONDS, KnownRunner, knows_all
from ._policies import LaunchPolicies
from ._room_index import RoomIndex
from ._warm_index import Need, WarmIndex

SPARE_CPUS = 250
"""Milli-CPUs that a machine has to have idle for a container to be started there rather than
elsewhere."""
FULL_SECONDS = 1.0
"""How long a runner that has refused a call counts as full at most, if no call ends there."""
MAX_RUNNERS = 8192
"""Runners that are remembered at most, beside those with own calls."""
_NO_WARM: Mapping[bytes, int] = {}


class LoadBook:
    """What one placer knows. Runners are known by their addresses."""

    def __init__(self) -> None:
        self._runners: dict[str, KnownRunner] = {}
        self._warm = WarmIndex()
        self._in_flight = 0
        self._others = 0
        """Calls of other LBs on those of `_hinted`."""
        self._hinted: OrderedDict[str, None] = OrderedDict()
        """Whose word about its calls is believed, the oldest first."""
        self._telling: set[str] = set()
        self.tellers = 0
        """Grows when a runner begins or ceases to tell its load by itself."""
        self._free = RoomIndex()
        self._room = {gentle: RoomIndex() for gentle in (False, True)}
        """The same with what evictions would free, of those that tell; for gentle calls, without
        what is worth keeping."""
        self._changed: dict[str, None] = {}
        """Whose room these indexes don't know as it is: hints come more often than anybody asks."""
        self.policies = LaunchPolicies()

    def __repr__(self) -> str:
        return f"<LoadBook runners={len(self._runners)} warm={len(self._warm)}>"

    # --- what placers ask ---

    def load(self, address: str, need: Need, now: float) -> float:
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

    def warm(self, need: Need, now: float, limit: int) -> list[str]:
        """Addresses with an idle hot container for ``need``: the first ``limit`` of those that
        were heard of last."""
        return self._warm.addresses(need, now, limit)

    def warm_count(self, address: str, need: Need, now: float) -> int:
        """Idle hot containers for ``need`` that are believed to be there."""
        return self._warm.count(address, need, now)

    def has_cpu(self, address: str, now: float) -> bool:
        """Whether the runner's machine has CPUs to spare; true if nobody knows."""
        runner = self._runners.get(address)
        return runner is None or runner.idle_cpus is None or runner.idle_cpus >= SPARE_CPUS

    def any_warm(self, need: Need, now: float) -> bool:
        """Whether `warm` has any."""
        return self._warm.latest(need, now) is not None

    def warmest(self, need: Need, now: float) -> str | None:
        """The first of `warm`, unless what is free there is for others."""
        address = self._warm.latest(need, now)
        return None if address is None or self.is_held(address, now) else address

    def has_room(self, address: str, need: Need, now: float) -> bool:
        """Whether one more container fits there without an eviction; true if nobody knows."""
        runner = self._runners.get(address)
        if runner is None or runner.hint is None:
            return True
        if now < runner.held_until:
            return False
        if not runner.tells and now > runner.hinted_at + HINT_SECONDS:
            return True
        return runner.left() >= need.memory and _fits(need.cpus, runner.cpus_left())

    def spare(
        self, need: Need, count: int, rng: random.Random, *, gentle: bool = False
    ) -> list[str]:
        """Some that probably have room without an eviction, and then some that have it with one:
        up to ``count`` of each."""
        self._index()
        free = self._free.some(need.memory, count, rng)
        return free + self._room[gentle].some(need.memory, count, rng)

    def room(self, address: str, *, gentle: bool) -> int:
        """Bytes that are free there or would be after evictions; 0 if nobody knows."""
        runner = self._runners.get(address)
        return 0 if runner is None else runner.room(gentle=gentle)

    def is_full(self, address: str, need: Need, now: float, *, gentle: bool = False) -> bool:
        """Whether such a call would certainly be refused there: the runner, which tells of
        changes by itself, has no room, and no hot container."""
        runner = self._runners.get(address)
        if runner is None or address not in self._telling:
            return False
        if now < runner.held_until:
            return True
        if self._warm.count(address, need, now):
            return False
        memory, cpus = runner.room(gentle=gentle), runner.cpus(gentle=gentle)
        return memory < need.memory or not _fits(need.cpus, cpus)

    def all_full(self, need: Need, now: float, *, gentle: bool = False) -> bool:
        """Whether `is_full` is certainly true of all runners that tell of changes by themselves."""
        if self.any_warm(need, now):
            return False
        self._index()
        return not self._room[gentle].may_have(need.memory)

    def all_tell(self, addresses: Set[str]) -> bool:
        """Whether each of them tells of changes by itself, and what it could free."""
        return addresses <= self._telling

    # --- what happens ---

    def note(self, address: str, hint: LoadHint | None, now: float) -> None:
        """The runner has told its load by itself; ``None`` = it can't be heard any more."""
        runner = self._runners.get(address)
        if runner is None:
            if hint is None:
                return
            self._make_room()
            runner = self._runners[address] = KnownRunner()
        runner.tells = hint is not None
        if hint is None:
            self._note_teller(address, runner)
        else:
            self._learn(runner, address, hint, now)
            if hint.complete:
                self._warm.replace(address, hint.warm, now)

    def is_held(self, address: str, now: float) -> bool:
        """Whether what is free there is for others."""
        runner = self._runners.get(address)
        return runner is not None and now < runner.held_until

    def begin(self, address: str, need: Need, now: float) -> bool:
        """A call goes there; whether it is believed to find a hot container."""
        runner = self._runners.get(address)
        if runner is None:
            self._make_room()
            runner = self._runners[address] = KnownRunner()
        runner.in_flight += 1
        self._in_flight += 1
        warm = self._warm.take(address, need, now)
        if not warm:
            runner.unseen_memory += need.memory
            runner.unseen_cpus += need.cpus
            if runner.hint is not None:
                self._changed[address] = None
        return warm

    def end(self, address: str, need: Need, outcome: Outcome | None, now: float) -> None:
        """That call is over; ``None`` = it was cancelled."""
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
    def _refused(runner: KnownRunner, need: Need, retry_after: float | None, now: float) -> None:
        still_full = now < runner.full_until
        runner.full_for = min(runner.full_for, need.memory) if still_full else need.memory
        runner.full_until = now + min(retry_after or FULL_SECONDS, FULL_SECONDS)

    def _learn(self, runner: KnownRunner, address: str, hint: LoadHint, now: float) -> None:
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
        if (runner.tells and knows_all(hint)) != (address in self._telling):
            self._note_teller(address, runner)

    def _index(self) -> None:
        """Have the indexes know how much room there is now."""
        for address in self._changed:
            runner = self._runners[address]
            self._free.put(address, runner.left())
            if address in self._telling:
                for gentle, index in self._room.items():
                    index.put(address, runner.room(gentle=gentle))
        self._changed.clear()

    def _note_teller(self, address: str, runner: KnownRunner) -> None:
        tells = runner.tells_all
        if tells == (address in self._telling):
            return
        self.tellers += 1
        if tells:
            self._telling.add(address)
            self._changed[address] = None
        else:
            self._telling.remove(address)
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
        if address in self._telling:
            self._telling.remove(address)
            self.tellers += 1
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
        and one.worthy_memory == other.worthy_memory
    )


def _fits(cpus: int, room: float) -> bool:
    """Whoever asks for no CPUs fits anywhere."""
    return cpus <= 0 or cpus <= room
