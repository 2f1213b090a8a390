"""A gate counts who is inside, refuses newcomers once closed, and tells when all have left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from ..errors import HostlerError
from .signal import Signal


class GateClosed(HostlerError):
    """Nobody is admitted any more."""

    def __init__(self) -> None:
        super().__init__("the gate is closed")


class Visitor(Protocol):
    """Somebody inside."""

    def cancel(self) -> None:
        """Have it leave soon. Synchronous; must not raise."""
        ...


class Gate:
    """Admission with an orderly end.

    Each visitor is, or gets, something by which it can be cancelled, so that the owner can let them
    finish (`wait_empty`) or end them (`cancel_all`) without owning their tasks. A visitor may say
    what it is inside for (`purposes`).
    """

    def __init__(self) -> None:
        self._inside: dict[Visitor, object] = {}
        self._closed = False
        self._emptied = Signal()

    def __repr__(self) -> str:
        return f"<Gate {'closed' if self._closed else 'open'} inside={len(self._inside)}>"

    def __contains__(self, visitor: object) -> bool:
        return visitor in self._inside

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def inside(self) -> int:
        """How many are inside."""
        return len(self._inside)

    @property
    def purposes(self) -> tuple[object, ...]:
        """What those are inside for, in the order in which they came."""
        return tuple(self._inside.values())

    def admit(self, visitor: Visitor, purpose: object = None) -> None:
        """``visitor`` is inside from now on; whoever calls it has to `leave`. Raises `GateClosed`.

        That may be a scope, which is the visitor's own to enter and to use. Nobody is inside twice.
        """
        if self._closed:
            raise GateClosed
        self._inside[visitor] = purpose

    def leave(self, visitor: Visitor) -> None:
        """It is not inside any more."""
        self._inside.pop(visitor, None)
        if not self._inside:
            self._emptied.note()

    @contextmanager
    def enter(self) -> Iterator[trio.CancelScope]:
        """Be inside for the length of the block. Raises `GateClosed`.

        Yields the block's scope; ``scope.cancelled_caught`` afterwards = `cancel_all` ended it.
        """
        scope = trio.CancelScope()
        self.admit(scope)
        try:
            with scope:
                yield scope
        finally:
            self.leave(scope)

    def close(self) -> None:
        """Admit nobody from now on. Idempotent."""
        self._closed = True

    def cancel_all(self) -> None:
        """Cancel those who are inside now."""
        for visitor in tuple(self._inside):
            visitor.cancel()

    async def wait_empty(self) -> None:
        """Wait until nobody is inside; with an open gate somebody may enter again. Cancellable."""
        while self._inside:
            await self._emptied.wait()
        await trio.lowlevel.checkpoint()
