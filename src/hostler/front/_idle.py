"""The end of connections that wait too long for a request.

All who begin to wait do so for the same time, so they stand in a queue whose head is due next: one
task with one timer sees to all of them, and a request costs an entry and its removal.
"""

from __future__ import annotations

import math
from typing import Protocol

import trio

from hostler.config import NodeConfig


class Waiting(Protocol):
    """A connection, as this sees it."""

    served: bool

    def idle_too_long(self) -> None:
        """Its time is over. Synchronous."""
        ...


class IdleWatch:
    """Closes connections after ``http_idle_timeout``. A client that has never sent a request has
    the time of a head for it, as in Fn, if that is less: it connected to send it."""

    def __init__(self, config: NodeConfig) -> None:
        later = config.http_idle_timeout
        first = min(later, config.request_header_read_timeout)
        self._queues = (_Queue(first), _Queue(later))
        self._added: trio.Event | None = None

    def add(self, connection: Waiting) -> None:
        """It waits from now on."""
        queue = self._queues[connection.served]
        if queue.seconds < math.inf:
            queue.until[connection] = trio.current_time() + queue.seconds
            if self._added is not None:
                self._added.set()

    def remove(self, connection: Waiting) -> None:
        """It waits no longer. No-op if it did not."""
        self._queues[connection.served].until.pop(connection, None)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            due = min(queue.next_due() for queue in self._queues)
            if due < math.inf:
                # Whoever is added meanwhile is due later than the first in its queue, or than now
                # and the shorter of the times.
                await trio.sleep_until(min(due, trio.current_time() + self._queues[0].seconds))
                continue
            self._added = trio.Event()
            await self._added.wait()
            self._added = None


class _Queue:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.until: dict[Waiting, float] = {}
        """In the order in which they are due."""

    def next_due(self) -> float:
        """When the next one is due, once those are told that are."""
        now = trio.current_time()
        while self.until:
            connection, until = next(iter(self.until.items()))
            if until > now:
                return until
            del self.until[connection]
            connection.idle_too_long()
        return math.inf
