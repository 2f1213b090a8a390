"""Runner client: engagements on streams of their own, status, watches, log streams."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import structlog
import trio
from grpclib.metadata import USER_AGENT

from .. import _fast
from .._fast import BegunEngagement, CallSource, FastClient
from ..config.addresses import split_address
from ..protocol import (
    UNOBSERVED,
    AttemptObserver,
    ClientEngagement,
    Commit,
    Data,
    EngagementEnded,
    EngagementFailed,
    LoadHint,
    LogCollector,
    LogContainer,
    LogMessage,
    NotSent,
    RunnerFrame,
    RunnerStatus,
    TryCall,
)
from .buffers import Buffer
from .codec import messages as codec
from .codec.fast import encode_data, encode_try
from .codec.messages import data_messages, data_parts, with_prefix
from .connection import HandOver, WireStream
from .connection_pool import (
    SHARE_LIMIT,
    ConnectionPool,
    ConnectionSlot,
    ConnectOptions,
    PoolStatistics,
    StreamBlock,
    Target,
    decoded,
    receive,
)
from .loop import Loop
from .mux.client import MuxClientStream, MuxEngagement
from .mux.stream import MuxStream
from .status import (
    CLIENT_HEADER,
    CONTENT_TYPE,
    HEALTH_WATCH,
    INTERNAL,
    UNAVAILABLE,
    UNIMPLEMENTED,
    UNKNOWN,
    HeaderList,
    PeerFinished,
    StreamBroken,
)

log = structlog.get_logger(__name__)


@attrs.define(eq=False)
class EngageBlock(AbstractAsyncContextManager[ClientEngagement]):
    """What `RunnerClient.engage` returns. (A class, because a generator costs several times as
    much.)"""

    _client: GrpcRunnerClient
    _try_call: TryCall
    _first: Data | None
    _request_id: str
    _deadline: float
    """`trio.current_time`; infinite = none."""
    _observer: AttemptObserver
    _leave: Callable[[], None] = attrs.field(init=False)

    async def __aenter__(self) -> ClientEngagement:
        client = self._client
        encoded = codec.encode_client(self._try_call)
        slot = await client._pool.acquire()
        if client.shares(self._first, len(encoded)):
            engagement = await self._share(slot, encoded)
            if engagement is not None:
                return engagement
        return await self._engage(slot, encoded)

    async def __aexit__(self, *_: object) -> None:
        """Not a checkpoint."""
        self._leave()

    async def _share(self, slot: ConnectionSlot, encoded: bytes) -> MuxEngagement | None:
        """Begin the call on the connection's shared stream; ``None`` if that is not possible."""
        client = self._client
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            shared = client.shared_stream(slot)
        except BaseException:
            client._pool.release(slot)
            raise
        if shared is None:
            return None
        frames = [encoded]
        if self._first is not None:
            frames += data_parts(self._first)
        engagement = MuxEngagement(client._pool, slot, shared, self._request_id, self._deadline)
        engagement.observer = self._observer
        self._leave = engagement.leave
        try:
            await engagement.hand_over(frames, HandOver(self._observer, self._try_call))
        except BaseException:
            engagement.leave()
            raise
        return engagement

    async def _engage(self, slot: ConnectionSlot, encoded: bytes) -> ClientEngagement:
        """Begin the call on a stream of its own."""
        client = self._client
        headers = client._request_headers("Engage", self._request_id)
        block = StreamBlock(client._pool, headers, self._deadline)
        stream = block.open_on(slot)
        self._leave = block.leave
        try:
            message = with_prefix(encoded)
            handed = HandOver(self._observer, self._try_call)
            await _hand_over(stream, client.address, message, self._first, handed)
        except BaseException:
            block.leave()
            raise
        return _Engagement(stream, client.address, self._observer)


async def _hand_over(
    stream: WireStream,
    address: str,
    message: bytes,
    first: Data | None,
    handed: HandOver,
) -> None:
    """Send ``message``, and ``first`` with it, and wait until the transport has ``message``, which
    ``handed`` is told. Raises `NotSent` if that certainly did not happen."""
    # From here to the hand-over nothing waits: a scope that has ended by now sends nothing, one
    # that ends later finds the commit made.
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        stream.check_writable()
        # One write for both, so a small call is a single packet.
        rest = [part for parts in data_messages(first) for part in parts] if first else []
        position = stream.put(message, *rest) - sum(map(len, rest))
        await stream.hand_over(position, handed)
    except StreamBroken as error:
        if not handed.done:
            raise NotSent(f"runner {address}: {error}") from error
    except PeerFinished:
        pass  # with a status, which receive() reports


class _Engagement(ClientEngagement):
    def __init__(self, stream: WireStream, address: str, observer: AttemptObserver) -> None:
        self._stream = stream
        self._address = address
        self._observer = observer

    async def send(self, frame: Data) -> None:
        try:
            for message in data_messages(frame):
                await self._stream.send(*message)
        except (StreamBroken, PeerFinished) as error:
            raise EngagementEnded(str(error)) from error

    async def commit(self, first: Data | None) -> None:
        frame = Commit(with_data=first is not None)
        message = with_prefix(codec.encode_client(frame))
        handed = HandOver(self._observer, frame)
        await _hand_over(self._stream, self._address, message, first, handed)

    async def receive(self) -> RunnerFrame | None:
        while True:
            message = await receive(self._stream, self._address)
            if message is None:
                return None
            frame = decoded(codec.decode_runner, message, self._address)
            if frame is not None:
                return frame
            log.warning("unknown frame skipped", runner=self._address, size=len(message))


NO_SERVICE = (UNIMPLEMENTED, UNKNOWN)
"""Statuses of servers without the service; UNKNOWN is how some servers say "no such method"."""

_UNPRINTABLE = re.compile(r"[^ -~]")


class GrpcRunnerClient(FastClient):
    """Speaks to one runner at ``address`` (``host:port``). Made without connecting.

    Raises ValueError for a bad address.

    Its objects belong to the Trio task that opened them; the client itself may be shared by any
    number of tasks.
    """

    def __init__(self, address: str, options: ConnectOptions | None = None, *, loop: Loop) -> None:
        options = options or ConnectOptions()
        host, port = split_address(address)
        if not host:
            raise ValueError(f"runner address {address!r} has no host")
        self._address = address
        self._name = secrets.token_hex(8)
        # grpc-go does TLS below gRPC and says http all the same; servers don't mind either.
        self._scheme = "https" if options.ssl_context else "http"
        self._pool = ConnectionPool(Target(host, port, loop, options))
        self._share_limit = min(options.share_limit, SHARE_LIMIT) if _fast.enabled else 0
        self._share_streamed = options.share_streamed

    def __repr__(self) -> str:
        state = "closed" if self._pool.closed else self._pool.statistics()
        return f"<GrpcRunnerClient {self._address} {state}>"

    @property
    def address(self) -> str:
        """``host:port``, as given; it need not be connected."""
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
        observer: AttemptObserver = UNOBSERVED,
    ) -> AbstractAsyncContextManager[ClientEngagement]:
        """See `RunnerClient.engage`. Trio-flavoured.

        ``first`` may have any size and needs no sender task: what the runner does not take at
        once is sent as it gives credit. If the runner ends the stream with a status before all of
        ``try_call`` was handed over, ``observer`` is not told and ``receive`` raises that
        status. ``receive`` raises `NotSent` if the runner proves that it never looked at the call.
        """
        request_id = _UNPRINTABLE.sub("?", request_id)
        return EngageBlock(self, try_call, first, request_id, deadline, observer)

    def begin(
        self,
        call: CallSource,
        *,
        first: Data,
        request_id: str = "",
        deadline: float = math.inf,
    ) -> BegunEngagement | None:
        """See `FastClient.begin`: for small calls, on a stream that can take them now."""
        if len(first.data) > self._share_limit or (slot := self._pool.acquire_now()) is None:
            return None
        engagement = None
        try:
            shared = self.shared_stream(slot)
            if shared is None:
                return None
            frames = [encode_try(call.try_call()), encode_data(first)]
            size = len(frames[0])
            if not self.shares(first, size) or not shared.takes_now(size + len(frames[1])):
                return None
            request_id = _UNPRINTABLE.sub("?", request_id)
            engagement = MuxEngagement(self._pool, slot, shared, request_id, deadline)
            engagement.begin(frames)
        except NotSent:  # a call that waits is told why
            return None
        finally:
            if engagement is None:
                self._pool.release(slot)
        call.committed()
        return engagement

    def shares(self, first: Data | None, size: int) -> bool:
        """Whether a call may share a stream, whose encoded ``TryCall`` has ``size`` bytes: with its
        body it has up to ``share_limit`` bytes, and the body is here (or ``share_streamed``)."""
        if first is None:
            return self._share_streamed and size <= self._share_limit
        whole = first.eof or self._share_streamed
        return whole and size + len(first.data) <= self._share_limit

    def shared_stream(self, slot: ConnectionSlot) -> MuxStream | None:
        """The stream for small calls on this connection; ``None`` if the runner does not know such
        streams, or has no more room on it. Raises `NotSent`."""
        limit = slot.protocol.connection.shared_calls
        shared = slot.shared
        if shared is None:
            if not limit or not slot.may_share:
                return None
            headers = self._request_headers("EngageMany", "")
            shared = slot.shared = MuxClientStream(slot, headers, self._address)
        return shared if shared.engagements < limit else None

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

    async def watch_health(self) -> AsyncGenerator[bool, None]:
        """See `RunnerClient.watch_health`. Trio-flavoured."""
        try:
            async with self._stream(HEALTH_WATCH) as stream:
                await self._request(stream, codec.EMPTY)  # the server as a whole
                while (message := await receive(stream, self._address)) is not None:
                    serving = decoded(codec.decode_serving, message, self._address)
                    if serving is None:
                        return
                    yield serving
        except EngagementFailed as error:
            if error.status in NO_SERVICE:
                return
            raise
        raise EngagementFailed(UNAVAILABLE, "the runner ended the watch of its health")

    async def watch_load(self) -> AsyncGenerator[LoadHint, None]:
        """See `RunnerClient.watch_load`. Trio-flavoured."""
        try:
            async with self._stream(codec.WATCH_LOAD) as stream:
                await self._request(stream, codec.EMPTY)
                while (message := await receive(stream, self._address)) is not None:
                    yield decoded(codec.decode_load, message, self._address)
        except EngagementFailed as error:
            if error.status in NO_SERVICE:
                return
            raise
        raise EngagementFailed(UNAVAILABLE, "the runner ended the watch of its load")

    async def aclose(self) -> None:
        await self._pool.aclose()

    def _stream(self, method: str, request_id: str = "") -> StreamBlock:
        return StreamBlock(self._pool, self._request_headers(method, request_id))

    def _request_headers(self, method: str, request_id: str) -> HeaderList:
        """Those of a method of the runner protocol, or of any ``/service/method``."""
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
        except PeerFinished:
            pass  # with a status, which comes next

    async def _unary(self, method: str, message: bytes) -> Buffer:
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
        except (StreamBroken, PeerFinished) as error:
            raise EngagementEnded(str(error)) from error

    async def receive(self) -> Sequence[LogContainer] | None:
        message = await receive(self._stream, self._address)
        return None if message is None else decoded(codec.decode_log_batch, message, self._address)
