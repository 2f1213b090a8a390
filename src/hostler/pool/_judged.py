"""A runner whose attempts are told to the board that judges it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import trio

from .._concurrency.nurseries import is_timeout
from ..abc import Begun, NotPlaced, Outcome, Runner, RunnerCall
from ..errors import (
    APIError,
    FunctionError,
    ProtocolError,
    ReservationAbandoned,
    RunnerClosed,
    ServerBusy,
)
from ..protocol import UNAVAILABLE_STATUS, EngagementFailed, LoadHint, RunnerStatus
from ._health import HealthBoard
from ._verdict import MissingEOF, RunnerFault

SLOW_TO_TAKE = 0.5
"""Seconds. An attempt that its scope's deadline ended before the call was taken says something
about the runner only if it had at least that long: a client may be in a hurry."""
_UNWANTED = (1, 4)
"""The gRPC statuses CANCELLED and DEADLINE_EXCEEDED, of a client that did not want to wait."""


class JudgedRunner(Runner):
    """Passes everything on to ``runner``; each outcome goes to ``board`` too, whoever places."""

    def __init__(self, runner: Runner, board: HealthBoard) -> None:
        self._runner = runner
        self._address = runner.address  # asked for often
        self._board = board

    def __repr__(self) -> str:
        return f"<JudgedRunner {self._runner!r} {self._board.cause(self) or 'in use'}>"

    @property
    def address(self) -> str:
        return self._address

    async def try_exec(
        self, call: RunnerCall, *, on_commit: Callable[[], None] = lambda: None
    ) -> Outcome:
        began = trio.current_time()
        with self._judging_delay() as taken:
            outcome = await self._runner.try_exec(call, on_commit=_both(taken, on_commit))
        self._judge(call, outcome, began)
        return outcome

    def begin_exec(
        self,
        call: RunnerCall,
        *,
        on_commit: Callable[[], None],
        on_end: Callable[[Outcome], None] = lambda outcome: None,
    ) -> Begun | None:
        began = trio.current_time()

        def ended(outcome: Outcome) -> None:
            self._judge(call, outcome, began)
            on_end(outcome)

        return self._runner.begin_exec(call, on_commit=on_commit, on_end=ended)

    @property
    def reserves(self) -> bool:
        return self._runner.reserves

    async def try_reserve(
        self,
        call: RunnerCall,
        *,
        claim: Callable[[], bool],
        on_asked: Callable[[], None] = lambda: None,
        on_commit: Callable[[], None] = lambda: None,
    ) -> Outcome:
        began = trio.current_time()
        # How long it takes until there is a slot (an image may have to be pulled) is no fault.
        with self._judging_delay() as taken:
            outcome = await self._runner.try_reserve(
                call, claim=claim, on_asked=_both(taken, on_asked), on_commit=on_commit
            )
        self._judge(call, outcome, began)
        return outcome

    @contextmanager
    def _judging_delay(self) -> Iterator[Callable[[], None]]:
        """An attempt, which has to be handed over before its time is over; to be called then."""
        began = trio.current_time()
        is_taken = False

        def taken() -> None:
            nonlocal is_taken
            is_taken = True

        try:
            yield taken
        except BaseException as error:
            now = trio.current_time()
            if not is_taken and now - began >= SLOW_TO_TAKE and is_timeout(error):
                self._board.failed(self, now, "the runner did not take the call in time")
            raise

    def _judge(self, call: RunnerCall, outcome: Outcome, began: float) -> None:
        now = trio.current_time()
        if isinstance(outcome, NotPlaced):
            self._judge_refusal(outcome.reason, now)
        elif outcome.error is None:
            ran_ns = call.timings.execution_ns
            overhead = max(0.0, now - began - ran_ns / 1e9) if ran_ns else None
            self._board.succeeded(self, now, overhead)
        else:
            self._judge_error(outcome.error, now)

    def _judge_refusal(self, reason: Exception, now: float) -> None:
        wish = isinstance(reason, EngagementFailed) and reason.status in _UNWANTED
        if isinstance(reason, ServerBusy | ReservationAbandoned) or wish:
            self._board.reached(self, now)
        elif not isinstance(reason, RunnerClosed):
            self._board.failed(self, now, str(reason))

    def _judge_error(self, error: Exception, now: float) -> None:
        """Whose fault is it? What is left out is the client's: its body, its writer, its haste."""
        if isinstance(error, FunctionError):
            self._board.succeeded(self, now)
        elif isinstance(error, EngagementFailed) and error.status == UNAVAILABLE_STATUS:
            self._board.failed(self, now, error.text)
        elif isinstance(error, EngagementFailed) and error.status in _UNWANTED:
            self._board.reached(self, now)
        elif isinstance(error, EngagementFailed | RunnerFault | ProtocolError | MissingEOF):
            self._board.faulted(self, now, str(error))
        elif isinstance(error, ServerBusy):
            self._board.reached(self, now)
        elif isinstance(error, APIError):
            if error.code == APIError.default_code:
                self._board.faulted(self, now, error.message)
            else:
                self._board.reached(self, now)

    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        return await self._runner.status(payload)

    async def watch_health(self, tell: Callable[[bool], None]) -> None:
        await self._runner.watch_health(tell)

    async def watch_load(self, tell: Callable[[LoadHint], None]) -> None:
        await self._runner.watch_load(tell)

    async def aclose(self) -> None:
        await self._runner.aclose()


def _both(one: Callable[[], None], other: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        one()
        other()

    return call
