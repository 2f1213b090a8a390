"""One wait, or one timer for many deadlines, whose time may change."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import trio


class Expirable(Protocol):
    """What has a ``deadline`` (`trio.current_time`) and can be told that it has passed, perhaps
    more than once."""

    deadline: float

    def expire(self) -> None: ...


class SharedTimer:
    """Those of all that is in ``running`` at the time. Most are done long before; so there is one
    timer, which is set to the earliest deadline that it was told of since it went off last."""

    def __init__(self, running: Callable[[], Iterable[Expirable]]) -> None:
        self._running = running
        self._timer = trio.CancelScope()

    def add(self, deadline: float) -> None:
        """Of one that begins. Synchronous."""
        if deadline < self._timer.deadline:
            self._timer.deadline = deadline

    async def watch(self) -> None:
        """Expire what is late, until cancelled."""
        while True:
            with self._timer:
                await trio.sleep_forever()
            now = trio.current_time()
            self._timer = trio.CancelScope()
            for one in [*self._running()]:
                if one.deadline <= now:
                    one.expire()
                else:
                    self.add(one.deadline)


class Alarm:
    """That of one task, which naps many times. Times are those of Trio's clock."""

    def __init__(self) -> None:
        self.until = math.inf
        """When the latest one ends, or has ended."""
        self._scope = trio.CancelScope()

    async def take(self, until: float, wait: Callable[[], Awaitable[object]]) -> None:
        """``wait``, until the end of the nap at most."""
        self._scope, self.until = trio.CancelScope(deadline=until), until
        with self._scope:
            await wait()

    def end(self) -> None:
        """Wake the task, if it naps."""
        self._scope.cancel()

    def end_at(self, until: float) -> None:
        """Have the nap end then."""
        self._scope.deadline = self.until = until
