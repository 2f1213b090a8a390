"""File descriptors: how many this process may have, and what is kept for what is under way.

A process that has none left fails at whatever it does next. So clients are refused before that,
and what fails for want of one is said to be busy, as where there is no room.
"""

from __future__ import annotations

import errno
import math
import resource
from typing import Protocol

import structlog
import trio

log = structlog.get_logger(__name__)

SHARE = 4
"""One of so many descriptors is kept for what is under way: connections to functions and to
engines, files, pipes."""
MOST_KEPT = 1024
QUIET_SECONDS = 60.0
PAUSE_SECONDS = 0.1
"""Before the next client is looked at, after the system had no room for another socket."""
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""What accept(2) fails with then."""
_NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE})
_DEPTH = 16


def lacks_descriptors(error: BaseException | None) -> bool:
    """Whether ``error``, or what it comes from, is that no descriptor is left."""
    for _ in range(_DEPTH):
        if error is None:
            break
        if isinstance(error, OSError) and error.errno in _NONE_LEFT:
            return True
        error = error.__cause__ or error.__context__
    return False


class _Client(Protocol):
    def fileno(self) -> int: ...


class ClientLimit:
    """Decides whether another client may come in; of one or more listening sockets. When clients
    are refused the log has a line of it, a minute later the next."""

    def __init__(self) -> None:
        self._quiet_until = -math.inf

    def admits(self, client: _Client) -> bool:
        """Whether ``client``, accepted just now, may stay; else it has to be closed. Synchronous.

        The kernel gives the lowest number that is free, so that of the client tells how many are in
        use.
        """
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit == resource.RLIM_INFINITY or client.fileno() < limit - min(
            limit // SHARE, MOST_KEPT
        ):
            return True
        self.tell(f"of {limit} file descriptors, the last are for what is under way")
        return False

    def tell(self, reason: str) -> None:
        """Clients are refused, or have to wait, for ``reason``."""
        if (now := trio.current_time()) >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            log.warning("no room for another connection", reason=reason)
