"""Slots that are held for calls until somebody says that they shall run: reservations.

A call with `PendingCall.on_slot` gets its container like any other, and has it while that hook
waits. Nothing of the call has reached the container then, so whatever ends the wait leaves the
container as it was, for the next call.
"""

from __future__ import annotations

import trio

from hostler.abc import SlotHook
from hostler.errors import ServerBusy

from ._events import AgentEvents


class Holds:
    """The reservations of one agent. None lasts longer than ``limit`` seconds."""

    def __init__(self, limit: float, events: AgentEvents) -> None:
        self._limit = limit
        self._events = events
        self._waiting: set[trio.CancelScope] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Holds {len(self._waiting)}>"

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, hook: SlotHook) -> None:
        """Wait for ``hook``. Raises what it raises, and `ServerBusy` when time is up or the agent
        closes: the call then certainly has not run."""
        deadline = trio.current_time() + self._limit
        committed = False
        self._events.held()
        try:
            with trio.CancelScope(deadline=deadline) as scope:
                self._waiting.add(scope)
                if self._closed:
                    scope.cancel()
                try:
                    await hook()
                    committed = True
                finally:
                    self._waiting.discard(scope)
        finally:
            self._events.released(committed=committed)
        if not committed:
            raise ServerBusy

    def refuse_all(self) -> None:
        """End all waiting with `ServerBusy`, from now on."""
        self._closed = True
        for scope in self._waiting:
            scope.cancel()
