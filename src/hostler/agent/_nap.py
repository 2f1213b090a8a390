"""A wait that ends at a time which may change, or when somebody has news."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio


class Nap:
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
