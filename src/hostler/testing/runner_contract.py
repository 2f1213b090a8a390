"""The contract of `hostler.abc.Runner`, as checks that every runner has to pass."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing

import attrs
import trio

from ..abc import NotPlaced, Outcome, Placed, Runner
from ..calls import PendingCall
from ..errors import ReservationAbandoned
from ..protocol import AttemptObserver, LoadHint, RunnerStatus
from .contracts import Check, check_each, require

_TIME = 10.0
"""Seconds that a runner gets for a call, and to close."""
_CALLS = 8
_WATCH_TIME = 0.5


@attrs.frozen(kw_only=True)
class RunnerSubject:
    """A runner to check."""

    runner: Runner
    """A runner that is reachable and has room for 8 calls at once."""
    new_call: Callable[[], PendingCall]
    """Makes a call that succeeds, within seconds, if the runner runs it."""


OpenRunnerSubject = Callable[[], AbstractAsyncContextManager[RunnerSubject]]


class _CountingObserver(AttemptObserver):
    def __init__(self, *, claims: bool = True) -> None:
        self.claims = claims
        self.claimed = self.commits = 0

    def claim(self) -> bool:
        self.claimed += 1
        return self.claims

    def committed(self) -> None:
        self.commits += 1


def _require_run(subject: RunnerSubject, call: PendingCall, outcome: Outcome, how: str) -> None:
    require(isinstance(outcome, Placed), f"{how}: the call was not placed: {outcome}")
    error = outcome.error if isinstance(outcome, Placed) else None
    require(error is None, f"{how}: the call has failed: {error!r}")
    address = subject.runner.address
    text = f"{how}: the call's runner_address is {call.runner_address!r} instead of {address!r}"
    require(call.runner_address == address, text)


async def _run(subject: RunnerSubject, how: str = "try_exec") -> None:
    call, observer = subject.new_call(), _CountingObserver()
    with trio.move_on_after(_TIME) as scope:
        _require_run(subject, call, await subject.runner.try_exec(call, observer), how)
    require(not scope.cancelled_caught, f"{how}: no outcome within {_TIME:g} s")
    require(observer.commits == 1, f"{how}: committed was told {observer.commits} times")


async def has_an_address(subject: RunnerSubject) -> None:
    """There is an address, and a call does not change it."""
    before = subject.runner.address
    require(before, "the address is empty")
    await _run(subject)
    after = subject.runner.address
    require(after == before, f"the address has changed from {before!r} to {after!r}")


async def runs_calls(subject: RunnerSubject) -> None:
    """A call is placed and told as committed once; calls run one after another and together."""
    for _ in range(2):
        await _run(subject)
    async with trio.open_nursery() as nursery:
        for _ in range(_CALLS):
            nursery.start_soon(_run, subject, "calls side by side")


async def reserves_slots(subject: RunnerSubject) -> None:
    """A reservation that is claimed runs the call, once."""
    call, observer = subject.new_call(), _CountingObserver()
    outcome = await subject.runner.try_reserve(call, observer)
    _require_run(subject, call, outcome, "try_reserve")
    require(observer.claimed == 1, f"claim was asked {observer.claimed} times")
    require(observer.commits == 1, f"try_reserve: committed was told {observer.commits} times")


async def gives_slots_back(subject: RunnerSubject) -> None:
    """A reservation that is not claimed runs nothing, and the next call is run."""
    observer = _CountingObserver(claims=False)
    outcome = await subject.runner.try_reserve(subject.new_call(), observer)
    reason = outcome.reason if isinstance(outcome, NotPlaced) else None
    text = f"the outcome of an unclaimed reservation is {outcome}"
    require(isinstance(reason, ReservationAbandoned), text)
    require(observer.commits == 0, "a reservation that nobody has claimed was committed")
    await _run(subject, "after an unclaimed reservation")


async def can_be_cancelled(subject: RunnerSubject) -> None:
    """A cancelled attempt ends with the cancellation, and the next call is run."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await subject.runner.try_exec(subject.new_call())
    require(scope.cancelled_caught, "try_exec has turned a cancellation into an outcome")
    await _run(subject, "after a cancelled attempt")


async def tells_its_status(subject: RunnerSubject) -> None:
    """A runner that can be reached has a status."""
    status = await subject.runner.status()
    require(isinstance(status, RunnerStatus), f"the status is {status!r}")


async def can_be_watched(subject: RunnerSubject) -> None:
    """Watches yield what they promise, or end, and can be left."""
    await _watch(subject.runner.watch_health(), bool, "watch_health")
    await _watch(subject.runner.watch_load(), LoadHint, "watch_load")
    await _run(subject, "after it was watched")


async def _watch(watch: AsyncGenerator[object, None], kind: type, name: str) -> None:
    with trio.move_on_after(_WATCH_TIME):
        async with aclosing(watch):
            async for item in watch:
                require(isinstance(item, kind), f"{name} yields {item!r}")
                break


async def closes(subject: RunnerSubject) -> None:
    """A closed runner takes no calls, which is an outcome. Closing again does nothing."""
    await _run(subject)
    with trio.move_on_after(_TIME) as scope:
        await subject.runner.aclose()
        await subject.runner.aclose()
    require(not scope.cancelled_caught, f"aclose of an idle runner takes more than {_TIME:g} s")
    await _require_closed(subject)


async def closes_when_cancelled(subject: RunnerSubject) -> None:
    """A runner whose ``aclose`` is cancelled is closed all the same."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await subject.runner.aclose()
    await _require_closed(subject)


async def _require_closed(subject: RunnerSubject) -> None:
    observer = _CountingObserver()
    outcome = await subject.runner.try_exec(subject.new_call(), observer)
    require(isinstance(outcome, NotPlaced), f"a closed runner has taken a call: {outcome}")
    require(observer.commits == 0, "a closed runner has committed a call")


RUNNER_CHECKS: tuple[Check[RunnerSubject], ...] = (
    has_an_address,
    runs_calls,
    reserves_slots,
    gives_slots_back,
    can_be_cancelled,
    tells_its_status,
    can_be_watched,
    closes,
    closes_when_cancelled,
)
"""Each takes a fresh `RunnerSubject`."""


async def check_runner(open_subject: OpenRunnerSubject) -> None:
    """Check a runner against the whole contract, each part on a fresh subject.

    Raises an ``ExceptionGroup`` of `ContractBroken` and whatever else was raised.
    """
    await check_each(RUNNER_CHECKS, open_subject)
