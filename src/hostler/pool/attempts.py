"""Attempts: one call's tries at runners: plain, reserved, hedged; counted and timed.

A `Placement` is a call on its way. `Attempter` tries one runner for it, as a `TrackedAttempt`.
`AttemptTracker` counts the attempts, and tells the pool and the load tracker about them.

A hedge asks a second runner for a slot when the first one takes long. Dean and Barroso, "The Tail
at Scale", Communications of the ACM 56(2), 2013: a hedged request is sent only once the first has
been outstanding for longer than a high quantile of the expected latency, which bounds the extra
load to the share beyond the quantile. A budget bounds the extra load also while latencies drift:
each reservation earns a share of a hedge, as in Finagle's retry budgets.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import attrs
import structlog
import trio

from .. import _fast
from .._concurrency.nurseries import is_cancellation, is_timeout
from .._fast import FastRunner
from .._spans import Span, error_text
from .._stats import LRUDict
from ..abc import NotPlaced, Outcome, Placed, Runner, RunnerCall, RunnerPool
from ..config import PlacerConfig
from ..errors import (
    AttemptTimedOut,
    ReservationAbandoned,
    RunnerClosed,
    ServerBusy,
    ServiceReservationFailure,
)
from ..metrics import LBMetrics
from ..protocol import AttemptObserver, EngagementFailed, NotSent
from .load_tracker import CallNeed, LoadTracker
from .waiting_room import CallQueue, QueuedCall, Turn, WaitingRoom

log = structlog.get_logger(__name__)

MAX_TROUBLED = 1024
"""Unreachable runners that are remembered, to log each once. When there are more, some are logged
again."""


class Sweep:
    """One walk over the runners of a pool, in ``order``. Each runner comes out once. The order is
    asked for a runner only when it is needed."""

    runner: Runner | None = None
    """The runner that is tried now; ``None`` = the sweep is over."""
    now = math.nan
    """When the sweep got to ``runner``."""
    hint = math.inf
    """Seconds after which to come back at the earliest, as the runners say that have refused the
    call."""
    inviting: Runner | None = None
    """The first runner that has refused the call and would have it wait there. It is tried once
    more at the end of the sweep."""
    turn: Turn | None = None
    """The turn for that last try."""

    def __init__(self, order: Iterator[Runner]) -> None:
        self._order = order
        self._passed: list[Runner] = []

    def __iter__(self) -> Iterator[Runner]:
        return self

    def __next__(self) -> Runner:
        return self._passed.pop(0) if self._passed else next(self._order)

    def advance(self) -> bool:
        """Go to the next runner, if there is one."""
        self.runner = next(self, None)
        return self.runner is not None

    @property
    def more(self) -> bool:
        """Whether there is another runner."""
        if not self._passed and (runner := next(self._order, None)) is not None:
            self._passed.append(runner)
        return bool(self._passed)

    def next_reserving(self) -> Runner | None:
        """The next runner that takes reservations. The runners before it come out later."""
        passed: list[Runner] = []
        found = None
        for runner in self:
            if runner.reserves:
                found = runner
                break
            passed.append(runner)
        self._passed[:0] = passed
        return found


class Attempter:
    """Tries runners for the calls of a placer."""

    def __init__(self, tracker: AttemptTracker, hedging: Hedging, config: PlacerConfig) -> None:
        self._tracker = tracker
        self._hedging = hedging
        self._config = config

    async def attempt(
        self,
        placement: Placement,
        runner: Runner,
        now: float,
        others: Sweep | None = None,
        turn: Turn | None = None,
    ) -> Outcome:
        """Try ``runner``. If no hot container is expected there and the runner takes reservations,
        reserve a slot first: the round trip is nothing beside the start of a container. If that
        takes long, one of ``others`` is asked as well.

        With a ``turn`` that is hot for the call, a container has just become free there, and a
        reservation would let it idle for a round trip. If another call has taken it, this call may
        wait there to be next on it instead of having another container started. If ``turn`` names
        the runner, the queue's `RunnerBacklog` has counted the attempt already.
        """
        call, hot, counted = placement.call, False, False
        if turn is not None:
            hot, counted = turn.hot is placement.queue, turn.runner is runner
        call.spare_warm = now < placement.spare_warm_until
        attempt = self._tracker.begin(placement, runner, now, counted=counted)
        hot = hot or attempt.warm
        call.queue_seconds = self._max_wait(placement, runner) if hot else 0.0
        policy = placement.queue.policy
        if hot and policy.surplus:  # tell the runner, which evicts
            policy.surplus -= 1
            call.surplus = True
        try:
            if hot or not runner.reserves or not self._config.reserve:
                # The whole call at once; without a scope of its own if it can be handed over now.
                await trio.lowlevel.checkpoint_if_cancelled()
                if _fast.enabled and isinstance(runner, FastRunner):
                    begun = runner.begin_exec(call, attempt)
                    if begun is not None:
                        outcome = await begun()
                        self._tracker.end(attempt, outcome)
                        return outcome
                return await self._exec(attempt)
            delay = self._hedging.begin(placement.need.key)
            if delay is None or others is None or placement.waiting_room.waiting:
                return await self.reserve(attempt, others)
            return await Race(self, attempt, others).run(delay)
        finally:
            self.leave(attempt)

    def is_invited(self, placement: Placement, runner: Runner) -> bool:
        """Whether the runner, which has just refused the call, would have it wait there: other load
        balancers have more calls there than this one."""
        return (
            placement.queue.backlog.may_join(runner.address)
            and self._max_wait(placement, runner) > 0
        )

    def _max_wait(self, placement: Placement, runner: Runner) -> float:
        queue = placement.queue
        if not placement.waiting_room.no_other_waits(queue):
            return 0.0
        return queue.backlog.max_wait(runner.address, queue.policy.run_seconds)

    def leave(self, attempt: TrackedAttempt) -> None:
        """The attempt is over. The place that it leaves at the runner is offered to the next call,
        once it is known what the runner reported. Until then the attempt counts."""
        try:
            self._tracker.over(attempt, trio.current_time())
            outcome, call, queue = attempt.outcome, attempt.placement.call, attempt.placement.queue
            if call.surplus:
                call.surplus = False
                queue.policy.surplus += not isinstance(outcome, Placed)
            if attempt.is_committed:
                load = None if outcome is None else outcome.load
                ended = _leaves_room(outcome)
                # A refused call joins the calls that wait there only if other load balancers have
                # more calls there.
                if load is not None and load.slot and (ended or load.share):
                    queue.backlog.learn(attempt.runner, load.slots, load.share, load.starting)
                if ended:
                    leave = load is not None and load.leave
                    attempt.placement.waiting_room.freed(attempt.runner, queue, leave=leave)
        finally:
            if attempt.queue is not None:
                attempt.queue.left(attempt.address)

    async def _exec(self, attempt: TrackedAttempt) -> Outcome:
        outcome: Outcome | None = None
        placement = attempt.placement
        with placement.searching(self._config.attempt_timeout) as attempt.scope:
            outcome = await attempt.runner.try_exec(placement.call, attempt)
        return self._ended(attempt, outcome)

    def begin_second(self, race: Race) -> TrackedAttempt | None:
        """An attempt at a second runner, if one may be asked now. The caller must `leave` it."""
        first, runner = race.first, None
        # While other calls wait, a second slot would be taken from them.
        if not first.placement.waiting_room.waiting and self._hedging.spend():
            runner = race.others.next_reserving()
        if runner is None:
            return None
        second = self._tracker.begin(first.placement, runner, trio.current_time())
        second.hedge = True
        second.metrics.hedges.inc()
        return second

    async def reserve(self, attempt: TrackedAttempt, others: Sweep | None) -> Outcome:
        """One reservation. In a race only the winner may end the call, in whatever way.

        The reservation has a time limit only while there are other runners to turn to: a call that
        gives up its place at the only runner would come back to the end of the queue there.
        """
        placement = attempt.placement
        attempt.hedging, attempt.others = self._hedging, others
        attempt.reserve_seconds = self._config.reserve_timeout
        outcome: Outcome | None = None
        with placement.searching(self._config.attempt_timeout) as attempt.scope:
            outcome = await attempt.runner.try_reserve(placement.call, attempt)
            if isinstance(outcome, Placed) and not attempt.wins():
                outcome = NotPlaced(ReservationAbandoned())
        return self._ended(attempt, outcome)

    def _ended(self, attempt: TrackedAttempt, outcome: Outcome | None) -> Outcome:
        """The end of an attempt. ``outcome`` is ``None`` if the attempt ran into its time limit."""
        if outcome is None:
            outcome = _interrupted(committed=attempt.is_committed)
        self._tracker.end(attempt, outcome)
        return outcome


def _interrupted(*, committed: bool) -> Outcome:
    if committed:
        # The time was over at the moment of the commit: the call may have run.
        return Placed(ServiceReservationFailure())
    return NotPlaced(AttemptTimedOut())


def _leaves_room(outcome: Outcome | None) -> bool:
    """Whether a committed attempt that ended with ``outcome`` has probably freed a place at its
    runner."""
    if isinstance(outcome, NotPlaced):
        return False
    error = None if outcome is None else outcome.error
    return error is None or not isinstance(error, EngagementFailed | NotSent | RunnerClosed)


class Placement:
    """One call on its way to a runner of ``pool``, with ``seconds`` to get there. It needs
    ``need``, and uses its queue in ``waiting_room`` until the placer has it leave.

    The ``deadline`` of the placer or the call (`trio.current_time`) and `refuse` end attempts that
    are not committed yet.
    """

    refused = False
    committed: TrackedAttempt | None = None
    """The attempt whose runner has the call, or has run it."""
    attempt_at = left_at = math.nan
    """When the latest attempt began, and when the latest finished attempt ended."""
    spare_warm_until = -math.inf
    """Attempts before this time must not have containers evicted that are worth keeping."""
    starts = False
    """A container starts for the call's function because of this call, and is not there yet."""
    sweeps = 0
    waits_for_room = True
    """It may wait for capacity on a runner; no longer once a drain has begun."""
    waiter: QueuedCall | None = None
    """Its place in the queue, while it waits there."""
    has_queued = False
    """It has waited in its queue before."""
    pool_error: Exception | None = None
    """What the pool last raised instead of returning a list."""
    _scopes: set[trio.CancelScope] | None = None

    def __init__(
        self,
        pool: RunnerPool,
        call: RunnerCall,
        need: CallNeed,
        waiting_room: WaitingRoom,
        seconds: float,
    ) -> None:
        self.pool = pool
        self.call = call
        self.need = need
        self.waiting_room = waiting_room
        self.queue = waiting_room.use(need)
        self.ticket = waiting_room.ticket()
        """Its place in the order of arrival."""
        self.arrived = self.asked_at = now = trio.current_time()
        """``asked_at``: when the pool returned its list."""
        self.placers_deadline = now + seconds
        self.deadline = min(self.placers_deadline, call.deadline)

    @property
    def is_committed(self) -> bool:
        """A runner has the call, or has run it."""
        return self.committed is not None

    def has_container(self) -> None:
        """The call has a container, or will get none: no container starts because of it any more.
        Idempotent."""
        if self.starts:
            self.starts = False
            self.queue.starting -= 1

    def over(self, now: float) -> bool:
        """Whether no further runner is to be tried."""
        return self.refused or now >= self.deadline

    def refuse(self) -> None:
        """Give up at once, unless a runner has the call."""
        self.refused = True
        for scope in self._scopes or ():
            scope.cancel()
        self._end_wait()

    def stop_waiting(self) -> None:
        """Give up at once if the call waits for capacity, or as soon as it would have to."""
        self.waits_for_room = False
        if not self.may_wait:
            self._end_wait()

    def _end_wait(self) -> None:
        if self.waiter is not None and not self.waiter.woken:
            self.waiter.wake(None)

    @property
    def may_wait(self) -> bool:
        """Whether it may wait. In a drain it may still wait for a busy container of its function if
        the run times are known: that container is free in a moment, while other capacity may never
        come."""
        queue = self.queue
        return (
            self.waits_for_room
            or not queue.full
            or bool(queue.backlog and queue.policy.run_seconds)
        )

    @property
    def is_open_ended(self) -> bool:
        """Whether its client has not said how long it waits."""
        return self.call.deadline == math.inf

    def turn_again(self) -> Turn | None:
        """What the call, which was refused, may try before it waits again; ``None`` = nothing."""
        queue, now = self.queue, trio.current_time()
        if queue.full:
            return None
        if not queue.backlog:
            return Turn()
        return Turn(launch=True) if queue.grow(now, coming=1) else None

    def note_pool(self) -> None:
        """Log once that the pool fails, and once that it works again."""
        trouble = "" if self.pool_error is None else repr(self.pool_error)
        if trouble == self.queue.pool_trouble:
            return
        self.queue.pool_trouble = trouble
        if trouble:
            log.warning("runner pool fails", error=trouble, fn_id=self.call.model.fn_id)
        else:
            log.info("runner pool works again", fn_id=self.call.model.fn_id)

    @contextmanager
    def searching(self, seconds: float = math.inf) -> Iterator[trio.CancelScope]:
        """A block that ends with the time of the placement, after ``seconds``, and by `refuse`,
        unless the call was `found` in it."""
        until = min(self.deadline, trio.current_time() + seconds)
        with trio.CancelScope(deadline=until) as scope:
            if self._scopes is None:
                self._scopes = set()
            self._scopes.add(scope)
            if self.refused:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def found(self, scope: trio.CancelScope) -> None:
        """A runner has the call: the block of ``scope`` ends only by itself from now on."""
        scope.deadline = math.inf
        if self._scopes is not None:
            self._scopes.discard(scope)


@attrs.define(eq=False)
class TrackedAttempt(AttemptObserver):
    """One attempt at a runner. ``warm``: the runner is believed to have an idle container for the
    call."""

    placement: Placement
    runner: Runner
    address: str
    warm: bool
    began: float
    span: Span | None
    metrics: LBMetrics
    queue: CallQueue | None
    """The queue in whose `RunnerBacklog` the attempt is counted."""
    outcome: Outcome | None = None
    """How it ended; ``None`` = not yet, or it was cancelled or gave its slot back."""
    hedge: bool = False
    """It was begun because the first attempt took long."""
    is_asked: bool = False
    is_committed: bool = False
    scope: trio.CancelScope | None = None
    """Ends the attempt, unless it is committed."""
    hedging: Hedging | None = None
    """Learns how long a slot took, if this is a reservation."""
    race: Race | None = None
    """Decides whether the call gets the reserved slot, if a second runner was asked."""
    others: Sweep | None = None
    """The sweep that it belongs to."""
    reserve_seconds: float = math.inf
    """Seconds that the runner may take for a slot while there are ``others``."""

    def asked(self) -> None:
        self.is_asked = True
        self.metrics.reservations.inc()
        if self.scope is not None:
            self.scope.deadline = self.placement.deadline
            if self.others is not None and self.others.more:
                self.scope.deadline = min(
                    self.placement.deadline, trio.current_time() + self.reserve_seconds
                )

    def claim(self) -> bool:
        if self.hedging is None:
            return True
        key, now = self.placement.need.key, trio.current_time()
        self.hedging.took(key, now - self.began)
        won = self.wins()
        if won and self.hedge and self.race is not None:  # the first takes even longer
            self.hedging.took(key, now - self.race.first.began)
        return won

    def wins(self) -> bool:
        """Whether it may end the call: it has won the race, or wins it now."""
        return self.race is None or self.race.claim(self)

    def committed(self) -> None:
        placement = self.placement
        if self.scope is not None:
            placement.found(self.scope)
        placement.committed = self
        placement.has_container()
        self.is_committed = True
        if self.is_asked:
            self.metrics.reservations_committed.inc()
        if self.hedge:
            self.metrics.hedges_won.inc()


class AttemptTracker:
    """Counts the attempts and ends of all placements of a placer, and tells ``loads`` and the pools
    about them."""

    def __init__(self, metrics: LBMetrics, loads: LoadTracker) -> None:
        self._metrics = metrics
        self._loads = loads
        self._troubled: set[str] = set()
        """Addresses of runners that can't be reached. Each is logged once, not for each call."""

    def ended(self, placement: Placement, error: BaseException | None, now: float) -> None:
        """Count how a placement has ended."""
        if error is not None:
            self._failed(placement, error, now)
        until = now if placement.committed is None else placement.attempt_at
        seconds = until - placement.arrived
        self._metrics.observe_placement(placement.call.attempts, round(seconds * 1e9))
        # An attempt refers to its placement: the cycle would live until the garbage collector runs.
        placement.committed = None

    def _failed(self, placement: Placement, error: BaseException, now: float) -> None:
        if isinstance(error, ServiceReservationFailure):  # the runner has kept the deadline
            self._metrics.placer_client_timeout.inc()
            return
        if not is_cancellation(error):
            return
        if placement.committed is not None:
            self._metrics.placer_placed_abort.inc()
            # Without an address the call would count as never placed, and be tried again.
            placement.call.runner_address = placement.committed.address
        else:  # each runner that it reached has refused it
            placement.call.runner_address = ""
        if is_timeout(error) or now >= placement.call.deadline:
            self._metrics.placer_client_timeout.inc()
        else:
            self._metrics.placer_client_cancelled.inc()

    def begin(
        self, placement: Placement, runner: Runner, now: float, *, counted: bool = False
    ) -> TrackedAttempt:
        """Count an attempt, until `over`, and in the queue's `RunnerBacklog` unless it is
        ``counted`` there. `end` notes its outcome; an attempt without that counts as cancelled.
        Several may run at the same time, of which at most one is committed."""
        address, call, need = runner.address, placement.call, placement.need
        call.attempts += 1
        placement.attempt_at = now
        warm = self._loads.begin(address, need, now)
        span = call.span and call.span.child("engage", {"fn.runner": address}, kind="client")
        queue = None if counted else placement.queue
        if queue is not None:
            queue.backlog.begin(address)
        return TrackedAttempt(placement, runner, address, warm, now, span, self._metrics, queue)

    def over(self, attempt: TrackedAttempt, now: float) -> None:
        """Nothing of the attempt is left."""
        placement, loads, outcome = attempt.placement, self._loads, attempt.outcome
        placement.left_at = now
        taken = attempt.is_committed or attempt.is_asked
        if outcome is None and not taken and now >= placement.deadline:
            self._tell_pool(attempt, NotPlaced(AttemptTimedOut()), now)
        if isinstance(outcome, Placed) and outcome.error is None:
            loads.policies.ran(placement.need, placement.call.timings, attempt.began, now)
        loads.end(attempt.address, placement.need, outcome, now)
        if attempt.span is not None:
            _end_span(attempt.span, outcome)
        if attempt.is_asked and attempt is not placement.committed and _given_up(outcome):
            self._metrics.reservations_abandoned.inc()

    def end(self, attempt: TrackedAttempt, outcome: Outcome) -> None:
        """An attempt has ended, not by cancellation."""
        if not (attempt.is_asked and _timed_out(outcome)):  # a slot may take long: no fault
            self._tell_pool(attempt, outcome, trio.current_time())
        if isinstance(outcome, NotPlaced) and isinstance(outcome.reason, ReservationAbandoned):
            return
        address, placement = attempt.address, attempt.placement
        attempt.outcome = outcome
        if isinstance(outcome, Placed):
            placement.committed = attempt
            if outcome.error is None:
                self._metrics.placer_placed_ok.value += 1
            elif isinstance(outcome.error, ServiceReservationFailure):
                self._metrics.placer_placed_abort.inc()
            else:
                self._metrics.placer_placed_error.inc()
        else:
            if placement.committed is attempt:
                placement.committed = None
            if not isinstance(outcome.reason, ServerBusy):
                self._unreachable(address, outcome.reason)
                return
            self._metrics.placer_retry_busy.inc()
        if address in self._troubled:
            self._troubled.discard(address)
            log.info("runner is back", runner=address)

    @staticmethod
    def _tell_pool(attempt: TrackedAttempt, outcome: Outcome, now: float) -> None:
        placement = attempt.placement
        seconds = now - attempt.began
        placement.pool.note_outcome(attempt.runner, placement.call, outcome, seconds)

    def _unreachable(self, address: str, reason: Exception) -> None:
        self._metrics.placer_retry_error.inc()
        if address not in self._troubled:
            if len(self._troubled) >= MAX_TROUBLED:  # most have left for good, under a name's TTL
                self._troubled.clear()
            self._troubled.add(address)
            cause = reason.__cause__
            log.warning("runner can't be reached", runner=address, reason=str(cause or reason))


def _end_span(span: Span, outcome: Outcome | None) -> None:
    if isinstance(outcome, Placed):
        span.end("" if outcome.error is None else error_text(outcome.error))
        return
    # The refusal of one runner is no error of the call.
    reason = "abandoned" if outcome is None else str(outcome.reason)
    span.note({"fn.refused": reason})
    span.end()


def _given_up(outcome: Outcome | None) -> bool:
    """Whether an uncommitted reservation was ended by this load balancer."""
    return outcome is None or _timed_out(outcome)


def _timed_out(outcome: Outcome) -> bool:
    return isinstance(outcome, NotPlaced) and isinstance(outcome.reason, AttemptTimedOut)


class Race:
    """A race between two runners for one call. The first runner that holds a slot gets the call.

    `claim` is the one place that decides. It is synchronous, true for one attempt at most, and
    cancels the others, whose slots are given back. So no other attempt is left that could run the
    call, whatever becomes of the winner.
    """

    def __init__(self, attempter: Attempter, first: TrackedAttempt, others: Sweep) -> None:
        self.first = first
        self.others = others
        self._attempter = attempter
        self._winner: TrackedAttempt | None = None
        self._running: dict[TrackedAttempt, trio.CancelScope] = {}
        self._won: Outcome | None = None
        self._lost: list[NotPlaced] = []
        self._trouble: Exception | None = None

    async def run(self, delay: float) -> Outcome:
        """Reserve at the first runner. After ``delay`` seconds reserve at one of the others as
        well, unless the first has claimed or refused.

        Without a winner the outcome is the refusal that allows the earliest next try.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hedge, delay, nursery.cancel_scope)
            await self._reserve(self.first, nursery.cancel_scope)
        if self._trouble is not None:
            raise self._trouble
        return self._won or min(self._lost, key=lambda outcome: outcome.retry_after or 0.0)

    async def _hedge(self, delay: float, all_of_it: trio.CancelScope) -> None:
        await trio.sleep(delay)
        if self._winner is None and (second := self._attempter.begin_second(self)) is not None:
            try:
                await self._reserve(second, all_of_it)
            finally:
                self._attempter.leave(second)

    async def _reserve(self, attempt: TrackedAttempt, all_of_it: trio.CancelScope) -> None:
        """Have ``attempt`` take part. The race is over when its last attempt is."""
        outcome: Outcome | None = None
        attempt.race = self
        with trio.CancelScope() as scope:
            self._running[attempt] = scope
            try:
                outcome = await self._attempter.reserve(attempt, self.others)
            except Exception as error:  # noqa: BLE001  (raised by `run`, not in a group)
                self._trouble = error
                all_of_it.cancel()
            finally:
                del self._running[attempt]
                attempt.race = None  # the cycle would live until the garbage collector runs
        if self._winner is attempt:
            self._won = outcome
        elif isinstance(outcome, NotPlaced):
            self._lost.append(outcome)
        if not self._running:
            all_of_it.cancel()

    def claim(self, attempt: TrackedAttempt) -> bool:
        """Whether ``attempt`` is the winner. It becomes the winner if there is none."""
        if self._winner is None:
            self._winner = attempt
            for other, scope in self._running.items():
                if other is not attempt:
                    scope.cancel()
        return self._winner is attempt


WINDOW = 100
"""Latest samples that a quantile is taken of: machines and images change."""

MIN_SAMPLES = 20
"""With fewer samples a quantile says little."""

MAX_KEYS = 1024
"""Functions whose latencies are remembered, the most recently reserved ones."""

BURST = 10.0
"""Hedges that can be saved up."""


class RecentQuantile:
    """An exact quantile of the latest `WINDOW` samples: one sorted list of that length."""

    def __init__(self) -> None:
        self._in_order: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, sample: float) -> None:
        if len(self._in_order) == WINDOW:
            del self._sorted[bisect_left(self._sorted, self._in_order.popleft())]
        self._in_order.append(sample)
        insort(self._sorted, sample)

    def value(self, q: float) -> float:
        """The least sample that a share of ``q`` of the samples does not exceed."""
        return self._sorted[max(0, math.ceil(q * len(self._sorted)) - 1)]


class Hedging:
    """When a reservation is hedged: what one placer knows of its reservations. Times are seconds.

    ``quantile`` 0 = never hedge. ``share`` is how many of a hundred reservations may be hedged, on
    average.
    """

    def __init__(self, quantile: float, share: float) -> None:
        self._quantile = quantile
        self._share = share
        self._credit = 0.0
        self._latencies = LRUDict[Hashable, RecentQuantile](MAX_KEYS)

    def __repr__(self) -> str:
        return f"<Hedging credit={self._credit:.2f} keys={len(self._latencies)}>"

    def begin(self, key: Hashable) -> float | None:
        """A reservation for ``key`` begins. Returns the seconds after which a second runner may be
        asked; ``None`` = never."""
        self._credit = min(BURST, self._credit + self._share / 100)
        known = self._latencies.get(key)
        if not self._quantile or known is None or len(known) < MIN_SAMPLES:
            return None
        return known.value(self._quantile)

    def spend(self) -> bool:
        """Whether a second runner may be asked now. If so, that counts."""
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def took(self, key: Hashable, seconds: float) -> None:
        """A runner took ``seconds`` to hold a slot for ``key``, or held none yet after ``seconds``,
        when another runner did. The latter has to count: without it long times would be missing,
        and the quantile would sink from hedge to hedge."""
        known = self._latencies.get(key)
        if known is None:
            known = self._latencies[key] = RecentQuantile()
        else:
            self._latencies.move_to_end(key)
        known.add(seconds)
