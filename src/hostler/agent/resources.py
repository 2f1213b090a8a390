"""Resource tracker: memory and CPU tokens, the queue for them, evictions, protection.

A container holds a token from before its launch until after its removal. Containers on their way
out are counted separately, so that a launch waits for them instead of evicting another container or
being refused. Launches that wait stand in a queue; none overtakes.

How long an idle container is protected follows from what its end would cost. Without it the next
call of its function waits for a start. That is little to a call that runs for long, and makes a
call that runs for a hundredth of it a hundred times as slow. So a container is worth keeping for
the time of a start, times the number of runs that go into a start: the cost that Greedy-Dual and
FaasCache weigh (Fuerst and Sharma, ASPLOS 2021), in terms of the call. Until then the container is
protected from calls with ``spare_warm`` (`hostler.protocol.TryCall`). Such calls are refused
instead, because their load balancer can let them wait. The order of evictions is another matter.
"""

from __future__ import annotations

import enum
import functools
import heapq
import itertools
import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Protocol, TypeVar

import attrs
import msgspec
import trio

from ..models import Call


class Resources(msgspec.Struct, frozen=True, gc=False):
    """An amount: ``memory`` in bytes, ``cpus`` in milli-CPUs."""

    memory: int = 0
    cpus: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(self.memory + other.memory, self.cpus + other.cpus)

    def __sub__(self, other: Resources) -> Resources:
        return Resources(self.memory - other.memory, self.cpus - other.cpus)

    def __bool__(self) -> bool:
        return self.memory > 0 or self.cpus > 0

    def fits(self, available: Resources) -> bool:
        """Whether this amount is within ``available`` in each dimension; nothing always fits."""
        return (self.memory <= 0 or self.memory <= available.memory) and (
            self.cpus <= 0 or self.cpus <= available.cpus
        )

    def beyond(self, available: Resources) -> Resources:
        """What ``available`` lacks to hold this amount, exactly; never negative."""
        return Resources(
            max(0, self.memory - max(0, available.memory)),
            max(0, self.cpus - max(0, available.cpus)),
        )


class Evictable(Protocol):
    """An idle container, as the choice of victims sees it."""

    @property
    def key(self) -> Hashable:
        """Its slot key."""

    @property
    def size(self) -> Resources:
        """What its end frees."""


E = TypeVar("E", bound=Evictable)


def choose_victims(idle: Iterable[E], missing: Resources, *, spare: Hashable) -> Sequence[E]:
    """Choose containers of ``idle`` to end so that ``missing`` becomes free; ``()`` = impossible.

    ``idle`` comes in the order of eviction, by default the least recently used first. Containers of
    the slot key ``spare``, and containers that hold nothing of what is missing, are left alone. In
    the end the choice drops containers that are not needed beside a bigger one, the last ones
    first.
    """
    if not missing:
        return ()
    chosen: list[E] = []
    lacking = missing
    for container in idle:
        if container.key == spare or not _helps(container.size, lacking):
            continue
        chosen.append(container)
        lacking = lacking.beyond(container.size)
        if not lacking:
            return _without_surplus(chosen, missing)
    return ()


def _helps(size: Resources, lacking: Resources) -> bool:
    return (lacking.memory > 0 and size.memory > 0) or (lacking.cpus > 0 and size.cpus > 0)


def _without_surplus(chosen: list[E], missing: Resources) -> Sequence[E]:
    freed = sum((container.size for container in chosen), Resources())
    for container in reversed(chosen):
        if missing.fits(freed - container.size):
            chosen.remove(container)
            freed -= container.size
    return chosen


class IdleContainer(Evictable, Protocol):
    """A container that could be evicted now."""

    def evict(self) -> None:
        """Start to leave. Synchronous: no call can take the container from here on."""


EXPENDABLE_SECONDS = 1.0
"""A container in use that will be protected for a shorter time leaves its resources soon to
launches that want them."""


MIB = 2**20


def needed_resources(model: Call) -> Resources:
    """The resources that a container for ``model`` is counted with: memory and tmpfs, and CPUs."""
    return _resources((model.memory + model.tmpfs_size) * MIB, model.cpus)


_resources = functools.lru_cache(maxsize=256)(Resources)  # many functions have equal needs


class EvictionCandidates(Protocol):
    """Knows the containers that could be evicted now."""

    def idle(self) -> Iterable[IdleContainer]:
        """All of them, in the order in which they are to be evicted."""

    def unprotected(self) -> Iterable[IdleContainer]:
        """The containers that may be evicted for calls with ``spare_warm``, too."""


class NoResources(Exception):
    """The machine is full, evictions don't help, and the launch does not wait."""


class TokenState(enum.Enum):
    """What the container of a token does with its resources."""

    USED = "used"
    EXPENDABLE = "expendable"
    """In use, and not to be protected when it is idle."""
    IDLE = "idle"
    """It could be evicted."""
    LEAVING = "leaving"
    RELEASED = "released"


class ResourceToken:
    """The resources that one container holds. The sums of the tracker follow from ``state``."""

    def __init__(self, tracker: ResourceTracker, size: Resources) -> None:
        self.size = size
        self.state = TokenState.USED
        self._tracker = tracker
        self.protected_until = -math.inf
        """Until when the container is protected while it is idle (`trio.current_time`)."""

    def __repr__(self) -> str:
        return f"<ResourceToken {self.size} {self.state.value}>"

    def became_idle(self, now: float, protected_until: float) -> None:
        """The container could be evicted from ``now`` on, and is protected until
        ``protected_until``. It may be evicted at once."""
        self.protected_until = protected_until
        self._enter(TokenState.IDLE)
        if protected_until > now:
            self._tracker._protected.add(self, self.size, protected_until, now)
        self._tracker.settle()

    def taken(self, *, worth_seconds: float) -> None:
        """A call has the container: it can't be evicted any more. When it is idle again it will be
        protected for ``worth_seconds``; infinite = not known. Idempotent."""
        self._enter(
            TokenState.EXPENDABLE if worth_seconds < EXPENDABLE_SECONDS else TokenState.USED
        )

    def leave(self) -> None:
        """The container is on its way out. Idempotent."""
        if self.state is not TokenState.RELEASED:
            self._enter(TokenState.LEAVING)

    def release(self) -> None:
        """Give the resources back: the container is gone. Idempotent."""
        if self.state is not TokenState.RELEASED:
            self._enter(TokenState.RELEASED)
            self._tracker._used -= self.size
            self._tracker.settle()

    def _enter(self, new: TokenState) -> None:
        old, tracker, size = self.state, self._tracker, self.size
        if new is old:
            return
        self.state = new
        if old is TokenState.IDLE:
            tracker._idle_memory -= size.memory
            tracker._idle_cpus -= size.cpus
            tracker._protected.remove(self)
        elif old is TokenState.EXPENDABLE:
            tracker._expendable -= 1
        elif old is TokenState.LEAVING:
            tracker._leaving -= size
        if new is TokenState.IDLE:
            tracker._idle_memory += size.memory
            tracker._idle_cpus += size.cpus
        elif new is TokenState.EXPENDABLE:
            tracker._expendable += 1
        elif new is TokenState.LEAVING:
            tracker._leaving += size


@attrs.define(eq=False)
class _Applicant:
    size: Resources
    key: Hashable
    spare_warm: bool
    token: ResourceToken | None = None
    decided: trio.Event = attrs.Factory(trio.Event)
    """It has its token, or will get none."""


class ResourceTracker:
    """The resources of the machine, handed out in order of arrival.

    Where ``may_wait`` is false, in NACK mode, no launch waits for room: it is refused at once if
    containers on their way out, or evictions of ``candidates``, can't help it.
    """

    def __init__(
        self, total: Resources, candidates: EvictionCandidates, *, may_wait: bool = True
    ) -> None:
        self.total = total
        self.evictions = 0
        self._may_wait = may_wait
        self._candidates = candidates
        self._protected = Protected()
        self._used = Resources()
        self._leaving = Resources()
        self._idle_memory = self._idle_cpus = 0
        self._expendable = 0
        """Containers in use that will not be protected when they are idle."""
        self._queue: dict[_Applicant, None] = {}

    def __repr__(self) -> str:
        return f"<ResourceTracker used={self._used} of {self.total} waiting={len(self._queue)}>"

    @property
    def used(self) -> Resources:
        return self._used

    @property
    def reclaimable(self) -> Resources:
        """What containers on their way out, and idle ones if they were evicted, would give back."""
        leaving = self._leaving
        return Resources(leaving.memory + self._idle_memory, leaving.cpus + self._idle_cpus)

    def protected(self, now: float) -> Resources:
        """The part of `reclaimable` that calls with ``spare_warm`` don't get ``now``. It is nothing
        while no expendable container is in use, because then there is nothing to wait for."""
        return self._protected.total(now) if self._expendable else Resources()

    @property
    def waiting(self) -> int:
        """How many launches wait in the queue."""
        return len(self._queue)

    def possible(self, size: Resources) -> bool:
        """Whether ``size`` fits into the empty machine."""
        return size.fits(self.total)

    async def acquire(
        self,
        size: Resources,
        key: Hashable,
        *,
        spare_warm: bool = False,
        waits_for_room: bool = True,
    ) -> ResourceToken:
        """Get a token of ``size`` for a container of the slot key ``key``.

        Waits for containers on their way out. With ``waits_for_room``, if the tracker allows it, it
        also waits for room that is not in sight yet. With ``spare_warm`` no protected container is
        evicted; but a launch that waits for room does not spare any. Raises `NoResources`.
        Cancelling gives up the place in the queue.
        """
        waits_for_room = waits_for_room and self._may_wait
        if not size:
            # A container without resources need not wait behind launches that wait for room.
            await trio.lowlevel.checkpoint()
            return ResourceToken(self, size)
        if not self.possible(size):
            raise NoResources
        applicant = _Applicant(size, key, spare_warm and not waits_for_room)
        self._queue[applicant] = None
        if not self.settle() and not waits_for_room and not self._in_sight(applicant):
            self._withdraw(applicant)
            raise NoResources
        try:
            await applicant.decided.wait()
        except BaseException:
            if applicant.token is not None:
                applicant.token.release()
            self._withdraw(applicant)
            raise
        if applicant.token is None:
            raise NoResources
        return applicant.token

    def in_reach(self, size: Resources, key: Hashable, *, spare_warm: bool = False) -> bool:
        """Whether a launch that does not wait for room would get its token now, or after containers
        on their way out are gone. Parameters as for `acquire`."""
        return not self._queue and self._helps_next(
            size, key, self._prospect, spare_warm=spare_warm
        )

    def refuses(self, size: Resources, key: Hashable, *, spare_warm: bool = False) -> bool:
        """Whether `acquire` certainly raises `NoResources` at once for a launch that does not wait
        for room. Synchronous."""
        if not size:
            return False
        prospect = self._prospect
        for earlier in self._queue:
            if not earlier.size.fits(prospect):
                return True  # no eviction could help this one, or it would have happened
            prospect -= earlier.size
        return not self._helps_next(size, key, prospect, spare_warm=spare_warm)

    @property
    def _prospect(self) -> Resources:
        """What is free, or will be when all leaving containers are gone."""
        return self.total - self._used + self._leaving

    def _helps_next(
        self, size: Resources, key: Hashable, prospect: Resources, *, spare_warm: bool
    ) -> bool:
        """Whether ``size`` fits into ``prospect`` and what evictions give."""
        missing = size.beyond(prospect)
        if not missing:
            return True
        if not missing.fits(Resources(self._idle_memory, self._idle_cpus)):
            return False  # without looking at each container
        return bool(self._victims(missing, key, spare_warm=spare_warm))

    def _victims(
        self, missing: Resources, key: Hashable, *, spare_warm: bool
    ) -> Sequence[IdleContainer]:
        candidates = self._candidates
        idle = candidates.unprotected() if spare_warm and self._expendable else candidates.idle()
        return choose_victims(idle, missing, spare=key)

    def try_acquire(self, size: Resources) -> ResourceToken | None:
        """Get a token of what no container uses and no launch waits for, without evictions."""
        if size and (self._queue or not size.fits(self.total - self._used)):
            return None
        self._used += size
        return ResourceToken(self, size)

    def settle(self) -> bool:
        """After a change: admit launches that fit, and evict containers for the others. Returns
        whether every launch in the queue is provided for."""
        if not self._queue:
            return True
        self._admit()
        prospect = self._prospect
        for applicant in self._queue:
            missing = applicant.size.beyond(prospect)
            if missing:
                victims = self._victims(missing, applicant.key, spare_warm=applicant.spare_warm)
                if not victims:
                    return False
                for victim in victims:
                    self.evictions += 1
                    victim.evict()
                    prospect += victim.size
            prospect -= applicant.size
        return True

    def grow(self, total: Resources) -> None:
        """The machine has ``total`` now, if that is more than before."""
        have = self.total
        self.total = Resources(max(have.memory, total.memory), max(have.cpus, total.cpus))
        self.settle()

    def stop_waiting(self) -> None:
        """From now on no launch waits for room that is not in sight. Launches in the queue that do
        are refused."""
        self._may_wait = False
        for applicant in tuple(self._queue):
            if not self._in_sight(applicant):
                del self._queue[applicant]
                applicant.decided.set()

    def _admit(self) -> None:
        while self._queue:
            applicant = next(iter(self._queue))
            if not applicant.size.fits(self.total - self._used):
                return
            del self._queue[applicant]
            self._used += applicant.size
            applicant.token = ResourceToken(self, applicant.size)
            applicant.decided.set()

    def _in_sight(self, applicant: _Applicant) -> bool:
        """Whether the room will be there once all leaving containers are gone and all earlier
        launches are served."""
        if applicant.token is not None:
            return True
        prospect = self._prospect
        for earlier in self._queue:
            if not earlier.size.fits(prospect):
                return False
            prospect -= earlier.size
            if earlier is applicant:
                return True
        return False

    def _withdraw(self, applicant: _Applicant) -> None:
        if applicant in self._queue:
            del self._queue[applicant]
            self.settle()


MAX_SECONDS = 10.0
"""Seconds. No container is protected for longer, because then most idle containers would be."""


def worth_seconds(start: float, run: float) -> float:
    """How long an idle container is worth keeping; 0 = the run time of calls is not known. In
    seconds, as are the mean times ``start`` and ``run`` of its function."""
    return min(start * start / run, MAX_SECONDS) if run else 0.0


class Protected:
    """The resources of protected containers. Times are seconds of one clock, given by the caller,
    and never go back."""

    def __init__(self) -> None:
        self._members: dict[Hashable, tuple[float, Resources]] = {}
        """By owner: until when, and how much."""
        self._memory = self._cpus = 0
        self._checks: list[tuple[float, int, Hashable]] = []
        """A heap of the times at which to check an owner, at the latest. An owner that leaves and
        comes back, as with each call, keeps its check. So there is one check for each owner, not
        for each call."""
        self._check_at: dict[Hashable, float] = {}
        """The time of each owner's valid check."""
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"<Protected containers={len(self._members)}>"

    def __len__(self) -> int:
        """How many checks are planned, including checks of owners that have left."""
        return len(self._checks)

    def add(self, owner: Hashable, size: Resources, until: float, now: float) -> None:
        """``owner``, which was not a member, has ``size`` protected ``until`` then."""
        self._members[owner] = until, size
        self._memory += size.memory
        self._cpus += size.cpus
        if until < self._check_at.get(owner, math.inf):
            self._plan_check(owner, until)
        if self._checks[0][0] <= now:
            self._check(now)

    def remove(self, owner: Hashable) -> None:
        """``owner`` is no member any more. No effect if its time was over already."""
        member = self._members.pop(owner, None)
        if member is not None:
            size = member[1]
            self._memory -= size.memory
            self._cpus -= size.cpus

    def total(self, now: float) -> Resources:
        """The sum over all whose time is not over."""
        self._check(now)
        return Resources(self._memory, self._cpus)

    def _plan_check(self, owner: Hashable, at: float) -> None:
        self._check_at[owner] = at
        heapq.heappush(self._checks, (at, next(self._numbers), owner))

    def _check(self, now: float) -> None:
        """Remove the owners whose time is over."""
        while self._checks and self._checks[0][0] <= now:
            at, _, owner = heapq.heappop(self._checks)
            if self._check_at.get(owner) != at:
                continue  # there was, or is, an earlier check
            del self._check_at[owner]
            until = self._members[owner][0] if owner in self._members else -math.inf
            if until > now:
                self._plan_check(owner, until)
            else:
                self.remove(owner)
