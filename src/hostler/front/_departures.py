"""Notices clients that leave, at no cost for a request.

Who waits for a socket to become readable learns of a client's end only behind all bytes that it
has sent before, and needs a task for it. The kernel tells it apart: ``EPOLLRDHUP`` (epoll_ctl(2))
comes as soon as the peer's end has arrived, whatever the kernel still holds for us. One epoll
descriptor for all connections of a server, and one task that waits for it, see to all of them.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from types import TracebackType
from typing import Self

import trio


class Departures:
    """Tells once of each socket that its peer has closed or reset the connection.

    A context manager: at its end nothing is watched any more.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._told: dict[int, Callable[[], None]] = {}

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

    def __len__(self) -> int:
        return len(self._told)

    def add(self, fd: int, on_gone: Callable[[], None]) -> None:
        """Call ``on_gone`` (in the task of `run`; it must not block or raise) when the peer of the
        socket ``fd`` has gone. Raises `OSError`."""
        # Edge-triggered: told once, not again for as long as the socket stays.
        self._epoll.register(fd, select.EPOLLRDHUP | select.EPOLLET)
        self._told[fd] = on_gone

    def remove(self, fd: int) -> None:
        """Before the socket is closed: its number may be another's then."""
        if self._told.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    async def run(self) -> None:
        """Tell, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, _ in self._epoll.poll(0):
                if on_gone := self._told.get(fd):
                    on_gone()
