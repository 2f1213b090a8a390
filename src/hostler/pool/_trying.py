"""The attempts of one call: plain ones, reserved ones, and races of two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

import trio

from ..abc import NotPlaced, Outcome, Placed, Runner
from ..config import PlacerConfig
from ..errors import ReservationAbandoned, RunnerClosed, ServiceReservationFailure
from ..protocol import EngagementFailed, NotSent
from ._hedging import Hedging
from ._race import Claim, Race
from ._search import Search
from ._tracker import AttemptTimedOut, AttemptTracker, TrackedAttempt

Start = Callable[[trio.CancelScope, Callable[[], None]], Awaitable[Outcome]]
"""Begins an attempt, of which it gets the scope with its deadline, and what to call when it is
committed."""


class Candidates:
    """The runners of one sweep, in its order. Each comes out once. ``order`` is only called when
    one of them is asked for."""

    _order: Iterator[Runner] | None = None

    def __init__(self, order: Callable[[], Iterable[Runner]]) -> None:
        self._make_order = order
        self._passed: list[Runner] = []

    def __iter__(self) -> Iterator[Runner]:
        return self

    def __next__(self) -> Runner:
        return self._passed.pop(0) if self._passed else next(self._others)

    @property
    def _others(self) -> Iterator[Runner]:
        if self._order is None:
            self._order = iter(self._make_order())
        return self._order

    @property
    def more(self) -> bool:
        """Whether there is another one."""
        if not self._passed and (runner := next(self._others, None)) is not None:
            self._passed.append(runner)
        return bool(self._passed)

    def next_reserving(self) -> Runner | None:
        """The next that takes reservations; those before it come out later."""
        passed: list[Runner] = []
        found = None
        for runner in self:
            if runner.reserves:
                found = runner
                break
            passed.append(runner)
        self._passed[:0] = passed
        return found


class Trying:
    """Tries runners for the calls of a placer."""

    def __init__(self, tracker: AttemptTracker, hedging: Hedging, config: PlacerConfig) -> None:
        self._tracker = tracker
        self._hedging = hedging
        self._config = config

    async def attempt(
        self,
        search: Search,
        runner: Runner,
        now: float,
        others: Candidates | None = None,
        *,
        counted: bool = False,
        hot: bool = False,
    ) -> Outcome:
        """Try ``runner``, by a reservation if it takes them and a hot container is not to be
        expected there: then the round trip is nothing beside the start of a container. If that
        takes long, one of ``others`` is asked as well. ``hot``: a container for it has just become
        free there; a reservation would let it idle for a round trip. If another call has it by
        then it may wait there to be the next on it, rather than have another container started.
        ``counted``: the line's `Ahead` has this attempt already."""
        call = search.call
        call.gentle = now < search.gentle_until
        attempt = self._tracker.begin(search, runner, now, counted=counted)
        hot = hot or attempt.warm
        call.queue_seconds = self._patience(search, runner) if hot else 0.0
        try:
            if hot or not runner.reserves or not self._config.reserve:
                # The whole call at once, without a scope of its own if it needs no wait.
                await trio.lowlevel.checkpoint_if_cancelled()
                begun = runner.begin_exec(call, on_commit=attempt.commit)
                if begun is None:
                    return await self._exec(attempt)
                outcome = await begun()
                self._tracker.end(attempt, outcome)
                return outcome
            delay = self._hedging.begin(search.need.key)
            if delay is None or others is None or search.room.waiting:
                return await self._reserve(attempt, others, lambda: True)
            return await self._race(attempt, others, delay)
        finally:
            self._leave(attempt)

    def is_invited(self, search: Search, runner: Runner) -> bool:
        """Whether the runner, which has just refused the call, would have it wait there: other LBs
        have more there than this one."""
        return search.line.ahead.may_join(runner.address) and self._patience(search, runner) > 0

    def _patience(self, search: Search, runner: Runner) -> float:
        if not search.room.alone(search.line):
            return 0.0
        run_seconds = self._tracker.run_seconds(search.need)
        return search.line.ahead.patience(runner.address, run_seconds)

    def _leave(self, attempt: TrackedAttempt) -> None:
        """It is over. The place that it leaves at the runner is offered to the next, once it is
        known what the runner said of itself; until then it counts."""
        try:
            self._tracker.over(attempt, trio.current_time())
            outcome = attempt.outcome
            if attempt.committed:
                line = attempt.search.line
                load = None if outcome is None else outcome.load
                ended = _leaves_room(outcome)
                # Who is refused joins those that wait there only if others have more there.
                if load is not None and load.slot and (ended or load.share):
                    line.ahead.learn(attempt.runner, load.slots, load.share, load.starting)
                if ended:
                    leave = load is not None and load.leave
                    attempt.search.room.freed(attempt.runner, line, leave=leave)
        finally:
            if attempt.line is not None:
                attempt.line.left(attempt.address)

    async def _exec(self, attempt: TrackedAttempt) -> Outcome:
        async def start(_: trio.CancelScope, commit: Callable[[], None]) -> Outcome:
            return await attempt.runner.try_exec(attempt.search.call, on_commit=commit)

        return await self._try(attempt, start)

    async def _race(self, first: TrackedAttempt, others: Candidates, delay: float) -> Outcome:
        """A reservation, and after ``delay`` seconds another one somewhere else."""
        search = first.search

        async def contend(contender: Runner, claim: Claim) -> Outcome:
            if contender is first.runner:
                return await self._reserve(first, others, claim)

            def claim_instead() -> bool:
                won = claim()
                if won:  # so the first takes even longer
                    self._hedging.took(search.need.key, trio.current_time() - first.began)
                return won

            second = self._tracker.begin(search, contender, trio.current_time())
            second.hedge = True
            try:
                return await self._reserve(second, others, claim_instead)
            finally:
                self._leave(second)

        return await Race(contend).run(first.runner, delay, lambda: self._second(search, others))

    def _second(self, search: Search, others: Candidates) -> Runner | None:
        runner = None
        # With others waiting, a second slot is one that they don't get.
        if not search.room.waiting and self._hedging.spend():
            runner = others.next_reserving()
        if runner is not None:
            self._tracker.hedged()
        return runner

    async def _reserve(
        self, attempt: TrackedAttempt, others: Candidates | None, claim: Claim
    ) -> Outcome:
        """One reservation. Only with ``claim`` may it end the call, in whatever way.

        It has its limit only while there are others to turn to: who gives up a place in the only
        runner's queue comes back at the end of it.
        """
        search = attempt.search

        def claim_slot() -> bool:
            self._hedging.took(search.need.key, trio.current_time() - attempt.began)
            return claim()

        async def start(scope: trio.CancelScope, commit: Callable[[], None]) -> Outcome:
            def asked() -> None:
                self._tracker.asked(attempt)
                scope.deadline = search.deadline
                if others is not None and others.more:
                    limit = trio.current_time() + self._config.reserve_timeout
                    scope.deadline = min(search.deadline, limit)

            outcome = await attempt.runner.try_reserve(
                search.call, claim=claim_slot, on_asked=asked, on_commit=commit
            )
            if isinstance(outcome, Placed) and not claim():
                return NotPlaced(ReservationAbandoned())
            return outcome

        return await self._try(attempt, start)

    async def _try(self, attempt: TrackedAttempt, start: Start) -> Outcome:
        outcome: Outcome | None = None
        search = attempt.search
        with search.searching(self._config.attempt_timeout) as scope:

            def commit() -> None:
                search.found(scope)
                attempt.commit()

            outcome = await start(scope, commit)
        if outcome is None:
            outcome = _interrupted(committed=attempt.committed)
        self._tracker.end(attempt, outcome)
        return outcome


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
    return error is None or not isinstance(error, EngagementFailed | NotSent | RunnerClosed)
