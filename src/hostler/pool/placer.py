"""Placer: one call walks the runners, waits, or gives up."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import TypeVar

import attrs
import structlog
import trio

from .._concurrency.nurseries import is_cancellation
from ..abc import LoadListener, Placed, Placer, Runner, RunnerCall, RunnerPool
from ..config import PlacerConfig
from ..errors import FunctionError, ServerBusy
from ..metrics import LBMetrics, default_metrics
from ..models import Call
from ..protocol import LoadHint
from .attempts import Attempter, AttemptTracker, Candidates, Hedging, Search
from .load_tracker import MAX_NEEDS, CallNeed, LoadTracker
from .runner_set import RunnerSets
from .waiting_room import CallQueue, QueuedCall, RetryBackoff, Turn, WaitingRoom

JITTER = (0.75, 1.25)
"""Range of the random factor on the pause between sweeps."""

PROBES = 2
"""Runners that say that they are full which a call that waits tries all the same, now and then:
the room that they have for a moment between two calls is never told."""

MIB = 2**20


@attrs.frozen(kw_only=True)
class PlacerStatistics:
    """Calls under way in a placer, and how many of them wait for a runner."""

    calls: int
    waiting: int


class SweepPlacer(Placer, LoadListener):
    """Tries the runners of the pool in some order; calls that none takes wait in line.

    A placer of your own is a subclass with an `order`. ``metrics`` are the process's own by
    default. ``rng`` is where jitter and random orders come from; tests give a seeded one.
    """

    def __init__(
        self,
        config: PlacerConfig | None = None,
        *,
        metrics: LBMetrics | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config or PlacerConfig()
        self._metrics = metrics or default_metrics()
        self.rng = rng or random.Random()  # noqa: S311  (spreads load, protects nothing)
        self._rooms: dict[int, WaitingRoom] = {}
        self._left: tuple[RunnerPool, WaitingRoom] | None = None
        """The room that all calls have left last: the next one most often comes back to it."""
        self._placements: set[Placement] = set()
        self._closed = False
        self._hedging = Hedging(self._config.hedge_quantile, self._config.hedge_percent)
        self._waits_for_room = True
        self.loads = LoadTracker()
        """What is known of the runners' load."""
        self._tracker = AttemptTracker(self._metrics, self.loads)
        self._attempter = Attempter(self._tracker, self._hedging, self._config)
        self._at_once = (
            self.at_once if _knows_first(type(self)) else partial(SweepPlacer.at_once, self)
        )
        self.fleets = RunnerSets()
        """The lists of runners that the pools have given."""

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<{type(self).__name__} {state} {self.statistics()}>"

    @property
    def config(self) -> PlacerConfig:
        return self._config

    @abstractmethod
    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterable[Runner]:
        """The order in which a sweep tries ``runners``, which are not empty: each once.
        Synchronous.

        Called once per sweep; an iterator is only asked on after a runner did not take the call.
        """

    def at_once(
        self, call: RunnerCall, need: CallNeed, runners: Sequence[Runner], now: float
    ) -> Runner | None:
        """The first of `order`, if it is found without that, and no reason is known why it should
        refuse ``call``; ``None``, as by default, if it is not. Asked once per sweep, only then is
        `order`. Who inherits it and has another `order` is not asked.
        """
        return None

    def waits(self, call: RunnerCall, need: CallNeed, now: float) -> bool:
        """Whether ``call``, which is new, shall rather wait for a container that another call of
        its function has now than have one started, as long as the function's `LaunchPolicy` says
        so."""
        return False

    def forbearance(self, need: CallNeed) -> float:
        """Seconds for which a call that is new should rather wait than have hot containers evicted
        that are worth keeping."""
        return 0.0

    def statistics(self) -> PlacerStatistics:
        """The calls that it has now. Synchronous."""
        return PlacerStatistics(
            calls=len(self._placements),
            waiting=sum(room.waiting for room in self._rooms.values()),
        )

    async def place_call(self, pool: RunnerPool, call: RunnerCall) -> None:
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise ServerBusy
        config = self._config
        detached = call.model.type == "detached"
        seconds = config.detached_placer_timeout if detached else config.placer_timeout
        need, now = need_of(call), trio.current_time()
        gentle_until = now + self.forbearance(need)
        room = self._rooms.get(id(pool)) or self._open_room(pool)
        line = room.use(need.key)
        line.need = need
        line.policy = policy = self.loads.policies.of(need)
        line.patience = policy.patience
        placement = Placement(
            self,
            pool,
            call,
            need,
            room,
            line,
            now,
            now + seconds,
            gentle_until,
            self._waits_for_room,
        )
        self._placements.add(placement)
        try:
            await placement.run()
        finally:
            self._placements.discard(placement)
            if room.leave(need.key, line):
                self._left = pool, self._rooms.pop(id(pool))

    def _order_of(
        self, placement: Placement, runners: Sequence[Runner], tried: Runner | None
    ) -> Iterable[Runner]:
        """The order of a sweep without the runners that would certainly refuse the call, and
        without the one that was ``tried`` before it was asked for."""
        if not runners:
            return ()
        room, need, probes, now = placement.room, placement.need, 0, trio.current_time()
        # The one that has waited longest probes for all; and who has nothing there, at once.
        if (placement.sweeps > 1 or not placement.line.ahead) and room.is_first(placement.ticket):
            probes = self._probes(room, now)
        gentle = now < placement.gentle_until
        if tried is None and self._all_full(need, runners, now, gentle=gentle):
            return self._unheld(self.rng.sample(runners, min(probes, len(runners))), now)

        begins = True

        def is_full(runner: Runner) -> bool:
            nonlocal begins
            at, begins = now if begins else trio.current_time(), False
            return self._is_full(need, runner, at, gentle=gentle)

        order = self.order(placement.call, runners)
        if tried is not None:
            order = (runner for runner in order if runner is not tried)
        return without(self._unheld(order, now), is_full, probes)

    def stop_waiting(self) -> None:
        self._waits_for_room = False
        for placement in tuple(self._placements):
            placement.stop_waiting()

    def _is_full(self, need: CallNeed, runner: Runner, now: float, *, gentle: bool) -> bool:
        return self.loads.is_full(runner.address, need, now, gentle=gentle)

    def _is_full_for(self, runner: Runner, line: CallQueue) -> bool:
        return self._is_full(line.need, runner, trio.current_time(), gentle=line.gentle)

    def _unheld(self, runners: Iterable[Runner], now: float) -> Iterator[Runner]:
        """Not even a probe is to take what was left to others."""
        return (runner for runner in runners if not self.loads.is_held(runner.address, now))

    def _probes(self, room: WaitingRoom, now: float) -> int:
        """How many runners may be tried now although they say that they are full."""
        if now < room.probe_at:
            return 0
        room.probe_at = now + self._config.retry_max_delay
        return PROBES

    def _all_full(
        self, need: CallNeed, runners: Sequence[Runner], now: float, *, gentle: bool
    ) -> bool:
        """Whether `_is_full` is certainly true of all, found out without asking for each."""
        if not self.loads.all_full(need, now, gentle=gentle):
            return False
        fleet, known = self.fleets.of(runners), self.loads.tellers
        if fleet.all_tell_since != known:
            fleet.all_tell_since = known if self.loads.all_tell(fleet.addresses) else None
        return fleet.all_tell_since == known

    def note_load(self, pool: RunnerPool, runner: Runner, hint: LoadHint | None) -> None:
        self.loads.note(runner.address, hint, trio.current_time())
        room = self._rooms.get(id(pool))
        if room is not None and hint is not None:
            if self.loads.is_held(runner.address, trio.current_time()):
                return
            free_cpus = math.inf if hint.free_cpus is None else hint.free_cpus
            memory = hint.free_memory + hint.reclaimable_memory
            cpus = free_cpus + hint.reclaimable_cpus
            room.fill(runner, memory, cpus, worthy=(hint.worthy_memory, hint.worthy_cpus))
            if hint.warm:
                room.wake_hot(runner, self._warm_at(runner))

    def _warm_at(self, runner: Runner) -> Callable[[CallQueue], int]:
        now = trio.current_time()
        return lambda line: self.loads.warm_count(runner.address, line.need, now)

    def close(self) -> None:
        self._closed = True
        for placement in tuple(self._placements):
            placement.refuse()

    def _open_room(self, pool: RunnerPool) -> WaitingRoom:
        """The waiting room of ``pool``, which is there as long as calls are under way."""
        if self._left is not None and self._left[0] is pool:
            room = self._left[1]
        else:
            room = self._make_room()
            pool.add_load_listener(self)
        self._rooms[id(pool)] = room  # the caller holds the pool: no other has this id
        return room

    def _make_room(self) -> WaitingRoom:
        return WaitingRoom(
            self._make_ladder, is_full=self._is_full_for, max_wait=self._config.max_wait
        )

    def _make_ladder(self) -> RetryBackoff:
        config = self._config
        return RetryBackoff(
            config.retry_all_delay, config.retry_max_delay, lambda: self.rng.uniform(*JITTER)
        )


def _knows_first(placer: type[SweepPlacer]) -> bool:
    """Whether its `SweepPlacer.at_once` is about its own order."""
    for each in placer.__mro__:
        if "at_once" in vars(each):
            return True
        if "order" in vars(each):
            return False
    return False


def need_of(call: RunnerCall) -> CallNeed:
    """What a runner must have room for. Calls that need the same stand in one line.

    Extensions are left out: only a driver knows which of them make another container.
    """
    model: Call = call.model
    return _need(
        call.slot_hash_id,
        model.fn_id,
        model.image,
        model.memory,
        model.tmpfs_size,
        model.cpus,
        model.idle_timeout,
    )


@lru_cache(maxsize=MAX_NEEDS)
def _need(
    slot_hash_id: bytes | None,
    fn_id: str,
    image: str,
    memory: int,
    tmpfs_size: int,
    cpus: int,
    idle_timeout: int,
) -> CallNeed:
    return CallNeed(
        # (A text remembers its hash, and each call looks for its kind at a dozen places.)
        repr((slot_hash_id, fn_id, image, memory, tmpfs_size, cpus)),
        memory=(memory + tmpfs_size) * MIB,
        idle_seconds=idle_timeout,
        cpus=cpus,
    )


log = structlog.get_logger(__name__)

USELESS = 502
"""The code of a pool's `FunctionError` that says: asking again is useless."""

PRUDENCE = 1.02
"""Factor on the expected wait: rather refuse at once than after the client's patience is over."""

RUN_PRUDENCE = 1.5
"""Factor on the mean run time that a call's client has to have left when a runner takes it."""


class Placement(Search):
    """Places one call. Made for one `run`, in the task of the call."""

    sweeps = 0
    _waiter: QueuedCall | None = None
    _stood = False
    """It has stood in line."""
    _pool_error: Exception | None = None

    def __init__(
        self,
        placer: SweepPlacer,
        pool: RunnerPool,
        call: RunnerCall,
        need: CallNeed,
        room: WaitingRoom,
        line: CallQueue,
        now: float,
        deadline: float,
        gentle_until: float,
        waits_for_room: bool,
    ) -> None:
        super().__init__(call, need, room, line, now, deadline, gentle_until)
        self._placer = placer
        self._pool = pool
        self.ticket = room.ticket()
        """The call's place in the order of arrival."""
        self._waits_for_room = waits_for_room
        self._asked_at = now
        """When the pool gave its list."""

    def refuse(self) -> None:
        super().refuse()
        if self._waiter is not None and not self._waiter.woken:
            self._waiter.wake(None)

    def stop_waiting(self) -> None:
        """Give up at once if the call waits for room, or as soon as it would have to."""
        self._waits_for_room = False
        if not self._may_wait and self._waiter is not None and not self._waiter.woken:
            self._waiter.wake(None)

    @property
    def _may_wait(self) -> bool:
        """In a drain, too, for a busy container of its function whose runs are known: it is free in
        a moment. Room may never be."""
        line = self.line
        return self._waits_for_room or not line.full or bool(line.ahead and line.policy.run_seconds)

    async def run(self) -> None:
        """See the call through. Raises what ends it, see `hostler.abc.Placer`."""
        line = self.line
        outcome: Placed | None = None
        try:
            if (turn := self._first_turn(self.arrived)) is not None:
                tries_all = turn.runner is None and not turn.launch
                outcome = await (self._sweep(self.arrived) if tries_all else self._use(turn))
            while outcome is None:
                outcome = await self._use(await self._turn())
        except BaseException as error:
            now = trio.current_time()
            line.turned_away(now)
            if self._stood and self._is_untold and is_cancellation(error):
                until = self.attempt_at if self.is_committed else now
                line.client_left(until - self.arrived, ran=now - until)
            self._placer._tracker.ended(self, error, now)
            raise
        now = self.left_at
        line.served()
        if self._stood and outcome.error is None:
            line.patience.bore(self.attempt_at - self.arrived, now)
        self._placer._tracker.ended(self, outcome.error, now)
        if outcome.error is not None:
            raise outcome.error

    def _first_turn(self, now: float) -> Turn | None:
        """What the call may try before it waits; ``None`` = it has to wait."""
        line = self.line
        if not self._may_wait:
            return Turn()
        if line.full:
            # Behind others that ask for the same there is nothing to be had before them.
            return None if line.waiters else Turn()
        if not self._is_for_line(now):
            return Turn()
        return Turn(launch=True) if line.grow(now, coming=1) else line.go_ahead()

    def _is_for_line(self, now: float) -> bool:
        """Whether it has to wait for one of its function's containers, all of which are busy."""
        line = self.line
        return bool(not line.full and line.ahead and self._placer.waits(self.call, self.need, now))

    async def _turn(self) -> Turn:
        """Wait for the next turn, or raise the error of a call that gives up."""
        if not self.call.body.replayable:
            log.warning("call can't be tried again, its body is gone", call_id=self.call.model.id)
            raise ServerBusy
        if self._may_wait and not self.over(trio.current_time()):
            size = len(self.call.body.data or b"")
            if self._stood and (turn := self._turn_again()) is not None:
                return turn
            self._admit(size)
            self._waiter = waiter = QueuedCall(
                self.line,
                self.ticket,
                self.arrived,
                self.deadline,
                gentle_until=self.gentle_until,
                untold=self._is_untold,
            )
            try:
                with self.room.holding(size):
                    turn = await waiter.wait()
            finally:
                self._waiter = None
            if turn is not None:
                return turn
            if waiter.refusal is not None:
                self._placer._tracker.turned_away()
                raise waiter.refusal
        raise self._surrender()

    def _turn_again(self) -> Turn | None:
        """What a refused call may try before it waits again, in a line that is not full."""
        line, now = self.line, trio.current_time()
        if line.full:
            return None
        if not line.ahead:
            return Turn()
        return Turn(launch=True) if line.grow(now, coming=1) else None

    @property
    def _is_untold(self) -> bool:
        """Whether its client has not said how long it waits."""
        return self.call.deadline == math.inf

    def _admit(self, size: int) -> None:
        """Raise `ServerBusy` if this call is not to wait: too many do, or its turn would come
        too late. Nobody is sent away who has waited before."""
        if self._stood:
            return
        now, config, line = trio.current_time(), self._placer._config, self.line
        # A call that a runner takes too late is cut there, which costs its container.
        least = line.policy.run_seconds * RUN_PRUDENCE
        self.deadline = min(self.deadline, self.call.deadline - least)
        expected = line.expected_wait(now)
        crowded = (
            self.room.is_crowded(config.max_waiting)
            or self.room.held_bytes + size > config.max_waiting_bytes
        )
        too_late = now + expected * PRUDENCE > self.deadline
        too_long = self._is_untold and line.is_too_long(len(line) + 1, now)
        if crowded or too_late or too_long:
            self._placer._tracker.turned_away()
            raise ServerBusy.after(expected or None)
        self._stood = True
        self.call.waited = line.full

    def _surrender(self) -> Exception:
        if self.refused or not self._may_wait:
            return ServerBusy()
        self._placer._tracker.timed_out(by_request=self.deadline < self.placers_deadline)
        if self._pool_error is not None:
            self._placer._tracker.pool_failed()
            return self._pool_error
        return ServerBusy()

    async def _use(self, turn: Turn) -> Placed | None:
        placed: Placed | None = None
        line = self.line
        # Whoever has waited for room uses what there is, unless more containers are no help.
        room = line.full and turn.hot is not line and not line.policy.has_failed
        self.call.launch = turn.launch or room
        self.room.trying.add(self)
        self.starts = turn.launch
        try:
            if turn.runner is None:
                placed = await self._sweep(trio.current_time())
            else:
                placed = await self._try_freed(turn, turn.runner)
        finally:
            self.room.trying.discard(self)
            if self.starts:
                self.has_container()
                self.line.policy.failed()
        return placed

    async def _sweep(self, now: float) -> Placed | None:
        """Try each runner once."""
        hint, placer = math.inf, self._placer
        runners = await self._ask(now)
        if runners is None:
            return None
        now = self._asked_at
        self.sweeps += 1
        if not runners:
            placer._tracker.pool_empty()
            hint = 0.0
        # Nearly always this one takes the call.
        runner = first = placer._at_once(self.call, self.need, runners, now)
        candidates = Candidates(lambda: placer._order_of(self, runners, first))
        if runner is None:
            runner = next(candidates, None)
        inviting: Runner | None = None
        while runner is not None:
            outcome = await placer._attempter.attempt(self, runner, now, candidates)
            if isinstance(outcome, Placed):
                return outcome
            hint = min(hint, outcome.retry_after or 0.0)
            now = trio.current_time()
            if self.over(now) or not self.call.body.replayable:
                break
            if self.call.queue_seconds and self._is_for_line(now):
                return None  # it was not refused for want of room
            if inviting is None and placer._attempter.is_invited(self, runner):
                inviting = runner
            runner = next(candidates, None)
        else:
            if inviting is not None:
                outcome = await placer._attempter.attempt(self, inviting, now, hot=True)
                if isinstance(outcome, Placed):
                    return outcome
        if math.isinf(hint):  # all say that they are full: it is up to them to tell of room
            hint = placer._config.retry_max_delay
        # (What was tried as a gentle call may have become another meanwhile.)
        self.line.refuse(trio.current_time(), hint, gentle=self._asked_at < self.gentle_until)
        return None

    async def _try_freed(self, turn: Turn, runner: Runner) -> Placed | None:
        """Try ``runner``, where a call has ended; pass the chance on if it is not for us."""
        line, refused, absent = self.line, turn.refused, turn.absent
        used = False
        try:
            runners = await self._ask(trio.current_time())
            if runners is None:
                return None
            if runner not in runners:
                absent |= {line}
                return None
            outcome = await self._placer._attempter.attempt(
                self,
                runner,
                self._asked_at,
                counted=True,
                hot=turn.hot is line,
            )
            if isinstance(outcome, Placed):
                used = True
                return outcome
            if isinstance(outcome.reason, ServerBusy):
                refused |= {line}
                line.ladder.lose(trio.current_time())
                line.appoint()
            else:
                used = True  # it can't be reached, by nobody
            return None
        finally:
            line.left(runner.address)
            if not used and not self.is_committed:
                self.room.offer(runner, refused, absent, hot=turn.hot)

    async def _ask(self, now: float) -> Sequence[Runner] | None:
        """The pool's list; ``None`` = the time is over. A pool that fails has no runners; an
        error of the pool that is final is raised."""
        runners: Sequence[Runner] | None
        try:
            if self.over(now):
                await trio.lowlevel.checkpoint()
                return None
            runners = self._pool.runners_now(self.call)
            if runners is None:
                with self.searching() as scope:
                    runners = await self._pool.runners(self.call)
                if scope.cancelled_caught:
                    return None
                now = trio.current_time()
            self._pool_error = None
        except Exception as error:
            if isinstance(error, FunctionError) and error.code == USELESS:
                self._placer._tracker.pool_empty()
                self._placer._tracker.pool_failed()
                self.line.all_turn()
                raise
            self._pool_error = error
            runners = ()
        self._asked_at = now
        if self._pool_error is not None or self.line.pool_trouble:
            self._note_pool()
        return runners

    def _note_pool(self) -> None:
        """Tell once that the pool fails, and once that it works again."""
        trouble = "" if self._pool_error is None else repr(self._pool_error)
        if trouble == self.line.pool_trouble:
            return
        self.line.pool_trouble = trouble
        if trouble:
            log.warning("runner pool fails", error=trouble, fn_id=self.call.model.fn_id)
        else:
            log.info("runner pool works again", fn_id=self.call.model.fn_id)


T = TypeVar("T")


def without(items: Iterable[T], full: Callable[[T], bool], limit: int) -> Iterator[T]:
    """The items that are not full, then the first ``limit`` of the others. Looks at no item
    before it is asked for one more."""
    others: list[T] = []
    for item in items:
        if not full(item):
            yield item
        elif len(others) < limit:
            others.append(item)
    yield from others
