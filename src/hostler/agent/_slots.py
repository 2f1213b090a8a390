"""Slot queues: where calls and hot containers of one slot key meet.

Everything here is synchronous, so that each change is atomic: a slot is in one place only, no
wake-up can be lost, and nobody has to look again later. The only thing to wait for is
`Waiter.done`.

A slot goes to the call that waits longest. Without waiting calls it becomes idle, and the next
call takes the slot that was used last, so that those that are not needed grow old.

Each waiting call has a launch that is meant for it. When another container serves the call
first, its launch is passed on: to the call whose container it got, or it becomes a spare one. So
a failing launch concerns one call at most, and that call only hears of it when no other
container is there, or on its way, to serve it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar

import attrs
import trio

from hostler.call import PendingCall, Timings

from ._decisions import launches_needed
from ._freezing import RecentGap


class Slot(Protocol):
    """A container that can run one call at a time."""

    def take(self) -> None:
        """A call has it from here on."""

    def reconsider(self) -> None:
        """Whether it has to be kept may have changed while it idles."""


S = TypeVar("S", bound=Slot)


@attrs.define(eq=False)
class Waiter(Generic[S]):
    """A call that waits for a slot. When ``done``, it has a ``slot`` or an ``error``."""

    call: PendingCall
    done: trio.Event = attrs.Factory(trio.Event)
    slot: S | None = None
    error: Exception | None = None
    timings: Timings | None = None
    """Of the launch, if the slot is fresh from one."""
    launch: Launch[S] | None = None
    setback: Exception | None = None
    """Why its launch failed, while it still hopes for another container."""
    patience: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """Around the wait: its deadline is set when there is no room for a launch."""
    served_ns: int = 0
    """When it was given its slot, as of `time.perf_counter_ns`: what is measured with it is the
    work of the scheduler, which has no virtual time."""


@attrs.define(eq=False)
class Launch(Generic[S]):
    """A container on its way. ``waiter`` is the call it is meant for; ``None`` = a spare one."""

    queue: SlotQueue[S]
    waiter: Waiter[S] | None
    timings: Timings = attrs.Factory(Timings)
    begun: bool = False
    """It has its resources. Before that it is given up when nobody needs it."""
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """Around the time before ``begun``."""


class SlotQueue(Generic[S]):
    """The calls, launches and containers of one slot key."""

    def __init__(
        self,
        key: Hashable,
        launch: Callable[[Launch[S], PendingCall], None],
        on_empty: Callable[[SlotQueue[S]], None] = lambda queue: None,
    ) -> None:
        self.key = key
        self._start = launch
        self._on_empty = on_empty
        self._waiters: dict[Waiter[S], None] = {}
        self._idle: dict[S, None] = {}
        self._launches: set[Launch[S]] = set()
        self._spare: dict[Launch[S], None] = {}
        self._alive = 0
        self._setbacks = 0
        self._keep = 0
        self.recent_gap = RecentGap()
        """Between two uses of a container."""

    def __repr__(self) -> str:
        return (
            f"<SlotQueue waiting={len(self._waiters)} idle={len(self._idle)} "
            f"starting={len(self._launches)} alive={self._alive}>"
        )

    @property
    def empty(self) -> bool:
        """Nobody waits, nothing starts or lives: the queue may be forgotten."""
        return not (self._waiters or self._launches or self._alive)

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @property
    def alive(self) -> int:
        """Containers that are ready or busy."""
        return self._alive

    @property
    def starting(self) -> int:
        """Launches that have not come to an end yet."""
        return len(self._launches)

    @property
    def setbacks(self) -> int:
        """Calls that wait for a container although they have no launch."""
        return self._setbacks

    # --- keeping containers ready ---

    def keep(self, count: int) -> None:
        """Of the containers ``count`` are to stay, also when no call comes for long."""
        if count != self._keep:
            self._keep = count
            self._reconsider()

    def keeps(self, slot: S) -> bool:
        """Whether ``slot`` idles and is among those that are to stay: the most recently used."""
        left = self._keep - (self._alive - len(self._idle))
        return left > 0 and slot in itertools.islice(reversed(self._idle), left)

    def add_spare(self) -> Launch[S]:
        """A launch that is for no call in particular, whose resources are there."""
        launch: Launch[S] = Launch(self, None, begun=True)
        self._launches.add(launch)
        waiter = next((w for w in self._waiters if w.launch is None), None)
        if waiter is not None:
            launch.waiter, waiter.launch = waiter, launch
        else:
            self._spare[launch] = None
        return launch

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    # --- the side of the calls ---

    def take(self) -> S | None:
        """The idle slot that was used last, if there is one."""
        if not self._idle:
            return None
        slot, _ = self._idle.popitem()
        slot.take()
        return slot

    def join(self, call: PendingCall) -> Waiter[S]:
        """Stand in line, and have a container launched unless one is spare."""
        waiter: Waiter[S] = Waiter(call)
        self._waiters[waiter] = None
        self._provide(waiter)
        return waiter

    def leave(self, waiter: Waiter[S]) -> None:
        """Give up waiting. No effect on a waiter that is done."""
        if waiter in self._waiters:
            self._remove(waiter)
            self._pass_on(waiter)
        self._check_empty()

    def refuse_all(self, error: Callable[[], Exception]) -> None:
        """End all waiting with an exception that ``error`` makes for each."""
        for waiter in tuple(self._waiters):
            self._fail(waiter, error())
        self._check_empty()

    # --- the side of the containers ---

    def offer(self, slot: S) -> bool:
        """A container is free; whether a call has it now, otherwise it is idle."""
        waiter = next(iter(self._waiters), None)
        if waiter is None:
            self._idle[slot] = None
            return False
        self._serve(waiter, slot)
        self._pass_on(waiter)
        return True

    def withdraw(self, slot: S) -> bool:
        """Take an idle slot out; false if it was not idle."""
        if slot not in self._idle:
            return False
        del self._idle[slot]
        return True

    def launched(self, launch: Launch[S], slot: S) -> bool:
        """``launch`` has made ``slot``; returns as `offer` does."""
        self._forget(launch)
        self._alive += 1
        if self._keep:
            self._reconsider()
        waiter = next(iter(self._waiters), None)
        if waiter is None:
            self._idle[slot] = None
            return False
        self._serve(waiter, slot)
        waiter.timings = launch.timings
        meant_for, launch.waiter = launch.waiter, None  # a launch outlives its calls
        if meant_for is waiter:
            waiter.launch = None
        else:
            self._swap(waiter, meant_for)
        return True

    def launch_failed(self, launch: Launch[S], error: Exception, *, wait: bool = True) -> bool:
        """``launch`` came to nothing; whether a call still depended on it.

        ``wait=False``: that call is not to wait for another container.
        """
        self._forget(launch)
        waiter = launch.waiter
        if waiter is not None:
            waiter.launch = None
            if wait and (self._alive or self._launches):
                self._setbacks += waiter.setback is None
                waiter.setback = error
            else:
                self._fail(waiter, error)
        self._fail_hopeless()
        self._check_empty()
        return waiter is not None

    def launch_dropped(self, launch: Launch[S]) -> None:
        """``launch`` was given up before it began, because nobody needed it."""
        assert launch.waiter is None
        self._forget(launch)
        self._fail_hopeless()
        self._check_empty()

    def gone(self, slot: S) -> None:
        """A container that `launched` had reported has ended."""
        self.withdraw(slot)
        self._alive -= 1
        if self._keep:
            self._reconsider()
        self._fail_hopeless()
        self._check_empty()

    # --- inside ---

    def _reconsider(self) -> None:
        for slot in self._idle:
            slot.reconsider()

    def _provide(self, waiter: Waiter[S]) -> None:
        """Give ``waiter`` a spare launch, or a new one."""
        if not launches_needed(waiting=1, idle=0, starting=len(self._spare)):
            launch = next(iter(self._spare))
            del self._spare[launch]
            launch.waiter, waiter.launch = waiter, launch
            return
        launch = Launch(self, waiter)
        waiter.launch = launch
        self._launches.add(launch)
        self._start(launch, waiter.call)

    def _pass_on(self, waiter: Waiter[S]) -> None:
        """The launch of ``waiter``, who needs it no more, becomes a spare one, or is given up."""
        launch, waiter.launch = waiter.launch, None
        if launch is None:
            return
        launch.waiter = None
        if launch.begun:
            self._spare[launch] = None
        else:
            launch.scope.cancel()

    def _swap(self, served: Waiter[S], robbed: Waiter[S] | None) -> None:
        """``served`` got the container of ``robbed``, who gets its launch in exchange."""
        if robbed is None:
            self._pass_on(served)
            return
        launch, served.launch = served.launch, None
        robbed.launch = launch
        if launch is not None:
            launch.waiter = robbed
        else:
            self._provide(robbed)

    def _serve(self, waiter: Waiter[S], slot: S) -> None:
        self._remove(waiter)
        slot.take()
        waiter.slot = slot
        waiter.served_ns = time.perf_counter_ns()
        waiter.done.set()

    def _fail(self, waiter: Waiter[S], error: Exception) -> None:
        self._remove(waiter)
        self._pass_on(waiter)
        waiter.error = error
        waiter.done.set()

    def _remove(self, waiter: Waiter[S]) -> None:
        del self._waiters[waiter]
        if waiter.setback is not None:
            self._setbacks -= 1

    def _forget(self, launch: Launch[S]) -> None:
        self._launches.discard(launch)
        self._spare.pop(launch, None)

    def _fail_hopeless(self) -> None:
        """Without any container left to hope for, tell those whose launch had failed."""
        if self._setbacks and not self._alive and not self._launches:
            for waiter in tuple(self._waiters):
                if waiter.setback is not None:
                    self._fail(waiter, waiter.setback)

    def _check_empty(self) -> None:
        if self.empty:
            self._on_empty(self)

    def idle(self) -> Iterator[S]:
        """The idle slots, the one that was used last at the end."""
        return iter(self._idle)


class SlotQueues(Generic[S]):
    """All slot queues of an agent. A queue exists as long as something is in it."""

    def __init__(self, launch: Callable[[Launch[S], PendingCall], None]) -> None:
        self._launch = launch
        self._queues: dict[Hashable, SlotQueue[S]] = {}
        self._keep: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def __iter__(self) -> Iterator[SlotQueue[S]]:
        return iter(tuple(self._queues.values()))

    def get(self, key: Hashable) -> SlotQueue[S]:
        """The queue of ``key``. Take from it or join it before the next checkpoint: an empty one
        may be forgotten then."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = SlotQueue(key, self._launch, self._forget)
            if self._keep:
                queue.keep(self._keep.get(key, 0))
        return queue

    def find(self, key: Hashable) -> SlotQueue[S] | None:
        """The queue of ``key`` if there is anything in it."""
        return self._queues.get(key)

    def keep(self, key: Hashable, count: int) -> None:
        """Of the containers of ``key``, now and later, ``count`` are to stay; 0 = as usual."""
        if count:
            self._keep[key] = count
        else:
            self._keep.pop(key, None)
        if (queue := self._queues.get(key)) is not None:
            queue.keep(count)

    def _forget(self, queue: SlotQueue[S]) -> None:
        if self._queues.get(queue.key) is queue:
            del self._queues[queue.key]
