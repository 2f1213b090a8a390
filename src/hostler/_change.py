"""A change that others may wait for."""

from __future__ import annotations

import trio


class Change:
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
