"""Notices clients that leave, at no cost for a request.

Who waits for a socket to become readable learns of a client's end only behind all bytes that it
has sent before, and needs a task for it. The kernel tells it apart: ``EPOLLRDHUP`` (epoll_ctl(2))
comes as soon as the peer's end has arrived, whatever the kernel still holds for us. One epoll
descriptor for all connections of a server, and one task that waits for it, see to all of them.

The end of what a peer sends (FIN) is the same for one that has closed its socket, or was killed,
and for one that only has nothing more to send (``shutdown(SHUT_WR)``). The first resets the
connection (RST) as soon as it gets something; so who has to know writes, a little later
(`DisconnectWatcher.probe_later`).
"""

from __future__ import annotations

import heapq
import itertools
import math
import select
from types import TracebackType
from typing import Protocol, Self

import trio


class Watched(Protocol):
    """A connection, as its watcher sees it. Its methods are called in the task of
    `DisconnectWatcher.run`: they must not block or raise."""

    fd: int
    probe_at: float

    def note_end(self, reset: bool) -> None:
        """The peer has ended its side, or reset the connection; a reset may come later, in a second
        call."""
        ...

    def probe(self) -> None:
        """Its time has come, as `DisconnectWatcher.probe_later` was asked for."""
        ...


class DisconnectWatcher:
    """Tells each connection that its peer has ended its side, or reset the connection.

    A context manager: at its end nothing is watched any more.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        self._probes: list[tuple[float, int, Watched]] = []
        """A heap. Only an entry with the connection's own ``probe_at`` counts."""
        self._count = itertools.count()
        self._scope = trio.CancelScope()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._epoll.close()
        self._watched.clear()
        self._probes.clear()

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, connection: Watched) -> None:
        """Watch ``connection`` until `remove`. Raises `OSError`."""
        # Edge-triggered: told of each change once. (A reset is told of without being asked for.)
        self._epoll.register(connection.fd, select.EPOLLRDHUP | select.EPOLLET)
        self._watched[connection.fd] = connection

    def remove(self, connection: Watched) -> None:
        """Before the socket is closed: its number may be another's then."""
        connection.probe_at = math.inf
        if self._watched.pop(connection.fd, None) is not None:
            self._epoll.unregister(connection.fd)

    def probe_later(self, connection: Watched, seconds: float) -> None:
        """Have ``connection`` probe in ``seconds``, unless its ``probe_at`` changes before."""
        due = connection.probe_at = trio.current_time() + seconds
        heapq.heappush(self._probes, (due, next(self._count), connection))
        self._scope.deadline = min(self._scope.deadline, due)

    async def run(self) -> None:
        """Tell, until cancelled."""
        while True:
            # One scope for as long as nothing is due, not one for each wait.
            with trio.CancelScope(deadline=self._probe_due()) as self._scope:
                await self._tell()

    def _probe_due(self) -> float:
        """When a probe is due next, once those are done which are due now."""
        now = trio.current_time()
        while self._probes and self._probes[0][0] <= now:
            due, _, connection = heapq.heappop(self._probes)
            if connection.probe_at == due:
                connection.probe()  # may ask for another one
        return self._probes[0][0] if self._probes else math.inf

    async def _tell(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, events in self._epoll.poll(0):
                if connection := self._watched.get(fd):
                    connection.note_end(bool(events & (select.EPOLLHUP | select.EPOLLERR)))
