"""Waiting room: the queues of calls that wait for a runner, and when each call may try again.

Calls with the same needs wait in one `CallQueue`, in order of arrival, for one of two reasons.
Either all containers of their function are busy and its `LaunchPolicy` starts no further one. Or a
call of the queue was refused by all runners: then the queue is *full*, because a runner without
room for the first call has none for the others. A call leaves its queue with a `Turn`:

* to try one runner, because a call has just ended there. The call gets this turn that has waited
  longest in any full queue. A call of the same function as the ended one goes first, because the
  container there is hot for it, unless it has come over `OVERTAKE_SECONDS` later. If the runner
  refuses the call, which may need more than has become free, the next queue may try.
* to have a container started, because the policy says so. The last calls of the queue get these
  turns: they would have to wait longest for the other containers.
* to try all runners, because the queue is full and its `RetryBackoff` says so.

A call that was refused goes back to its place in the order of arrival. Only `QueuedCall.wait`
waits; everything else is synchronous.

Capacity that a call of this placer leaves is passed on at once. Capacity that others leave (calls
of other load balancers, new runners) is only found by probes: see `RetryBackoff`. Short calls are
also sent to runners ahead of time, to wait there behind a busy hot container: see `RunnerBacklog`.
"""

from __future__ import annotations

import itertools
import math
import random
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Protocol

import attrs
import trio

from .._fast import FastPool
from .._launch_policy import LaunchPolicy
from ..abc import Runner
from ..config import PlacerConfig
from ..errors import ServerBusy
from .load_tracker import CallNeed, LoadTracker

OVERTAKE_SECONDS = 1.0
"""Seconds. A call is overtaken only by calls that came at most so much later. A container that
stays with its function saves one start, so overtaking by more would cost more than it saves."""

NOTHING = CallNeed("", memory=0, idle_seconds=0)

MAX_LEFT = 1024
"""Queues without calls that are kept for their next call."""

PASS_LIMIT = 8
"""Queues that may try, one after the other, to use the capacity that one ended call has left."""


class CallQueue:
    """The waiting calls of one pool that have the same needs. True if at least one call waits."""

    def __init__(self, waiting_room: WaitingRoom, backoff: RetryBackoff) -> None:
        self._waiting_room = waiting_room
        self.waiters: list[QueuedCall] = []
        """In order of arrival."""
        self.backoff = backoff
        self.policy = LaunchPolicy()
        """Of the function, see `WaitingRoom.use`."""
        self.starting = 0
        """Calls that have left the queue, or are about to, to have a container started."""
        self._check_at = math.inf
        """When to ask the policy again."""
        self.full = False
        """A call of the queue was refused by all runners, and the queue has not been empty at the
        end of a served call since then."""
        self._counted = 0
        """Number of waiting calls at the last change."""
        self.backlog = RunnerBacklog()
        self.users = 0
        """Calls under way that use this queue, waiting or not."""
        self.need = NOTHING
        """What a call needs. Its memory and CPUs count unless the call finds a hot container."""
        self.pool_trouble = ""
        """The pool's last error; "" = the pool gave a list of runners."""
        self._hopeless = False
        """All runners have refused a call of this queue that did not spare warm containers, and no
        head since then spares them. A further try is useless until a runner reports a change."""

    def __repr__(self) -> str:
        return f"<CallQueue waiting={len(self.waiters)} users={self.users} {self.backoff!r}>"

    def __len__(self) -> int:
        return len(self.waiters)

    @property
    def head(self) -> QueuedCall:
        return self.waiters[0]

    @property
    def spare_warm(self) -> bool:
        """Whether the next call still spares warm containers."""
        return bool(self) and trio.current_time() < self.head.spare_warm_until

    def join(self, waiter: QueuedCall) -> None:
        insort(self.waiters, waiter, key=_ticket)
        if len(self.waiters) > 1:
            self.waiters[1].check_at(math.inf)
        self._changed()

    def leave(self, waiter: QueuedCall) -> None:
        place = bisect_left(self.waiters, waiter.ticket, key=_ticket)
        if place < len(self.waiters) and self.waiters[place] is waiter:
            del self.waiters[place]
            self._changed()

    def forget(self) -> None:
        """Become like a new queue. All calls have left it."""
        self.pool_trouble = ""
        self._hopeless = False
        self.full = False
        self.backoff.forget()
        self.backlog.forget()

    def advance(self) -> None:
        """Give turns if the time for some has come."""
        now = trio.current_time()
        if not self.waiters:
            return
        if not self.full:
            self.grow(now)
        elif now >= self.backoff.next_at:
            self._give_turns(self.backoff.step(now))
        elif now >= self._urgent_at:
            self._give_turns(1)
        else:
            self.schedule_check()

    def grow(self, now: float, *, coming: int = 0) -> bool:
        """Have as many containers started as the policy says for the waiting calls and for
        ``coming`` calls that have not joined yet. The last calls get them, because they would have
        to wait longest. Returns whether a coming call is to have a container started."""
        if now < self._check_at < math.inf and self.policy.has_failed and self.backlog:
            return False  # until then no call gets a container, however many calls there are
        others = coming
        self.policy.set_waiting(self._unserved + coming, now)
        while count := self._launches(now, others):
            self.starting += count
            while count and others:
                others, count = others - 1, count - 1
            for _ in range(count):
                self._wake(-1, Turn(launch=True))
        if others < coming:
            self.policy.set_waiting(self._unserved + others, now)
        self._check_at = self.policy.check_at
        self.schedule_check()
        return others < coming

    def turn_of_short_call(self) -> Turn | None:
        """The turn of a call that comes while no call waits and whose function runs so briefly that
        the call need not wait here; else ``None``."""
        run = self.policy.run_seconds
        if (
            self.waiters
            or self.full
            or not 0 < run <= SHORT_RUN_SECONDS
            or self._waiting_room.full_queues
        ):
            return None
        runner = self.backlog.shortest()
        if runner is None:
            return None
        self.backlog.begin(runner.address)
        return Turn(runner, hot=self)

    def _launches(self, now: float, coming: int) -> int:
        able = len(self.waiters) + coming
        starting = max(self.starting, self.backlog.starting())
        return self.policy.launches(
            now,
            waiting=able + max(starting, self.backlog.behind),
            alive=self.backlog.containers(self.starting),
            starting=starting,
            able=able,
        )

    @property
    def _unserved(self) -> int:
        """Calls that wait without a container, here or on runners behind other calls."""
        behind = self.backlog.behind - self.starting if self.waiters else 0
        return len(self.waiters) + max(0, behind)

    def expected_wait(self, now: float) -> float:
        """Estimated seconds until a call that comes now leaves the queue; 0 = not known, or not to
        be foreseen because more containers may be started."""
        containers = self._containers
        if containers is None:
            return 0.0
        return self.policy.wait_for(len(self.waiters) + 1, containers, now)

    def is_too_long(self, calls: int, now: float) -> bool:
        """Whether the last of ``calls`` waiting calls would wait for longer than clients bear that
        don't say how long they wait."""
        containers = self._containers
        if containers is None:
            return False
        return self.policy.steady_wait_for(calls, containers) > self._longest_wait(now)

    def _longest_wait(self, now: float) -> float:
        most = self._waiting_room.max_wait
        if self.policy.run_seconds >= most:  # its clients bear longer waits
            most = math.inf
        return min(most, self.policy.patience.bound(now))

    @property
    def _containers(self) -> int | None:
        """Containers that serve the queue, and those on their way; 0 = not known. ``None`` if that
        is not to be foreseen because more may be started."""
        if not self.full and not self.policy.has_failed:
            return None
        reported = self.backlog.reported()
        return reported and reported + self.starting

    def turned_away(self, now: float) -> None:
        """A call that was about to join does not."""
        self.policy.set_waiting(self._unserved, now, room=not self.full)

    def client_left(self, waited: float, *, ran: float) -> None:
        """A client without a time limit of its own has left after ``waited`` seconds in the queue,
        when its call had run for ``ran`` seconds. Calls that would be served too late are
        refused."""
        now = trio.current_time()
        self.policy.patience.left(waited, now, ran=ran)
        self._refuse_first(now)
        while len(self.waiters) > 1 and self.waiters[-1].is_open_ended:
            if not self.is_too_long(len(self.waiters), now):
                return
            self._refuse(-1, now)

    def _refuse_first(self, now: float) -> None:
        """Refuse the first calls if they have waited for longer than clients bear. Their clients
        would leave while they are served, and so would the clients of the calls behind them."""
        bound = self.policy.patience.bound(now)
        while len(self.waiters) > 1 and self.head.is_open_ended and now - self.head.arrived > bound:
            self._refuse(0, now)

    def _refuse(self, place: int, now: float) -> None:
        waiter = self.waiters.pop(place)
        self._changed()
        waiter.refusal = ServerBusy.after(self.expected_wait(now) or None)
        waiter.wake(None)

    def left(self, address: str) -> None:
        """A call of this queue has left the runner."""
        self.backlog.end(address)
        self._restart()

    def _restart(self) -> None:
        """Let the first call look for a runner if no call is left whose end would wake the
        queue."""
        if self.waiters and not self.full and not self.backlog:
            self._give_turns(1)

    def wake_all(self) -> None:
        """Let all calls try: what they wait for has been decided."""
        self._give_turns(len(self.waiters))

    def give_turn(self, turn: Turn) -> None:
        """Let the first call try with ``turn``."""
        if turn.runner is not None:
            self.backlog.begin(turn.runner.address)
        self._refuse_first(trio.current_time())
        self._wake(0, turn)

    def _wake(self, place: int, turn: Turn) -> None:
        waiter = self.waiters.pop(place)
        self._changed()
        waiter.wake(turn)

    def pass_on(self, turn: Turn) -> None:
        """Pass on ``turn``, which the call that had it did not use."""
        if turn.launch:
            self.starting -= 1
            self.policy.failed()
            self.advance()
        elif turn.runner is None:
            self._restart()
        if turn.runner is not None:
            self.left(turn.runner.address)
            self._waiting_room.offer(turn.runner, turn.refused, turn.absent, hot=turn.hot)

    def schedule_check(self) -> None:
        """Have the first call look after the queue when that is due."""
        if self.waiters:
            at = min(self.backoff.next_at, self._urgent_at) if self.full else self._check_at
            self.head.check_at(at)

    def refuse(self, now: float, hint: float, *, spare_warm: bool) -> None:
        """All runners have refused a call of this queue; see `RetryBackoff.refuse`."""
        if not spare_warm and not self.spare_warm:
            self._hopeless = True
        self.backoff.refuse(now, hint)
        if not self.full:
            self.full = True
            self.backoff.begin(now)
            if self.waiters:
                self._changed()
        self.schedule_check()

    def served(self) -> None:
        """A call of this queue was served, and is over."""
        if not self.waiters:
            self.full = False

    @property
    def _urgent_at(self) -> float:
        """When the first call is to try in any case."""
        return math.inf if self._hopeless else self.head.urgent_at

    def _give_turns(self, count: int) -> None:
        turns, self.waiters[:count] = self.waiters[:count], []
        self._changed()
        for waiter in turns:
            waiter.wake(Turn())

    def _changed(self) -> None:
        """A call has come or gone."""
        now, count = trio.current_time(), len(self.waiters)
        self._waiting_room.waiting += count - self._counted
        self._counted = count
        if not self.waiters or (self._hopeless and self.spare_warm):
            self._hopeless = False
        self.policy.set_waiting(self._unserved, now, room=not self.full)
        if count and not self.full:
            self._waiting_room.hot.add(self)
        else:
            self._waiting_room.hot.discard(self)
        self._waiting_room.full_queues.note(self)
        self.schedule_check()


def _ticket(waiter: QueuedCall) -> int:
    return waiter.ticket


class Placeable(Protocol):
    """What a waiting room has to know of a call."""

    @property
    def is_committed(self) -> bool:
        """A runner has the call, or may have it: a runner that takes no reservations and has not
        refused."""
        ...


class WaitingRoom:
    """All queues of the calls of one pool. ``loads`` knows the load of its runners; ``rng`` draws
    the jitter of the backoffs."""

    fast_pool: FastPool | None = None
    """The pool, if it can list its runners without a wait."""

    def __init__(self, config: PlacerConfig, loads: LoadTracker, rng: random.Random) -> None:
        self._config = config
        self._loads = loads
        self._rng = rng
        self.max_wait = config.max_wait
        """Seconds that a call may expect to wait if its client does not say how long it waits."""
        self.probe_at = -math.inf
        """When runners that report no capacity may be probed again."""
        self._queues: dict[Hashable, CallQueue] = {}
        self._left: OrderedDict[Hashable, CallQueue] = OrderedDict()
        """Queues without calls, the oldest first, kept for their next calls: making a queue takes
        longer than placing a call in it."""
        self._tickets = itertools.count()
        self.full_queues = FullQueues()
        self.waiting = 0
        """Calls in all queues."""
        self.hot: set[CallQueue] = set()
        """Queues that are not full, with calls that wait for a container of their function."""
        self.held_bytes = 0
        """Bytes of the bodies of waiting calls."""
        self.trying: set[Placeable] = set()
        """Calls that have left their queues to try a runner."""

    def __repr__(self) -> str:
        return f"<WaitingRoom waiting={self.waiting} queues={len(self._queues)}>"

    def is_crowded(self, limit: int) -> bool:
        """Whether at least ``limit`` calls wait for a runner to take them. Calls count that are
        trying a runner at this moment, since it may send them back."""
        if self.waiting + len(self.trying) < limit:
            return False
        return self.waiting + sum(not call.is_committed for call in self.trying) >= limit

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """In the block a call waits that has a body of ``size`` bytes in memory."""
        self.held_bytes += size
        try:
            yield
        finally:
            self.held_bytes -= size

    def ticket(self) -> int:
        """The next place in the order of arrival."""
        return next(self._tickets)

    def use(self, need: CallNeed) -> CallQueue:
        """The queue of calls with ``need``. It exists until each user has called `leave`."""
        key = need.key
        queue = self._queues.get(key)
        if queue is None:
            queue = self._left.pop(key, None)
            if queue is None:
                config = self._config
                backoff = RetryBackoff(config.retry_all_delay, config.retry_max_delay, self._rng)
                queue = CallQueue(self, backoff)
            self._queues[key] = queue
        queue.need = need
        queue.policy = self._loads.policies.of(need)
        queue.users += 1
        return queue

    def leave(self, queue: CallQueue) -> bool:
        """Returns whether no call is left that could use the room."""
        queue.users -= 1
        if queue.users:
            return False
        key = queue.need.key
        del self._queues[key]
        queue.forget()
        self._left[key] = queue  # (no `LRUDict`, whose items cost a hot call one more call)
        if len(self._left) > MAX_LEFT:
            self._left.popitem(last=False)
        if self._queues:
            return False
        self.probe_at = -math.inf
        return True

    def offer(
        self,
        runner: Runner,
        refused: frozenset[CallQueue] = frozenset(),
        absent: frozenset[CallQueue] = frozenset(),
        *,
        hot: CallQueue | None = None,
    ) -> None:
        """There may be capacity at ``runner``: let the call try that has waited longest. Skips the
        queues in ``refused``, which the runner had no room for, and in ``absent``, whose pool does
        not list the runner. ``hot`` is the queue of the call that has ended there and left a hot
        container: its first call goes first, within limits."""
        passed, now = refused | absent, trio.current_time()
        if hot is not None and hot not in passed and self._may_go_first(hot):
            hot.give_turn(Turn(runner, refused, absent, hot))
            return
        if not self.full_queues or len(passed) >= PASS_LIMIT:
            return
        fitting = (
            queue
            for queue in self.full_queues
            if queue not in absent
            and not _is_hopeless(queue, refused)
            and not self._loads.is_full(
                runner.address, queue.need, now, spare_warm=queue.spare_warm
            )
        )
        if (oldest := next(fitting, None)) is not None:
            oldest.give_turn(Turn(runner, refused, absent, hot))

    def freed(self, runner: Runner, queue: CallQueue, *, leave: bool = False) -> None:
        """A call of ``queue`` has ended at ``runner``, see `offer`. With ``leave`` its place is for
        other load balancers (`LoadHint.leave`)."""
        if leave or not self.waiting:
            return
        backlog, address = queue.backlog, runner.address
        if (share := backlog.share(address)) and backlog.in_flight(address) > share:
            return
        self.offer(runner, hot=queue)
        self.send_ahead(runner, queue)

    def no_other_waits(self, queue: CallQueue) -> bool:
        """Whether no call waits for capacity in another queue than ``queue``."""
        return not self.full_queues or (len(self.full_queues) == 1 and queue in self.full_queues)

    def send_ahead(self, runner: Runner, queue: CallQueue) -> None:
        """A call of ``queue`` has ended at ``runner``, and its place was offered. Send one more
        call there if one may wait behind each call that runs there."""
        if queue and self.no_other_waits(queue) and queue.backlog.may_send(runner.address):
            queue.give_turn(Turn(runner, hot=queue))

    def fill(
        self,
        runner: Runner,
        memory: int,
        cpus: float = math.inf,
        *,
        protected: tuple[int, int] = (0, 0),
    ) -> None:
        """``runner`` has ``memory`` bytes and ``cpus`` milli-CPUs for new containers. Calls that
        spare warm containers don't get the part in ``protected``. Let the calls try that have
        waited longest and fit in together."""

        def fits(queue: CallQueue) -> bool:
            spared = protected if queue.spare_warm else (0, 0)
            return queue.need.memory <= memory - spared[0] and queue.need.cpus <= cpus - spared[1]

        for _ in range(MAX_WIDTH):
            if (oldest := next(filter(fits, self.full_queues), None)) is None:
                return
            memory -= oldest.need.memory
            cpus -= oldest.need.cpus
            oldest.give_turn(Turn(runner))

    def wake_for_idle(self, runner: Runner) -> None:
        """``runner`` reports idle hot containers, which calls of other load balancers may have
        left."""
        now = trio.current_time()
        for queue in tuple(self.hot):
            idle = self._loads.warm_count(runner.address, queue.need, now)
            for _ in range(min(idle, len(queue))):
                queue.give_turn(Turn(runner, hot=queue))

    def is_first(self, ticket: int) -> bool:
        """Whether no waiting call came before the call with ``ticket``."""
        head = self.full_queues.head
        return head is None or ticket < head.ticket

    def _may_go_first(self, queue: CallQueue) -> bool:
        """Whether a call waits in ``queue`` that no other waiting call preceded by much."""
        if not queue:
            return False
        oldest = self.full_queues.head
        return oldest is None or queue.head.arrived <= oldest.arrived + OVERTAKE_SECONDS


def _is_hopeless(queue: CallQueue, refused: frozenset[CallQueue]) -> bool:
    """Whether a runner that has ``refused`` calls of these queues has no room for ``queue``,
    because it needs at least as much as one of them. A refusal of calls that spare warm containers
    says nothing about a call that does not."""
    if queue not in refused and not queue.spare_warm and any(other.spare_warm for other in refused):
        return False
    return any(
        queue.need.memory >= other.need.memory and queue.need.cpus >= other.need.cpus
        for other in refused
    )


@attrs.frozen(eq=False)
class Turn:
    """The right to try all runners, or the one ``runner`` where there may be capacity now.
    ``refused`` are the queues that it had no room for, ``absent`` the queues whose pool does not
    list it, and ``hot`` is the queue of the call that has ended there. With ``launch`` a container
    is to be started for the call."""

    runner: Runner | None = None
    refused: frozenset[CallQueue] = frozenset()
    absent: frozenset[CallQueue] = frozenset()
    hot: CallQueue | None = None
    launch: bool = False


class QueuedCall:
    """A call in a queue. It came at ``arrived`` (`trio.current_time`) and gives up at ``deadline``.
    After ``spare_warm_until`` there may be room for it where there was none before."""

    is_open_ended = False
    """Its client has not said how long it waits."""

    def __init__(
        self,
        queue: CallQueue,
        ticket: int,
        arrived: float,
        deadline: float,
        spare_warm_until: float = -math.inf,
    ) -> None:
        self.spare_warm_until = spare_warm_until
        self.urgent_at = math.inf
        """When it is to try in any case."""
        if spare_warm_until > -math.inf and spare_warm_until > trio.current_time():
            self.urgent_at = spare_warm_until
        self.refusal: ServerBusy | None = None
        """Why it has to leave without a turn."""
        self.ticket = ticket
        self.arrived = arrived
        self._queue = queue
        self._deadline = deadline
        self._check_at = math.inf
        self._scope: trio.CancelScope | None = None
        self._woken = trio.Event()
        self._turn: Turn | None = None

    def __repr__(self) -> str:
        return f"<QueuedCall {self.ticket} woken={self._woken.is_set()}>"

    @property
    def woken(self) -> bool:
        return self._woken.is_set()

    async def wait(self) -> Turn | None:
        """Wait in the queue until it is this call's turn; ``None`` = give up.

        Cancelling frees the place, and passes on a turn that came at the same moment.
        """
        self._queue.join(self)
        try:
            return await self._wait()
        except BaseException:
            if self._turn is not None:
                self._queue.pass_on(self._turn)
            raise
        finally:
            self._queue.leave(self)

    async def _wait(self) -> Turn | None:
        while True:
            until = min(self._check_at, self._deadline)
            with trio.CancelScope(deadline=until) as self._scope:
                await self._woken.wait()
            if self._woken.is_set():
                return self._turn
            if trio.current_time() >= self._deadline:
                return None
            self._queue.advance()

    def check_at(self, at: float) -> None:
        """Look after the queue at ``at``, which the first call does for all."""
        if at != self._check_at:
            self._check_at = at
            if self._scope is not None:
                self._scope.deadline = min(at, self._deadline)

    def wake(self, turn: Turn | None) -> None:
        """End the wait with ``turn``, for good."""
        self._turn = turn
        self._woken.set()


class FullQueues:
    """The full queues of a waiting room. Iterates in the order of arrival of their first calls.

    Each call that comes or goes changes one queue, and each call that ends asks for the first.
    Neither may cost more with more queues than a shift in an array.
    """

    def __init__(self) -> None:
        self._order: list[tuple[int, CallQueue]] = []
        """With the tickets of the first calls, which are all different."""
        self._known: dict[CallQueue, int] = {}
        """Tickets of the first calls."""

    def __repr__(self) -> str:
        return f"<FullQueues queues={len(self._order)}>"

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[CallQueue]:
        return (queue for _, queue in self._order)

    def __contains__(self, queue: object) -> bool:
        return queue in self._known

    @property
    def head(self) -> QueuedCall | None:
        """The call that has waited longest."""
        return self._order[0][1].head if self._order else None

    def note(self, queue: CallQueue) -> None:
        """Calls have joined or left ``queue``, or it has become full."""
        known = self._known.get(queue)
        first = queue.head.ticket if queue.full and queue else None
        if first == known:
            return
        if known is not None:
            del self._order[bisect_left(self._order, known, key=_ticket_of)]
            del self._known[queue]
        if first is not None:
            self._known[queue] = first
            insort(self._order, (first, queue))


def _ticket_of(entry: tuple[int, object]) -> int:
    return entry[0]


MAX_WIDTH = 16
"""Calls of one queue that one step may send. Bounds what is wasted when the capacity is gone before
the first refusal has come back."""


JITTER = (0.75, 1.25)
"""Range of the random factor on the pause between two steps."""


class RetryBackoff:
    """When the calls of one queue may probe the runners although no capacity was reported. Pure.

    The first call of the queue probes after ``base`` seconds, then after twice as long each time,
    up to ``limit``, as long as it is refused. If it was not refused by the time of the next step,
    there is capacity: then the pauses become short again, and more calls probe with each step, so
    that a hundred free slots are found in a few steps. All times are seconds of one clock, given by
    the caller. ``rng`` draws the jitter, so that load balancers don't probe at the same moments.
    """

    def __init__(self, base: float, limit: float, rng: random.Random) -> None:
        self._base = base
        self._limit = limit
        self._rng = rng
        self._refused = True
        self._width = 1
        self._lost = 0
        self.interval = base
        """Seconds until the next step, before jitter."""
        self.next_at = -math.inf
        """The time of the next step."""

    def __repr__(self) -> str:
        return f"<RetryBackoff interval={self.interval} width={self._width} lost={self._lost}>"

    def begin(self, now: float) -> None:
        """A queue that was empty has a waiting call, which has just been refused.

        What was learned before counts as long as the next step is still to come.
        """
        if now >= self.next_at:
            self._refused, self._width, self._lost = True, 1, 0
            self.interval = self._base
            self._plan(now)

    def forget(self) -> None:
        """Forget what was learned before the queue begins the next time."""
        self._refused = True
        self.next_at = -math.inf

    def step(self, now: float) -> int:
        """The number of calls that may probe now, at least 1."""
        if not self._refused:
            self.interval = self._base
            self._width = min(2 * self._width, MAX_WIDTH)
        count = self._width + self._lost
        self._refused, self._lost = False, 0
        self._plan(now)
        return count

    def refuse(self, now: float, hint: float = 0.0) -> None:
        """A call of a step was refused by all runners. ``hint`` says after how many seconds to come
        back at the earliest. The refusals of one step count once."""
        if not self._refused:
            self._refused, self._width = True, 1
            self.interval = min(2 * self.interval, self._limit)
            self._plan(now, hint)

    def lose(self, now: float) -> None:
        """A runner refused a call that was sent there because it had capacity: another call was
        quicker, or the runner is not ready yet. Another try soon is worthwhile."""
        self._refused = True
        self._lost = min(self._lost + 1, MAX_WIDTH)
        self.interval = self._base
        self.next_at = min(self.next_at, now + self._base * self._rng.uniform(*JITTER))

    def _plan(self, now: float, hint: float = 0.0) -> None:
        self.next_at = now + max(self.interval * self._rng.uniform(*JITTER), hint)


MAX_RUN_SECONDS = 0.5
"""Functions whose calls run longer on average gain nothing by waiting on a runner."""

SHORT_RUN_SECONDS = 0.01
"""Calls that run no longer need not wait here until a call has ended. They are over so quickly that
it matters little on which runner they wait, and waiting here first costs more than it brings."""

RUNS = 4.0
"""Mean run times that a call may wait for its turn on a runner."""


class RunnerBacklog:
    """The calls of one queue that are at each runner, by its address.

    A call is sent to where a hot container is about to be free, so that the container does not idle
    while the answer of one call and the next call travel. One call may wait behind each hot
    container of a runner that says so (`LoadHint.slots`), and is next there. Such a call can't go
    to another runner any more, so only short calls are sent ahead, and only while all waiting calls
    have the same needs.
    """

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._shares: dict[str, int] = {}
        self._starting: dict[str, int] = {}
        self._runners: dict[str, Runner] = {}
        self._in_flight: dict[str, int] = {}
        self.behind = 0
        """Calls that wait on runners, for the end of another call or for a container that
        starts."""

    def __bool__(self) -> bool:
        """Whether a call is at any runner."""
        return bool(self._in_flight)

    def __repr__(self) -> str:
        return f"<RunnerBacklog in_flight={sum(self._in_flight.values())}>"

    def learn(self, runner: Runner, slots: int, share: int = 0, starting: int = 0) -> None:
        """``runner`` has ``slots`` containers behind which calls may wait, and starts others.
        ``share`` calls may be there at once because other load balancers want in; 0 = none does."""
        address = runner.address
        self._runners[address] = runner
        calls = self._in_flight.get(address, 0)
        self.behind -= _beyond(calls, self._slots.get(address, 0))
        self.behind += _beyond(calls, slots)
        self._slots[address] = slots
        if starting:
            self._starting[address] = starting
        elif self._starting:
            self._starting.pop(address, None)
        if share:
            self._shares[address] = share
        elif self._shares:
            self._shares.pop(address, None)

    def forget(self) -> None:
        """Forget what is known of the runners. No call is left at any."""
        self.behind = 0
        self._slots.clear()
        self._shares.clear()
        self._starting.clear()
        self._runners.clear()

    def begin(self, address: str) -> None:
        """A call goes to the runner."""
        calls = self._in_flight[address] = self._in_flight.get(address, 0) + 1
        if calls > self._slots.get(address, calls) > 0:
            self.behind += 1

    def end(self, address: str) -> None:
        """The call has left the runner."""
        left = self._in_flight.get(address, 0) - 1
        if left >= self._slots.get(address, left + 1) > 0:
            self.behind -= 1
        if left:
            self._in_flight[address] = left
        else:
            del self._in_flight[address]

    def in_flight(self, address: str) -> int:
        """Calls that are at the runner, or have a turn there."""
        return self._in_flight.get(address, 0)

    def containers(self, starting: int) -> int:
        """Containers that the calls use, as far as is known, without the containers that
        ``starting`` calls have started."""
        reported = own = 0
        for address, calls in self._in_flight.items():
            slots = self._slots.get(address, 0)
            reported += slots
            own += 0 if slots else calls
        return reported + max(0, own - starting)

    def starting(self) -> int:
        """Containers that start on the runners, as they last reported."""
        return sum(self._starting.values()) if self._starting else 0

    def reported(self) -> int:
        """Containers that the calls use, if all runners with calls report how many; else 0."""
        slots = [self._slots.get(address, 0) for address in self._in_flight]
        return sum(slots) if all(slots) else 0

    def share(self, address: str) -> int:
        """Calls that may be at the runner at once, because other load balancers want in; 0 = none
        does."""
        return self._shares.get(address, 0) if self._shares else 0

    def may_join(self, address: str) -> bool:
        """Whether other load balancers have more calls there, where calls may wait."""
        return self.in_flight(address) < self.share(address)

    def may_send(self, address: str) -> bool:
        """Whether one more call may go to the runner when a call has ended there. The ended call
        still counts, and so does the call that its place was offered to."""
        limit = self.share(address) or 2 * self._slots.get(address, 0)
        return self.in_flight(address) - 1 < limit

    def shortest(self) -> Runner | None:
        """The runner with the fewest calls for its containers, of those that may take one more."""
        best, least = None, math.inf
        for address, slots in self._slots.items():
            calls = self._in_flight.get(address, 0)
            if slots and calls < (self.share(address) or 2 * slots) and calls < least * slots:
                best, least = self._runners[address], calls / slots
        return best

    def max_wait(self, address: str, run_seconds: float) -> float:
        """Seconds that a call may wait at the runner; 0 = not at all. ``run_seconds`` is the mean
        time that such calls run, 0 = not known: they may be short."""
        if not self._slots.get(address) or run_seconds > MAX_RUN_SECONDS:
            return 0.0
        return RUNS * run_seconds or MAX_RUN_SECONDS


def _beyond(calls: int, slots: int) -> int:
    """Calls that have none of the ``slots``; 0 if nothing is known."""
    return max(0, calls - slots) if slots else 0
