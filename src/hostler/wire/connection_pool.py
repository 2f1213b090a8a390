"""Connections to one runner: dialling, slots, renewal after new certificates."""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import structlog
import trio
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from ..config.addresses import join_address
from ..protocol import EngagementFailed, NotSent
from .buffers import Buffer
from .codec import messages as codec
from .connection import DEFAULT_KEEPALIVE, Keepalive, WireProtocol, WireStream
from .loop import Loop, run_asyncio
from .mux.stream import MuxStream
from .status import (
    INTERNAL,
    OK,
    UNDECODABLE,
    HeaderList,
    StreamBroken,
    bad_response,
    encode_timeout,
    status_of_end,
)
from .tls import TLS, current_context

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT = 1.0
"""Seconds that closing a connection may take before it is aborted."""

SHARE_LIMIT = 32 * 1024
"""Bytes of a call's ``TryCall`` and body, above which it gets a stream of its own. What HTTP/2 does
for a stream costs as much as some 100 KiB of body; and half of a batch leaves room for others."""

_NONE_YET = object()


@attrs.frozen
class PoolStatistics:
    """A snapshot. ``connections`` includes those that are draining."""

    connections: int
    streams: int
    waiting: int


@attrs.define(eq=False)
class ConnectionSlot:
    """A connection and how many streams on it are ours."""

    protocol: WireProtocol
    in_use: int = 0
    """Streams, and calls on the shared stream."""
    shared: MuxStream | None = None
    """The stream that calls share, once one was opened."""
    may_share: bool = True
    """Not any more if a shared stream ended although the connection stands."""


@attrs.define(eq=False)
class _Attempt:
    """One dialling, which everybody who needs a connection waits for."""

    done: trio.Event = attrs.Factory(trio.Event)
    error: NotSent | None = None


class ConnectionPool:
    """Opens a connection when all have their streams taken, one at a time and up to
    ``max_connections``; closes one that is idle while another one has room.

    There is no backoff: who comes while a dialling is under way shares its outcome, a dialling
    is bounded, and a placer paces its own sweeps. So a runner that is back is found at once.

    When the TLS files have changed, new streams go to new connections, made before those that
    stand are given up.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._tls = target.options.ssl_context
        self._max_connections = target.options.max_connections
        self._streams_per_connection = target.options.streams_per_connection
        self._slots: list[ConnectionSlot] = []
        self._attempt: _Attempt | None = None
        self._refused: object = _NONE_YET
        """The TLS context with which no connection came to be while older ones still work."""
        self._changed = trio.Event()
        self._waiting = 0
        self.closed = False

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            connections=len(self._slots),
            streams=sum(slot.in_use for slot in self._slots),
            waiting=self._waiting,
        )

    async def acquire(self) -> ConnectionSlot:
        """The right to open one stream on a connection, to be given back with `release`.

        Trio-flavoured. Waits for a connection or for a free stream. Raises `NotSent`.
        """
        self._waiting += 1
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            return await self._acquire()
        finally:
            self._waiting -= 1

    def acquire_now(self) -> ConnectionSlot | None:
        """As `acquire`, if nobody has to wait; else ``None``."""
        if self.closed or self._waiting or (slot := self._with_room()) is None:
            return None
        slot.in_use += 1
        return slot

    def release(self, slot: ConnectionSlot) -> None:
        slot.in_use -= 1
        if self._waiting or len(self._slots) > 1 or not slot.protocol.usable:
            self._tidy()

    async def _acquire(self) -> ConnectionSlot:
        while True:
            if self.closed:
                raise NotSent(f"the client of runner {self._target.address} is closed")
            slot = self._with_room()
            if slot is not None:
                slot.in_use += 1
                return slot
            if self._attempt is not None:
                attempt = self._attempt
                await attempt.done.wait()
                if attempt.error is not None:
                    raise NotSent(str(attempt.error)) from attempt.error
            elif self._dialable() < self._max_connections:
                await self._dial()
            else:
                await self._wait_room()

    async def _wait_room(self) -> None:
        """Until there may be a stream: one is free, or a connection has resets left again."""
        seconds = min(
            (
                slot.protocol.connection.resets.wait_for(slot.in_use + 1)
                for slot in self._slots
                if slot.protocol.usable and slot.in_use < self._limit(slot)
            ),
            default=math.inf,
        )
        with trio.move_on_after(seconds):
            await self._changed.wait()

    def _with_room(self) -> ConnectionSlot | None:
        # The first one with room: so the others become idle and can be closed.
        found = None
        for slot in self._slots:
            if slot.protocol.usable and slot.in_use < self._limit(slot):
                if slot.protocol.connection.resets.wait_for(slot.in_use + 1):
                    continue  # so that all that is open may be reset
                if self._is_current(slot):
                    return slot
                found = found or slot
        if self._renews():
            return None
        return found

    def _is_current(self, slot: ConnectionSlot) -> bool:
        """Whether the connection stands on the TLS files as they are now."""
        return slot.protocol.context is current_context(self._tls)

    def _renews(self) -> bool:
        """Whether connections that are not current should give way to a new one."""
        return current_context(self._tls) is not self._refused

    def _current(self) -> int:
        return sum(slot.protocol.usable and self._is_current(slot) for slot in self._slots)

    def _limit(self, slot: ConnectionSlot) -> int:
        return min(self._streams_per_connection, slot.protocol.connection.limit)

    def _dialable(self) -> int:
        """The connections that count against the limit."""
        return self._current() if self._renews() else self._usable()

    def _usable(self) -> int:
        return sum(slot.protocol.usable for slot in self._slots)

    async def _dial(self) -> None:
        attempt = self._attempt = _Attempt()
        try:
            protocol = await dial(self._target)
        except NotSent as error:
            if not self._usable():
                attempt.error = error
                raise
            log.warning("no further connection", runner=self._target.address, reason=str(error))
            if self._renews() and not self._current():
                # The older ones do it until the files have changed again.
                self._refused = current_context(self._tls)
            else:
                # There are others, and streams on them will become free.
                await self._wait_room()
            return
        finally:
            # If this task was cancelled, the next one in line dials.
            self._attempt = None
            attempt.done.set()
        if self.closed:
            protocol.abort("client closed")
            return
        self._refused = _NONE_YET
        self._slots.append(ConnectionSlot(protocol))
        protocol.on_change = self._tidy  # type: ignore[method-assign]
        self._tidy()

    def _tidy(self) -> None:
        """Drop lost connections, close what is not needed, wake up who waits for a stream."""
        self._slots = [slot for slot in self._slots if not slot.protocol.lost.is_set()]
        for slot in self._slots:
            if not slot.in_use and (not slot.protocol.usable or self._surplus(slot)):
                slot.protocol.close("no longer needed")
        self._changed.set()
        self._changed = trio.Event()

    def _surplus(self, slot: ConnectionSlot) -> bool:
        """Whether another connection has so much room that this idle one only costs."""
        return any(
            other.in_use < max(1, self._limit(other) // 2)
            for other in self._slots
            if other is not slot
            and other.protocol.usable
            and (self._is_current(other) or not self._is_current(slot))
        )

    async def aclose(self) -> None:
        """Close all at once, aborting what does not close within ``CLOSE_TIMEOUT``.

        Trio-flavoured; shielded, as it is bounded. Idempotent.
        """
        self.closed = True
        slots, self._slots = self._slots, []
        for slot in slots:
            slot.protocol.close("client closed")
        self._tidy()
        await close_all([slot.protocol for slot in slots])


async def close_all(protocols: list[WireProtocol], until: float = math.inf) -> None:
    """Wait until connections that are being closed are lost; abort the stubborn ones.

    Trio-flavoured. Shielded: bounded by ``CLOSE_TIMEOUT`` and ``until``, and an aborted connection
    is lost at the loop's next turn.
    """
    with trio.CancelScope(shield=True):
        with trio.move_on_at(min(until, trio.current_time() + CLOSE_TIMEOUT)):
            for protocol in protocols:
                await protocol.lost.wait()
        for protocol in protocols:
            if not protocol.lost.is_set():
                protocol.abort("did not close in time")
        for protocol in protocols:
            await protocol.lost.wait()


SHUTDOWN_TIMEOUT = 1.0
"""Seconds that a TLS connection may take to say goodbye."""

_REFUSED = "after the TLS handshake: it may not accept our certificate"


@attrs.frozen(kw_only=True)
class ConnectOptions:
    """How a client connects to a runner, and what its connections carry. Times are seconds."""

    ssl_context: TLS | None = None
    """``None`` = plaintext."""
    server_name: str = ""
    """The name that the runner's certificate must have; "" = the host of its address."""
    connect_timeout: float = 0.1
    """For TCP. The default is Fn's."""
    handshake_timeout: float = 5.0
    """For TLS, and until the peer's HTTP/2 settings have come."""
    keepalive: Keepalive = DEFAULT_KEEPALIVE
    max_connections: int = 16
    streams_per_connection: int = 256
    """So many times ``max_connections`` calls are in flight at most; further ones wait."""
    share_limit: int = SHARE_LIMIT
    """Calls whose ``TryCall`` and body have up to so many bytes together share a stream, with
    runners that announce that they take such calls. 0 = no call does."""
    share_streamed: bool = False
    """Whether calls whose body is not there yet share a stream, too."""


@attrs.frozen
class Target:
    """Whom to dial, and how."""

    host: str
    port: int
    loop: Loop
    options: ConnectOptions

    @property
    def address(self) -> str:
        return join_address(self.host, self.port)


async def dial(target: Target) -> WireProtocol:
    """A connection whose peer has shown that it speaks HTTP/2.

    Trio-flavoured. Raises `NotSent`, whose text says what was tried and what happened. When
    cancelled, nothing stays open.
    """
    sock = await _connect(target)
    context = current_context(target.options.ssl_context)
    protocol: WireProtocol | None = None

    def factory() -> WireProtocol:
        nonlocal protocol
        protocol = WireProtocol(
            None, loop=target.loop, client_side=True, keepalive=target.options.keepalive
        )
        return protocol

    async def start() -> None:
        await target.loop.create_connection(
            factory,
            sock=sock,
            ssl=context,
            server_hostname=(target.options.server_name or target.host) if context else None,
            ssl_shutdown_timeout=SHUTDOWN_TIMEOUT if context else None,
        )

    try:
        with trio.fail_after(target.options.handshake_timeout):
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
            error = TimeoutError(f"no handshake within {target.options.handshake_timeout:g} s")
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
        with trio.fail_after(target.options.handshake_timeout):
            found = await trio.socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except trio.TooSlowError as error:
        raise _not_sent(target, TimeoutError("the host name was not resolved in time")) from error
    except OSError as error:
        raise _not_sent(target, error) from error
    for family, _, _, _, address in found:
        try:
            return await _connect_to(family, address, target.options.connect_timeout)
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


_T = TypeVar("_T")


class StreamBlock:
    """A new stream, open for the length of the block; it is reset if it has not ended then.

    Its headers go out with the first message. (A class, because a generator costs several times
    as much, and each call has one of these.)
    """

    def __init__(
        self, pool: ConnectionPool, headers: HeaderList, deadline: float = math.inf
    ) -> None:
        self._pool = pool
        self._headers = headers
        self._deadline = deadline

    async def __aenter__(self) -> WireStream:
        """Trio-flavoured. Raises `NotSent`."""
        return self.open_on(await self._pool.acquire())

    def open_on(self, slot: ConnectionSlot) -> WireStream:
        """Open it on a connection that was acquired for it. Raises `NotSent`."""
        self._slot = slot
        if self._deadline != math.inf:  # only now: waiting for a connection took its share
            left = encode_timeout(self._deadline - trio.current_time())
            self._headers.append(("grpc-timeout", left))
        try:
            self._stream = open_stream(slot.protocol, self._headers)
        except BaseException:
            self._pool.release(slot)
            raise
        return self._stream

    async def __aexit__(self, *_: object) -> None:
        """Not a checkpoint."""
        self.leave()

    def leave(self) -> None:
        stream = self._stream
        finished = stream.ended and not stream.inbox.unread
        stream.reset_now(ErrorCodes.NO_ERROR if finished else ErrorCodes.CANCEL)
        stream.connection.note_left(answered=finished, begun=stream.all_sent)
        stream.connection.release(stream)
        self._pool.release(self._slot)


def open_stream(protocol: WireProtocol, headers: HeaderList) -> WireStream:
    """A new stream, to be given back by `WireConnection.release`.

    Synchronous on purpose: between the choice of a stream id and its use nobody may run.
    """
    connection = protocol.connection
    stream = connection.create_stream()
    try:
        stream_id = connection.h2.get_next_available_stream_id()
        connection.h2.send_headers(stream_id, headers)
    except ProtocolError as error:  # (also: all ids are used up)
        protocol.draining = True
        raise NotSent(f"runner {protocol.peer}: cannot open a stream: {error}") from error
    stream.init_stream(stream_id, connection)
    connection.streams[stream_id] = stream
    return stream


async def receive(stream: WireStream, address: str) -> Buffer | None:
    """The next message, perhaps as a view; ``None`` after the status OK."""
    try:
        message = await stream.receive()
    except StreamBroken as error:
        if error.broken.unprocessed:
            raise NotSent(f"runner {address} did not look at the call: {error}") from error
        # What a proxy answers makes no sense as messages.
        bad = bad_response(dict(stream.headers)) if stream.headers else None
        raise EngagementFailed(*(bad or (error.broken.status, error.broken.text))) from error
    if message is None:
        headers, trailers = dict(stream.headers or ()), dict(stream.trailers or ())
        status, text = status_of_end(headers, trailers)
        if status != OK:
            raise EngagementFailed(status, text)
    elif not stream.response_is_good:
        if bad := bad_response(dict(stream.headers or ())):
            raise EngagementFailed(*bad)
        stream.response_is_good = True
    return message


def decoded(decode: Callable[[Buffer], _T], data: Buffer, address: str) -> _T:
    try:
        return decode(data)
    except codec.CodecError as error:
        log.warning("undecodable message", runner=address, reason=str(error))
        raise EngagementFailed(INTERNAL, UNDECODABLE) from error
