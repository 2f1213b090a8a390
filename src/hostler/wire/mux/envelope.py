"""The messages of ``EngageMany`` by hand, for the reasons that `hostler.wire.codec.fast` has.

A batch (``Envelopes``) is never built as an object: `encode` makes one of its fields, so that
batches are joined of them, and `decode_batch` takes a batch apart. Frames stay encoded; what is
in them is the business of whoever reads the call. The tests compare both ways with betterproto.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ..codec.fast import read_varint, sized, varint
from ..codec.messages import CodecError
from ..status import UNKNOWN

_ENVELOPE = 0x0A  # Envelopes.envelopes
_CALL, _FRAME, _REQUEST_ID, _CREDIT, _END, _RESET = 0x08, 0x12, 0x1A, 0x20, 0x2A, 0x30
_TIMEOUT = 0x38
_KEYS = frozenset({_CALL, _FRAME, _REQUEST_ID, _CREDIT, _END, _RESET, _TIMEOUT})
_STATUS, _TEXT = 0x08, 0x12  # CallEnd
_UINT32, _UINT64 = 2**32, 2**64

MAX_TEXT = 8 * 1024
"""Characters of a status text: it is for logs, and what servers take of trailers."""

MAX_FIELDS = 16 * 1024
"""Envelopes and their fields in a batch: four bytes each make the 64 KiB that our own batches have.
To read so many takes some 10 ms, in which nobody else is served."""


class CallEnd(msgspec.Struct, frozen=True, gc=False):
    """A call's gRPC status, as the trailers of ``Engage`` have it."""

    status: int = 0
    text: str = ""


OK_END = CallEnd()


class Envelope(msgspec.Struct, gc=False):
    """What one call has to say. ``reset`` is an HTTP/2 error code, 0 = none; ``timeout_ms`` the
    milliseconds that the LB still waits, 0 = no limit."""

    call: int = 0
    frames: Sequence[bytes] = ()
    request_id: str = ""
    credit: int = 0
    end: CallEnd | None = None
    reset: int = 0
    timeout_ms: int = 0


def encode(
    call: int,
    frames: Sequence[bytes],
    request_id: str,
    credit: int,
    end: CallEnd | None,
    reset: int,
    timeout_ms: int,
) -> bytes:
    """An `Envelope` as a part of a batch."""
    parts = [b"\x08", varint(call)]
    for frame in frames:
        parts += (b"\x12", sized(len(frame)), frame)
    if request_id:
        # What a program has made of bytes must not break the batch, which has other calls, too.
        text = request_id.encode("utf-8", "replace")
        parts += (b"\x1a", sized(len(text)), text)
    if credit:
        parts += (b"\x20", varint(credit))
    if end is OK_END:
        parts.append(b"\x2a\x00")
    elif end is not None:
        status = _encode_end(end)
        parts += (b"\x2a", varint(len(status)), status)
    if reset:
        parts += (b"\x30", varint(reset))
    if timeout_ms:
        parts += (b"\x38", varint(timeout_ms))
    value = b"".join(parts)
    return b"".join((b"\x0a", sized(len(value)), value))


def _encode_end(end: CallEnd) -> bytes:
    number = end.status if 0 <= end.status < _UINT32 else UNKNOWN
    status = b"\x08" + varint(number) if number else b""
    if not end.text:
        return status
    # A lone surrogate, as of an undecodable file name, must not break the status.
    text = end.text[:MAX_TEXT].encode("utf-8", "replace")
    return b"%b\x12%b%b" % (status, varint(len(text)), text)


def decode_batch(data: bytes) -> list[Envelope]:
    """The envelopes of a batch. Fields that are not known are skipped, as protobuf has it.

    Raises `CodecError` if ``data`` is no batch, or an envelope has no call.
    """
    envelopes: list[Envelope] = []
    at, end = 0, len(data)
    fields = iter(range(MAX_FIELDS, 0, -1))
    try:
        while at < end and next(fields, 0):
            if data[at] == _ENVELOPE:
                size, begin = read_varint(data, at + 1)
                at = begin + size
                envelopes.append(_envelope(data, begin, at, fields))
            else:
                at = _skip(data, at, end)
    except (ValueError, IndexError) as error:
        raise CodecError(f"cannot decode envelopes of {end} bytes: {error}") from error
    if at != end:
        reason = "the last is cut off" if at > end else f"they have over {MAX_FIELDS} fields"
        raise CodecError(f"cannot decode envelopes of {end} bytes: {reason}")
    return envelopes


def _envelope(data: bytes, at: int, end: int, fields: Iterator[int]) -> Envelope:
    """``fields`` counts down those that may still come."""
    frames: list[bytes] = []
    request_id = ""
    call = credit = reset = timeout_ms = 0
    call_end = None
    while at < end and next(fields, 0):
        start = at
        key, value = data[at], data[at + 1]
        if value < 0x80 or key not in _KEYS:  # (what follows another one may be no number)
            at += 2
        else:
            value, at = read_varint(data, at + 1)
        if key == _FRAME:
            begin, at = at, at + value
            frames.append(data[begin:at])
        elif key == _CALL:
            call = value
        elif key == _END:
            begin, at = at, at + value
            call_end = _decode_end(data, begin, at, fields) if value else OK_END
        elif key == _REQUEST_ID:
            begin, at = at, at + value
            request_id = data[begin:at].decode()
        elif key == _CREDIT:
            credit = _uint32(value)
        elif key == _RESET:
            reset = _uint32(value)
        elif key == _TIMEOUT:
            timeout_ms = _uint32(value)
        else:
            at = _skip(data, start, end)
    if at != end:
        raise ValueError("a field that is cut off, or too many fields")
    if not 0 < call < _UINT64:
        raise ValueError("an envelope without a call")
    return Envelope(call, frames, request_id, credit, call_end, reset, timeout_ms)


def _decode_end(data: bytes, at: int, end: int, fields: Iterator[int]) -> CallEnd:
    status, text = 0, ""
    while at < end and next(fields, 0):
        if data[at] == _STATUS:
            status, at = read_varint(data, at + 1)
            status = _uint32(status)
        elif data[at] == _TEXT:
            begin, at = _sized(data, at + 1, end)
            text = data[begin:at].decode()
        else:
            at = _skip(data, at, end)
    if at != end:
        raise ValueError("a field that is cut off, or too many fields")
    return CallEnd(status, text)


def _uint32(value: int) -> int:
    if value >= _UINT32:
        raise ValueError("a number that is too large")
    return value


def _sized(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Begin and end of the value whose length stands at ``at``, within ``end``."""
    size, at = read_varint(data, at)
    if at + size > end:
        raise ValueError("a field that is cut off")
    return at, at + size


def _skip(data: bytes, at: int, end: int) -> int:
    """The position after an unknown field."""
    key, at = read_varint(data, at)
    kind = key & 7
    if not key >> 3:
        raise ValueError("field 0")
    if kind == 0:
        _, at = read_varint(data, at)
    elif kind == 2:
        _, at = _sized(data, at, end)
    elif kind in (1, 5):
        at += 8 if kind == 1 else 4
    else:
        raise ValueError(f"wire type {kind}")
    if at > end:
        raise ValueError("a field that is cut off")
    return at
