"""Opening one connection to a runner, and saying clearly why that failed."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from typing import Any, NoReturn

import attrs
import trio
from grpclib import protocol as grpclib_protocol

from hostler.protocol import NotSent

from ..config.addresses import join_address
from ._connection import WireProtocol
from ._keepalive import Keepalive
from ._loop import Loop, run_asyncio
from ._tls_files import TLS, current_context

SHUTDOWN_TIMEOUT = 1.0
"""Seconds that a TLS connection may take to say goodbye."""


_REFUSED = "after the TLS handshake: it may not accept our certificate"


class _NoRequests(grpclib_protocol.AbstractHandler):
    """Of a client: h2 itself refuses requests that come from a server."""

    def accept(self, stream: object, headers: object, release_stream: object) -> NoReturn:
        raise AssertionError("h2 refuses these")

    def cancel(self, stream: object) -> None:
        """Not called."""

    def close(self) -> None:
        """Nothing is kept here."""


@attrs.frozen
class Target:
    """Whom to dial, and how. Seconds."""

    host: str
    port: int
    loop: Loop
    tls: TLS | None
    server_name: str
    connect_timeout: float
    """For TCP."""
    handshake_timeout: float
    """For TLS, and until the peer's HTTP/2 settings have come."""
    keepalive: Keepalive

    @property
    def address(self) -> str:
        return join_address(self.host, self.port)


async def dial(target: Target) -> WireProtocol:
    """A connection whose peer has shown that it speaks HTTP/2.

    Trio-flavoured. Raises `NotSent`, whose text says what was tried and what happened. When
    cancelled, nothing stays open.
    """
    sock = await _connect(target)
    context = current_context(target.tls)
    protocol: WireProtocol | None = None

    def factory() -> WireProtocol:
        nonlocal protocol
        protocol = WireProtocol(
            _NoRequests(), loop=target.loop, client_side=True, keepalive=target.keepalive
        )
        return protocol

    async def start() -> None:
        await target.loop.create_connection(
            factory,
            sock=sock,
            ssl=context,
            server_hostname=(target.server_name or target.host) if context else None,
            ssl_shutdown_timeout=SHUTDOWN_TIMEOUT if context else None,
        )

    try:
        with trio.fail_after(target.handshake_timeout):
            await run_asyncio(target.loop, start)
            assert protocol is not None
            await protocol.ready.wait()
    except BaseException as error:
        bad_name = isinstance(error, ValueError)  # which no certificate can have
        if protocol is None or bad_name:
            sock.close()  # else asyncio owns it
        else:
            protocol.abort("abandoned")
        if isinstance(error, trio.TooSlowError):
            error = TimeoutError(f"no handshake within {target.handshake_timeout:g} s")
        if isinstance(error, OSError) or bad_name:
            raise _not_sent(target, error) from error
        raise
    if protocol.lost.is_set():
        # Not every TLS library tells in an alert why it refused us, once its own part was done.
        step = _REFUSED if context else "before its settings"
        lost = protocol.lost_reason or ConnectionError(f"closed by the peer {step}")
        raise _not_sent(target, lost) from lost
    protocol.context = context
    return protocol


async def _connect(target: Target) -> socket.socket:
    last: Exception = OSError("the host name has no address")
    try:
        with trio.fail_after(target.handshake_timeout):
            found = await trio.socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except trio.TooSlowError as error:
        raise _not_sent(target, TimeoutError("the host name was not resolved in time")) from error
    except OSError as error:
        raise _not_sent(target, error) from error
    for family, _, _, _, address in found:
        try:
            return await _connect_to(family, address, target.connect_timeout)
        except OSError as error:
            last = error
    raise _not_sent(target, last) from last


async def _connect_to(family: int, address: Any, within: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await _establish(sock, address, within)
    except BaseException:
        sock.close()
        raise
    return sock


async def _establish(sock: socket.socket, address: Any, within: float) -> None:
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:
        with trio.move_on_after(within):
            await trio.lowlevel.wait_writable(sock)
        # When this program is busy, its scheduler may come round later than that. It must not
        # look like a runner that can't be reached, so the kernel is asked.
        if not _is_writable(sock):
            raise TimeoutError(f"no connection within {within:g} s")
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _is_writable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(0))


def detach(stream: trio.SocketStream) -> socket.socket:
    """The plain socket of a Trio stream, for asyncio."""
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return sock


def _not_sent(target: Target, error: BaseException) -> NotSent:
    return NotSent(f"cannot reach runner {target.address}: {describe(error)}")


def describe(error: BaseException) -> str:
    """The reason in a few words, without Python's decoration."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, socket.gaierror):
        return f"cannot resolve the host name: {error.strerror}"
    if isinstance(error, UnicodeError):
        return "no name of a host"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    if isinstance(error, ConnectionResetError):
        return "closed by the peer during the handshake"  # asyncio raises it without a text
    return str(error) or type(error).__name__
