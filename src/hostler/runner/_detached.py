"""The calls of a runner that outlive their engagements."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import trio

Args = TypeVarTuple("Args")


class DetachedCalls:
    """Tasks of a nursery that is not theirs alone, counted. ``on_end`` is told of each end."""

    def __init__(self, nursery: trio.Nursery, on_end: Callable[[], None]) -> None:
        self.count = 0
        self._nursery = nursery
        self._on_end = on_end

    def __repr__(self) -> str:
        return f"<DetachedCalls {self.count}>"

    def start(self, run: Callable[[*Args], Awaitable[None]], *args: *Args) -> None:
        """Have ``run(*args)`` run, whatever becomes of the caller."""
        self.count += 1
        self._nursery.start_soon(self._run, run, args)

    async def _run(self, run: Callable[[*Args], Awaitable[None]], args: tuple[*Args]) -> None:
        try:
            await run(*args)
        finally:
            self.count -= 1
            self._on_end()
