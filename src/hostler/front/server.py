"""HTTP server: accepts, serves, drains.

Small on purpose: what a front end of functions needs and no more (no HTTP/2, no WebSockets; those
belong to a proxy before it). Any other ASGI 3 server on Trio can take its
place. It exists because the two properties that hostler promises need the connection itself: a
client that leaves is noticed while its call runs, and a response that can't be completed is seen
as broken.
"""

from __future__ import annotations

import errno
import heapq
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from operator import attrgetter
from typing import Protocol

import attrs
import structlog
import trio

from .._asgi.types import ASGIApp, Handler, OwnServer, head_reader
from .._concurrency.drain import DrainBudget
from .._descriptors import NO_ROOM, PAUSE_SECONDS, ClientLimit
from ..config import NodeConfig
from ..http1.disconnects import DisconnectWatcher
from ..http1.request import Heads, RequestHead
from ..http1.server import (
    LAST_SECONDS,
    UNLIMITED_HEAD_BYTES,
    ClientSocket,
    ServerConnection,
    close_idle,
)
from ..http1.tls import ServerTLS, client_socket
from .listeners import BACKLOG, address_of, open_listeners, refuse_clients

log = structlog.get_logger(__name__)

DEFAULT_GRACE = 30.0
"""Seconds that requests get to finish in a drain."""

HANDSHAKE_SECONDS = 0.02
"""How long, in a drain, clients are waited for that have begun to connect: a packet's way there and
back. They may have sent their request with the last packet of the handshake. One from so far that
it takes longer is reset, in the place of refused: too rare, behind a proxy that is near, for all
drains to take longer."""


@attrs.frozen
class ServerStatistics:
    """A snapshot."""

    connections: int
    idle: int
    """Those without a request."""


class HttpServer:
    """A running server, as `serve_http` hands it to the one who started it."""

    def __init__(
        self,
        app: ASGIApp,
        config: NodeConfig,
        addresses: Sequence[str],
        disconnects: DisconnectWatcher,
        nursery: trio.Nursery,
        scheme: str = "http",
    ) -> None:
        self.app = app
        self._reader = head_reader(app)
        self.disconnects = disconnects
        self.heads = Heads(config.max_request_header_size or UNLIMITED_HEAD_BYTES, scheme)
        self.config = config
        self.addresses = tuple(addresses)
        """``host:port`` of each listening socket, as bound."""
        self.draining = False
        self.connections: set[ServerConnection] = set()
        self._nursery = nursery
        self._least_worth: list[ServerConnection] = []
        """Of those that `make_room` has looked at: the least is the last."""

    def statistics(self) -> ServerStatistics:
        """The connections that are open now. Synchronous."""
        idle = sum(connection.idle for connection in self.connections)
        return ServerStatistics(connections=len(self.connections), idle=idle)

    def handler(self, head: RequestHead) -> Handler:
        """What serves requests with this head."""
        own = self._reader and self._reader.handler(head.scope(None, {}))
        return own or self._call_app

    async def _call_app(self, server: OwnServer) -> None:
        await self.app(server.scope(), server.receive, server.send)

    def admit(self, client: ClientSocket) -> None:
        """Serve ``client``, in the server's nursery."""
        self._nursery.start_soon(ServerConnection(client, self).run)

    def make_room(self) -> bool:
        """Close one connection that waits for a request: who holds many of them open must not keep
        others out. Those go first that never had a request, then those that wait longest. Whether
        there was one."""
        while self._least_worth:
            if self._least_worth.pop().give_way():
                return True
        idle = [connection for connection in self.connections if connection.idle]
        count = min(AT_A_TIME, len(idle) // 4 + 1)
        self._least_worth = heapq.nsmallest(count, idle, key=attrgetter("worth"))[::-1]
        return bool(self._least_worth) and self._least_worth.pop().give_way()

    def drain(self) -> None:
        """Close what is idle; the others end after the request that they have, or that is on its
        way: a client whose connection was taken must not find it closed under its request.
        Synchronous: does not wait for them."""
        self.draining = True
        for connection in self.connections:
            connection.close_if_idle()

    async def end_at(self, deadline: float) -> None:
        """Wait until ``deadline`` (`trio.current_time`), then end the requests that are still
        served."""
        await trio.sleep_until(deadline)
        for connection in self.connections:
            connection.end()


async def serve_http(
    app: ASGIApp,
    bind: str | Sequence[trio.SocketListener],
    *,
    config: NodeConfig | None = None,
    shutdown: trio.Event | None = None,
    grace: float | DrainBudget = DEFAULT_GRACE,
    tls: ServerTLS | None = None,
    task_status: trio.TaskStatus[HttpServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` on ``bind`` (``host:port``, or sockets of `open_listeners`; others only if
    nobody goes on with them in another process, since in the end they refuse clients for good).

    ``started()`` carries the `HttpServer`, with the addresses that were really bound. When
    ``shutdown`` is set: refuse new clients, so that they can go elsewhere, accept those that have
    connected or begun to, close the listening sockets, close idle connections, let requests finish
    for ``grace`` seconds, cancel the rest and return. Clients whose response has not begun by then
    get an answer that says so: 503, but that of a call which may have run. Cancelling does the last
    step at once, with no answer.

    Of ``config`` it uses ``max_request_header_size`` and the four times of HTTP:
    ``request_header_read_timeout`` (408 after it), ``request_body_read_timeout`` is the
    application's, ``response_write_timeout`` bounds each wait for a client to take data, and
    ``http_idle_timeout`` the wait for a connection's next request.

    With ``tls`` it speaks only HTTPS. The handshake counts as a part of the first request's head.

    Raises `OSError` if it can't listen. A listening socket is closed when this returns.
    """
    async with AsyncExitStack() as stack:
        listeners = (
            await stack.enter_async_context(open_listeners(bind))
            if isinstance(bind, str)
            else list(bind)
        )
        disconnects = stack.enter_context(DisconnectWatcher())
        addresses = [address_of(item) for item in listeners]
        watching = await stack.enter_async_context(trio.open_nursery())
        watching.start_soon(disconnects.run)
        async with trio.open_nursery() as connections:
            scheme = "http" if tls is None else "https"
            server = HttpServer(
                app, config or NodeConfig(), addresses, disconnects, connections, scheme
            )
            watching.start_soon(close_idle, server)
            acceptors = [Acceptor(listener, server, tls) for listener in listeners]
            for acceptor in acceptors:
                stack.callback(acceptor.close)
            async with trio.open_nursery() as accepting:
                for acceptor in acceptors:
                    accepting.start_soon(acceptor.run)
                task_status.started(server)
                await (trio.Event() if shutdown is None else shutdown).wait()
                deadline = DrainBudget.of(grace).deadline()
                watching.start_soon(server.end_at, deadline)
                connections.cancel_scope.deadline = deadline + LAST_SECONDS
                for acceptor in acceptors:
                    acceptor.refuse()
                server.drain()
                await trio.sleep(HANDSHAKE_SECONDS)
                accepting.cancel_scope.cancel()
            for acceptor in acceptors:
                # At once after the last of those whom the kernel has connected already: where it
                # can't refuse, it would reset those who come in between.
                acceptor.take(BACKLOG)
                acceptor.close()
        watching.cancel_scope.cancel()


AT_A_TIME = 64
"""Clients that are taken before others have their turn."""

NOT_SENT = 16 * 1024
"""Bytes below which the kernel asks for more of a response: Trio's value."""

_FAULTS = frozenset({errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})
"""Others are about a client that has gone again (accept(2))."""


class Admitting(Protocol):
    """A server, as an `Acceptor` sees it."""

    def admit(self, client: ClientSocket) -> None: ...

    def make_room(self) -> bool: ...


class Acceptor:
    """One listening socket, which it owns. Open until `close`, or the kernel would reset those whom
    it has connected and we have not accepted yet.

    ``server`` gets each client, which is its own from then on.
    """

    def __init__(
        self, listener: trio.SocketListener, server: Admitting, tls: ServerTLS | None = None
    ) -> None:
        self._listener = listener
        self._tls = tls
        self._server = server
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
                if not self._limit.admits(accepted) and not self._server.make_room():
                    accepted.close()
                    continue
                self._server.admit(client_socket(accepted, address[:2], self._tls))
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
