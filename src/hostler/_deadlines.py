"""One timer for many deadlines: to set one for each costs more than a small call otherwise does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import trio


class Timed(Protocol):
    """What has a ``deadline`` (`trio.current_time`) and can be told that it has passed, perhaps
    more than once."""

    deadline: float

    def expire(self) -> None: ...


class Deadlines:
    """Those of all that is in ``running`` at the time. Most are done long before; so there is one
    timer, which is set to the earliest deadline that it was told of since it went off last."""

    def __init__(self, running: Callable[[], Iterable[Timed]]) -> None:
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
