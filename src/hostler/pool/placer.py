"""Placer: sees one call through: tries runners, has the call wait, or gives up."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial

import attrs
import structlog
import trio

from .._concurrency.nurseries import is_cancellation
from .._fast import FastPool, fast_way
from ..abc import LoadListener, NotPlaced, Placed, Placer, Runner, RunnerCall, RunnerPool
from ..config import PlacerConfig
from ..errors import FunctionError, NoRunnerReached, ServerBusy
from ..metrics import LBMetrics, default_metrics
from ..models import Call
from ..protocol import LoadHint
from .attempts import Attempter, AttemptTracker, Hedging, Placement, Sweep
from .load_tracker import MAX_NEEDS, CallNeed, LoadTracker
from .runner_set import RunnerSets
from .waiting_room import QueuedCall, Turn, WaitingRoom

log = structlog.get_logger(__name__)

PROBES = 2
"""Runners without reported capacity that a waiting call tries now and then all the same. A runner's
capacity between two calls is too short-lived to be reported."""

MIB = 2**20


NO_RETRY_CODE = 502
"""The code of a pool's `FunctionError` that says: asking again is useless."""

WAIT_MARGIN = 1.02
"""Factor on the expected wait. A call is refused at once rather than after its client's patience is
over."""

RUN_MARGIN = 1.5
"""Factor on the mean run time. A call waits only if its client then has this much time left for the
run."""


@attrs.frozen(kw_only=True)
class PlacerStatistics:
    """Calls under way in a placer, and how many of them wait for a runner."""

    calls: int
    waiting: int


class SweepPlacer(Placer, LoadListener):
    """Tries the runners of the pool in some order. Calls that no runner takes wait in a queue.

    A placer of your own is a subclass with an `order`. ``metrics`` are the process's own by
    default. ``rng`` is the source of jitter and random orders; tests pass a seeded one.
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
        self._waiting_rooms: dict[int, WaitingRoom] = {}
        self._left: tuple[RunnerPool, WaitingRoom] | None = None
        """The waiting room that became empty last: the next call most often comes back to it."""
        self._placements: set[Placement] = set()
        self._closed = False
        self._hedging = Hedging(self._config.hedge_quantile, self._config.hedge_percent)
        self._waits_for_room = True
        self.loads = LoadTracker()
        """What is known of the runners' load."""
        self._tracker = AttemptTracker(self._metrics, self.loads)
        self._attempter = Attempter(self._tracker, self._hedging, self._config)
        self._first_choice = (
            self.first_choice
            if _knows_first_choice(type(self))
            else partial(SweepPlacer.first_choice, self)
        )
        self.runner_sets = RunnerSets()
        """The lists of runners that pools have returned."""

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<{type(self).__name__} {state} {self.statistics()}>"

    @property
    def config(self) -> PlacerConfig:
        return self._config

    @abstractmethod
    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterable[Runner]:
        """The order in which a sweep tries ``runners``, each once. ``runners`` is not empty.
        Synchronous.

        Called once per sweep. The next runner is taken from the iterator only after the previous
        one did not take the call.
        """

    def first_choice(
        self, call: RunnerCall, need: CallNeed, runners: Sequence[Runner], now: float
    ) -> Runner | None:
        """The first runner of `order`, if it is known without making the order and nothing is known
        that would make it refuse ``call``; else ``None``, the default.

        Asked once per sweep, before `order`. A subclass with another `order` has to define this
        method anew, or it is not asked.
        """
        return None

    def waits(self, call: RunnerCall, need: CallNeed, now: float) -> bool:
        """Whether ``call``, which is new, waits for a container that another call of its function
        uses now, instead of having one started. It waits as long as the function's `LaunchPolicy`
        says so."""
        return False

    def eviction_grace(self, need: CallNeed) -> float:
        """Seconds for which a new call waits rather than have containers evicted that are worth
        keeping."""
        return 0.0

    def statistics(self) -> PlacerStatistics:
        """The calls of this moment. Synchronous."""
        return PlacerStatistics(
            calls=len(self._placements),
            waiting=sum(waiting_room.waiting for waiting_room in self._waiting_rooms.values()),
        )

    async def place_call(self, pool: RunnerPool, call: RunnerCall) -> None:
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise ServerBusy
        config = self._config
        detached = call.model.type == "detached"
        seconds = config.detached_placer_timeout if detached else config.placer_timeout
        need = need_of(call, self.loads.slot_extensions)
        eviction_grace = self.eviction_grace(need)
        waiting_room = self._waiting_rooms.get(id(pool)) or self._open_waiting_room(pool)
        placement = Placement(pool, call, need, waiting_room, seconds)
        placement.spare_warm_until = placement.arrived + eviction_grace
        placement.waits_for_room = self._waits_for_room
        queue = placement.queue
        self._placements.add(placement)
        outcome: Placed | None = None
        try:
            turn = self._first_turn(placement, placement.arrived)
            if turn is not None and turn.runner is None and not turn.launch:
                # As `_sweep`, whose frame each call would keep while its function runs.
                turn = None
                runners = await self._ask(placement, placement.arrived)
                sweep = self._begin_sweep(placement, runners)
                while (runner := sweep.runner) is not None:
                    end = await self._attempter.attempt(
                        placement, runner, sweep.now, sweep, sweep.turn
                    )
                    if isinstance(end, Placed):
                        outcome = end
                        break
                    self._move_on(placement, sweep, runner, end)
            while outcome is None:
                outcome = await self._use(placement, turn or await self._turn(placement))
                turn = None
        except BaseException as error:
            now = trio.current_time()
            queue.turned_away(now)
            if placement.has_queued and placement.is_open_ended and is_cancellation(error):
                until = placement.attempt_at if placement.is_committed else now
                queue.client_left(until - placement.arrived, ran=now - until)
            self._tracker.ended(placement, error, now)
            raise
        else:
            now = placement.left_at
            queue.served()
            if placement.has_queued and outcome.error is None:
                queue.policy.patience.served(placement.attempt_at - placement.arrived, now)
            self._tracker.ended(placement, outcome.error, now)
            if outcome.error is not None:
                raise outcome.error
        finally:
            self._placements.discard(placement)
            if waiting_room.leave(queue):
                self._left = pool, self._waiting_rooms.pop(id(pool))

    def _first_turn(self, placement: Placement, now: float) -> Turn | None:
        """What the call may try before it waits; ``None`` = it has to wait."""
        queue = placement.queue
        if not placement.may_wait:
            return Turn()
        if queue.full:
            # The calls before it in the queue get all capacity first.
            return None if queue.waiters else Turn()
        if not self._must_wait(placement, now):
            return Turn()
        return Turn(launch=True) if queue.grow(now, coming=1) else queue.turn_of_short_call()

    def _must_wait(self, placement: Placement, now: float) -> bool:
        """Whether the call has to wait for a container of its function, all of which are busy."""
        queue = placement.queue
        if queue.full or not queue.backlog:
            return False
        return self.waits(placement.call, placement.need, now)

    async def _turn(self, placement: Placement) -> Turn:
        """Wait for the next turn, or raise the error of a call that gives up."""
        if not placement.call.body.replayable:
            call_id = placement.call.model.id
            log.warning("call can't be tried again, its body is gone", call_id=call_id)
            raise ServerBusy
        if placement.may_wait and not placement.over(trio.current_time()):
            size = len(placement.call.body.data or b"")
            if not placement.has_queued:
                self._admit(placement, size)
            elif (turn := placement.turn_again()) is not None:
                return turn
            placement.waiter = waiter = QueuedCall(
                placement.queue,
                placement.ticket,
                placement.arrived,
                placement.deadline,
                placement.spare_warm_until,
            )
            waiter.is_open_ended = placement.is_open_ended
            try:
                with placement.waiting_room.holding(size):
                    turn = await waiter.wait()
            finally:
                placement.waiter = None
            if turn is not None:
                return turn
            if waiter.refusal is not None:
                self._metrics.placer_turned_away.inc()
                raise waiter.refusal
        raise self._surrender(placement)

    def _admit(self, placement: Placement, size: int) -> None:
        """Raise `ServerBusy` if this call, which has not waited before, may not wait: too many
        calls wait, or its turn would come too late."""
        now, config, queue = trio.current_time(), self._config, placement.queue
        # A call that a runner takes too late is cut off there, which costs its container.
        least = queue.policy.run_seconds * RUN_MARGIN
        placement.deadline = min(placement.deadline, placement.call.deadline - least)
        expected = queue.expected_wait(now)
        crowded = (
            placement.waiting_room.is_crowded(config.max_waiting)
            or placement.waiting_room.held_bytes + size > config.max_waiting_bytes
        )
        too_late = now + expected * WAIT_MARGIN > placement.deadline
        too_long = placement.is_open_ended and queue.is_too_long(len(queue) + 1, now)
        if crowded or too_late or too_long:
            self._metrics.placer_turned_away.inc()
            raise ServerBusy.after(expected or None)
        placement.has_queued = True
        placement.call.waited = queue.full

    def _surrender(self, placement: Placement) -> Exception:
        if placement.refused or not placement.may_wait:
            return ServerBusy()
        metrics = self._metrics
        by_request = placement.deadline < placement.placers_deadline
        (metrics.placer_client_timeout if by_request else metrics.placer_timeout).inc()
        if placement.pool_error is not None:
            self._metrics.placer_pool_error.inc()
            return placement.pool_error
        return ServerBusy()

    async def _use(self, placement: Placement, turn: Turn) -> Placed | None:
        queue = placement.queue
        # A call that has waited for room may start a container, unless more containers don't help.
        waited = queue.full and turn.hot is not queue and not queue.policy.has_failed
        placement.call.launch = turn.launch or waited
        placement.waiting_room.trying.add(placement)
        placement.starts = turn.launch
        try:
            if turn.runner is None:
                return await self._sweep(placement, trio.current_time())
            return await self._try_freed(placement, turn, turn.runner)
        finally:
            placement.waiting_room.trying.discard(placement)
            if placement.starts:
                placement.has_container()
                queue.policy.failed()

    async def _sweep(self, placement: Placement, now: float) -> Placed | None:
        """Try each runner once."""
        sweep = self._begin_sweep(placement, await self._ask(placement, now))
        while (runner := sweep.runner) is not None:
            end = await self._attempter.attempt(placement, runner, sweep.now, sweep, sweep.turn)
            if isinstance(end, Placed):
                return end
            self._move_on(placement, sweep, runner, end)
        return None

    def _begin_sweep(self, placement: Placement, runners: Sequence[Runner] | None) -> Sweep:
        """A sweep over ``runners``, at the first of them; ``None`` = the time is over."""
        if runners is None:
            return Sweep(iter(()))
        placement.sweeps += 1
        now = placement.asked_at
        # Nearly always this runner takes the call.
        first = self._first_choice(placement.call, placement.need, runners, now)
        sweep = Sweep(self._order_of(placement, runners, first))
        sweep.now, sweep.runner = now, first
        if not runners:
            self._metrics.placer_pool_empty.inc()
            sweep.hint = 0.0
        if first is None and not sweep.advance():
            self._end_sweep(placement, sweep)
        return sweep

    def _move_on(
        self, placement: Placement, sweep: Sweep, refused: Runner, refusal: NotPlaced
    ) -> None:
        """``refused`` has refused the call: go to the next runner, or end the sweep."""
        sweep.runner = None
        if sweep.turn is None:
            sweep.hint = min(sweep.hint, refusal.retry_after or 0.0)
            sweep.now = now = trio.current_time()
            if not placement.over(now) and placement.call.body.replayable:
                if placement.call.queue_seconds and self._must_wait(placement, now):
                    return  # the refusal was not for lack of room
                if sweep.inviting is None and self._attempter.is_invited(placement, refused):
                    sweep.inviting = refused
                if sweep.advance():
                    return
                if sweep.inviting is not None:
                    sweep.runner, sweep.turn = sweep.inviting, Turn(hot=placement.queue)
                    return
        self._end_sweep(placement, sweep)

    def _end_sweep(self, placement: Placement, sweep: Sweep) -> None:
        """All runners have refused the call."""
        hint = sweep.hint
        if math.isinf(hint):  # all have reported that they are full, and will report capacity
            hint = self._config.retry_max_delay
        # (The call may have been tried with ``spare_warm``, and its grace may be over by now.)
        spare_warm = placement.asked_at < placement.spare_warm_until
        placement.queue.refuse(trio.current_time(), hint, spare_warm=spare_warm)

    async def _try_freed(self, placement: Placement, turn: Turn, runner: Runner) -> Placed | None:
        """Try ``runner``, where a call has ended. Pass the turn on if the runner does not take the
        call."""
        queue, refused, absent = placement.queue, turn.refused, turn.absent
        used = False
        try:
            runners = await self._ask(placement, trio.current_time())
            if runners is None:
                return None
            if runner not in runners:
                absent |= {queue}
                return None
            now = placement.asked_at
            outcome = await self._attempter.attempt(placement, runner, now, turn=turn)
            if isinstance(outcome, Placed):
                used = True
                return outcome
            if isinstance(outcome.reason, ServerBusy):
                refused |= {queue}
                queue.backoff.lose(trio.current_time())
                queue.schedule_check()
            else:
                used = True  # no call can reach the runner
            return None
        finally:
            queue.left(runner.address)
            if not used and not placement.is_committed:
                placement.waiting_room.offer(runner, refused, absent, hot=turn.hot)

    async def _ask(self, placement: Placement, now: float) -> Sequence[Runner] | None:
        """The pool's list; ``None`` = the time is over. A pool that fails has no runners; an error
        of the pool that is final is raised."""
        runners: Sequence[Runner] | None
        try:
            if placement.over(now):
                await trio.lowlevel.checkpoint()
                return None
            fast = placement.waiting_room.fast_pool
            runners = None if fast is None else fast.runners_now(placement.call)
            if runners is None:
                with placement.searching() as scope:
                    runners = await placement.pool.runners(placement.call)
                if scope.cancelled_caught:
                    return None
                now = trio.current_time()
            placement.pool_error = None
        except Exception as error:
            if _is_final(error):
                self._metrics.placer_pool_empty.inc()
                self._metrics.placer_pool_error.inc()
                placement.queue.wake_all()
                raise
            placement.pool_error = error
            runners = ()
        placement.asked_at = now
        if placement.pool_error is not None or placement.queue.pool_trouble:
            placement.note_pool()
        return runners

    def _order_of(
        self, placement: Placement, runners: Sequence[Runner], tried: Runner | None
    ) -> Iterator[Runner]:
        """The order of a sweep without ``tried``, which was tried before, and without the runners
        that would certainly refuse the call, except for the probes at its end. Looks at a runner
        only when the sweep asks for one more."""
        if not runners:
            return
        waiting_room, need, probes, now = (
            placement.waiting_room,
            placement.need,
            0,
            trio.current_time(),
        )
        # The call that has waited longest probes for all. A call without others of its function on
        # the runners probes with its first sweep.
        if (placement.sweeps > 1 or not placement.queue.backlog) and waiting_room.is_first(
            placement.ticket
        ):
            probes = self._probes(waiting_room, now)
        spare_warm = now < placement.spare_warm_until
        if tried is None and self._all_full(need, runners, now, spare_warm=spare_warm):
            yield from self._unheld(self.rng.sample(runners, min(probes, len(runners))), now)
            return
        full: list[Runner] = []
        at = now
        for runner in self._unheld(self.order(placement.call, runners), now):
            if runner is tried:
                continue
            if not self.loads.is_full(runner.address, need, at, spare_warm=spare_warm):
                yield runner
            elif len(full) < probes:
                full.append(runner)
            at = trio.current_time()
        yield from full

    def stop_waiting(self) -> None:
        self._waits_for_room = False
        for placement in tuple(self._placements):
            placement.stop_waiting()

    def _unheld(self, runners: Iterable[Runner], now: float) -> Iterator[Runner]:
        """The runners whose capacity was not left to other load balancers. Not even a probe takes
        that."""
        return (runner for runner in runners if not self.loads.is_held(runner.address, now))

    def _probes(self, waiting_room: WaitingRoom, now: float) -> int:
        """How many runners may be tried now although they report no capacity."""
        if now < waiting_room.probe_at:
            return 0
        waiting_room.probe_at = now + self._config.retry_max_delay
        return PROBES

    def _all_full(
        self, need: CallNeed, runners: Sequence[Runner], now: float, *, spare_warm: bool
    ) -> bool:
        """Whether `LoadTracker.is_full` is certainly true of all ``runners``, without asking for
        each."""
        if not self.loads.all_full(need, now, spare_warm=spare_warm):
            return False
        runner_set, known = self.runner_sets.of(runners), self.loads.reporting_version
        if runner_set.all_report_since != known:
            runner_set.all_report_since = (
                known if self.loads.all_report(runner_set.addresses) else None
            )
        return runner_set.all_report_since == known

    def note_load(self, pool: RunnerPool, runner: Runner, hint: LoadHint | None) -> None:
        self.loads.note(runner.address, hint, trio.current_time())
        waiting_room = self._waiting_rooms.get(id(pool))
        if waiting_room is not None and hint is not None:
            if self.loads.is_held(runner.address, trio.current_time()):
                return
            free_cpus = math.inf if hint.free_cpus is None else hint.free_cpus
            memory = hint.free_memory + hint.reclaimable_memory
            cpus = free_cpus + hint.reclaimable_cpus
            waiting_room.fill(
                runner, memory, cpus, protected=(hint.protected_memory, hint.protected_cpus)
            )
            if hint.warm:
                waiting_room.wake_for_idle(runner)

    def close(self) -> None:
        self._closed = True
        for placement in tuple(self._placements):
            placement.refuse()

    def _open_waiting_room(self, pool: RunnerPool) -> WaitingRoom:
        """The waiting room of ``pool``, which exists as long as calls are under way."""
        if self._left is not None and self._left[0] is pool:
            waiting_room = self._left[1]
        else:
            waiting_room = WaitingRoom(self._config, self.loads, self.rng)
            waiting_room.fast_pool = fast_way(pool, FastPool)
            pool.add_load_listener(self)
        # The caller holds the pool, so no other pool has this id.
        self._waiting_rooms[id(pool)] = waiting_room
        return waiting_room


def _is_final(error: Exception) -> bool:
    """Whether asking the pool again is useless."""
    if isinstance(error, FunctionError):
        return error.code == NO_RETRY_CODE
    return isinstance(error, NoRunnerReached)


def _knows_first_choice(placer: type[SweepPlacer]) -> bool:
    """Whether the placer's `SweepPlacer.first_choice` belongs to its own order."""
    for each in placer.__mro__:
        if "first_choice" in vars(each):
            return True
        if "order" in vars(each):
            return False
    return False


def need_of(call: RunnerCall, slot_extensions: Sequence[str] = ()) -> CallNeed:
    """What ``call`` needs of a runner. Calls with equal needs wait in one queue.

    ``slot_extensions`` are the names of the extensions that make a different container. Only a
    driver knows them, so runners report them (`LoadTracker.slot_extensions`).
    """
    model: Call = call.model
    asked = (model.memory, model.tmpfs_size, model.cpus)
    extensions: tuple[str | None, ...] = ()
    if slot_extensions:
        extensions = tuple([call.extensions.get(name) for name in slot_extensions])
    return _need(call.slot_hash_id, model.fn_id, model.image, asked, extensions, model.idle_timeout)


@lru_cache(maxsize=MAX_NEEDS)
def _need(
    slot_hash_id: bytes | None,
    fn_id: str,
    image: str,
    asked: tuple[int, int, int],
    extensions: tuple[str | None, ...],
    idle_timeout: int,
) -> CallNeed:
    memory, tmpfs_size, cpus = asked
    return CallNeed(
        # (A text caches its hash, and each call is looked up by this key at a dozen places.)
        repr((slot_hash_id, fn_id, image, *asked, *extensions)),
        memory=(memory + tmpfs_size) * MIB,
        idle_seconds=idle_timeout,
        cpus=cpus,
    )
