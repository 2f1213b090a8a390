"""Runner server: listener, served connections, RPC dispatch, drain."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, Final, Literal, cast

import attrs
import structlog
import trio
from grpclib.metadata import decode_timeout
from h2.errors import ErrorCodes
from msgspec import Struct

from .._concurrency.alarm import SharedTimer
from .._concurrency.nurseries import open_background
from .._descriptors import NO_ROOM, PAUSE_SECONDS, ClientLimit
from ..config.addresses import join_address, split_address
from ..errors import ProtocolError
from ..protocol import (
    ClientFrame,
    EngagementEnded,
    Finished,
    GRPCStatus,
    LogChannel,
    LogContainer,
    LogMessage,
    RunnerFrame,
    RunnerService,
    ServerEngagement,
    TryCall,
)
from .buffers import Buffer
from .codec import messages as codec
from .codec.fast import decode_client
from .codec.messages import runner_messages, with_prefix
from .connection import DEFAULT_KEEPALIVE, EMPTY_RESET, Keepalive, WireProtocol, WireStream
from .connection_pool import SHUTDOWN_TIMEOUT, close_all, describe, detach
from .loop import Loop, run_asyncio
from .mux.server import serve_shared
from .serving import (
    DEADLINE_PASSED,
    FEW_WAITING,
    FIRST_SECONDS,
    MAX_WAITING,
    SHUTTING_DOWN,
    TOO_LATE,
    ServerContext,
    awaited_after,
    decode,
    outcome_of,
)
from .status import (
    CLIENT_HEADER,
    DEADLINE_EXCEEDED,
    HEALTH_CHECK,
    HEALTH_WATCH,
    INTERNAL,
    OK_BLOCK,
    RESOURCE_EXHAUSTED,
    RESPONSE_BLOCK,
    RESPONSE_HEADERS,
    UNIMPLEMENTED,
    UNKNOWN,
    HeaderList,
    PeerFinished,
    StreamBroken,
    is_grpc,
    trailers,
)
from .tls import TLS, current_context, refusal_of

log = structlog.get_logger(__name__)

_BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted."""

SHARED_CALLS = 512
"""Calls on one shared stream: twice of what our client puts on a connection. Times `CALL_WINDOW`,
128 MiB, it is what a client may send on one that nobody reads."""

_HEAD = frozenset(
    {":method", ":path", "content-type", "grpc-timeout", "fn_request_id", CLIENT_HEADER}
)
"""What is kept of a stream's headers."""

_FAULTS = frozenset({errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})
"""Errors of accept(2) about the listening socket; others are about a client that has gone."""

LINGER_SECONDS = 1.0
"""How long a client gets to close its connection after it was told that we go (an LB does it at
once when its calls are over), and for its part of our close. Calls that it has sent meanwhile are
refused one by one; a connection closed under them would be reset, and with it what we have said of
earlier ones could be lost."""


@attrs.frozen(kw_only=True)
class ServerOptions:
    """How a server treats its clients."""

    ssl_context: TLS | None = None
    """``None`` = plaintext."""
    handshake_timeout: float = 10.0
    """Seconds for TLS."""
    keepalive: Keepalive = DEFAULT_KEEPALIVE
    shared_calls: int = SHARED_CALLS
    """How many calls a client may have at once on one ``EngageMany`` stream, which is announced to
    clients that know it. 0 = no such streams."""
    client_names: Collection[str] = ()
    """A client's certificate must have one of them (`certificate_names`), if there are any."""


class GrpcServer:
    """A running server; made by `open_server`."""

    def __init__(self, address: str, serving: ServerContext, accepting: trio.CancelScope) -> None:
        self.address = address
        """``host:port``, with the port that is really bound."""
        self.connections: set[WireProtocol] = set()
        self.serving = serving
        self._accepting = accepting

    def __repr__(self) -> str:
        state = "stopping" if self.serving.stopping else "accepting"
        return f"<GrpcServer {self.address} {state}, {len(self.connections)} connections>"

    def stop_accepting(self) -> None:
        """Close the listening socket and refuse new streams; running ones go on, and those that
        watch the server's health learn of it.

        Synchronous, idempotent. A refused stream was not looked at, and says so: peers report
        UNAVAILABLE or try elsewhere, `GrpcRunnerClient` raises `NotSent`.
        """
        if self.serving.stopping:
            return
        self.serving.stopping = True
        self.serving.health.shut_down()
        self._accepting.cancel()
        for protocol in self.connections:
            protocol.connection.send_goaway()


@asynccontextmanager
async def open_server(
    service: RunnerService,
    bind: str,
    options: ServerOptions | None = None,
    *,
    loop: Loop,
) -> AsyncIterator[GrpcServer]:
    """Serve ``service`` at ``bind`` (``host:port``, or ``:port`` for all interfaces).

    Trio-flavoured. Raises OSError, with a text that names ``bind``, if it can't listen, ValueError
    if ``bind`` makes no sense, or for ``client_names`` without ``ssl_context``. When the block ends
    or is cancelled, running RPCs are cancelled and end with UNAVAILABLE, then connections are
    closed, at once if they take too long.
    """
    options = options or ServerOptions()
    if options.client_names and options.ssl_context is None:
        raise ValueError("client_names: without TLS, clients show no certificate")
    listeners = await _listen(bind)
    name = listeners[0].socket.getsockname()
    address = join_address(name[0], name[1])
    async with open_background() as nursery:
        accepting = trio.CancelScope()
        server = GrpcServer(address, ServerContext(service, options.shared_calls), accepting)
        connection_handler = _ConnectionHandler(server, loop, options)

        async def accept() -> None:
            try:
                with accepting:
                    limit = ClientLimit()
                    await trio.serve_listeners(
                        connection_handler.serve_socket,
                        [_Listener(listener, limit) for listener in listeners],
                        handler_nursery=nursery,
                    )
            finally:
                for listener in listeners:
                    listener.socket.close()

        nursery.start_soon(accept)
        log.info("listening", address=address, tls=options.ssl_context is not None)
        try:
            yield server
        finally:
            server.stop_accepting()
            nursery.cancel_scope.cancel()


async def _listen(bind: str) -> list[trio.SocketListener]:
    host, port = split_address(bind)
    try:
        if host:
            return await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
        # One socket for both families, so that port 0 is one port.
        dual = socket.has_dualstack_ipv6()
        sock = socket.create_server(
            ("", port),
            family=socket.AF_INET6 if dual else socket.AF_INET,
            backlog=_BACKLOG,
            dualstack_ipv6=dual,
        )
        sock.setblocking(False)
        return [trio.SocketListener(trio.socket.from_stdlib_socket(sock))]
    except socket.gaierror as error:
        raise OSError(f"cannot listen on {bind}: {error.strerror}") from error
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise OSError(error.errno or errno.EINVAL, f"cannot listen on {bind}: {reason}") from error


class _Listener(trio.abc.Listener[trio.SocketStream]):
    """A listening socket that closes clients for which there are too few file descriptors."""

    def __init__(self, listener: trio.SocketListener, limit: ClientLimit) -> None:
        self._socket = listener.socket
        self._limit = limit

    async def accept(self) -> trio.SocketStream:
        while True:
            try:
                accepted, _ = await self._socket.accept()
            except OSError as error:
                if error.errno in _FAULTS:
                    raise
                if error.errno in NO_ROOM:  # the socket stays readable
                    self._limit.tell(error.strerror or str(error))
                    await trio.sleep(PAUSE_SECONDS)
                continue
            if self._limit.admits(accepted):
                return trio.SocketStream(accepted)
            accepted.close()

    async def aclose(self) -> None:
        self._socket.close()
        await trio.lowlevel.checkpoint()


class _ConnectionHandler:
    """Turns accepted sockets into served connections."""

    def __init__(self, server: GrpcServer, loop: Loop, options: ServerOptions) -> None:
        self._server = server
        self._loop = loop
        self._options = options
        self._client_names = frozenset(options.client_names)

    async def serve_socket(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end. Trio-flavoured."""
        handler = _Streams(self._server.serving)
        protocol = await self._start(stream, handler)
        if protocol is None:
            return
        try:
            async with trio.open_nursery() as nursery:
                handler.open(nursery, protocol)
                self._server.connections.add(protocol)
                try:
                    if self._server.serving.stopping:
                        protocol.connection.send_goaway()
                    await protocol.lost.wait()
                finally:
                    handler.shut()
                    self._server.connections.discard(protocol)
                nursery.cancel_scope.cancel()
        finally:
            protocol.connection.send_goaway()
            until = trio.current_time() + LINGER_SECONDS
            with trio.CancelScope(shield=True, deadline=until):
                await protocol.lost.wait()
            protocol.close("the server is shutting down")
            await close_all([protocol], until)

    async def _start(self, stream: trio.SocketStream, handler: _Streams) -> WireProtocol | None:
        """The connection, after TLS; ``None`` and one log line if it does not come to be."""
        peer = _peer_of(stream)
        sock = detach(stream)
        context = current_context(self._options.ssl_context)
        protocol: AuthorizedProtocol | None = None

        def factory() -> WireProtocol:
            nonlocal protocol
            protocol = AuthorizedProtocol(
                handler,
                allowed=self._client_names,
                loop=self._loop,
                client_side=False,
                keepalive=self._options.keepalive,
                shared_calls=self._server.serving.shared_calls,
            )
            protocol.turns = self._server.serving.turns
            return protocol

        async def start() -> None:
            await self._loop.connect_accepted_socket(
                factory,
                sock,
                ssl=context,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT if context else None,
            )

        try:
            with trio.fail_after(self._options.handshake_timeout):
                await run_asyncio(self._loop, start)
                assert protocol is not None
                if protocol.refused is not None:
                    log.warning("connection refused", peer=peer, reason=protocol.refused.reason)
                    await protocol.refused.aclose()
                    return None
        except BaseException as error:
            if protocol is None:
                sock.close()  # else asyncio owns it
            else:
                protocol.abort("abandoned")
            if not isinstance(error, Exception):
                raise
            if isinstance(error, trio.TooSlowError):
                reason = f"no handshake within {self._options.handshake_timeout:g} s"
                log.warning("connection refused", peer=peer, reason=reason)
            elif isinstance(error, OSError):
                log.warning("connection refused", peer=peer, reason=describe(error))
            else:  # one client must not end the others
                log.exception("connection failed", peer=peer)
            return None
        return protocol


class _Waiting(Struct):
    """A stream without a task, with what `_Streams.accept` was given."""

    stream: WireStream
    headers: dict[str, str]
    deadline: float
    """For its first message."""
    expired: Callable[[_Waiting], None]

    def expire(self) -> None:
        self.expired(self)


class _Streams:
    """Starts a Trio task for each stream of one connection, once there is something to do: a stream
    that was only opened, or whose call is refused at once, has none."""

    def __init__(self, serving: ServerContext) -> None:
        self._serving = serving
        self._waiting: dict[WireStream, _Waiting] = {}
        self._deadlines = SharedTimer(self._waiting.values)
        self._opened = False
        self._protocol: WireProtocol | None = None
        self.nursery: trio.Nursery | None = None
        """Of the connection; ``None`` once it ends."""

    def open(self, nursery: trio.Nursery, protocol: WireProtocol) -> None:
        """From now on streams are served; those that came earlier are, too."""
        self.nursery = nursery
        self._protocol = protocol
        self._opened = True
        nursery.start_soon(self._deadlines.watch)
        for stream in tuple(self._waiting):
            self._look(stream)
        protocol.connection.flush()

    def shut(self) -> None:
        """From now on streams are refused, and those that have no task yet."""
        self.nursery = None
        for stream in tuple(self._waiting):
            self._refuse(stream)

    def accept(self, stream: WireStream, headers: HeaderList) -> None:
        """See `StreamHandler.accept`."""
        stream.opened_at = now = trio.current_time()
        head = {name: value for name, value in headers if name in _HEAD}
        set_deadline(stream.cancel_scope, head.get("grpc-timeout"), now)
        deadline = min(now + FIRST_SECONDS, stream.cancel_scope.deadline)
        self._waiting[stream] = _Waiting(stream, head, deadline, self._expire)
        self._serving.waiting += 1
        if self._serving.stopping or (self._opened and self.nursery is None):
            self._refuse(stream)
        elif self._serving.waiting > MAX_WAITING and len(self._waiting) > FEW_WAITING:
            self._refuse(stream)
            stream.connection.resets.spend(EMPTY_RESET)
        else:
            stream.on_input = partial(self._look, stream)
            self._deadlines.add(deadline)

    def _look(self, stream: WireStream) -> None:
        """Something has come on a stream that has no task, or it is over."""
        if stream.broken:
            self._forget(stream)
            return
        if self.nursery is None or not (stream.inbox.unread or stream.ended):
            return
        waiting = self._waiting[stream]
        headers = waiting.headers
        assert self._protocol is not None
        begun = begin_engagement(self._serving, stream, headers, self._protocol.peer)
        if begun is None:
            return
        self._take(stream)
        if begun == REFUSED:
            stream.connection.drop(stream)
            self._protocol.connection.note_answered()
        else:
            stream.begun = True
            engagement = begun if isinstance(begun, Engagement) else None
            self.nursery.start_soon(self._serve, stream, headers, engagement)

    def _take(self, stream: WireStream) -> _Waiting | None:
        """It does not wait any more."""
        stream.on_input = None
        found = self._waiting.pop(stream, None)
        if found is not None:
            self._serving.waiting -= 1
        return found

    def _expire(self, waiting: _Waiting) -> None:
        """No message has come in time."""
        stream = waiting.stream
        stream.finish(RESPONSE_HEADERS, trailers(DEADLINE_EXCEEDED, TOO_LATE))
        self._forget(stream)

    def _refuse(self, stream: WireStream) -> None:
        """Prove to the client that nothing of it was looked at."""
        stream.reset_now(ErrorCodes.REFUSED_STREAM)
        self._forget(stream)

    def _forget(self, stream: WireStream) -> None:
        if self._take(stream) is not None:
            stream.connection.release(stream)

    async def _serve(
        self,
        stream: WireStream,
        headers: dict[str, str],
        engagement: Engagement | None,
    ) -> None:
        assert self._protocol is not None
        try:
            await serve_stream(self._serving, stream, headers, self._protocol.peer, engagement)
        finally:
            if not stream.broken:
                self._protocol.connection.note_answered()
            stream.connection.release(stream)


def _peer_of(stream: trio.SocketStream) -> str:
    try:
        name = stream.socket.getpeername()
    except OSError:  # gone again
        return ""
    return join_address(name[0], name[1])


TOGETHER = 128 * 1024
"""Bytes of frames that are copied together for one write."""

ENGAGE = "/RunnerProtocol/Engage"

LARGE_TRY = 64 * 1024
"""Bytes of a first message from which on it is left to a task to take the rest, so that nothing is
credited to the client that nobody has asked for."""

MAX_SHARED = 4
"""``EngageMany`` streams of one connection. A client needs one, and another while that one ends."""

REFUSED: Final = "refused"


async def serve_stream(
    serving: ServerContext,
    stream: WireStream,
    headers: dict[str, str],
    peer: str,
    engagement: Engagement | None = None,
) -> None:
    """Run one RPC and end the stream. Trio-flavoured. ``engagement`` is what it goes on with, if it
    was begun already.

    The caller has entered nothing; ``stream.cancel_scope`` is entered here, and cancelled when
    the peer resets the stream or its connection is lost. The peer's ``grpc-timeout`` is a
    deadline. A cancellation from outside ends the stream with UNAVAILABLE, or refuses it if
    nothing of it was taken yet: proof for the peer that it may go elsewhere. Never raises anything
    else: what the service raises is the peer's status, or is logged.
    """
    status: tuple[int, str] | None = None
    try:
        with stream.cancel_scope as scope:
            if engagement is None:
                rpc = _dispatch(serving, stream, headers, peer)
            else:
                rpc = _engage(serving, engagement)
            status = await outcome_of(rpc, peer)
            with contextlib.suppress(StreamBroken, PeerFinished):
                await stream.flush()
        if scope.cancelled_caught and scope.deadline < math.inf and not stream.broken:
            status = DEADLINE_PASSED
    finally:
        if status is None and not (stream.taken or stream.broken):
            stream.reset_now(ErrorCodes.REFUSED_STREAM)
        else:
            _finish(stream, *(status or SHUTTING_DOWN))


def set_deadline(scope: trio.CancelScope, timeout: str | None, now: float) -> None:
    """What a client's ``grpc-timeout`` says, as of ``now``."""
    if timeout is None:
        return
    # One that makes no sense is none: the peer has its own clock anyway.
    with contextlib.suppress(ValueError):
        scope.deadline = now + decode_timeout(timeout)


def _finish(stream: WireStream, status: int, text: str) -> None:
    """Synchronous: all that the service sent is with the transport, or queued before this."""
    if stream.broken:
        stream.reset_now(ErrorCodes.CANCEL)
        return
    stream.finish(RESPONSE_HEADERS, trailers(status, text))


async def _dispatch(
    serving: ServerContext, stream: WireStream, headers: dict[str, str], peer: str
) -> None:
    service, health = serving.service, serving.health
    if not _speaks_grpc(headers):
        raise GRPCStatus(UNKNOWN, "this server speaks gRPC only")
    path = headers.get(":path", "")
    client = headers.get(CLIENT_HEADER) or peer
    if path == ENGAGE:
        await service.engage(
            Engagement(serving, stream, headers, peer)
        )  # its first message is no call
    elif path == "/RunnerProtocol/EngageMany" and serving.shared_calls:
        connection = stream.connection
        if connection.shared_streams >= MAX_SHARED:
            raise GRPCStatus(RESOURCE_EXHAUSTED, f"more than {MAX_SHARED} shared streams at once")
        connection.shared_streams += 1
        try:
            await serve_shared(serving, stream, peer, client)
        finally:
            connection.shared_streams -= 1
    elif path == "/RunnerProtocol/StreamLogs":
        await service.stream_logs(_LogChannel(stream, peer))
    elif path == "/RunnerProtocol/Status":
        decode(codec.decode_empty, await _request(stream), peer)
        await _reply(stream, codec.encode_status(await service.status(None)))
    elif path == "/RunnerProtocol/Status2":
        payload = decode(codec.decode_struct, await _request(stream), peer)
        await _reply(stream, codec.encode_status(await service.status(payload)))
    elif path == "/RunnerProtocol/ConfigureRunner":
        await service.configure(decode(codec.decode_config, await _request(stream), peer))
        await _reply(stream, codec.EMPTY)
    elif path == HEALTH_CHECK:
        asked = decode(codec.decode_health_request, await _request(stream), peer)
        await _reply(stream, health.check(asked))
    elif path == HEALTH_WATCH:
        asked = decode(codec.decode_health_request, await _request(stream), peer)
        await _reply_each(stream, health.watch(asked))
    elif path == codec.WATCH_LOAD:
        decode(codec.decode_empty, await _request(stream), peer)
        await _reply_each(stream, _encoded_load(service))
    else:
        raise GRPCStatus(UNIMPLEMENTED, f"unknown method {path}")


async def _encoded_load(service: RunnerService) -> AsyncGenerator[bytes, None]:
    async with aclosing(service.watch_load()) as hints:
        async for hint in hints:
            yield codec.encode_load(hint)


async def _engage(serving: ServerContext, engagement: Engagement) -> None:
    begun = engagement.begun
    if begun is None:
        await serving.service.engage(engagement)
    elif isinstance(begun, Finished):
        await engagement.send_all([begun], last=True)
    else:
        await begun()


def _speaks_grpc(headers: dict[str, str]) -> bool:
    return headers.get(":method") == "POST" and is_grpc(headers.get("content-type", ""))


def begin_engagement(
    serving: ServerContext, stream: WireStream, headers: dict[str, str], peer: str
) -> Engagement | Literal["served", "refused"] | None:
    """Look at what has come of a stream that has no task.

    Returns what `serve_stream` is to go on with, or that it has all to do; that the service has
    refused the call, and the stream was answered; or ``None``: more has to come. Synchronous: a
    call that there is no room for costs no task."""
    if headers.get(":path") != ENGAGE or not _speaks_grpc(headers):
        return "served"
    try:
        message = stream.inbox.next()
    except StreamBroken:
        return "served"  # who asks again is told the same
    if message is None:
        return "served" if stream.ended or stream.inbox.begun_size >= LARGE_TRY else None
    engagement = Engagement(serving, stream, headers, peer)
    data = bytes(message)
    first = engagement.ahead = decode_client(data) or data
    if serving.fast_service is not None and isinstance(first, TryCall):
        engagement.begun = begun = serving.fast_service.begin_engage(engagement, first)
        if isinstance(begun, Finished):
            answer = with_prefix(codec.encode_runner(begun))
            if stream.answer_now(RESPONSE_BLOCK, answer, OK_BLOCK):
                return REFUSED
    return engagement


async def _request(stream: WireStream) -> Buffer:
    """The one message of a unary RPC."""
    message = await _receive(stream)
    if message is None:
        raise GRPCStatus(INTERNAL, "the request has no message")
    return message


async def _receive(stream: WireStream) -> Buffer | None:
    try:
        return await stream.receive()
    except StreamBroken as error:
        if stream.broken:
            raise EngagementEnded(str(error)) from error
        # The peer is there, but what it sent can't be read on.
        raise GRPCStatus(error.broken.status, error.broken.text) from error


async def _reply(stream: WireStream, message: bytes) -> None:
    await _send(stream, with_prefix(message))


async def _reply_each(stream: WireStream, messages: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(messages):
        async for message in messages:
            await _reply(stream, message)


async def _send(stream: WireStream, *parts: Buffer, flush: bool = True) -> None:
    stream.start_response(RESPONSE_HEADERS)
    try:
        await stream.send(*parts, flush=flush)
    except (StreamBroken, PeerFinished) as error:
        raise EngagementEnded(str(error)) from error


class Engagement(ServerEngagement):
    """One that a stream carries."""

    def __init__(
        self, serving: ServerContext, stream: WireStream, headers: dict[str, str], peer: str
    ) -> None:
        self._serving = serving
        self._stream = stream
        self._awaited: type[ClientFrame] | None = TryCall
        self.request_id = headers.get("fn_request_id", "")
        self.peer = peer
        name = headers.get(CLIENT_HEADER)
        self.named = bool(name)
        self.client = name or peer
        self.deadline = stream.cancel_scope.deadline
        self.ahead: ClientFrame | bytes | None = None
        """What was taken off the stream already."""
        self.begun: Finished | Callable[[], Awaitable[None]] | None = None
        """What `FastService.begin_engage` gave: its answer, which could not be sent at once, or
        what is left of it."""

    async def receive(self) -> ClientFrame | None:
        frame, self.ahead = self.ahead, None
        if frame is None:
            message = await self._next()
            if message is None:
                return None
        elif isinstance(frame, bytes):
            message = frame
        else:
            self._stream.taken = True
            await trio.lowlevel.checkpoint_if_cancelled()
            self._awaited = awaited_after(frame)
            return frame
        frame = decode(codec.decode_client, message, self.peer)
        if frame is None:
            raise ProtocolError("the message holds neither try nor data")
        if self._awaited is not None:
            self._awaited = awaited_after(frame)
        return frame

    async def _next(self) -> Buffer | None:
        stream = self._stream
        receive = partial(_receive, stream)
        if self._awaited is None or stream.ended:
            return await receive()
        return await self._serving.receive_soon(receive, stream.connection, self._awaited)

    async def send(self, frame: RunnerFrame) -> None:
        for message in runner_messages(frame):
            await _send(self._stream, *message)

    async def send_all(self, frames: Sequence[RunnerFrame], *, last: bool = False) -> None:
        waiting: list[Buffer] = []
        size = 0
        for frame in frames:
            for message in runner_messages(frame):
                length = sum(map(len, message))
                if waiting and size + length > TOGETHER:
                    await _send(self._stream, *waiting)
                    waiting, size = [], 0
                waiting += message
                size += length
        await _send(self._stream, *waiting, flush=not last)


class _LogChannel(LogChannel):
    def __init__(self, stream: WireStream, peer: str) -> None:
        self._stream = stream
        self._peer = peer

    async def receive(self) -> LogMessage | None:
        message = await _receive(self._stream)
        if message is None:
            return None
        found = decode(codec.decode_log_message, message, self._peer)
        if found is None:
            raise ProtocolError("the message holds none of start, ack, ready")
        return found

    async def send(self, batch: Sequence[LogContainer]) -> None:
        await _send(self._stream, with_prefix(codec.encode_log_batch(batch)))


class AuthorizedProtocol(WireProtocol):
    """A server's connection. With ``allowed`` names, a client with another is refused before it
    got a byte: so it has sent no call yet, and can place it elsewhere."""

    def __init__(self, *args: Any, allowed: Collection[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._allowed = allowed
        self.refused: RefusedConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._allowed:
            reason = refusal_of(transport.get_extra_info("peercert"), self._allowed)
            if reason:
                self.refused = RefusedConnection(transport, reason)
                transport.set_protocol(self.refused)
                return
        super().connection_made(transport)


class RefusedConnection(asyncio.Protocol):
    """What is left of a refused client: a connection to close."""

    def __init__(self, transport: asyncio.BaseTransport, reason: str) -> None:
        self.reason = reason
        self._transport = cast(asyncio.Transport, transport)
        self._lost = trio.Event()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lost.set()

    async def aclose(self) -> None:
        """Say goodbye in TLS, so that the client sees an end and not a failure. If cancelled, the
        connection is just dropped. Trio-flavoured."""
        self._transport.close()
        try:
            await self._lost.wait()
        finally:
            self._transport.abort()
