"""What has come on one stream: chunks on one side, gRPC messages on the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ._broken import Broken, StreamBroken
from ._buffers import PREFIX, Buffer
from ._status import MAX_MESSAGE, UNIMPLEMENTED, too_large

CREDIT = 256 * 1024
"""Bytes that are credited to the peer at once while there are more to read: half of a stream's
window. By single frames a peer that is ahead would be told of each, and send the next alone."""
LEAST_CREDIT = 128 * 1024
"""And when there is nothing more to read: small messages are not worth it, one by one."""
_HEAD = PREFIX.size


class Inbox:
    """In the role of grpclib's ``Buffer``. ``credit`` is told how many bytes of chunks were taken,
    when that is worth telling the peer."""

    def __init__(self, credit: Callable[[int], None]) -> None:
        self._credit = credit
        self._chunks: deque[tuple[Buffer, int]] = deque()
        self._uncredited = 0
        """Bytes of chunks that were taken."""
        self._begun: list[Buffer] = []
        """Of the next message, what was taken; more of it is still to come."""
        self._begun_size = 0

    def add(self, data: Buffer, flow_size: int) -> None:
        """A chunk, and the credit that it has cost."""
        self._chunks.append((data, flow_size))

    def unacked_size(self) -> int:
        """What is still to be credited to the connection when the stream is released."""
        return self._uncredited + sum(size for _, size in self._chunks)

    @property
    def unread(self) -> bool:
        """Whether there are chunks that were not taken."""
        return bool(self._chunks)

    @property
    def within(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._begun_size)

    @property
    def begun_size(self) -> int:
        """Bytes of an incomplete message that were taken."""
        return self._begun_size

    def next(self) -> Buffer | None:
        """The next message if it is complete, perhaps as a view of a chunk. Raises `StreamBroken`
        for one that is too large, before it has come, or compressed."""
        if not self._begun_size:
            if not self._chunks:
                return None
            # Most come as one chunk, alone.
            data = self._chunks[0][0]
            size = len(data) - _HEAD
            if size >= 0 and PREFIX.unpack_from(data) == (0, size):
                self._take_chunk()
                return data[_HEAD:]
        while self._begun_size < self._need():
            if not self._chunks:
                return None
            if chunk := self._take_chunk():
                self._begun.append(chunk)
                self._begun_size += len(chunk)
        return self._take()

    def _take_chunk(self) -> Buffer:
        data, flow_size = self._chunks.popleft()
        self._uncredited += flow_size
        if self._uncredited >= (CREDIT if self._chunks else LEAST_CREDIT):
            self._credit(self._uncredited)
            self._uncredited = 0
        return data

    def _need(self) -> int:
        """Bytes that must have been taken before the next step."""
        if self._begun_size < _HEAD:
            return _HEAD
        if len(self._begun[0]) < _HEAD:
            self._begun = [b"".join(self._begun)]
        compressed, size = PREFIX.unpack_from(self._begun[0])
        if size > MAX_MESSAGE:
            raise StreamBroken(Broken(*too_large(size)))
        if compressed:
            raise StreamBroken(Broken(UNIMPLEMENTED, "grpc: compression is not supported"))
        return _HEAD + int(size)

    def _take(self) -> Buffer:
        """The message. The next one may begin behind it, in the same chunk."""
        *parts, last = self._begun
        rest = self._begun_size - self._need()
        stop = len(last) - rest
        self._begun, self._begun_size = [last[stop:]] if rest else [], rest
        if not parts:
            return last[_HEAD:stop]
        first = memoryview(parts[0])[_HEAD:]
        return b"".join((first, *parts[1:], memoryview(last)[:stop]))
