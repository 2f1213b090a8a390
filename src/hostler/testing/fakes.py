"""Runners and pools that follow a script, on virtual time, and calls to place on them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import trio

from ..abc import Body, CallRequest, NotPlaced, Outcome, Placed, Runner, RunnerCall, RunnerPool
from ..bodies import BytesBody
from ..calls import DiscardWriter, PendingCall
from ..errors import ReservationAbandoned, RunnerClosed, ServerBusy
from ..models import Call
from ..protocol import UNOBSERVED, AttemptObserver, RunnerStatus

_numbers = itertools.count(1)


def fake_call(*, body: Body | bytes = b"", **model: Any) -> PendingCall:
    """A call that can be placed; ``model`` are fields of `Call`."""
    fields = {"id": f"call{next(_numbers)}", "fn_id": "fn1", "app_id": "app1", "type": "sync"}
    request_body = BytesBody(body) if isinstance(body, bytes) else body
    return PendingCall(
        model=Call(**{**fields, **model}),
        body=request_body,
        writer=DiscardWriter(),
        request=CallRequest(method="POST", url="/invoke/fn1", headers={}, body=request_body),
    )


@attrs.frozen(kw_only=True)
class FakeAttempt:
    """How one attempt goes. Times in seconds of ``trio.current_time``.

    ``outcome`` comes ``connect_time`` plus ``run_time`` after the start; in between the attempt
    is committed, unless ``commits`` is false, as for a runner that can't be reached. If the call
    reserves its slot, that takes ``reserve_time`` in between.
    """

    outcome: Outcome = attrs.Factory(Placed)
    connect_time: float = 0
    run_time: float = 0
    reserve_time: float = 0
    commits: bool = True


NACK = FakeAttempt(outcome=NotPlaced(ServerBusy()))
"""The runner has no room."""
UNREACHABLE = FakeAttempt(outcome=NotPlaced(ConnectionRefusedError("refused")), commits=False)
"""The runner's machine refuses the connection."""


class FakeRunner(Runner):
    """A runner whose attempts follow ``script``, one after the other, then ``otherwise``.

    With ``capacity`` it NACKs what is over it, whatever the script says. With ``reserves`` it
    takes reservations, which count against the capacity. Records ``attempts`` (time and call id,
    in order) and ``commits`` (call ids); counts ``held`` slots and ``running`` attempts now, and
    those ``cancelled``.
    """

    def __init__(
        self,
        address: str = "fake:1",
        *,
        script: Iterable[FakeAttempt] = (),
        otherwise: FakeAttempt = FakeAttempt(),
        capacity: int | None = None,
        reserves: bool = False,
    ) -> None:
        self.attempts: list[tuple[float, str]] = []
        self.commits: list[str] = []
        self.held = 0
        self.running = 0
        self.cancelled = 0
        self.otherwise = otherwise
        self.capacity = capacity
        self._script = iter(script)
        self._reserves = reserves
        self._address = address
        self._closed = False
        self._idle = trio.Event()
        self._scopes: set[trio.CancelScope] = set()

    def __repr__(self) -> str:
        return f"<FakeRunner {self._address} attempts={len(self.attempts)} running={self.running}>"

    @property
    def address(self) -> str:
        return self._address

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed

    async def try_exec(self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED) -> Outcome:
        attempt = self._begin(call)
        with self._cancellations_counted():
            await trio.sleep(attempt.connect_time)
            if not attempt.commits:
                return attempt.outcome
            observer.committed()
            return await self._run(call, attempt)

    @property
    def reserves(self) -> bool:
        return self._reserves

    async def try_reserve(
        self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED
    ) -> Outcome:
        attempt = self._begin(call)
        with self._cancellations_counted():
            await trio.sleep(attempt.connect_time)
            if not attempt.commits:
                return attempt.outcome
            observer.asked()
            if self._full():
                await trio.lowlevel.checkpoint()
                return NotPlaced(ServerBusy())
            self.held += 1
            try:
                await trio.sleep(attempt.reserve_time)
                if isinstance(attempt.outcome, NotPlaced):
                    return attempt.outcome
                if not observer.claim():
                    return NotPlaced(ReservationAbandoned())
            finally:
                self.held -= 1
            observer.committed()
            return await self._run(call, attempt)

    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        await trio.lowlevel.checkpoint()
        return RunnerStatus(active=self.running, id=self._address)

    async def aclose(self) -> None:
        self._closed = True
        try:
            await trio.lowlevel.checkpoint()
            if self.running:
                await self._idle.wait()
        finally:
            for scope in self._scopes:
                scope.cancel()

    def _begin(self, call: RunnerCall) -> FakeAttempt:
        self.attempts.append((trio.current_time(), call.model.id))
        if self._closed:
            return FakeAttempt(outcome=NotPlaced(RunnerClosed()), commits=False)
        call.attempts += 1
        return next(self._script, self.otherwise)

    @contextmanager
    def _cancellations_counted(self) -> Iterator[None]:
        try:
            yield
        except trio.Cancelled:
            self.cancelled += 1
            raise

    def _full(self) -> bool:
        return self.capacity is not None and self.running + self.held >= self.capacity

    async def _run(self, call: RunnerCall, attempt: FakeAttempt) -> Outcome:
        """The attempt from its commit on."""
        self.commits.append(call.model.id)
        if self._full():
            await trio.lowlevel.checkpoint()
            return NotPlaced(ServerBusy())
        call.runner_address = self._address
        self.running += 1
        try:
            with trio.CancelScope() as scope:
                self._scopes.add(scope)
                await trio.sleep(attempt.run_time)
                return attempt.outcome
            return Placed(RunnerClosed())
        finally:
            self._scopes.discard(scope)
            self.running -= 1
            if not self.running:
                self._idle.set()
                self._idle = trio.Event()


class FakePool(RunnerPool):
    """A pool that answers as ``script`` says, one answer a query, then with its ``members``.

    An answer is a list of runners or an exception to raise. ``queries`` counts; ``members`` and
    ``trouble`` (raised, while it is set, once the script is over) may be changed at any time.
    ``outcomes`` records what placers tell.
    """

    def __init__(
        self,
        runners: Iterable[Runner] = (),
        *,
        script: Iterable[Sequence[Runner] | Exception] = (),
        trouble: Exception | None = None,
    ) -> None:
        self.members = list(runners)
        self.trouble = trouble
        self.queries = 0
        self.outcomes: list[tuple[Runner, Outcome]] = []
        self.closed = False
        self._script = iter(script)

    async def runners(self, call: RunnerCall) -> Sequence[Runner]:
        self.queries += 1
        await trio.lowlevel.checkpoint()
        answer = next(self._script, None)
        if answer is None:
            answer = self.members if self.trouble is None else self.trouble
        if isinstance(answer, Exception):
            raise answer.with_traceback(None)
        return list(answer)

    def note_outcome(
        self, runner: Runner, call: RunnerCall, outcome: Outcome, seconds: float
    ) -> None:
        self.outcomes.append((runner, outcome))

    async def aclose(self) -> None:
        self.closed = True
        async with trio.open_nursery() as nursery:
            for runner in self.members:
                nursery.start_soon(runner.aclose)
