"""Opening one connection to a runner, and saying clearly why that failed."""

from __future__ import annotations

import os
import socket
import ssl
from typing import NoReturn

import attrs
import trio
from grpclib import protocol as grpclib_protocol

from hostler.engagement import NotSent

from ._address import join_address
from ._connection import Keepalive, WireProtocol
from ._loop import Loop, run_asyncio

SHUTDOWN_TIMEOUT = 1.0
"""Seconds that a TLS connection may take to say goodbye."""


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
    ssl_context: ssl.SSLContext | None
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
            ssl=target.ssl_context,
            server_hostname=(target.server_name or target.host) if target.ssl_context else None,
            ssl_shutdown_timeout=SHUTDOWN_TIMEOUT if target.ssl_context else None,
        )

    try:
        with trio.fail_after(target.handshake_timeout):
            await run_asyncio(target.loop, start)
            assert protocol is not None
            await protocol.ready.wait()
    except BaseException as error:
        if protocol is None:
            sock.close()  # else asyncio owns it
        elif hasattr(protocol, "connection"):
            protocol.abort("abandoned")
        if isinstance(error, trio.TooSlowError):
            error = TimeoutError(f"no handshake within {target.handshake_timeout:g} s")
        if isinstance(error, OSError):
            raise _not_sent(target, error) from error
        raise
    if protocol.lost.is_set():
        lost = protocol.lost_reason or ConnectionError("closed by the peer before its settings")
        raise _not_sent(target, lost) from lost
    return protocol


async def _connect(target: Target) -> socket.socket:
    try:
        with trio.fail_after(target.connect_timeout):
            stream = await trio.open_tcp_stream(target.host, target.port)
    except trio.TooSlowError as error:
        timeout = TimeoutError(f"no connection within {target.connect_timeout:g} s")
        raise _not_sent(target, timeout) from error
    except OSError as error:
        raise _not_sent(target, error) from error
    return detach(stream)


def detach(stream: trio.SocketStream) -> socket.socket:
    """The plain socket of a Trio stream, for asyncio."""
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return sock


def _not_sent(target: Target, error: BaseException) -> NotSent:
    return NotSent(f"cannot reach runner {target.address}: {describe(error)}")


def describe(error: BaseException) -> str:
    """The reason in a few words, without Python's decoration."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, socket.gaierror):
        return f"cannot resolve the host name: {error.strerror}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    if isinstance(error, OSError) and error.__cause__ is not None:
        return describe(error.__cause__)  # Trio's summary of several attempts
    return str(error) or type(error).__name__
