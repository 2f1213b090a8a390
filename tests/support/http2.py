"""A client of HTTP/2 made by hand: what a load balancer of Fn's sends, and what an attacker sends.

It obeys no library, costs next to nothing, and tells what it gets.
"""

from __future__ import annotations

import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Sequence

import attrs
import hpack
import trio

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
ENGAGE = "/RunnerProtocol/Engage"
NO_ERROR, CANCEL = struct.pack(">I", 0), struct.pack(">I", 8)
_WINDOW = 2**30
_HEAD = struct.Struct(">IBI")


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """One frame."""
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def opening() -> bytes:
    """What a client sends first: empty settings, and a window that is large."""
    window = frame(WINDOW_UPDATE, struct.pack(">I", _WINDOW))
    return PREFACE + frame(SETTINGS) + window


def head_blocks(path: str = ENGAGE, more: Sequence[tuple[str, str]] = ()) -> tuple[bytes, bytes]:
    """The header block of the first request of a connection, and that of each later one, which
    refers to the first. As a gRPC client in Go has them."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "runner:9190"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-go/1.20.1"),
        ("te", "trailers"),
        *more,
    ]
    encoder = hpack.Encoder()
    return encoder.encode(fields), encoder.encode(fields)


def message(encoded: bytes) -> bytes:
    """A gRPC message."""
    return struct.pack(">BI", 0, len(encoded)) + encoded


@attrs.define(eq=False)
class Reply:
    """What has come on one stream."""

    done: trio.Event = attrs.Factory(trio.Event)
    """It has ended, or the connection has."""
    data: bytes = b""
    ended: bool = False
    """With trailers: its answer is whole."""
    reset: int | None = None

    @property
    def messages(self) -> list[bytes]:
        """The gRPC messages."""
        found, rest = [], self.data
        while rest:
            size = int.from_bytes(rest[1:5], "big")
            found.append(rest[5 : 5 + size])
            rest = rest[5 + size :]
        return found


class Peer:
    """One connection. Made by `open_peer`. ``closed`` is set when the server has closed it,
    ``goaway`` the error code that it gave before, ``frames`` how many frames have come."""

    def __init__(self, stream: trio.abc.Stream, path: str, more: Sequence[tuple[str, str]]) -> None:
        self.stream = stream
        self.closed = trio.Event()
        self.goaway: int | None = None
        self.frames = 0
        self._block, self._next_block = head_blocks(path, more)
        self._next = 1
        self._replies: dict[int, Reply] = {}
        self._sending = trio.Lock()
        self._answers: list[bytes] = []
        self._answered = trio.Event()

    def begin(self, *messages: bytes) -> tuple[bytes, int]:
        """The frames of a request with these gRPC messages, to be sent in order; and its stream."""
        number, self._next = self._next, self._next + 2
        block, self._block = self._block, self._next_block
        parts = [frame(HEADERS, block, flags=END_HEADERS, stream=number)]
        parts += [frame(DATA, message(m), stream=number) for m in messages]
        return b"".join(parts), number

    def expect(self, number: int) -> Reply:
        """The reply to a request that is sent next."""
        reply = self._replies[number] = Reply()
        if self.closed.is_set():
            reply.done.set()
        return reply

    async def request(self, *messages: bytes) -> Reply:
        """Send a request; the reply comes later."""
        data, number = self.begin(*messages)
        reply = self.expect(number)
        await self.send(data)
        return reply

    async def send(self, data: bytes) -> bool:
        """Send anything; whether the connection still takes it."""
        try:
            async with self._sending:
                await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return not self.closed.is_set()

    async def read(self) -> None:
        """Take what comes until the server closes."""
        rest = b""
        try:
            while data := await self.stream.receive_some(2**18):
                rest = self._take(rest + data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.closed.set()
            for reply in self._replies.values():
                reply.done.set()

    async def answer(self) -> None:
        """Send what answers what comes, until the server closes."""
        while True:
            await self._answered.wait()
            self._answered = trio.Event()
            answers, self._answers = self._answers, []
            if not await self.send(b"".join(answers)):
                return

    def _take(self, data: bytes) -> bytes:
        at = 0
        answers: list[bytes] = []
        while len(data) - at >= 9:
            size, flags, number = _HEAD.unpack_from(data, at)
            kind, stop = size & 0xFF, at + 9 + (size >> 8)
            if stop > len(data):
                break
            payload, at = data[at + 9 : stop], stop
            self.frames += 1
            reply = self._replies.get(number)
            if kind == SETTINGS and not flags & ACK:
                answers.append(frame(SETTINGS, flags=ACK))
            elif kind == PING and not flags & ACK:
                answers.append(frame(PING, payload, flags=ACK))
            elif kind == GOAWAY:
                self.goaway = int.from_bytes(payload[4:8], "big")
            elif reply is not None:
                if kind == DATA:
                    reply.data += payload
                elif kind == HEADERS and flags & END_STREAM:
                    reply.ended = True
                    # As gRPC in Go: this side had not ended.
                    answers.append(frame(RST_STREAM, NO_ERROR, stream=number))
                elif kind == RST_STREAM:
                    reply.reset = int.from_bytes(payload, "big")
                if reply.ended or reply.reset is not None:
                    reply.done.set()
                    del self._replies[number]
        if answers:
            self._answers += answers
            self._answered.set()
        return data[at:]


@contextlib.asynccontextmanager
async def open_peer(
    address: str,
    *,
    path: str = ENGAGE,
    more: Sequence[tuple[str, str]] = (),
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> AsyncIterator[Peer]:
    """A connection to ``address``, ``host:port``, whose requests are for ``path``, with ``more``
    headers. Raises `OSError`."""
    host, _, port = address.rpartition(":")
    stream: trio.abc.Stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
    if tls is not None:
        stream = trio.SSLStream(
            stream, tls, server_hostname=server_name or host, https_compatible=True
        )
    async with stream, trio.open_nursery() as nursery:
        peer = Peer(stream, path, more)
        await stream.send_all(opening())
        nursery.start_soon(peer.read)
        nursery.start_soon(peer.answer)
        yield peer
        nursery.cancel_scope.cancel()
