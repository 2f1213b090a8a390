"""The waiting room of a pool: where calls stand that no runner has taken yet.

Calls that ask for the same thing stand in one line, in order of arrival. A line has one of two
reasons. Where its function has containers that are busy, and its `LaunchPolicy` does not start
another, it waits for one of them. Where a call was refused everywhere it is *full*: if a runner has
no room for the first it has none for the others. A call leaves its line with a `Turn`:

* to try one runner, because a call has just ended there. The call that has waited longest in any
  full line gets it, unless one of the ended call's own kind, for which the container there is hot,
  has come at most `OVERTAKE_SECONDS` later. If it is refused (it may need more than has become
  free), the next line may try.
* to have a container started, because the policy says so: those who came last, who would have to
  wait longest for the others.
* to try all runners, because its line is full and its `Ladder` says so.

A call that was refused goes back to its place, which is that of its arrival. Nothing here waits
but `Waiter.wait`; everything else is synchronous.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from .._launch_policy import ClientPatience, LaunchPolicy
from ..abc import Runner
from ..errors import ServerBusy
from ._ahead import SHORT_RUN_SECONDS, Ahead
from ._ladder import MAX_WIDTH, Ladder
from ._occupied import Occupied
from ._waiter import Turn, Waiter
from ._warm_index import Need, drop_oldest

OVERTAKE_SECONDS = 1.0
"""A call is overtaken at most by calls that came so much later. A container that stays with its
function saves a start, for which all others would wait; more than that is not to be had by it."""
NOTHING = Need("", memory=0, idle_seconds=0)
MAX_LEFT = 1024
"""Lines that are kept without a call."""
PASS_LIMIT = 8
"""Lines that may try to use the room that one ended call has left."""


class Line:
    """The calls of one room that ask for the same thing. True if somebody stands in it."""

    def __init__(self, room: Room, ladder: Ladder) -> None:
        self._room = room
        self.waiters: list[Waiter] = []
        """In order of arrival."""
        self.ladder = ladder
        self.patience = ClientPatience()
        """Of the clients of its function; as ``policy``."""
        self.policy = LaunchPolicy()
        """Of its function; whoever uses the line sees to it."""
        self.starting = 0
        """Calls that have left it, or are about to, to have a container started."""
        self._look_at = math.inf
        """When the policy is to be asked again."""
        self.full = False
        """One of its calls was refused everywhere, and since then none was served while nobody
        waited."""
        self._stood = 0
        """Calls, when they were counted last."""
        self.ahead = Ahead()
        self.users = 0
        """Calls under way that could stand here."""
        self.need = NOTHING
        """What a call needs, in memory and CPUs unless it finds a hot container."""
        self.pool_trouble = ""
        """What the pool last said instead of a list."""
        self._hopeless = False
        """One of its calls that spared nothing was refused everywhere, and those who were first
        since spare nothing either. What has changed since then is up to the runners to tell."""

    def __repr__(self) -> str:
        return f"<Line waiting={len(self.waiters)} users={self.users} {self.ladder!r}>"

    def __len__(self) -> int:
        return len(self.waiters)

    @property
    def head(self) -> Waiter:
        return self.waiters[0]

    @property
    def gentle(self) -> bool:
        """Whether the next call is to spare what is worth keeping."""
        return bool(self) and trio.current_time() < self.head.gentle_until

    def join(self, waiter: Waiter) -> None:
        insort(self.waiters, waiter, key=_ticket)
        if len(self.waiters) > 1:
            self.waiters[1].look_at(math.inf)
        self._changed()

    def leave(self, waiter: Waiter) -> None:
        place = bisect_left(self.waiters, waiter.ticket, key=_ticket)
        if place < len(self.waiters) and self.waiters[place] is waiter:
            del self.waiters[place]
            self._changed()

    def forget(self) -> None:
        """Be as a new one. All calls have left it."""
        self.pool_trouble = ""
        self._hopeless = False
        self.full = False
        self.ladder.forget()
        self.ahead.forget()

    def advance(self) -> None:
        """Give turns if it is time for some."""
        now = trio.current_time()
        if not self.waiters:
            return
        if not self.full:
            self.grow(now)
        elif now >= self.ladder.next_at:
            self._give_turns(self.ladder.step(now))
        elif now >= self._urgent_at:
            self._give_turns(1)
        else:
            self.appoint()

    def grow(self, now: float, *, coming: int = 0) -> bool:
        """Have as many containers started as the policy says for those who wait and for ``coming``
        others, by those who came last: they would have to wait longest. Returns whether one who
        comes is among them."""
        if now < self._look_at < math.inf and self.policy.has_failed and self.ahead:
            return False  # until then nobody gets one, however many there are
        others = coming
        self.policy.waits(self._unserved + coming, now)
        while count := self._launches(now, others):
            self.starting += count
            while count and others:
                others, count = others - 1, count - 1
            for _ in range(count):
                self._wake(-1, Turn(launch=True))
        if others < coming:
            self.policy.waits(self._unserved + others, now)
        self._look_at = self.policy.look_at
        self.appoint()
        return others < coming

    def go_ahead(self) -> Turn | None:
        """The turn of one who comes while nobody waits, if its call is so short that it need not
        wait here."""
        run = self.policy.run_seconds
        if self.waiters or self.full or not 0 < run <= SHORT_RUN_SECONDS or self._room.occupied:
            return None
        runner = self.ahead.shortest()
        if runner is None:
            return None
        self.ahead.begin(runner.address)
        return Turn(runner, hot=self)

    def _launches(self, now: float, coming: int) -> int:
        able = len(self.waiters) + coming
        starting = max(self.starting, self.ahead.starting())
        return self.policy.launches(
            now,
            waiting=able + max(starting, self.ahead.behind),
            alive=self.ahead.containers(self.starting),
            starting=starting,
            able=able,
        )

    @property
    def _unserved(self) -> int:
        """Calls that wait without a container, here or behind others on runners."""
        behind = self.ahead.behind - self.starting if self.waiters else 0
        return len(self.waiters) + max(0, behind)

    def expected_wait(self, now: float) -> float:
        """Seconds until a call that comes now will probably have left the line; 0 = not known, or
        not to be foreseen, as more containers may be started."""
        containers = self._containers
        if containers is None:
            return 0.0
        return self.policy.wait_for(len(self.waiters) + 1, containers, now)

    def is_too_long(self, calls: int, now: float) -> bool:
        """Whether the last of so many calls would wait for longer than clients do that don't say
        how long they wait."""
        containers = self._containers
        if containers is None:
            return False
        return self.policy.moves_for(calls, containers) > self._longest_wait(now)

    def _longest_wait(self, now: float) -> float:
        most = self._room.max_wait
        if self.policy.run_seconds >= most:  # they bear more than that anyhow
            most = math.inf
        return min(most, self.patience.bound(now))

    @property
    def _containers(self) -> int | None:
        """Those that serve the line and those on their way, 0 = nobody knows; ``None``, if it is
        not to be foreseen, as more may be started."""
        if not self.full and not self.policy.has_failed:
            return None
        told = self.ahead.told()
        return told and told + self.starting

    def turned_away(self, now: float) -> None:
        """A call that was to come does not."""
        self.policy.waits(self._unserved, now, room=not self.full)

    def client_left(self, waited: float, *, ran: float) -> None:
        """A client that had not said how long it waits has left after ``waited`` seconds in line,
        when its call ``ran`` for so many. Those who would be served too late are refused."""
        now = trio.current_time()
        self.patience.left(waited, now, ran=ran)
        self._refuse_first(now)
        while len(self.waiters) > 1 and self.waiters[-1].untold:
            if not self.is_too_long(len(self.waiters), now):
                return
            self._refuse(-1, now)

    def _refuse_first(self, now: float) -> None:
        """Refuse the first, if they have waited for longer than clients do: each would leave while
        it is served, and so would those behind it, which come as much later."""
        bound = self.patience.bound(now)
        while len(self.waiters) > 1 and self.head.untold and now - self.head.arrived > bound:
            self._refuse(0, now)

    def _refuse(self, place: int, now: float) -> None:
        waiter = self.waiters.pop(place)
        self._changed()
        waiter.refusal = ServerBusy.after(self.expected_wait(now) or None)
        waiter.wake(None)

    def left(self, address: str) -> None:
        """A call of it has left the runner."""
        self.ahead.end(address)
        self._stir()

    def _stir(self) -> None:
        """If nobody is left whose end would wake those who wait, let the first look for a place."""
        if self.waiters and not self.full and not self.ahead:
            self._give_turns(1)

    def all_turn(self) -> None:
        """Let everybody try: what they all wait for has been decided."""
        self._give_turns(len(self.waiters))

    def give_turn(self, turn: Turn) -> None:
        """Let the head try with ``turn``."""
        if turn.runner is not None:
            self.ahead.begin(turn.runner.address)
        self._refuse_first(trio.current_time())
        self._wake(0, turn)

    def _wake(self, place: int, turn: Turn) -> None:
        waiter = self.waiters.pop(place)
        self._changed()
        waiter.wake(turn)

    def hand_on(self, turn: Turn) -> None:
        """``turn`` was not used up by the call that had it."""
        if turn.launch:
            self.starting -= 1
            self.policy.failed()
            self.advance()
        elif turn.runner is None:
            self._stir()
        if turn.runner is not None:
            self.left(turn.runner.address)
            self._room.offer(turn.runner, turn.refused, turn.absent, hot=turn.hot)

    def appoint(self) -> None:
        """Make the head look after the line."""
        if self.waiters:
            at = min(self.ladder.next_at, self._urgent_at) if self.full else self._look_at
            self.head.look_at(at)

    def refuse(self, now: float, hint: float, *, gentle: bool) -> None:
        """No runner has taken a call of it; see `Ladder.refuse`."""
        if not gentle and not self.gentle:
            self._hopeless = True
        self.ladder.refuse(now, hint)
        if not self.full:
            self.full = True
            self.ladder.begin(now)
            if self.waiters:
                self._changed()
        self.appoint()

    def served(self) -> None:
        """One of its calls has found a place, and left it by now."""
        if not self.waiters:
            self.full = False

    @property
    def _urgent_at(self) -> float:
        """When the head is to try in any case."""
        return math.inf if self._hopeless else self.head.urgent_at

    def _give_turns(self, count: int) -> None:
        turns, self.waiters[:count] = self.waiters[:count], []
        self._changed()
        for waiter in turns:
            waiter.wake(Turn())

    def _changed(self) -> None:
        """Somebody came or went."""
        now, count = trio.current_time(), len(self.waiters)
        self._room.waiting += count - self._stood
        self._stood = count
        if not self.waiters or (self._hopeless and self.gentle):
            self._hopeless = False
        self.policy.waits(self._unserved, now, room=not self.full)
        if count and not self.full:
            self._room.hot.add(self)
        else:
            self._room.hot.discard(self)
        self._room.occupied.note(self)
        self.appoint()


def _ticket(waiter: Waiter) -> int:
    return waiter.ticket


class Placeable(Protocol):
    """A call, as far as a room has to know it."""

    @property
    def is_committed(self) -> bool:
        """A runner has it, or may have it: one that takes no reservations and has not refused."""
        ...


class Room:
    """All lines of the calls of one pool.

    ``make_ladder`` makes that of a new line; ``is_full`` tells whether a runner would certainly
    refuse a line's calls.
    """

    def __init__(
        self,
        make_ladder: Callable[[], Ladder],
        *,
        is_full: Callable[[Runner, Line], bool] = lambda runner, line: False,
        max_wait: float = math.inf,
    ) -> None:
        self._make_ladder = make_ladder
        self._is_full = is_full
        self.max_wait = max_wait
        """Seconds that a call may expect to wait if its client does not say how long it does."""
        self.probe_at = -math.inf
        """When runners that say that they are full may be tried again."""
        self._lines: dict[Hashable, Line] = {}
        self._left: OrderedDict[Hashable, Line] = OrderedDict()
        """Those that were left last, for their next calls, the oldest first: to make one takes
        longer than to place a call in it."""
        self._tickets = itertools.count()
        self.occupied = Occupied()
        self.waiting = 0
        """Calls in all lines."""
        self.hot: set[Line] = set()
        """Lines that are not full, in which somebody waits for a container of its function."""
        self.held_bytes = 0
        """Of the bodies of calls that wait."""
        self.trying: set[Placeable] = set()
        """Calls that have left their lines to try a runner."""

    def __repr__(self) -> str:
        return f"<Room waiting={self.waiting} lines={len(self._lines)}>"

    def is_crowded(self, limit: int) -> bool:
        """Whether ``limit`` calls or more wait for a runner to take them, in their lines or, for a
        moment, before a runner that may send them back there."""
        if self.waiting + len(self.trying) < limit:
            return False
        return self.waiting + sum(not call.is_committed for call in self.trying) >= limit

    @property
    def unused(self) -> bool:
        """Whether no call is under way that could use the room."""
        return not self._lines

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """A call with a body of ``size`` bytes in memory waits in the block."""
        self.held_bytes += size
        try:
            yield
        finally:
            self.held_bytes -= size

    def ticket(self) -> int:
        """A place in the order of arrival."""
        return next(self._tickets)

    def use(self, key: Hashable) -> Line:
        """The line of ``key``, which is there until as many have left it by `leave`."""
        line = self._lines.get(key)
        if line is None:
            line = self._left.pop(key, None)
            if line is None:
                line = Line(self, self._make_ladder())
            self._lines[key] = line
        line.users += 1
        return line

    def leave(self, key: Hashable, line: Line) -> bool:
        """Whether the room is `unused` now."""
        line.users -= 1
        if line.users:
            return False
        del self._lines[key]
        line.forget()
        self._left[key] = line
        drop_oldest(self._left, MAX_LEFT)
        if self._lines:
            return False
        self.probe_at = -math.inf
        return True

    @contextmanager
    def line(self, key: Hashable) -> Iterator[Line]:
        """The same as a block."""
        line = self.use(key)
        try:
            yield line
        finally:
            self.leave(key, line)

    def offer(
        self,
        runner: Runner,
        refused: frozenset[Line] = frozenset(),
        absent: frozenset[Line] = frozenset(),
        *,
        hot: Line | None = None,
    ) -> None:
        """There may be room at ``runner``: let the call try that has waited longest, except in
        the lines that were ``refused`` there, or to which it is ``absent``. ``hot`` is the line of
        the call that has ended there, and left a hot container: its own next call has precedence,
        within limits."""
        passed = refused | absent
        if hot is not None and hot not in passed and self._may_go_first(hot):
            hot.give_turn(Turn(runner, refused, absent, hot))
            return
        if not self.occupied or len(passed) >= PASS_LIMIT:
            return
        fitting = (
            line
            for line in self.occupied
            if line not in absent
            and not _is_hopeless(line, refused)
            and not self._is_full(runner, line)
        )
        if (oldest := next(fitting, None)) is not None:
            oldest.give_turn(Turn(runner, refused, absent, hot))

    def freed(self, runner: Runner, line: Line, *, leave: bool = False) -> None:
        """A call of ``line`` has ended at ``runner``, see `offer`. ``leave``: its place is for
        other LBs (`LoadHint.leave`)."""
        if leave or not self.waiting:
            return
        ahead, address = line.ahead, runner.address
        if (share := ahead.share(address)) and ahead.in_flight(address) > share:
            return
        self.offer(runner, hot=line)
        self.send_ahead(runner, line)

    def alone(self, line: Line) -> bool:
        """Whether nobody waits for room in another line than ``line``."""
        return not self.occupied or (len(self.occupied) == 1 and line in self.occupied)

    def send_ahead(self, runner: Runner, line: Line) -> None:
        """A call of ``line`` has ended at ``runner``, and its place was offered: let one more go
        there as long as there may be a next one behind each that runs."""
        if line and self.alone(line) and line.ahead.may_send(runner.address):
            line.give_turn(Turn(runner, hot=line))

    def fill(
        self,
        runner: Runner,
        memory: int,
        cpus: float = math.inf,
        *,
        worthy: tuple[int, int] = (0, 0),
    ) -> None:
        """``runner`` has ``memory`` bytes and ``cpus`` milli-CPUs for new containers, of which
        gentle calls don't get those of ``worthy``: let those try who have waited longest and need
        no more than that together."""

        def fits(line: Line) -> bool:
            spared = worthy if line.gentle else (0, 0)
            return line.need.memory <= memory - spared[0] and line.need.cpus <= cpus - spared[1]

        for _ in range(MAX_WIDTH):
            if (oldest := next(filter(fits, self.occupied), None)) is None:
                return
            memory -= oldest.need.memory
            cpus -= oldest.need.cpus
            oldest.give_turn(Turn(runner))

    def wake_hot(self, runner: Runner, idle: Callable[[Line], int]) -> None:
        """``runner`` tells of hot containers that nobody uses, which others' calls may have left:
        ``idle`` of each line."""
        for line in tuple(self.hot):
            for _ in range(min(idle(line), len(line))):
                line.give_turn(Turn(runner, hot=line))

    def is_first(self, ticket: int) -> bool:
        """Whether nobody in any line has waited longer than the call with ``ticket``."""
        head = self.occupied.head
        return head is None or ticket < head.ticket

    def _may_go_first(self, line: Line) -> bool:
        """Whether somebody waits there whom nobody has waited for much longer than."""
        if not line:
            return False
        oldest = self.occupied.head
        return oldest is None or line.head.arrived <= oldest.arrived + OVERTAKE_SECONDS


def _is_hopeless(line: Line, refused: frozenset[Line]) -> bool:
    """Whether a runner that has ``refused`` calls of these lines has no room for ``line``: it
    needs as much as one of them. If it is gentle no more, they may have been."""
    if line not in refused and not line.gentle and any(other.gentle for other in refused):
        return False
    return any(
        line.need.memory >= other.need.memory and line.need.cpus >= other.need.cpus
        for other in refused
    )
