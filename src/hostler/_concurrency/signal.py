"""Waiting for the next change, and for quiet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Signal:
    """Something to wait for, that costs next to nothing while nobody does."""

    def __init__(self) -> None:
        self._awaited: trio.Event | None = None

    def note(self) -> None:
        """Wake all who wait."""
        if self._awaited is not None:
            self._awaited.set()
            self._awaited = None

    async def wait(self) -> None:
        if self._awaited is None:
            self._awaited = trio.Event()
        await self._awaited.wait()


class IdleGate:
    """Whether nothing urgent is under way, to wait for."""

    def __init__(self) -> None:
        self._under_way = 0
        self._since = -math.inf
        self._over = Signal()

    def __repr__(self) -> str:
        return f"<IdleGate under_way={self._under_way}>"

    @contextmanager
    def disturbed(self) -> Iterator[None]:
        """Something urgent is under way in the block."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._since = trio.current_time()
                self._over.note()

    def is_near(self, until: float) -> bool:
        """Whether `wait` returns at once."""
        return not self._under_way or trio.current_time() >= until

    async def wait(self, until: float = math.inf) -> None:
        """Return when nothing is under way, at once if that is so now, or at the time ``until`` of
        Trio's clock. Not a checkpoint if it returns at once."""
        if not self._under_way:
            return
        with trio.CancelScope(deadline=until):
            while self._under_way:
                await self._over.wait()

    async def rest(self, seconds: float) -> None:
        """Return when nothing has been under way for ``seconds``, counted from now at the
        earliest."""
        begun = trio.current_time()
        while True:
            await self.wait()
            end = max(begun, self._since) + seconds
            if trio.current_time() >= end:
                return
            await trio.sleep_until(end)
