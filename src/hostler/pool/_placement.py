"""One call on its way to a runner: attempts, waiting, giving up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import attrs
import structlog
import trio

from .._concurrency.nurseries import is_cancellation
from ..abc import Placed, Runner, RunnerCall, RunnerPool
from ..config import PlacerConfig
from ..errors import FunctionError, ServerBusy
from ._room import Line, Room
from ._search import Search
from ._tracker import AttemptTracker
from ._trying import Candidates, Trying
from ._waiter import Turn, Waiter
from ._warm_index import Need

log = structlog.get_logger(__name__)

USELESS = 502
"""The code of a pool's `FunctionError` that says: asking again is useless."""

PRUDENCE = 1.02
"""Factor on the expected wait: rather refuse at once than after the client's patience is over."""
RUN_PRUDENCE = 1.5
"""Factor on the mean run time that a call's client has to have left when a runner takes it."""


@attrs.frozen(kw_only=True)
class Means:
    """What a placer has for all its placements."""

    config: PlacerConfig
    tracker: AttemptTracker
    trying: Trying
    waits: Callable[[RunnerCall, Need, float], bool]
    """See `SweepPlacer`."""
    at_once: Callable[[RunnerCall, Need, Sequence[Runner], float], Runner | None]
    """See `SweepPlacer`."""
    order: Callable[[Placement, Sequence[Runner], Runner | None], Iterable[Runner]]
    """That of a sweep over the pool's list, beside the runner of `at_once`, which was tried."""


class Placement(Search):
    """Places one call. Made for one `run`, in the task of the call."""

    sweeps = 0
    _waiter: Waiter | None = None
    _stood = False
    """It has stood in line."""
    _pool_error: Exception | None = None

    def __init__(
        self,
        means: Means,
        pool: RunnerPool,
        call: RunnerCall,
        need: Need,
        room: Room,
        line: Line,
        now: float,
        deadline: float,
        gentle_until: float,
        waits_for_room: bool,
    ) -> None:
        super().__init__(call, need, room, line, now, deadline, gentle_until)
        self._means = means
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
        if self.line.full and self._waiter is not None and not self._waiter.woken:
            self._waiter.wake(None)

    @property
    def _may_wait(self) -> bool:
        """A busy container of its function is free in a moment, room may never be."""
        return self._waits_for_room or not self.line.full

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
            self._means.tracker.ended(self, error, now)
            raise
        now = self.left_at
        line.served()
        if self._stood and outcome.error is None:
            line.patience.bore(self.attempt_at - self.arrived, now)
        self._means.tracker.ended(self, outcome.error, now)
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
        return bool(not line.full and line.ahead and self._means.waits(self.call, self.need, now))

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
            self._waiter = waiter = Waiter(
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
                self._means.tracker.turned_away()
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
        now, config, line = trio.current_time(), self._means.config, self.line
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
            self._means.tracker.turned_away()
            raise ServerBusy.after(expected or None)
        self._stood = True
        self.call.waited = line.full

    def _surrender(self) -> Exception:
        if self.refused or not self._may_wait:
            return ServerBusy()
        self._means.tracker.timed_out(by_request=self.deadline < self.placers_deadline)
        if self._pool_error is not None:
            self._means.tracker.pool_failed()
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
        hint, means = math.inf, self._means
        runners = await self._ask(now)
        if runners is None:
            return None
        now = self._asked_at
        self.sweeps += 1
        if not runners:
            means.tracker.pool_empty()
            hint = 0.0
        # Nearly always this one takes the call.
        runner = first = means.at_once(self.call, self.need, runners, now)
        candidates = Candidates(lambda: means.order(self, runners, first))
        if runner is None:
            runner = next(candidates, None)
        inviting: Runner | None = None
        while runner is not None:
            outcome = await means.trying.attempt(self, runner, now, candidates)
            if isinstance(outcome, Placed):
                return outcome
            hint = min(hint, outcome.retry_after or 0.0)
            now = trio.current_time()
            if self.over(now) or not self.call.body.replayable:
                break
            if self.call.queue_seconds and self._is_for_line(now):
                return None  # it was not refused for want of room
            if inviting is None and means.trying.is_invited(self, runner):
                inviting = runner
            runner = next(candidates, None)
        else:
            if inviting is not None:
                outcome = await means.trying.attempt(self, inviting, now, hot=True)
                if isinstance(outcome, Placed):
                    return outcome
        if math.isinf(hint):  # all say that they are full: it is up to them to tell of room
            hint = means.config.retry_max_delay
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
            outcome = await self._means.trying.attempt(
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
                self._means.tracker.pool_empty()
                self._means.tracker.pool_failed()
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
