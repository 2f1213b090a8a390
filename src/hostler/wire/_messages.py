"""Frames as the messages that carry them, and messages as streams take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hostler.protocol import BODY_PIECE, Data, RunnerFrame

from ._buffers import LARGE, PREFIX, Buffer
from ._codec import encode_runner
from ._data_codec import around_data, encode_data


def with_prefix(message: bytes) -> bytes:
    """``message`` with gRPC's length prefix, as streams take it."""
    return PREFIX.pack(0, len(message)) + message


def data_parts(frame: Data) -> Iterable[bytes]:
    """``frame`` as messages of at most ``BODY_PIECE`` bytes of data, ``eof`` on the last."""
    if len(frame.data) <= BODY_PIECE:
        return (encode_data(frame),)
    return map(b"".join, _pieces(frame))


def data_messages(frame: Data) -> Iterator[tuple[Buffer, ...]]:
    """As `data_parts`, with prefixes: the parts of each message. Large data are not copied."""
    if len(frame.data) < LARGE:
        yield (with_prefix(encode_data(frame)),)
        return
    for head, piece, tail in _pieces(frame):
        prefix = PREFIX.pack(0, len(head) + len(piece) + len(tail))
        yield (prefix + head, piece, tail) if tail else (prefix + head, piece)


def runner_messages(frame: RunnerFrame) -> Iterable[tuple[Buffer, ...]]:
    """Any frame of a runner as messages with prefixes: the parts of each."""
    if isinstance(frame, Data):
        return data_messages(frame)
    return ((with_prefix(encode_runner(frame)),),)


def _pieces(frame: Data) -> Iterator[tuple[bytes, memoryview, bytes]]:
    data, size = memoryview(frame.data), len(frame.data)
    for start in range(0, size, BODY_PIECE):
        piece = data[start : start + BODY_PIECE]
        head, tail = around_data(len(piece), frame.eof and start + BODY_PIECE >= size)
        yield head, piece, tail
