"""Takes the clients that the kernel has connected."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import structlog
import trio

from .._descriptors import NO_ROOM, PAUSE_SECONDS, ClientLimit
from ..http1.server import ClientSocket
from ._listen import refuse_clients

log = structlog.get_logger(__name__)

AT_A_TIME = 64
"""Clients that are taken before others have their turn."""
NOT_SENT = 16 * 1024
"""Bytes below which the kernel asks for more of a response: Trio's value."""

_FAULTS = frozenset({errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})
"""Others are about a client that has gone again (accept(2))."""


class Entrance:
    """One listening socket, which it owns. Open until `close`, or the kernel would reset those whom
    it has connected and we have not accepted yet.

    ``admit`` gets each client, which is its own from then on.
    """

    def __init__(
        self, listener: trio.SocketListener, admit: Callable[[ClientSocket], object]
    ) -> None:
        self._listener = listener
        self._admit = admit
        self._limit = ClientLimit()
        # The same one for Python's own class, which accepts in one step.
        self._sock = socket.socket(fileno=listener.socket.fileno())
        self._sock.setblocking(False)
        for option, value in ((socket.TCP_NODELAY, 1), (socket.TCP_NOTSENT_LOWAT, NOT_SENT)):
            self._sock.setsockopt(socket.IPPROTO_TCP, option, value)  # accepted ones inherit it

    async def run(self) -> None:
        """Until cancelled. Raises `OSError` if the socket is no good."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            if not self.take(AT_A_TIME):
                await trio.sleep(PAUSE_SECONDS)

    def take(self, most: int) -> bool:
        """Admit those who wait, up to ``most``. Whether the system had room for them."""
        for _ in range(most):
            try:
                accepted, address = self._sock.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _FAULTS:
                    raise
                if error.errno in NO_ROOM:
                    self._limit.tell(error.strerror or str(error))
                    return False
                log.debug("connection lost before it was accepted", reason=error.strerror)
            else:
                if not self._limit.admits(accepted):
                    accepted.close()
                    continue
                self._admit(ClientSocket(accepted, address[:2]))
        return True

    def refuse(self) -> None:
        """Refuse new clients, while those that the kernel has begun to connect can be taken. Not on
        a shared port: a supervisor has its sockets too, and refuses for all of them."""
        if not self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            refuse_clients(self._sock)

    def close(self) -> None:
        """Refuse clients from now on. Idempotent."""
        self._sock.detach()
        self._listener.socket.close()
