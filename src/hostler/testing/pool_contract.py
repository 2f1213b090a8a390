"""The contract of `hostler.abc.RunnerPool`, as checks that every pool has to pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from ..abc import NotPlaced, Placed, Runner, RunnerPool
from ..errors import AttemptTimedOut, FunctionFailed, RunnerClosed, ServerBusy
from .contracts import Check, check_each, require
from .fakes import fake_call

_TIME = 10.0
"""Seconds that a pool gets to know its runners, and to close."""
_PAUSE = 0.05


@attrs.frozen(kw_only=True)
class PoolSubject:
    """A pool to check, whose runners are idle and stay the same during a check."""

    pool: RunnerPool
    addresses: Sequence[str]
    """The addresses of the runners that the pool has to give, in any order; one at least."""

    async def runners(self) -> list[Runner]:
        """The pool's runners, asked for again while there are none, as placers do."""
        with trio.move_on_after(_TIME):
            while True:
                if found := list(await self.pool.runners(fake_call())):
                    return found
                await trio.sleep(_PAUSE)
        require(False, f"the pool gives no runner within {_TIME:g} s")
        return []


OpenPoolSubject = Callable[[], AbstractAsyncContextManager[PoolSubject]]


def _addresses(runners: Sequence[Runner]) -> list[str]:
    return sorted(runner.address for runner in runners)


async def gives_runners(subject: PoolSubject) -> None:
    """Each runner is given, once, and again to the next call."""
    wanted = sorted(subject.addresses)
    for _ in range(2):
        found = _addresses(await subject.runners())
        require(found == wanted, f"the pool gives {found} instead of {wanted}")


async def says_who_is_reachable(subject: PoolSubject) -> None:
    """A pool that gives runners does not say that none can be reached."""
    await subject.runners()
    try:
        subject.pool.check_reachable()
    except Exception as error:  # noqa: BLE001  (told of here)
        require(False, f"check_reachable has raised {error!r} although there are runners")


async def hears_outcomes(subject: PoolSubject) -> None:
    """Any outcome may be told. One of each does not take a runner away for good."""
    outcomes = (
        NotPlaced(ServerBusy()),
        NotPlaced(AttemptTimedOut()),
        Placed(FunctionFailed()),
        Placed(),
    )
    for runner in await subject.runners():
        for outcome in outcomes:
            try:
                subject.pool.note_outcome(runner, fake_call(), outcome, 0.1)
            except Exception as error:  # noqa: BLE001  (told of here)
                require(False, f"note_outcome has raised {error!r} for {outcome}")
    found, wanted = _addresses(await subject.runners()), sorted(subject.addresses)
    require(found == wanted, f"after all outcomes the pool gives {found} instead of {wanted}")


async def closes(subject: PoolSubject) -> None:
    """``aclose`` closes all runners, and may be called again."""
    runners = await subject.runners()
    await _close(subject.pool)
    await _close(subject.pool)
    await _require_closed(runners)


async def closes_when_cancelled(subject: PoolSubject) -> None:
    """``aclose`` closes all runners even if it is cancelled."""
    runners = await subject.runners()
    with trio.CancelScope() as scope:
        scope.cancel()
        await subject.pool.aclose()
    await _require_closed(runners)


async def _close(pool: RunnerPool) -> None:
    with trio.move_on_after(_TIME) as scope:
        await pool.aclose()
    require(not scope.cancelled_caught, f"aclose of an idle pool takes more than {_TIME:g} s")


async def _require_closed(runners: Sequence[Runner]) -> None:
    for runner in runners:
        with trio.move_on_after(_TIME):
            outcome = await runner.try_exec(fake_call())
            require(isinstance(outcome, NotPlaced), f"{runner} runs calls after its pool is closed")
            text = f"{runner} is open after its pool is closed"
            closed = isinstance(outcome, NotPlaced) and isinstance(outcome.reason, RunnerClosed)
            require(closed, text)


POOL_CHECKS: tuple[Check[PoolSubject], ...] = (
    gives_runners,
    says_who_is_reachable,
    hears_outcomes,
    closes,
    closes_when_cancelled,
)
"""Each takes a fresh `PoolSubject`."""


async def check_pool(open_subject: OpenPoolSubject) -> None:
    """Check a pool against the whole contract, each part on a fresh subject.

    Raises an ``ExceptionGroup`` of `ContractBroken` and whatever else was raised.
    """
    await check_each(POOL_CHECKS, open_subject)
