"""Slot queues: where calls, launches and hot containers of one slot key meet.

Everything here is synchronous but `SlotQueue.served`. So each change is atomic: a slot is in one
place only, no wake-up can be lost, and no check has to be repeated later.

A slot goes to the call that has waited longest. Without waiting calls it becomes idle, and the next
call takes the slot that was used last, so that surplus containers grow old.

The `LaunchPolicy` says which waiting calls get a launch; the calls that it has not decided about
are *undecided*. Where a load balancer of hostler's own keeps the queue, it decides: its calls say
whether they bring a launch. When another container serves a call first, its launch is passed on to
the call whose container it got, or becomes a spare one. So a failing launch concerns one call at
most, and that call hears of it only when no other container is there, or on its way, to serve it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Hashable, Iterator
from typing import Generic, Protocol, TypeVar

import attrs
import trio

from .._concurrency.nurseries import is_cancellation
from .._launch_policy import LaunchPolicy
from ..calls import PendingCall, Timings
from ..errors import ServerBusy
from .freezing import LONGEST_GRACE, MARGIN
from .resources import worth_seconds


class Slot(Protocol):
    """A container that can run one call at a time."""

    def take(self, now: float) -> None:
        """A call has it from ``now`` on."""

    def give_back(self, *, reusable: bool) -> None:
        """The call is done with it."""

    def reconsider(self) -> None:
        """Check again whether it has to be kept: that may have changed while it idles."""


S = TypeVar("S", bound=Slot)


def is_open_ended(call: PendingCall) -> bool:
    """Whether nobody has said how long the client of ``call`` waits: no load balancer has sent the
    call, and it has no deadline."""
    return not call.client and call.deadline == math.inf


@attrs.define(eq=False)
class SlotWaiter(Generic[S]):
    """A call that waits for a slot. When ``done``, it has a ``slot`` or an ``error``."""

    call: PendingCall
    joined_at: float = 0.0
    done: trio.Event = attrs.Factory(trio.Event)
    slot: S | None = None
    error: Exception | None = None
    timings: Timings | None = None
    """Of the launch, if the slot is fresh from one."""
    launch: Launch[S] | None = None
    launch_error: Exception | None = None
    """Why its launch failed, while it waits for another container."""
    wait_scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """Around the wait. Its deadline is set when there is no room for a launch, and for a call that
    waits without one, see `SlotQueue.served`."""

    @property
    def is_open_ended(self) -> bool:
        return is_open_ended(self.call)

    served_ns: int = 0
    """When it got its slot, by `time.perf_counter_ns`: it measures the work of the scheduler, which
    has no virtual time."""


@attrs.define(eq=False)
class Launch(Generic[S]):
    """A container on its way. ``waiter`` is the call that it is meant for; ``None`` = a spare
    container."""

    queue: SlotQueue[S]
    waiter: SlotWaiter[S] | None
    timings: Timings = attrs.Factory(Timings)
    begun: bool = False
    """It has its resources. Before that it is given up when no call needs it."""
    begun_at: float = 0.0
    """When it got its resources."""
    firm: bool = False
    """It is not given up when its turn comes, even if its call has been served meanwhile."""
    ahead: bool = False
    """It was started because of `KeepAlive.starts`."""
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """Around the time before ``begun``."""

    def begin(self, now: float) -> None:
        """It has its resources from ``now`` on."""
        self.begun, self.begun_at = True, now


HALF_LIFE = 30.0
"""Seconds in which the weight of a noted gap halves."""


class ReuseGap:
    """The longest recent time between two uses of one function's containers. It fades with time."""

    def __init__(self) -> None:
        self._gap = 0.0
        self._noted_at = 0.0

    def note(self, gap: float, now: float) -> None:
        """A container was used again after ``gap`` seconds. Gaps that are too long to wait for say
        nothing about the others."""
        if gap * MARGIN <= LONGEST_GRACE and gap >= self.value(now):
            self._gap, self._noted_at = gap, now

    def value(self, now: float) -> float:
        """Seconds; 0 = nothing was noted."""
        if not self._gap:
            return 0.0
        return self._gap * float(0.5 ** ((now - self._noted_at) / HALF_LIFE))


class QueueOwner(Protocol[S]):
    """Has all slot queues of an agent, and starts the containers that they ask for."""

    max_wait: float
    """Seconds that a call may expect to wait if its client does not say how long it waits."""

    def now(self) -> float:
        """The time of Trio's clock."""

    def launch(self, launch: Launch[S], call: PendingCall) -> None:
        """Start a container."""

    def has_room(self, call: PendingCall) -> bool:
        """Whether there is room for a container of ``call``, now or when leaving containers are
        gone."""

    def waits_for_room(self, call: PendingCall) -> bool:
        """Whether ``call`` waits for room, and is not refused for lack of it."""

    def may_be_next(self, queue: SlotQueue[S], waiter: SlotWaiter[S]) -> bool:
        """Whether ``waiter``, for which no container is launched, may wait for a busy one."""

    def is_contended(self) -> bool:
        """Whether no call may wait for a busy container, because other functions want its room."""


class SlotQueue(Generic[S]):
    """The calls, launches and containers of one slot key. Made by `SlotQueues`."""

    def __init__(self, key: Hashable, queues: SlotQueues[S], owner: QueueOwner[S]) -> None:
        self.key = key
        self.policy = LaunchPolicy()
        self._queues = queues
        self._owner = owner
        self._waiters: dict[SlotWaiter[S], None] = {}
        self._undecided: dict[SlotWaiter[S], None] = {}
        """Waiting calls without a launch, about which the policy is to decide."""
        self._timekeeper: SlotWaiter[S] | None = None
        """The undecided call whose scope ends when the policy is to be asked again."""
        self._idle: dict[S, None] = {}
        self._launches: set[Launch[S]] = set()
        self._spare: dict[Launch[S], None] = {}
        self._alive = 0
        self._waiting_without_launch = 0
        self._keep = 0
        self.recent_gap = ReuseGap()
        """Between two uses of a container."""

    def __repr__(self) -> str:
        return (
            f"<SlotQueue waiting={len(self._waiters)} idle={len(self._idle)} "
            f"starting={len(self._launches)} alive={self._alive}>"
        )

    @property
    def empty(self) -> bool:
        """No call waits, and no container lives or starts: the queue may be forgotten."""
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
    def has_spare(self) -> bool:
        """Whether a container is on its way that is for no call in particular."""
        return bool(self._spare)

    def worth_seconds(self, *, idle: bool) -> float:
        """How long a container is worth keeping that idles from now on (``idle``), or would if its
        call ended now; infinite if not known. 0 if the policy would not start it again."""
        policy = self.policy
        if policy.surplus >= len(self._idle) + (not idle):
            return 0.0
        if not policy.run_seconds:
            return math.inf
        return worth_seconds(policy.start_seconds, policy.run_seconds)

    @property
    def waiting_without_launch(self) -> int:
        """Calls that wait for a busy container and have no launch."""
        return self._waiting_without_launch

    # --- keeping containers ready ---

    def keep(self, count: int) -> None:
        """Keep ``count`` of the containers, even when no call comes for long."""
        if count != self._keep:
            self._keep = count
            self._reconsider()

    def keeps(self, slot: S) -> bool:
        """Whether ``slot`` idles and is among the kept containers: the most recently used ones."""
        if not self._keep:
            return False
        left = self._keep - (self._alive - len(self._idle))
        return left > 0 and slot in itertools.islice(reversed(self._idle), left)

    def add_spare(self, *, ahead: bool = False) -> Launch[S]:
        """A launch for no call in particular. It has its resources already."""
        launch: Launch[S] = Launch(self, None, firm=True, ahead=ahead)
        launch.begin(self._owner.now())
        self._launches.add(launch)
        waiter = next((w for w in self._waiters if w.launch is None), None)
        if waiter is not None:
            self._assign(launch, waiter)
        else:
            self._spare[launch] = None
        return launch

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    # --- the side of the calls ---

    def take(self, now: float) -> S | None:
        """The idle slot that was used last, if there is one."""
        if not self._idle:
            return None
        slot, _ = self._idle.popitem()
        slot.take(now)
        return slot

    def join(self, call: PendingCall) -> SlotWaiter[S]:
        """Wait in the queue, and have a container launched if one is due."""
        waiter: SlotWaiter[S] = SlotWaiter(call, joined_at=self._owner.now())
        self._waiters[waiter] = None
        if self._spare and not call.launch:  # (a load balancer has counted the spare ones)
            launch = next(iter(self._spare))
            del self._spare[launch]
            self._assign(launch, waiter)
        elif self._is_too_late(waiter, len(self._waiters)) and (
            self.policy.has_failed or not self._owner.has_room(call)
        ):
            self._fail(waiter, ServerBusy.after(self._expected(len(self._waiters))))
        elif call.launch:
            self._launch_for(waiter, firm=True)
        elif call.queue_seconds > 0 and self._alive and not self._owner.is_contended():
            if self._owner.may_be_next(self, waiter):
                self._wait_without_launch(waiter, ServerBusy())
            else:
                self._fail(waiter, ServerBusy())
        else:
            self._leave_to_policy(waiter)
        return waiter

    def leave(self, waiter: SlotWaiter[S]) -> None:
        """Stop waiting. No effect on a waiter that is done."""
        if waiter in self._waiters:
            self._remove(waiter)
            self._pass_on(waiter)
        self._check_empty()

    async def served(self, waiter: SlotWaiter[S]) -> S:
        """Wait for the slot of ``waiter``, which its call has to give back. Raises the error of its
        launch, and `ServerBusy`."""
        try:
            while not waiter.done.is_set():
                with waiter.wait_scope:
                    await waiter.done.wait()
                if not waiter.done.is_set() and not self._may_wait_on(waiter):
                    break
        except BaseException as error:
            self.leave(waiter)
            if waiter.is_open_ended and is_cancellation(error):
                self.client_left(self._owner.now() - waiter.joined_at)
            if waiter.slot is not None:  # it came at the same moment
                waiter.slot.give_back(reusable=True)
            raise
        if not waiter.done.is_set():
            self.leave(waiter)
            raise ServerBusy
        if waiter.error is not None:
            raise waiter.error
        assert waiter.slot is not None
        if waiter.is_open_ended:
            now = self._owner.now()
            self.policy.patience.served(now - waiter.joined_at, now)
        return waiter.slot

    def client_left(self, waited: float, *, ran: float = 0.0) -> None:
        """A client has left that had waited for ``waited`` seconds before its call had run for
        ``ran`` seconds. No load balancer stands for it, and it had not said how long it waits.
        Calls that would be served too late are refused."""
        self.policy.patience.left(waited, self._owner.now(), ran=ran)
        self._refuse_first()
        while len(self._waiters) > 1:
            waiter = next(reversed(self._waiters))
            on_its_way = waiter.launch is not None and waiter.launch.begun
            if on_its_way or not self._is_too_late(waiter, len(self._waiters)):
                break
            self._fail(waiter, ServerBusy.after(self._expected(len(self._waiters))))

    def _refuse_first(self) -> None:
        """Refuse the first calls if they have waited for longer than clients bear. Their clients
        would leave while they are served, and so would the clients of the calls behind them."""
        bound = self.policy.patience.bound(self._owner.now())
        while bound < math.inf and len(self._waiters) > 1:
            waiter = next(iter(self._waiters))
            if not waiter.is_open_ended or self._owner.now() - waiter.joined_at <= bound:
                break
            self._fail(waiter, ServerBusy.after(self._expected(len(self._waiters))))

    def _is_too_late(self, waiter: SlotWaiter[S], place: int) -> bool:
        """Whether the client of ``waiter``, at ``place`` in the queue, will probably leave before
        its turn."""
        if not waiter.is_open_ended:
            return False
        most = self._owner.max_wait
        if self.policy.run_seconds >= most:  # its client bears longer waits
            most = math.inf
        return self._expected(place) > min(most, self.policy.patience.bound(self._owner.now()))

    def _expected(self, place: int) -> float:
        containers = self._alive + sum(launch.begun for launch in self._launches)
        return self.policy.steady_wait_for(place, containers)

    def _may_wait_on(self, waiter: SlotWaiter[S]) -> bool:
        """Whether ``waiter``, whose scope has ended, may wait on in a new one. It may not if the
        scope was the limit of its wait."""
        if waiter.wait_scope.deadline > self._owner.now():  # it got another one in this moment
            waiter.wait_scope = trio.CancelScope(deadline=waiter.wait_scope.deadline)
        elif waiter is self._timekeeper or waiter.launch is not None:
            waiter.wait_scope = trio.CancelScope()
            if waiter is self._timekeeper:
                self._timekeeper = None
                self._decide()
        else:
            return False
        return True

    def refuse_all(self) -> None:
        """End all waiting with `ServerBusy`."""
        for waiter in tuple(self._waiters):
            self._fail(waiter, ServerBusy())
        self._check_empty()

    # --- the side of the containers ---

    def offer(self, slot: S) -> bool:
        """A container is free. Returns whether a call has it now; otherwise it is idle."""
        if not self._waiters:
            self._idle[slot] = None
            return False
        self._refuse_first()
        self._serve(waiter := next(iter(self._waiters)), slot)
        self._pass_on(waiter)
        return True

    def ran(self, seconds: float, now: float) -> None:
        """A call has had a container for ``seconds``."""
        self.policy.ran(seconds, now)
        if self._undecided:
            self._decide()

    def note_surplus(self) -> None:
        """A load balancer has found out that one more of the containers is surplus."""
        self.policy.surplus = min(self.policy.surplus + 1, self._alive)

    def spare_seconds(self, ran: float) -> float:
        """Seconds for which a function may go on whose client has left after the call ``ran`` for
        so many seconds, so that its container is not lost: the time of a start if calls usually end
        within that; 0 = not at all."""
        start = self.policy.start_seconds
        return start if self.policy.run_seconds - ran <= start else 0.0

    def confirm(self, launch: Launch[S]) -> bool:
        """The turn of ``launch`` has come, after other launches. Returns whether it is still
        needed; if not it has to be dropped. A firm launch always is. Other launches began while
        nothing was known of the function."""
        waiter = launch.waiter
        if launch.firm or self._alive < max(1, self._keep):
            return True
        if waiter is None:
            self._spare.pop(launch, None)
        elif len(self._undecided) >= self.policy.served_soon(self._alive):
            return True
        else:
            launch.waiter = waiter.launch = None
            self._undecided[waiter] = None
            self._note_waiting()
        return False

    def withdraw(self, slot: S) -> bool:
        """Take an idle slot out; false if it was not idle."""
        if slot not in self._idle:
            return False
        del self._idle[slot]
        return True

    def launched(self, launch: Launch[S], slot: S) -> bool:
        """``launch`` has made ``slot``. Returns the same as `offer`."""
        self._forget(launch)
        self.policy.started(self._owner.now() - launch.begun_at)
        self._alive += 1
        if self._keep:
            self._reconsider()
        waiter = next(iter(self._waiters), None)
        if waiter is None:
            self._idle[slot] = None
            return False
        self._serve(waiter, slot)
        waiter.timings = launch.timings
        meant_for, launch.waiter = launch.waiter, None  # the launch outlives its call
        if meant_for is waiter:
            waiter.launch = None
        else:
            self._swap(waiter, meant_for)
        return True

    def launch_failed(self, launch: Launch[S], error: Exception, *, wait: bool = True) -> bool:
        """``launch`` has failed. Returns whether a call still depended on it.

        ``wait=False``: that call must not wait for another container.
        """
        self._forget(launch)
        waiter = launch.waiter
        if waiter is not None:
            waiter.launch = None
            if wait and (self._alive or self._launches):
                self._wait_without_launch(waiter, error)
            else:
                self._fail(waiter, error)
        self.policy.failed()
        if self._undecided:
            self._decide()
        self._fail_hopeless()
        self._check_empty()
        return waiter is not None

    def launch_dropped(self, launch: Launch[S]) -> None:
        """``launch`` was given up before it began, because no call needed it."""
        assert launch.waiter is None
        self._forget(launch)
        self.policy.failed()
        if self._undecided:
            self._decide()
        self._fail_hopeless()
        self._check_empty()

    def gone(self, slot: S) -> None:
        """A container that `launched` had reported has ended."""
        self.withdraw(slot)
        self._alive -= 1
        if self._keep:
            self._reconsider()
        self.policy.surplus = max(0, self.policy.surplus - 1)
        if self._undecided:
            self._decide()
        self._fail_hopeless()
        self._check_empty()

    # --- inside ---

    def _reconsider(self) -> None:
        for slot in self._idle:
            slot.reconsider()

    def _leave_to_policy(self, waiter: SlotWaiter[S]) -> None:
        """Let the policy decide about ``waiter``, which has no launch."""
        if self._owner.waits_for_room(waiter.call) or self._owner.has_room(waiter.call):
            self._undecided[waiter] = None
            self._note_waiting()
            self._decide()
        else:
            self._launch_for(waiter)

    def _note_waiting(self) -> None:
        room = all(launch.begun for launch in self._launches)
        self.policy.set_waiting(len(self._undecided), self._owner.now(), room=room)

    def _decide(self) -> None:
        """Have as many containers launched as the policy says. The last calls get them: they would
        have to wait longest."""
        policy, now = self.policy, self._owner.now()
        while self._undecided:
            count = policy.launches(
                now,
                waiting=len(self._undecided) + len(self._launches),
                alive=self._alive,
                starting=len(self._launches),
            )
            if not count:
                break
            for _ in range(count):
                self._launch_for(next(reversed(self._undecided)), firm=policy.run_seconds > 0)
        self._schedule_check(policy.check_at)

    def _schedule_check(self, check_at: float) -> None:
        """Have the first undecided call ask the policy again at ``check_at``. Asking early does no
        harm."""
        timekeeper = next(iter(self._undecided), None)
        if timekeeper is not None and (
            timekeeper is not self._timekeeper or check_at < timekeeper.wait_scope.deadline
        ):
            timekeeper.wait_scope.deadline = check_at
        if timekeeper is not self._timekeeper:
            if self._timekeeper is not None:
                self._timekeeper.wait_scope.deadline = math.inf
            self._timekeeper = timekeeper

    def _launch_for(self, waiter: SlotWaiter[S], *, firm: bool = False) -> None:
        # A surplus container is needed after all. If not, it will count as surplus again.
        self.policy.surplus = max(0, self.policy.surplus - 1)
        launch: Launch[S] = Launch(self, None, firm=firm)
        self._assign(launch, waiter)
        self._launches.add(launch)
        self._owner.launch(launch, waiter.call)

    def _assign(self, launch: Launch[S], waiter: SlotWaiter[S]) -> None:
        """Mean ``launch`` for ``waiter``, which had none."""
        launch.waiter, waiter.launch = waiter, launch
        self._decided(waiter)

    def _decided(self, waiter: SlotWaiter[S]) -> None:
        """The policy need not decide about ``waiter`` any more."""
        if waiter not in self._undecided:
            return
        del self._undecided[waiter]
        self._note_waiting()
        if waiter is self._timekeeper:
            self._timekeeper = None
            waiter.wait_scope.deadline = math.inf
            self._decide()

    def _wait_without_launch(self, waiter: SlotWaiter[S], why: Exception) -> None:
        """``waiter`` waits for a container that another call has."""
        self._waiting_without_launch += waiter.launch_error is None
        waiter.launch_error = why

    def _pass_on(self, waiter: SlotWaiter[S]) -> None:
        """The launch of ``waiter``, which needs it no more, becomes a spare one, or is given up."""
        launch, waiter.launch = waiter.launch, None
        if launch is None:
            return
        launch.waiter = None
        if launch.begun:
            self._spare[launch] = None
        else:
            launch.scope.cancel()

    def _swap(self, served: SlotWaiter[S], robbed: SlotWaiter[S] | None) -> None:
        """``served`` got the container that was meant for ``robbed``, which gets its launch in
        exchange."""
        if robbed is None:
            self._pass_on(served)
            return
        launch, served.launch, robbed.launch = served.launch, None, None
        if launch is not None:
            self._assign(launch, robbed)
        else:
            self._leave_to_policy(robbed)

    def _serve(self, waiter: SlotWaiter[S], slot: S) -> None:
        self._remove(waiter)
        slot.take(self._owner.now())
        waiter.slot = slot
        waiter.served_ns = time.perf_counter_ns()
        waiter.done.set()

    def _fail(self, waiter: SlotWaiter[S], error: Exception) -> None:
        self._remove(waiter)
        self._pass_on(waiter)
        waiter.error = error
        waiter.done.set()

    def _remove(self, waiter: SlotWaiter[S]) -> None:
        del self._waiters[waiter]
        self._decided(waiter)
        if waiter.launch_error is not None:
            self._waiting_without_launch -= 1

    def _forget(self, launch: Launch[S]) -> None:
        self._launches.discard(launch)
        self._spare.pop(launch, None)

    def _fail_hopeless(self) -> None:
        """Without any container left, living or starting, fail the calls whose launch had
        failed."""
        if self._waiting_without_launch and not self._alive and not self._launches:
            for waiter in tuple(self._waiters):
                if waiter.launch_error is not None:
                    self._fail(waiter, waiter.launch_error)

    def _check_empty(self) -> None:
        if self.empty:
            self._queues.forget(self)

    def idle(self) -> Iterator[S]:
        """The idle slots, the most recently used one last."""
        return iter(self._idle)


class SlotQueues(Generic[S]):
    """All slot queues of an agent. A queue exists as long as something is in it."""

    def __init__(self, owner: QueueOwner[S]) -> None:
        self._owner = owner
        self._queues: dict[Hashable, SlotQueue[S]] = {}
        self._keep: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def __iter__(self) -> Iterator[SlotQueue[S]]:
        return iter(tuple(self._queues.values()))

    def get(self, key: Hashable) -> SlotQueue[S]:
        """The queue of ``key``. Take from it or join it before the next checkpoint, because an
        empty queue may be forgotten then."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = SlotQueue(key, self, self._owner)
            if self._keep:
                queue.keep(self._keep.get(key, 0))
        return queue

    def find(self, key: Hashable) -> SlotQueue[S] | None:
        """The queue of ``key`` if there is anything in it."""
        return self._queues.get(key)

    def keep(self, key: Hashable, count: int) -> None:
        """Keep ``count`` of the containers of ``key``, now and later; 0 = as usual."""
        if count:
            self._keep[key] = count
        else:
            self._keep.pop(key, None)
        if (queue := self._queues.get(key)) is not None:
            queue.keep(count)

    def alive(self, key: Hashable) -> int:
        """Containers of ``key`` that are ready or busy."""
        queue = self._queues.get(key)
        return queue.alive if queue is not None else 0

    def starting(self, key: Hashable) -> int:
        """Launches for ``key`` that have not come to an end yet."""
        queue = self._queues.get(key)
        return queue.starting if queue is not None else 0

    def is_hot(self, key: Hashable) -> bool:
        """Whether a container of ``key`` idles or is on its way."""
        queue = self._queues.get(key)
        return queue is not None and bool(queue.idle_count or queue.starting)

    def forget(self, queue: SlotQueue[S]) -> None:
        """``queue`` is empty."""
        if self._queues.get(queue.key) is queue:
            del self._queues[queue.key]
