"""The LB's end of the runner protocol."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from grpclib.metadata import USER_AGENT

from hostler.protocol import (
    BegunEngagement,
    ClientEngagement,
    Data,
    EngagementEnded,
    EngagementFailed,
    LoadHint,
    LogCollector,
    LogContainer,
    LogMessage,
    NotSent,
    RunnerClient,
    RunnerStatus,
    TryCall,
)

from ..config.addresses import split_address
from . import _codec as codec
from . import _health_client as health
from ._broken import PeerDone, StreamBroken
from ._client_stream import StreamBlock, decoded, receive
from ._dial import Target
from ._engage_client import SHARE_LIMIT, Begin, EngageBlock, Sharing, Way
from ._keepalive import DEFAULT_KEEPALIVE, Keepalive
from ._loop import Loop
from ._messages import with_prefix
from ._pool import ConnectionPool, PoolStatistics
from ._status import CLIENT_HEADER, CONTENT_TYPE, INTERNAL, UNAVAILABLE, HeaderList
from ._stream import WireStream
from ._tls_files import TLS

_UNPRINTABLE = re.compile(r"[^ -~]")


class GrpcRunnerClient(RunnerClient):
    """Speaks to one runner at ``address`` (``host:port``). Made without connecting.

    ``server_name`` is the name that the runner's certificate must have ("" = the host of the
    address). ``connect_timeout`` (seconds; 0.1 is Fn's) bounds TCP, ``handshake_timeout`` TLS and
    the start of HTTP/2. At most ``max_connections`` times ``streams_per_connection`` calls are in
    flight; further ones wait. Raises ValueError for a bad address.

    Calls whose ``TryCall`` and body have up to ``share_limit`` bytes together share a stream, with
    runners that announce that they take them so (0 = none do); with ``share_streamed`` also those
    whose body is not there yet.

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
        share_limit: int = SHARE_LIMIT,
        share_streamed: bool = False,
    ) -> None:
        host, port = split_address(address)
        if not host:
            raise ValueError(f"runner address {address!r} has no host")
        self._address = address
        self._name = secrets.token_hex(8)
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
        sharing = Sharing(min(share_limit, SHARE_LIMIT), share_streamed)
        self._way = Way(self._pool, address, self._request_headers, sharing)

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
        request_id = _UNPRINTABLE.sub("?", request_id)
        begin = Begin(try_call, first, request_id, deadline, on_commit)
        return EngageBlock(self._way, begin)

    def begin(
        self,
        make: Callable[[], TryCall],
        *,
        first: Data,
        request_id: str = "",
        deadline: float = math.inf,
        on_commit: Callable[[], None] = lambda: None,
    ) -> BegunEngagement | None:
        """See `RunnerClient.begin`: for small calls on a stream that is there."""
        request_id = _UNPRINTABLE.sub("?", request_id)
        return self._way.begin(make, first, request_id, deadline, on_commit)

    async def status(self, payload: str | None = None) -> RunnerStatus:
        """See `RunnerClient.status`. Raises ValueError if ``payload`` is not a JSON object."""
        if payload is None:
            answer = await self._unary("Status", codec.EMPTY)
        else:
            answer = await self._unary("Status2", codec.encode_struct(payload))
        return decoded(codec.decode_status, answer, self._address)

    async def configure(self, config: Mapping[str, str]) -> None:
        answer = await self._unary("ConfigureRunner", codec.encode_config(config))
        decoded(codec.decode_empty, answer, self._address)

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
                while (message := await receive(stream, self._address)) is not None:
                    serving = decoded(health.decode_serving, message, self._address)
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
                while (message := await receive(stream, self._address)) is not None:
                    tell(decoded(codec.decode_load, message, self._address))
        except EngagementFailed as error:
            if error.status in health.NO_SERVICE:
                return
            raise
        raise EngagementFailed(UNAVAILABLE, "the runner ended the watch of its load")

    async def aclose(self) -> None:
        await self._pool.aclose()

    def _stream(self, method: str, request_id: str = "") -> StreamBlock:
        """A new stream for a method of the runner protocol, or for any ``/service/method``."""
        return StreamBlock(self._pool, self._request_headers(method, request_id))

    def _request_headers(self, method: str, request_id: str) -> HeaderList:
        headers = [
            (":method", "POST"),
            (":scheme", self._scheme),
            (":path", method if method.startswith("/") else f"/RunnerProtocol/{method}"),
            (":authority", self._address),
            ("te", "trailers"),
            ("content-type", CONTENT_TYPE),
            ("user-agent", USER_AGENT),
            (CLIENT_HEADER, self._name),
        ]
        if request_id:
            headers.append(("fn_request_id", request_id))
        return headers

    async def _request(self, stream: WireStream, message: bytes) -> None:
        """Send the one message of a request that is no stream."""
        try:
            await stream.send(with_prefix(message))
            stream.end_now()
        except StreamBroken as error:
            raise NotSent(f"runner {self._address}: {error}") from error
        except PeerDone:
            pass  # with a status, which comes next

    async def _unary(self, method: str, message: bytes) -> bytes:
        async with self._stream(method) as stream:
            await self._request(stream, message)
            answer = await receive(stream, self._address)
            if answer is None or await receive(stream, self._address) is not None:
                raise EngagementFailed(INTERNAL, f"{method} must have exactly one answer")
            return answer


class _Collector(LogCollector):
    def __init__(self, stream: WireStream, address: str) -> None:
        self._stream = stream
        self._address = address

    async def send(self, message: LogMessage) -> None:
        try:
            await self._stream.send(with_prefix(codec.encode_log_message(message)))
        except (StreamBroken, PeerDone) as error:
            raise EngagementEnded(str(error)) from error

    async def receive(self) -> Sequence[LogContainer] | None:
        message = await receive(self._stream, self._address)
        return None if message is None else decoded(codec.decode_log_batch, message, self._address)
