"""One call on its way to a runner: attempts, waiting, giving up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import structlog
import trio

from ..abc import Placed, Runner, RunnerCall, RunnerPool
from ..config import PlacerConfig
from ..errors import FunctionError, ServerBusy
from ._hot_line import HotWaiter
from ._room import Line, Room
from ._tracker import AttemptTracker
from ._trying import Candidates, Trying
from ._waiter import Turn, Waiter

log = structlog.get_logger(__name__)

USELESS = 502
"""The code of a pool's `FunctionError` that says: asking again is useless."""

PRUDENCE = 1.02
"""Factor on the expected wait: rather refuse at once than after the client's patience is over."""
RUN_PRUDENCE = 1.5
"""Factor on the mean run time that a call's client has to have left when a runner takes it."""

Order = Callable[[Sequence[Runner]], Iterable[Runner]]
"""The order of a sweep over the pool's list."""


class Placement:
    """Places one call. Made for one `run`, in the task of the call. ``trying`` has its deadline,
    which bounds the search, not a call that a runner has taken."""

    def __init__(
        self,
        pool: RunnerPool,
        call: RunnerCall,
        *,
        room: Room,
        order: Order,
        tracker: AttemptTracker,
        trying: Trying,
        config: PlacerConfig,
        patience: Callable[[int], float] = lambda ahead: 0.0,
        may_wait: bool = True,
        now: float,
    ) -> None:
        self._pool = pool
        self._call = call
        self._room = room
        self._order = order
        self._tracker = tracker
        self._trying = trying
        self._config = config
        self._patience = patience
        self.ticket = room.ticket()
        """The call's place in the order of arrival."""
        self._arrived = now
        self._may_wait = may_wait
        self._has_waited = False
        self._waiter: Waiter | HotWaiter | None = None
        self._pool_error: Exception | None = None

    def refuse(self) -> None:
        """Give up at once, unless a runner has taken the call."""
        self._trying.refuse()
        if self._waiter is not None and not self._waiter.woken:
            self._waiter.wake(None)

    def stop_waiting(self) -> None:
        """Give up at once if the call waits, or as soon as it would have to."""
        self._may_wait = False
        if self._waiter is not None and not self._waiter.woken:
            self._waiter.wake(None)

    async def run(self, line: Line) -> None:
        """See the call through. Raises what ends it, see `hostler.abc.Placer`."""
        try:
            # Behind others that ask for the same there is nothing to be had before them.
            outcome = None if line and self._may_wait else await self._begin(line)
            while outcome is None:
                outcome = await self._use(line, await self._turn(line))
        except BaseException as error:
            self._tracker.ended(error, trio.current_time())
            raise
        now = trio.current_time()
        if line:
            line.pace.moved(now)
        if outcome.error is None:
            line.pace.ran(now - self._tracker.attempt_at)
        self._tracker.ended(outcome.error, now)
        if outcome.error is not None:
            raise outcome.error

    async def _begin(self, line: Line) -> Placed | None:
        """The first try: at once, or where a hot container becomes free in a moment."""
        if seconds := self._patience(len(line.hot)):
            turn = await self._hot_turn(line, trio.current_time() + seconds)
            if self._trying.refused:
                if turn is not None:
                    line.hand_on(turn)
                raise self._surrender()
            if turn is not None and (outcome := await self._use(line, turn)) is not None:
                return outcome
        return None if line and self._may_wait else await self._sweep(line)

    async def _hot_turn(self, line: Line, until: float) -> Turn | None:
        """Wait for a hot container; ``None`` if there was none in time."""
        self._waiter = waiter = HotWaiter(self.ticket, self._arrived)
        try:
            await line.hot.wait(waiter, min(until, self._trying.deadline))
        except BaseException:
            if waiter.turn is not None:
                line.hand_on(waiter.turn)
            raise
        finally:
            self._waiter = None
        return waiter.turn

    async def _turn(self, line: Line) -> Turn:
        """Wait for the next turn, or raise the error of a call that gives up."""
        if not self._call.body.replayable:
            log.warning("call can't be tried again, its body is gone", call_id=self._call.model.id)
            raise ServerBusy
        if self._may_wait and not self._trying.over:
            size = len(self._call.body.data or b"")
            self._admit(line, size)
            trying = self._trying
            self._waiter = waiter = Waiter(
                line, self.ticket, self._arrived, trying.deadline, gentle_until=trying.gentle_until
            )
            try:
                with self._room.holding(size):
                    turn = await waiter.wait()
            finally:
                self._waiter = None
            if turn is not None:
                return turn
        raise self._surrender()

    def _admit(self, line: Line, size: int) -> None:
        """Raise `ServerBusy` if this call is not to wait: too many do, or its turn would come
        too late. Nobody is sent away who has waited before."""
        if self._has_waited:
            return
        now, config, trying = trio.current_time(), self._config, self._trying
        # A call that a runner takes too late is cut there, which costs its container.
        least = line.pace.run_seconds * RUN_PRUDENCE
        trying.deadline = min(trying.deadline, self._call.deadline - least)
        expected = line.pace.seconds_for(len(line) + 1, now)
        crowded = (
            self._room.is_crowded(config.max_waiting)
            or self._room.held_bytes + size > config.max_waiting_bytes
        )
        if crowded or now + expected * PRUDENCE > trying.deadline:
            self._tracker.turned_away()
            raise ServerBusy.after(expected or None)
        self._has_waited = True

    def _surrender(self) -> Exception:
        if self._trying.refused or not self._may_wait:
            return ServerBusy()
        self._tracker.timed_out(by_request=self._trying.deadline < self._trying.placers_deadline)
        if self._pool_error is not None:
            self._tracker.pool_failed()
            return self._pool_error
        return ServerBusy()

    async def _use(self, line: Line, turn: Turn) -> Placed | None:
        self._room.trying.add(self._tracker)
        try:
            if turn.runner is None:
                return await self._sweep(line)
            return await self._try_freed(line, turn, turn.runner)
        finally:
            self._room.trying.discard(self._tracker)

    async def _sweep(self, line: Line) -> Placed | None:
        """Try each runner once."""
        hint = math.inf
        runners = await self._ask(line)
        if runners is None:
            return None
        if not runners:
            self._tracker.pool_empty()
            hint = 0.0
        candidates = Candidates(self._order(runners))
        for runner in candidates:
            outcome = await self._trying.attempt(runner, candidates)
            if isinstance(outcome, Placed):
                return outcome
            hint = min(hint, outcome.retry_after or 0.0)
            if self._trying.over or not self._call.body.replayable:
                break
        if math.isinf(hint):  # all say that they are full: it is up to them to tell of room
            hint = self._config.retry_max_delay
        line.ladder.refuse(trio.current_time(), hint)
        line.appoint()
        return None

    async def _try_freed(self, line: Line, turn: Turn, runner: Runner) -> Placed | None:
        """Try ``runner``, where a call has ended; pass the chance on if it is not for us."""
        refused, absent = turn.refused, turn.absent
        used = False
        try:
            runners = await self._ask(line)
            if runners is None:
                return None
            if runner not in runners:
                absent |= {line}
                return None
            outcome = await self._trying.attempt(
                runner, counted=True, hot=turn.hot is line, stood=turn.stood
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
            line.ahead.end(runner.address)
            if not used and not self._tracker.is_committed:
                self._room.offer(runner, refused, absent, hot=turn.hot)

    async def _ask(self, line: Line) -> Sequence[Runner] | None:
        """The pool's list; ``None`` = the time is over. A pool that fails has no runners; an
        error of the pool that is final is raised."""
        runners: Sequence[Runner] | None
        try:
            if self._trying.over:
                await trio.lowlevel.checkpoint()
                return None
            runners = self._pool.runners_now(self._call)
            if runners is None:
                with self._trying.searching() as scope:
                    runners = await self._pool.runners(self._call)
                if scope.cancelled_caught:
                    return None
            self._pool_error = None
        except Exception as error:
            if isinstance(error, FunctionError) and error.code == USELESS:
                self._tracker.pool_empty()
                self._tracker.pool_failed()
                line.all_turn()
                raise
            self._pool_error = error
            runners = ()
        self._note_pool(line)
        return runners

    def _note_pool(self, line: Line) -> None:
        """Tell once that the pool fails, and once that it works again."""
        trouble = "" if self._pool_error is None else repr(self._pool_error)
        if trouble == line.pool_trouble:
            return
        line.pool_trouble = trouble
        if trouble:
            log.warning("runner pool fails", error=trouble, fn_id=self._call.model.fn_id)
        else:
            log.info("runner pool works again", fn_id=self._call.model.fn_id)
