"""What ends a call before its time: its timeout, or the end of the agent."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

_T = TypeVar("_T")


class CallEnded(Exception):
    """The call was ended, by its `CallLimit`."""


class CallLimit:
    """Of one call: it can be cancelled at any time, and is by whoever keeps ``deadline``.

    A cancel scope costs as much as a quarter of what an agent does for a call on a hot container,
    which waits for one thing only: its function. So that wait is interrupted in another way
    (`interrupt`), and all others are made within scopes of their own (`run`).
    """

    def __init__(self) -> None:
        self.deadline = math.inf
        """When it is to be ended (`trio.current_time`)."""
        self.ended = False
        self.interrupt: Callable[[], None] | None = None
        """Set by who waits without a scope: has that wait end."""

    def cancel(self) -> None:
        """End the call: who waits for it, or is going to, raises `CallEnded`. Synchronous."""
        self.ended = True
        if self.interrupt is not None:
            self.interrupt()

    expire = cancel
    """The deadline has passed."""

    async def run(self, wait: Awaitable[_T]) -> _T:
        """Await ``wait`` unless the call is ended, or until it is: raises `CallEnded` then. May be
        cancelled. Not to be nested."""
        scope = trio.CancelScope()
        if self.ended:
            scope.cancel()
        self.interrupt = scope.cancel
        try:
            with scope:
                return await wait
        finally:
            self.interrupt = None
        raise CallEnded
