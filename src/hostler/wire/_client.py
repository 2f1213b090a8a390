"""The LB's end of the runner protocol."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import structlog
import trio
from grpclib.metadata import USER_AGENT
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from hostler.engagement import (
    ClientEngagement,
    EngagementEnded,
    EngagementFailed,
    LogCollector,
    NotSent,
    RunnerClient,
)
from hostler.frames import (
    Commit,
    Data,
    LoadHint,
    LogContainer,
    LogMessage,
    RunnerFrame,
    RunnerStatus,
    TryCall,
)

from . import _codec as codec
from . import _health_client as health
from ._address import split_address
from ._connection import DEFAULT_KEEPALIVE, Keepalive, WireProtocol
from ._dial import Target
from ._loop import Loop
from ._pool import ConnectionPool, PoolStatistics
from ._status import (
    CONTENT_TYPE,
    INTERNAL,
    OK,
    UNAVAILABLE,
    UNDECODABLE,
    HeaderList,
    bad_response,
    encode_timeout,
    status_of_end,
)
from ._stream import PeerDone, StreamBroken, WireStream
from ._tls_files import TLS

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
_UNPRINTABLE = re.compile(r"[^ -~]")


class GrpcRunnerClient(RunnerClient):
    """Speaks to one runner at ``address`` (``host:port``). Made without connecting.

    ``server_name`` is the name that the runner's certificate must have ("" = the host of the
    address). ``connect_timeout`` (seconds; 0.1 is Fn's) bounds TCP, ``handshake_timeout`` TLS and
    the start of HTTP/2. At most ``max_connections`` times ``streams_per_connection`` calls are in
    flight; further ones wait. Raises ValueError for a bad address.

    Its objects belong to the Trio task that opened them; the client itself may be shared by any
    number of tasks.
    """

    def __init__(
        self,
        address: str,
        *,
        loop: Loop,
        ssl_context: TLS | None = None,
        server_name: str = "",
        connect_timeout: float = 0.1,
        handshake_timeout: float = 5.0,
        max_connections: int = 16,
        streams_per_connection: int = 256,
        keepalive: Keepalive = DEFAULT_KEEPALIVE,
    ) -> None:
        host, port = split_address(address)
        if not host:
            raise ValueError(f"runner address {address!r} has no host")
        self._address = address
        # grpc-go does TLS below gRPC and says http all the same; servers don't mind either.
        self._scheme = "https" if ssl_context else "http"
        target = Target(
            host=host,
            port=port,
            loop=loop,
            tls=ssl_context,
            server_name=server_name,
            connect_timeout=connect_timeout,
            handshake_timeout=handshake_timeout,
            keepalive=keepalive,
        )
        self._pool = ConnectionPool(
            target,
            max_connections=max_connections,
            streams_per_connection=streams_per_connection,
        )

    def __repr__(self) -> str:
        state = "closed" if self._pool.closed else self._pool.statistics()
        return f"<GrpcRunnerClient {self._address} {state}>"

    @property
    def address(self) -> str:
        return self._address

    def statistics(self) -> PoolStatistics:
        """Connections, streams in use, tasks waiting for one."""
        return self._pool.statistics()

    def engage(
        self,
        try_call: TryCall,
        *,
        first: Data | None = None,
        request_id: str = "",
        deadline: float = math.inf,
        on_commit: Callable[[], None] = lambda: None,
    ) -> AbstractAsyncContextManager[ClientEngagement]:
        """See `RunnerClient.engage`. Trio-flavoured.

        ``first`` may have any size and needs no sender task: what the runner does not take at
        once is sent as it gives credit. If the runner ends the stream with a status before all of
        ``try_call`` was handed over, ``on_commit`` is not called and ``receive`` raises that
        status. ``receive`` raises `NotSent` if the runner proves that it never looked at the call.
        """
        return self._engage(try_call, first, request_id, deadline, on_commit)

    @asynccontextmanager
    async def _engage(
        self,
        try_call: TryCall,
        first: Data | None,
        request_id: str,
        deadline: float,
        on_commit: Callable[[], None],
    ) -> AsyncIterator[ClientEngagement]:
        encoded = codec.with_prefix(codec.encode_client(try_call))
        rest = b"".join(codec.data_messages(first)) if first is not None else b""
        async with self._stream("Engage", request_id, deadline) as stream:
            await _hand_over(stream, self._address, encoded, rest, on_commit)
            yield _Engagement(stream, self._address)

    async def status(self, payload: str | None = None) -> RunnerStatus:
        """See `RunnerClient.status`. Raises ValueError if ``payload`` is not a JSON object."""
        if payload is None:
            answer = await self._unary("Status", codec.EMPTY)
        else:
            answer = await self._unary("Status2", codec.encode_struct(payload))
        return _decoded(codec.decode_status, answer, self._address)

    async def configure(self, config: Mapping[str, str]) -> None:
        answer = await self._unary("ConfigureRunner", codec.encode_config(config))
        _decoded(codec.decode_empty, answer, self._address)

    def stream_logs(self) -> AbstractAsyncContextManager[LogCollector]:
        return self._stream_logs()

    @asynccontextmanager
    async def _stream_logs(self) -> AsyncIterator[LogCollector]:
        async with self._stream("StreamLogs") as stream:
            stream.connection.flush()
            yield _Collector(stream, self._address)

    async def watch_health(self, tell: Callable[[bool], None]) -> None:
        """See `RunnerClient.watch_health`. Trio-flavoured."""
        try:
            async with self._stream(health.WATCH) as stream:
                await self._request(stream, health.REQUEST)
                while (message := await _receive(stream, self._address)) is not None:
                    serving = _decoded(health.decode_serving, message, self._address)
                    if serving is None:
                        return
                    tell(serving)
        except EngagementFailed as error:
            if error.status in health.NO_SERVICE:
                return
            raise
        raise EngagementFailed(UNAVAILABLE, "the runner ended the watch of its health")

    async def watch_load(self, tell: Callable[[LoadHint], None]) -> None:
        """See `RunnerClient.watch_load`. Trio-flavoured."""
        try:
            async with self._stream(codec.WATCH_LOAD) as stream:
                await self._request(stream, codec.EMPTY)
                while (message := await _receive(stream, self._address)) is not None:
                    tell(_decoded(codec.decode_load, message, self._address))
        except EngagementFailed as error:
            if error.status in health.NO_SERVICE:
                return
            raise
        raise EngagementFailed(UNAVAILABLE, "the runner ended the watch of its load")

    async def aclose(self) -> None:
        await self._pool.aclose()

    def _stream(self, method: str, request_id: str = "", deadline: float = math.inf) -> _Block:
        """A new stream for a method of the runner protocol, or for any ``/service/method``."""
        return _Block(self._pool, self._request_headers(method, request_id), deadline)

    def _request_headers(self, method: str, request_id: str) -> HeaderList:
        headers = [
            (":method", "POST"),
            (":scheme", self._scheme),
            (":path", method if method.startswith("/") else f"/RunnerProtocol/{method}"),
            (":authority", self._address),
            ("te", "trailers"),
            ("content-type", CONTENT_TYPE),
            ("user-agent", USER_AGENT),
        ]
        if request_id:
            headers.append(("fn_request_id", _UNPRINTABLE.sub("?", request_id)))
        return headers

    async def _request(self, stream: WireStream, message: bytes) -> None:
        """Send the one message of a request that is no stream."""
        try:
            await stream.send(codec.with_prefix(message))
            stream.end_now()
        except StreamBroken as error:
            raise NotSent(f"runner {self._address}: {error}") from error
        except PeerDone:
            pass  # with a status, which comes next

    async def _unary(self, method: str, message: bytes) -> bytes:
        async with self._stream(method) as stream:
            await self._request(stream, message)
            answer = await _receive(stream, self._address)
            if answer is None or await _receive(stream, self._address) is not None:
                raise EngagementFailed(INTERNAL, f"{method} must have exactly one answer")
            return answer


class _Block:
    """A new stream, open for the length of the block; it is reset if it has not ended then.

    Its headers go out with the first message. (A class, because a generator costs several times
    as much, and each call has one of these.)
    """

    def __init__(self, pool: ConnectionPool, headers: HeaderList, deadline: float) -> None:
        self._pool = pool
        self._headers = headers
        self._deadline = deadline

    async def __aenter__(self) -> WireStream:
        """Trio-flavoured. Raises `NotSent`."""
        self._slot = await self._pool.acquire()
        if self._deadline != math.inf:  # only now: waiting for a connection took its share
            left = encode_timeout(self._deadline - trio.current_time())
            self._headers.append(("grpc-timeout", left))
        try:
            self._stream = _open_stream(self._slot.protocol, self._headers)
        except BaseException:
            self._pool.release(self._slot)
            raise
        self._unregister = self._slot.protocol.processor.register(self._stream)
        return self._stream

    async def __aexit__(self, *_: object) -> None:
        """Not a checkpoint."""
        stream = self._stream
        finished = stream.ended and not stream.inbox.chunks
        stream.reset_now(ErrorCodes.NO_ERROR if finished else ErrorCodes.CANCEL)
        self._unregister()
        self._pool.release(self._slot)


def _open_stream(protocol: WireProtocol, headers: HeaderList) -> WireStream:
    """Synchronous on purpose: between the choice of a stream id and its use nobody may run."""
    connection = protocol.connection
    stream = connection.create_stream()
    try:
        stream_id = connection.h2.get_next_available_stream_id()
        connection.h2.send_headers(stream_id, headers)
    except ProtocolError as error:  # (also: all ids are used up)
        protocol.draining = True
        raise NotSent(f"runner {protocol.peer}: cannot open a stream: {error}") from error
    stream.init_stream(stream_id, connection)
    return stream


async def _hand_over(
    stream: WireStream, address: str, message: bytes, rest: bytes, on_sent: Callable[[], None]
) -> None:
    """Send ``message``, and ``rest`` with it, and wait until the transport has ``message``.

    ``on_sent`` is called at that moment. Raises `NotSent` if it certainly did not come.
    """
    sent = False

    def note() -> None:
        nonlocal sent
        sent = True
        on_sent()

    # From here to the hand-over nothing waits: a scope that has ended by now sends nothing, one
    # that ends later finds the commit made.
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        stream.check_writable()
        # One write for both, so a small call is a single packet.
        position = stream.put(message + rest) - len(rest)
        stream.call_when_sent(position, note)
        await stream.wait_sent(position)
    except StreamBroken as error:
        if not sent:
            raise NotSent(f"runner {address}: {error}") from error
    except PeerDone:
        pass  # with a status, which receive() reports


async def _receive(stream: WireStream, address: str) -> bytes | None:
    """The next message, ``None`` after the status OK."""
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


def _decoded(decode: Callable[[bytes], _T], data: bytes, address: str) -> _T:
    try:
        return decode(data)
    except codec.CodecError as error:
        log.warning("undecodable message", runner=address, reason=str(error))
        raise EngagementFailed(INTERNAL, UNDECODABLE) from error


class _Engagement(ClientEngagement):
    def __init__(self, stream: WireStream, address: str) -> None:
        self._stream = stream
        self._address = address

    async def send(self, frame: Data) -> None:
        try:
            for message in codec.data_messages(frame):
                await self._stream.send(message)
        except (StreamBroken, PeerDone) as error:
            raise EngagementEnded(str(error)) from error

    async def commit(self, first: Data | None, *, on_commit: Callable[[], None]) -> None:
        rest = b"".join(codec.data_messages(first)) if first is not None else b""
        commit = codec.with_prefix(codec.encode_client(Commit(with_data=first is not None)))
        await _hand_over(self._stream, self._address, commit, rest, on_commit)

    async def receive(self) -> RunnerFrame | None:
        while True:
            message = await _receive(self._stream, self._address)
            if message is None:
                return None
            frame = _decoded(codec.decode_runner, message, self._address)
            if frame is not None:
                return frame
            log.warning("unknown frame skipped", runner=self._address, size=len(message))


class _Collector(LogCollector):
    def __init__(self, stream: WireStream, address: str) -> None:
        self._stream = stream
        self._address = address

    async def send(self, message: LogMessage) -> None:
        try:
            await self._stream.send(codec.with_prefix(codec.encode_log_message(message)))
        except (StreamBroken, PeerDone) as error:
            raise EngagementEnded(str(error)) from error

    async def receive(self) -> Sequence[LogContainer] | None:
        message = await _receive(self._stream, self._address)
        return None if message is None else _decoded(codec.decode_log_batch, message, self._address)
