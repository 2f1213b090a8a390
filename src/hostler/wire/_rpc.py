"""Serving one stream: from its headers to its trailers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from functools import partial
from typing import Final, Literal

import structlog
import trio
from grpclib.metadata import decode_timeout
from h2.errors import ErrorCodes

from hostler.errors import ProtocolError
from hostler.protocol import (
    ClientFrame,
    EngagementEnded,
    Finished,
    GRPCStatus,
    LogChannel,
    LogContainer,
    LogMessage,
    RunnerFrame,
    ServerEngagement,
    TryCall,
)

from . import _codec as codec
from ._broken import PeerDone, StreamBroken
from ._buffers import Buffer
from ._engage_codec import decode_client
from ._health import CHECK, WATCH, decode_request
from ._messages import runner_messages, with_prefix
from ._serving import DEADLINE_PASSED, SHUTTING_DOWN, Serving, decode, outcome_of
from ._shared_server import serve_shared
from ._status import (
    CLIENT_HEADER,
    INTERNAL,
    OK_BLOCK,
    RESOURCE_EXHAUSTED,
    RESPONSE_BLOCK,
    RESPONSE_HEADERS,
    UNIMPLEMENTED,
    UNKNOWN,
    is_grpc,
    trailers,
)
from ._stream import WireStream

log = structlog.get_logger(__name__)

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
    serving: Serving,
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
                rpc = partial(_dispatch, serving, stream, headers, peer)
            else:
                rpc = partial(_engage, serving, engagement)
            status = await outcome_of(rpc, peer)
            with contextlib.suppress(StreamBroken, PeerDone):
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
    serving: Serving, stream: WireStream, headers: dict[str, str], peer: str
) -> None:
    service, health = serving.service, serving.health
    if not _speaks_grpc(headers):
        raise GRPCStatus(UNKNOWN, "this server speaks gRPC only")
    path = headers.get(":path", "")
    client = headers.get(CLIENT_HEADER) or peer
    if path == ENGAGE:
        await service.engage(Engagement(stream, headers, peer))  # its first message is no call
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
    elif path == CHECK:
        asked = decode(decode_request, await _request(stream), peer)
        await _reply(stream, health.check(asked))
    elif path == WATCH:
        asked = decode(decode_request, await _request(stream), peer)
        await health.watch(asked, partial(_reply, stream))
    elif path == codec.WATCH_LOAD:
        decode(codec.decode_empty, await _request(stream), peer)
        await service.watch_load(lambda hint: _reply(stream, codec.encode_load(hint)))
    else:
        raise GRPCStatus(UNIMPLEMENTED, f"unknown method {path}")


async def _engage(serving: Serving, engagement: Engagement) -> None:
    if engagement.refused is None:
        await serving.service.engage(engagement)
    else:
        await engagement.send_all([engagement.refused], last=True)


def _speaks_grpc(headers: dict[str, str]) -> bool:
    return headers.get(":method") == "POST" and is_grpc(headers.get("content-type", ""))


def begin_engagement(
    serving: Serving, stream: WireStream, headers: dict[str, str], peer: str
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
    engagement = Engagement(stream, headers, peer)
    data = bytes(message)
    first = engagement.ahead = decode_client(data) or data
    if isinstance(first, TryCall):
        refused = serving.service.refuse(engagement, first)
        if refused is not None:
            answer = with_prefix(codec.encode_runner(refused))
            if stream.answer_now(RESPONSE_BLOCK, answer, OK_BLOCK):
                return REFUSED
            engagement.refused = refused
    return engagement


async def _request(stream: WireStream) -> bytes:
    """The one message of a unary RPC."""
    message = await _receive(stream)
    if message is None:
        raise GRPCStatus(INTERNAL, "the request has no message")
    return message


async def _receive(stream: WireStream) -> bytes | None:
    message = await _receive_buffer(stream)
    return message if message is None else bytes(message)


async def _receive_buffer(stream: WireStream) -> Buffer | None:
    try:
        return await stream.receive_buffer()
    except StreamBroken as error:
        if stream.broken:
            raise EngagementEnded(str(error)) from error
        # The peer is there, but what it sent can't be read on.
        raise GRPCStatus(error.broken.status, error.broken.text) from error


async def _reply(stream: WireStream, message: bytes) -> None:
    await _send(stream, with_prefix(message))


async def _send(stream: WireStream, *parts: Buffer, flush: bool = True) -> None:
    stream.start_response(RESPONSE_HEADERS)
    try:
        await stream.send(*parts, flush=flush)
    except (StreamBroken, PeerDone) as error:
        raise EngagementEnded(str(error)) from error


class Engagement(ServerEngagement):
    """One that a stream carries."""

    def __init__(self, stream: WireStream, headers: dict[str, str], peer: str) -> None:
        self._stream = stream
        self.request_id = headers.get("fn_request_id", "")
        self.peer = peer
        name = headers.get(CLIENT_HEADER)
        self.named = bool(name)
        self.client = name or peer
        self.deadline = stream.cancel_scope.deadline
        self.ahead: ClientFrame | bytes | None = None
        """What was taken off the stream already."""
        self.refused: Finished | None = None
        """Its answer, if it was refused but that could not be sent at once."""

    async def receive(self) -> ClientFrame | None:
        frame, self.ahead = self.ahead, None
        if frame is None:
            message = await _receive_buffer(self._stream)
            if message is None:
                return None
        elif isinstance(frame, bytes):
            message = frame
        else:
            self._stream.taken = True
            await trio.lowlevel.checkpoint_if_cancelled()
            return frame
        frame = decode(codec.decode_client, message, self.peer)
        if frame is None:
            raise ProtocolError("the message holds neither try nor data")
        return frame

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
