"""The seam of one runner of a pool, and what an attempt there comes to. Part of `hostler.abc`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from .errors import ReservationAbandoned
from .frames import LoadHint, RunnerStatus

if TYPE_CHECKING:
    from .abc import RunnerCall


class Placed(msgspec.Struct, frozen=True, eq=False):
    """The call was (or may have been) run: final. ``error`` is its outcome, ``None`` = success.

    ``load`` is what the runner said about itself, if it does that; outcomes with others are equal.
    """

    error: Exception | None = None
    load: LoadHint | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Placed) and self.error == other.error

    def __hash__(self) -> int:
        return hash(self.error)


class NotPlaced(msgspec.Struct, frozen=True, eq=False):
    """The call certainly did not run and may be tried on any runner.

    ``reason`` is a `ServerBusy` for a NACK (the runner is healthy, only full), anything else
    for a runner that can't be reached. ``retry_after`` is the runner's hint in seconds, ``load``
    as for `Placed`.
    """

    reason: Exception
    retry_after: float | None = None
    load: LoadHint | None = None

    def __eq__(self, other: object) -> bool:
        seen = (self.reason, self.retry_after)
        return isinstance(other, NotPlaced) and seen == (other.reason, other.retry_after)

    def __hash__(self) -> int:
        return hash((self.reason, self.retry_after))


Outcome = Placed | NotPlaced

Begun = Callable[[], Awaitable[Outcome]]
"""Sees an attempt to its end that has begun."""


class Runner(ABC):
    """One runner of a pool."""

    @property
    @abstractmethod
    def address(self) -> str:
        """``host:port``."""

    @abstractmethod
    async def try_exec(
        self, call: RunnerCall, *, on_commit: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Try to run ``call`` here; the response goes to ``call.writer``.

        ``on_commit`` is called once, synchronously, at the moment after which the call may run:
        when it was handed to the transport. Until then the caller's scope may carry a deadline,
        and ending the attempt is harmless; a placer lifts the deadline in ``on_commit``.
        Cancelling later cancels the call on the runner. Never raises for a failing call or
        runner: both are outcomes.
        """

    def begin_exec(
        self,
        call: RunnerCall,
        *,
        on_commit: Callable[[], None],
        on_end: Callable[[Outcome], None] = lambda outcome: None,
    ) -> Begun | None:
        """As `try_exec`, if the call can be handed over without any wait: ``on_commit`` is called
        before this returns, and what is returned has to be called, and awaited, at once.
        ``on_end`` is told its outcome, synchronously: who wraps a runner needs no frame of its own
        for that.

        ``None`` if that is not possible now; then `try_exec` is. The default. It spares an attempt
        its deadline, which costs more than the attempt.
        """
        return None

    @property
    def reserves(self) -> bool:
        """Whether the runner has said that it takes reservations. False by default."""
        return False

    async def try_reserve(
        self,
        call: RunnerCall,
        *,
        claim: Callable[[], bool],
        on_asked: Callable[[], None] = lambda: None,
        on_commit: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """As `try_exec`, in two steps: reserve a slot here, then commit the call to it.

        ``on_asked`` is called once the runner was asked, ``claim`` once it holds a slot, at most
        once each, synchronously: true = commit, false = give the slot back, and the outcome is
        `NotPlaced` with a `ReservationAbandoned`. Up to ``on_commit`` the attempt may be
        cancelled at no cost, also after ``claim``, and the body is not touched. A `Placed` before
        ``claim`` is the failure of a runner that could not make a slot.

        Runners that don't reserve claim at once and try: the default.
        """
        if not claim():
            await trio.lowlevel.checkpoint()
            return NotPlaced(ReservationAbandoned())
        return await self.try_exec(call, on_commit=on_commit)

    @abstractmethod
    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        """Ask the runner how it is. ``payload`` goes to its status image (``Status2``).

        Raises `HostlerError` if it can't be asked.
        """

    async def watch_health(self, tell: Callable[[bool], None]) -> None:
        """Call ``tell`` with whether the runner takes calls, now and after each change. Raises
        `HostlerError` once it can't be told. Returns, as by default, if it never can be."""
        await trio.lowlevel.checkpoint()

    async def watch_load(self, tell: Callable[[LoadHint], None]) -> None:
        """Call ``tell`` with how busy the runner is, now and after changes. Raises `HostlerError`
        once it can't be told. Returns, as by default, if it never can be."""
        await trio.lowlevel.checkpoint()

    @abstractmethod
    async def aclose(self) -> None:
        """Refuse new attempts, wait for the running ones, close the connections.

        Cancelling it (a deadline is the normal case) cancels the running attempts and closes
        at once. Idempotent.
        """
