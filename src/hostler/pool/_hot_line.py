"""Calls that wait a moment for a hot container which is busy, although another could be started.

They stand beside the line of their kind (see `hostler.pool._room`): the end of a call of the same
kind wakes the first of them, and none waits for longer than it would take to start a container.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ._waiter import Turn


class HotWaiter:
    """One of them. ``ticket`` and ``arrived`` are its place in the order of arrival."""

    def __init__(self, ticket: int, arrived: float) -> None:
        self.ticket = ticket
        self.arrived = arrived
        self.turn: Turn | None = None
        self._woken = trio.Event()

    def __repr__(self) -> str:
        return f"<HotWaiter {self.ticket} woken={self._woken.is_set()}>"

    @property
    def woken(self) -> bool:
        return self._woken.is_set()

    def wake(self, turn: Turn | None) -> None:
        """End the wait with ``turn``, for good."""
        self.turn = turn
        self._woken.set()

    async def wait(self) -> None:
        await self._woken.wait()


class HotLine:
    """Those of one kind, in order of arrival. True if there are any."""

    def __init__(self) -> None:
        self.waiters: deque[HotWaiter] = deque()
        """In order of arrival."""

    def __repr__(self) -> str:
        return f"<HotLine waiting={len(self.waiters)}>"

    def __len__(self) -> int:
        return len(self.waiters)

    @property
    def head(self) -> HotWaiter:
        return self.waiters[0]

    async def wait(self, waiter: HotWaiter, deadline: float) -> None:
        """Until ``waiter`` is woken or ``deadline`` (`trio.current_time`). If this is cancelled,
        a turn that came too late is for the caller to hand on."""
        self.waiters.append(waiter)
        try:
            with trio.CancelScope(deadline=deadline):
                await waiter.wait()
        finally:
            if waiter in self.waiters:
                self.waiters.remove(waiter)

    def give_turn(self, turn: Turn) -> None:
        """Let the first try."""
        self.waiters.popleft().wake(turn)
