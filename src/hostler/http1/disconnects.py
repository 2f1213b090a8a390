"""Notices clients that leave, at no cost for a request.

Who waits for a socket to become readable learns of a client's end only behind all bytes that it
has sent before, and needs a task for it. The kernel tells it apart: ``EPOLLRDHUP`` (epoll_ctl(2))
comes as soon as the peer's end has arrived, whatever the kernel still holds for us. One epoll
descriptor for all connections of a server, and one task that waits for it, see to all of them.

The end of what a peer sends (FIN) is the same for one that has closed its socket, or was killed,
and for one that only has nothing more to send (``shutdown(SHUT_WR)``). The first resets the
connection (RST) as soon as it gets something; so who has to know writes, a little later (`later`).
"""

from __future__ import annotations

import math
import select
from collections.abc import Callable
from types import TracebackType
from typing import Self

import trio


class DisconnectWatcher:
    """Tells of each socket that its peer has ended its side, or reset the connection.

    A context manager: at its end nothing is watched any more.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._told: dict[int, Callable[[bool], None]] = {}
        self._queues: dict[float, dict[int, tuple[float, Callable[[], None]]]] = {}
        """What is to be called later, by the seconds: the first in each is due next."""
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
        self._told.clear()
        self._queues.clear()

    def __len__(self) -> int:
        return len(self._told)

    def add(self, fd: int, on_end: Callable[[bool], None]) -> None:
        """Call ``on_end`` (in the task of `run`; it must not block or raise) when the peer of the
        socket ``fd`` has ended its side: with whether the connection is reset, which may come
        later, and in a second call. Raises `OSError`."""
        # Edge-triggered: told of each change once. (A reset is told of without being asked for.)
        self._epoll.register(fd, select.EPOLLRDHUP | select.EPOLLET)
        self._told[fd] = on_end

    def later(self, fd: int, seconds: float, call: Callable[[], None]) -> None:
        """Call ``call``, under the same conditions, in ``seconds``, in the place of what was to be
        called then; not after `forget`, or `remove`."""
        self.forget(fd)
        due = trio.current_time() + seconds
        self._queues.setdefault(seconds, {})[fd] = due, call
        self._scope.deadline = min(self._scope.deadline, due)

    def forget(self, fd: int) -> None:
        """Undo `later`."""
        for queue in self._queues.values():
            queue.pop(fd, None)

    def remove(self, fd: int) -> None:
        """Before the socket is closed: its number may be another's then."""
        self.forget(fd)
        if self._told.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    async def run(self) -> None:
        """Tell, until cancelled."""
        while True:
            # One scope for as long as nothing is due, not one for each wait.
            with trio.CancelScope(deadline=self._call_due()) as self._scope:
                await self._tell()

    def _call_due(self) -> float:
        """When something is due next, once that is called which is due now."""
        now = trio.current_time()
        for queue in [*self._queues.values()]:
            while queue and next(iter(queue.values()))[0] <= now:
                _, call = queue.pop(next(iter(queue)))
                call()  # may be called later once more
        return min(
            (next(iter(queue.values()))[0] for queue in self._queues.values() if queue),
            default=math.inf,
        )

    async def _tell(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, events in self._epoll.poll(0):
                if on_end := self._told.get(fd):
                    on_end(bool(events & (select.EPOLLHUP | select.EPOLLERR)))
