"""Recognises the end of an HTTP/1.1 answer: just enough for a load generator."""

from __future__ import annotations

import socket


class BadAnswer(Exception):
    """The server sent something that is not the answer the plan expects."""


PIECE = 1 << 18
"""Bytes that are received at once, at most."""


class Answer:
    """Collects one answer after the other; ``feed``, or ``receive``, is true when one is complete.

    A small answer with a length arrives in one piece nearly always: that way is short. The buffer
    stays for the next answer: to have the kernel find pages for each large one anew costs more than
    to receive it.
    """

    __slots__ = (
        "_body_at",
        "_chunked",
        "_data",
        "_end",
        "_parts",
        "_scan",
        "_size",
        "close",
        "status",
    )

    def __init__(self) -> None:
        self._data = bytearray()
        self.begin()

    def begin(self) -> None:
        """Another one is to come."""
        self._size = 0
        self._body_at = -1
        self._end = -1
        self._chunked = False
        self._scan = 0
        self._parts: list[bytes] = []
        self.status = 0
        self.close = False

    def feed(self, data: bytes) -> bool:
        self._reserve(len(data))
        self._data[self._size : self._size + len(data)] = data
        return self._got(len(data))

    def receive(self, connection: socket.socket) -> bool | None:
        """``None`` at its end."""
        self._reserve(PIECE)
        with memoryview(self._data)[self._size : self._size + PIECE] as room:
            size = connection.recv_into(room)
        return self._got(size) if size else None

    def _reserve(self, size: int) -> None:
        if len(self._data) < self._size + size:
            self._data.extend(bytes(max(len(self._data), size)))

    def _got(self, size: int) -> bool:
        self._size += size
        if self._body_at < 0 and not self._read_head():
            return False
        if self._chunked:
            return self._read_chunks()
        return self._size >= self._end

    @property
    def started(self) -> bool:
        return bool(self._size)

    @property
    def body(self) -> bytes:
        """Of a complete answer."""
        if self._chunked:
            return b"".join(self._parts)
        with memoryview(self._data)[self._body_at : self._end] as body:
            return bytes(body)

    def has_header(self, name: bytes) -> bool:
        """Of an answer whose head is there; ``name`` in small letters."""
        return b"\r\n" + name + b":" in bytes(self._data[: max(self._body_at, 0)]).lower()

    def _read_head(self) -> bool:
        end = self._data.find(b"\r\n\r\n", 0, self._size)
        if end < 0:
            return False
        head = bytes(self._data[:end]).lower()
        if not head.startswith(b"http/1.1 ") or not head[9:12].isdigit():
            raise BadAnswer(f"not an answer: {head[:60]!r}")
        self.status = int(head[9:12])
        self.close = b"\r\nconnection: close" in head
        self._body_at = self._scan = end + 4
        self._chunked = b"\r\ntransfer-encoding: chunked" in head
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            self._end = self._body_at + int(head[at + 17 :].split(b"\r\n", 1)[0])
        elif not self._chunked:
            raise BadAnswer("an answer without a length")
        return True

    def _read_chunks(self) -> bool:
        while True:
            line = self._data.find(b"\r\n", self._scan, self._size)
            if line < 0:
                return False
            size = int(bytes(self._data[self._scan : line]).split(b";")[0], 16)
            end = line + 2 + size + 2
            if self._size < end:
                return False
            self._parts.append(bytes(self._data[line + 2 : line + 2 + size]))
            self._scan = end
            if not size:
                return True
