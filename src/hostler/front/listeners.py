"""Listening sockets, opened before anything else so that a taken port is found out first."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress

import trio

from ..config import is_host
from ..errors import ConfigError

BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel caps it (``net.core.somaxconn``)."""

_SO_BINDTOIFINDEX = 62
_NO_INTERFACE = 2**31 - 1
"""An index that no network interface has."""

_BIND = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[^\s:/\[\]@?#]*)):(?P<port>\d{1,5})"
)


def parse_bind(bind: str) -> tuple[str, int]:
    """Split ``host:port``, ``[IPv6]:port`` or ``:port`` (all interfaces; the host is "").

    Port 0 is any free port. Raises `ConfigError`.
    """
    match = _BIND.fullmatch(bind)
    if match is None or int(match["port"]) > 65_535 or not is_host(match["host"] or ""):
        raise ConfigError(
            f"{bind!r} is no address to listen on: takes host:port, [IPv6]:port, :port"
        )
    return match["v6"] or match["host"] or "", int(match["port"])


@asynccontextmanager
async def open_listeners(bind: str) -> AsyncIterator[list[trio.SocketListener]]:
    """Listen on ``bind`` (see `parse_bind`); clients that come are kept waiting until served. Looks
    a host's name up, which may wait; leaving the block closes the sockets.

    Raises `OSError` with a text that names ``bind``, and `ConfigError`.
    """
    host, port = parse_bind(bind)
    async with AsyncExitStack() as stack:
        try:
            listeners = await _listen(host, port)
        except OSError as error:
            # A failed name look-up has no errno of the system.
            reason = error.strerror or str(error)
            raise OSError(error.errno, f"cannot listen on {bind}: {reason}") from error
        for listener in listeners:
            stack.push_async_callback(listener.aclose)
        yield listeners


@contextmanager
def open_shared_listeners(
    addresses: Sequence[str], count: int
) -> Iterator[list[list[socket.socket]]]:
    """Listen on each of ``addresses`` (of `address_of`) with ``count`` sockets, among which the
    kernel divides the connections (``SO_REUSEPORT``, which asks that all belong to one user).

    Yields, ``count`` times, one socket for each address; they are not inherited by default. What
    comes before somebody accepts it waits. Leaving the block closes all. Raises `OSError`.
    """
    with ExitStack() as stack:
        yield [
            [stack.enter_context(_shared(*parse_bind(address))) for address in addresses]
            for _ in range(count)
        ]


def _shared(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server(
        (host, port),
        family=family,
        backlog=BACKLOG,
        reuse_port=True,
        dualstack_ipv6=host == "::",
    )


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    if host:
        return await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    # One socket for both families, so that port 0 gives one port and not two.
    try:
        sock = socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
        )
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise OSError(error.errno, os.strerror(error.errno or 0)) from error
        sock = socket.create_server(("0.0.0.0", port), backlog=BACKLOG)  # noqa: S104  (as asked)
    sock.setblocking(False)
    return [trio.SocketListener(trio.socket.from_stdlib_socket(sock))]


def refuse_clients(sock: socket.socket) -> None:
    """Have the kernel refuse new clients of a listening socket that is to be closed; those it has
    begun to connect still come to be accepted. Closed without this, it resets whoever it connects
    after the last accept.

    For good (it takes a capability to undo it), so only the owner may, who leaves it to nobody. Of
    sockets that share a port all have to: one alone still gets its part. Does nothing where the
    system can't (Linux can since 5.7).
    """
    # New clients are looked up by interface too, begun handshakes are not. (A socket filter can't
    # refuse, only drop, and then clients try again after a second.)
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)


def address_of(listener: trio.SocketListener) -> str:
    """``host:port`` as bound; IPv6 in brackets."""
    host, port = listener.socket.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
