"""The attempts of one call: plain ones, reserved ones, and races of two."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import trio

from ..abc import NotPlaced, Outcome, Placed, Runner, RunnerCall
from ..config import PlacerConfig
from ..engagement import EngagementFailed, NotSent
from ..errors import ReservationAbandoned, RunnerClosed, ServiceReservationFailure
from ._hedging import Hedging
from ._race import Claim, Race
from ._room import Line, Room
from ._tracker import AttemptTimedOut, AttemptTracker, TrackedAttempt

Start = Callable[[trio.CancelScope, Callable[[], None]], Awaitable[Outcome]]
"""Begins an attempt, of which it gets the scope with its deadline, and what to call when it is
committed."""


class Candidates:
    """The runners of one sweep, in its order. Each comes out once."""

    def __init__(self, order: Iterable[Runner]) -> None:
        self._order = iter(order)
        self._passed: deque[Runner] = deque()

    def __iter__(self) -> Iterator[Runner]:
        return self

    def __next__(self) -> Runner:
        return self._passed.popleft() if self._passed else next(self._order)

    @property
    def more(self) -> bool:
        """Whether there is another one."""
        if not self._passed and (runner := next(self._order, None)) is not None:
            self._passed.append(runner)
        return bool(self._passed)

    def next_reserving(self) -> Runner | None:
        """The next that takes reservations; those before it come out later."""
        passed = deque[Runner]()
        found = None
        for runner in self:
            if runner.reserves:
                found = runner
                break
            passed.append(runner)
        self._passed.extendleft(reversed(passed))
        return found


class Trying:
    """Tries runners for one call. ``key`` is what calls have in common that need the same.

    The ``deadline`` of the placer or the call (`trio.current_time`) and `refuse` end attempts that
    are not committed yet. Those before ``gentle_until`` are not to have containers evicted that are
    worth keeping.
    """

    def __init__(
        self,
        call: RunnerCall,
        key: Hashable,
        *,
        room: Room,
        tracker: AttemptTracker,
        hedging: Hedging,
        config: PlacerConfig,
        deadline: float,
        gentle_until: float = -math.inf,
    ) -> None:
        self.gentle_until = gentle_until
        self.placers_deadline = deadline
        self.deadline = min(deadline, call.deadline)
        self.refused = False
        self._call = call
        self._key = key
        self._room = room
        self._tracker = tracker
        self._hedging = hedging
        self._config = config
        self._scopes: set[trio.CancelScope] = set()

    @property
    def gentle(self) -> bool:
        return trio.current_time() < self.gentle_until

    @property
    def over(self) -> bool:
        return self.refused or trio.current_time() >= self.deadline

    def refuse(self) -> None:
        """Give up at once, unless a runner has the call."""
        self.refused = True
        for scope in self._scopes:
            scope.cancel()

    @contextmanager
    def searching(self, seconds: float = math.inf) -> Iterator[trio.CancelScope]:
        """A block that ends with the placer's time, after ``seconds`` and by `refuse`."""
        until = min(self.deadline, trio.current_time() + seconds)
        with trio.CancelScope(deadline=until) as scope:
            self._scopes.add(scope)
            if self.refused:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    async def attempt(
        self,
        runner: Runner,
        others: Candidates | None = None,
        *,
        counted: bool = False,
        hot: bool = False,
        stood: bool = False,
    ) -> Outcome:
        """Try ``runner``, by a reservation if it takes them and a hot container is not to be
        expected there: then the round trip is nothing beside the start of a container. If that
        takes long, one of ``others`` is asked as well. ``hot``: a container for it has just become
        free there; a reservation would let it idle for a round trip. With ``stood``, as such calls
        have found no room elsewhere, it may wait there to be the next on it. ``counted``: the
        line's `Ahead` has this attempt already."""
        self._call.queue_seconds = self._patience(runner) if hot and stood else 0.0
        self._call.gentle = self.gentle
        with _Attempting(self, runner, counted=counted) as attempt:
            if hot or attempt.warm or not runner.reserves or not self._config.reserve:
                return await self._exec(attempt)
            delay = self._hedging.begin(self._key)
            if delay is None or others is None or self._room.waiting:
                return await self._reserve(attempt, others, lambda: True)

            async def contend(contender: Runner, claim: Claim) -> Outcome:
                if contender is runner:
                    return await self._reserve(attempt, others, claim)

                def claim_instead() -> bool:
                    won = claim()
                    if won:  # so the first takes even longer
                        self._hedging.took(self._key, trio.current_time() - attempt.began)
                    return won

                with _Attempting(self, contender) as second:
                    return await self._reserve(second, others, claim_instead, hedge=True)

            return await Race(contend).run(runner, delay, lambda: self._second(others))

    def _patience(self, runner: Runner) -> float:
        line = self._room.find(self._key)
        if line is None or not self._room.alone(line):
            return 0.0
        return line.ahead.patience(runner.address, self._tracker.run_seconds)

    def enter(self, runner: Runner) -> TrackedAttempt:
        """An attempt begins; `leave` tells its end."""
        return self._tracker.begin(runner)

    def leave(self, attempt: TrackedAttempt) -> None:
        """The place that it leaves at the runner is offered to the next, once it is known what the
        runner said of itself."""
        try:
            self._tracker.over(attempt)
        finally:
            if attempt.committed and _leaves_room(attempt.outcome):
                self._learn(attempt.address, attempt.outcome)
                self._room.freed(attempt.runner, self._key)

    def line(self) -> Line | None:
        """That of the call, if there is one."""
        return self._room.find(self._key)

    def _learn(self, address: str, outcome: Outcome | None) -> None:
        load = None if outcome is None else outcome.load
        if load is not None and load.slot and (line := self.line()) is not None:
            line.ahead.learn(address, load.slots)

    def _second(self, others: Candidates) -> Runner | None:
        runner = None
        # With others waiting, a second slot is one that they don't get.
        if not self._room.waiting and self._hedging.spend():
            runner = others.next_reserving()
        if runner is not None:
            self._tracker.hedged()
        return runner

    async def _exec(self, attempt: TrackedAttempt) -> Outcome:
        """The whole call at once, and without a scope of its own if it can be sent without a
        wait."""
        call, runner = self._call, attempt.runner
        await trio.lowlevel.checkpoint_if_cancelled()
        begun = runner.begin_exec(call, on_commit=partial(self._tracker.committed, attempt))
        if begun is None:
            return await self._try(
                attempt, lambda scope, commit: runner.try_exec(call, on_commit=commit)
            )
        outcome = await begun()
        self._tracker.end(attempt, outcome)
        return outcome

    async def _reserve(
        self,
        attempt: TrackedAttempt,
        others: Candidates | None,
        claim: Claim,
        *,
        hedge: bool = False,
    ) -> Outcome:
        """One reservation. Only with ``claim`` may it end the call, in whatever way.

        It has its limit only while there are others to turn to: who gives up a place in the only
        runner's queue comes back at the end of it.
        """

        def claim_slot() -> bool:
            self._hedging.took(self._key, trio.current_time() - attempt.began)
            return claim()

        async def start(scope: trio.CancelScope, commit: Callable[[], None]) -> Outcome:
            def asked() -> None:
                self._tracker.asked(attempt)
                scope.deadline = self.deadline
                if others is not None and others.more:
                    limit = trio.current_time() + self._config.reserve_timeout
                    scope.deadline = min(self.deadline, limit)

            outcome = await attempt.runner.try_reserve(
                self._call, claim=claim_slot, on_asked=asked, on_commit=commit
            )
            if isinstance(outcome, Placed) and not claim():
                return NotPlaced(ReservationAbandoned())
            return outcome

        return await self._try(attempt, start, hedge=hedge)

    async def _try(self, attempt: TrackedAttempt, start: Start, *, hedge: bool = False) -> Outcome:
        committed = False
        outcome: Outcome | None = None
        with self.searching(self._config.attempt_timeout) as scope:

            def commit() -> None:
                nonlocal committed
                committed = True
                scope.deadline = math.inf
                self._scopes.discard(scope)
                self._tracker.committed(attempt, hedge=hedge)

            outcome = await start(scope, commit)
        if outcome is None:
            outcome = _interrupted(committed=committed)
        self._tracker.end(attempt, outcome)
        return outcome


class _Attempting:
    """One attempt, which is the block; the calls of its line at that runner are counted meanwhile,
    unless they are ``counted`` already. (A class, because a generator costs several times as much,
    and each call has one of these.)"""

    __slots__ = ("_attempt", "_line", "_runner", "_trying")
    _attempt: TrackedAttempt

    def __init__(self, trying: Trying, runner: Runner, *, counted: bool = False) -> None:
        self._trying = trying
        self._runner = runner
        self._line = None if counted else trying.line()

    def __enter__(self) -> TrackedAttempt:
        self._attempt = self._trying.enter(self._runner)
        if self._line is not None:
            self._line.ahead.begin(self._attempt.address)
        return self._attempt

    def __exit__(self, *_: object) -> None:
        try:
            self._trying.leave(self._attempt)
        finally:
            if self._line is not None:
                self._line.ahead.end(self._attempt.address)


def _interrupted(*, committed: bool) -> Outcome:
    if committed:
        # The time was over in the very moment of the commit: the call may have run.
        return Placed(ServiceReservationFailure())
    return NotPlaced(AttemptTimedOut("the runner did not take the call in time"))


def _leaves_room(outcome: Outcome | None) -> bool:
    """Whether a committed attempt that ended so has probably freed a place at its runner."""
    if isinstance(outcome, NotPlaced):
        return False
    error = None if outcome is None else outcome.error
    return not isinstance(error, EngagementFailed | NotSent | RunnerClosed)
