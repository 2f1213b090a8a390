"""The messages of ``Engage`` by hand: what one call costs on the wire is mostly these.

betterproto takes 40 to 240 microseconds for one of them, most of it for making its objects; the
functions here (and in `_data_codec`) take 2 to 10. They only know the shapes that encoders normally
write: for all else they return ``None``, and `_codec` leaves it to betterproto. The tests compare
both ways, so the model of the messages stays betterproto's.

"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from hostler.headers import have_secret
from hostler.protocol import Commit, Data, Finished, Headers, Reserved, ResultStart, TryCall

from ._data_codec import DATA_ARM, decode_data
from ._hot_end import hot_fields, read_hot_end
from ._load_codec import LOAD, encode_load, read_load
from ._varint import SHORT, Unusual, inside, read_varint, sized, varint

# Keys: field number times 8, plus 0 for a varint or 2 for what has a length. Those of fields
# with numbers under 16 are one byte.
_TRY_ARM = b"\x0a"  # ClientMsg.try
_RESERVE_ARM = b"\xaa\x06"  # ClientMsg.reserve, number 101
_WAIT_MS = b"\xa8\x06"  # TryCall.waitMs, number 101
_GENTLE = b"\xb0\x06\x01"  # TryCall.gentle, number 102, true
_LAUNCH = b"\xb8\x06\x01"  # TryCall.launch, number 103, true
_COMMITS = {False: b"\xb2\x06\x00", True: b"\xb2\x06\x02\x08\x01"}
"""ClientMsg.commit, number 102, all of it, by ``withData``."""
_RESERVED = b"\xaa\x06\x00"  # RunnerMsg.reserved, number 101, all of it
_START_ARM = b"\x0a"  # RunnerMsg.result_start
_FINISHED_ARM = b"\x1a"  # RunnerMsg.finished
_HTTP = b"\xa2\x06"  # CallResultStart.http, number 100
_FINISHED_FIELDS = (
    "success",
    "details",
    "error_code",
    "error_text",
    "created_at",
    "started_at",
    "completed_at",
    "scheduler_ns",
    "execution_ns",
    "error_user",
    "image",
    "image_pull_wait_ns",
    "ctr_prep_ns",
    "ctr_create_ns",
    "init_start_ns",
)
"""In the order of their numbers, from 1."""
_TEXTS = frozenset({"details", "error_text", "created_at", "started_at", "completed_at", "image"})
_LIMITS = {"success": 2, "error_user": 2, "error_code": 2**31}
"""Bounds of the integers, exclusive; other fields take an int64. What is negative is unusual."""
_KEYS = {
    name: number << 3 | (2 if name in _TEXTS else 0)
    for number, name in enumerate(_FINISHED_FIELDS, 1)
}
_WRITTEN = [bytes((key,)) for key in _KEYS.values()]
_BOUNDS = [0 if name in _TEXTS else _LIMITS.get(name, 2**63) for name in _KEYS]
"""Those of texts are 0."""
_values = attrgetter(*_FINISHED_FIELDS)
_PLACES = Finished.__struct_fields__
_NOTHING: Sequence[Any] = attrgetter(*_PLACES)(Finished(success=False))
_READ = [(0, -1)] * 256
"""By key: the place among what a `Finished` is made of, and the bound; no value is under -1."""
for _name, _bound in zip(_FINISHED_FIELDS, _BOUNDS, strict=True):
    _READ[_KEYS[_name]] = _PLACES.index(_name), _bound


_starts: dict[tuple[int, Headers], bytes] = {}
_MAX_STARTS, _START_SIZE = 256, 1024
"""Heads of responses that are remembered as they were encoded, and the bytes of one."""


def _sized(key: bytes, *parts: bytes) -> bytes:
    value = b"".join(parts)
    return b"".join((key, sized(len(value)), value))


def _text(key: bytes, text: str) -> bytes:
    if not text:
        return b""
    value = text.encode()
    return b"".join((key, sized(len(value)), value))


# --- encoding ------------------------------------------------------------------------------


def encode_try(frame: TryCall) -> bytes:
    """A ``ClientMsg``."""
    parts = [_text(b"\x0a", frame.models_call_json), _text(b"\x12", frame.slot_hash_id)]
    for name, value in frame.extensions.items():
        parts.append(_sized(b"\x1a", _text(b"\x0a", name), _text(b"\x12", value)))
    if frame.wait_ms:
        parts += (_WAIT_MS, varint(frame.wait_ms))
    if frame.gentle:
        parts.append(_GENTLE)
    if frame.launch:
        parts.append(_LAUNCH)
    arm = _RESERVE_ARM if frame.reserve else _TRY_ARM
    encoded = b"".join(parts)
    return b"".join((arm, sized(len(encoded)), encoded))


def encode_commit(frame: Commit) -> bytes:
    """A ``ClientMsg``."""
    return _COMMITS[frame.with_data]


def encode_reserved() -> bytes:
    """A ``RunnerMsg``."""
    return _RESERVED


def encode_start(frame: ResultStart) -> bytes | None:
    """A ``RunnerMsg``. Headers that are a tuple are taken for those of many answers: what they come
    to is remembered, if it is not much."""
    headers = frame.headers
    if type(headers) is not tuple:
        return _start_of(frame.status, headers)
    key = frame.status, headers
    found = _starts.get(key)
    if found is None:
        found = _start_of(frame.status, headers)
        if found is not None and len(found) <= _START_SIZE and not have_secret(headers):
            if len(_starts) >= _MAX_STARTS:
                _starts.clear()
            _starts[key] = found
    return found


def _start_of(status: int, headers: Headers) -> bytes | None:
    if not 0 <= status < 2**31:
        return None
    number = b"\x08" + varint(status) if status else b""
    pairs = [
        _sized(b"\x12", _text(b"\x0a", name), _text(b"\x12", value)) for name, value in headers
    ]
    return _sized(_START_ARM, _sized(_HTTP, number, *pairs))


def encode_finished(frame: Finished) -> bytes | None:
    """A ``RunnerMsg``."""
    fields = hot_fields(frame) or _fields(frame)
    load = b"" if frame.load is None else encode_load(frame.load)
    return None if fields is None or load is None else _sized(_FINISHED_ARM, fields, load)


def _fields(frame: Finished) -> bytes | None:
    """All of a ``CallFinished`` but the hint; ``None`` if a number is out of range."""
    parts: list[bytes] = []
    for key, limit, value in zip(_WRITTEN, _BOUNDS, _values(frame), strict=True):
        if not value:
            continue
        if not limit:
            text = value.encode()
            parts += (key, sized(len(text)), text)
        elif 0 < value < limit:
            parts += (key, SHORT[value] if value < 0x80 else varint(value))
        else:
            return None
    return b"".join(parts)


# --- decoding ------------------------------------------------------------------------------


def decode_client(data: bytes) -> TryCall | Data | Commit | None:
    """A ``ClientMsg``."""
    try:
        if data[0] == DATA_ARM:
            return decode_data(data)
        if data[0] == _TRY_ARM[0]:
            return _try(data, 1, reserve=False)
        if data[:2] == _RESERVE_ARM:
            return _try(data, 2, reserve=True)
        if data == _COMMITS[True]:
            return Commit(with_data=True)
        return Commit() if data == _COMMITS[False] else None
    except (ValueError, IndexError):
        return None


def decode_runner(data: bytes) -> ResultStart | Data | Finished | Reserved | None:
    """A ``RunnerMsg``."""
    try:
        arm = data[0]
        if arm == DATA_ARM:
            return decode_data(data)
        if arm == _FINISHED_ARM[0]:
            return read_hot_end(data) or _finished(data)
        if arm == _START_ARM[0]:
            return _known_starts.get(data) or _start(data)
        return Reserved() if data == _RESERVED else None
    except (ValueError, IndexError):
        return None


def _sized_at(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Begin and end of the value whose length stands at ``at``, within ``end``."""
    size = data[at]
    if size < 0x80:
        at += 1
    else:
        size, at = read_varint(data, at)
    if at + size > end:
        raise Unusual
    return at, at + size


def _try(data: bytes, at: int, *, reserve: bool) -> TryCall:
    end = len(data)
    at = inside(data, at, end)
    call = slot = ""
    extensions: dict[str, str] = {}
    wait_ms = 0
    gentle = launch = False
    while at < end:
        key, size = data[at], data[at + 1]
        if size < 0x80:
            begin = at + 2
        else:
            size, begin = read_varint(data, at + 1)
        stop = begin + size
        if key == 0x0A:
            call = data[begin:stop].decode()
        elif key == 0x12:
            slot = data[begin:stop].decode()
        elif key == 0x1A:
            name, value = _pair(data, begin, stop)
            extensions[name] = value
        elif data[at : at + 3] == _GENTLE:
            gentle, stop = True, at + 3
        elif data[at : at + 3] == _LAUNCH:
            launch, stop = True, at + 3
        elif data[at : at + 2] == _WAIT_MS:
            wait_ms, stop = read_varint(data, at + 2)
        else:
            raise Unusual
        at = stop
    if at != end or wait_ms >= 2**32:
        raise Unusual
    return TryCall(call, slot, extensions, reserve, wait_ms, gentle, launch)


def _pair(data: bytes, at: int, end: int) -> tuple[str, str]:
    """A message of two texts: an entry of a map of texts, or a header."""
    texts = ["", ""]
    while at < end:
        key = data[at]
        if key not in (0x0A, 0x12):
            raise Unusual
        begin, at = _sized_at(data, at + 1, end)
        texts[key >> 4] = data[begin:at].decode()
    return texts[0], texts[1]


_MAX_KNOWN, _MAX_KNOWN_SIZE = 512, 256
_pairs: dict[bytes, tuple[str, str]] = {}
"""Headers of answers as they came: most answers of a function have the same."""


def _read_pair(part: bytes) -> tuple[str, str]:
    pair = _pair(part, 0, len(part))
    if len(part) <= _MAX_KNOWN_SIZE and not have_secret((pair,)):
        if len(_pairs) >= _MAX_KNOWN:
            _pairs.clear()
        _pairs[part] = pair
    return pair


_known_starts: dict[bytes, ResultStart] = {}
"""Most answers of a function have the same head, while its length and its date are the same."""


def _start(data: bytes) -> ResultStart:
    end = len(data)
    at = inside(data, 1, end)
    if data[at : at + 2] != _HTTP:
        raise Unusual
    at = inside(data, at + 2, end)
    status = 0
    headers: list[tuple[str, str]] = []
    while at < end:
        key = data[at]
        if key == 0x12:
            begin, at = _sized_at(data, at + 1, end)
            part = data[begin:at]
            pair = _pairs.get(part)
            headers.append(_read_pair(part) if pair is None else pair)
        elif key == 0x08:
            status, at = _integer(data, at + 1, 2**31)
        else:
            raise Unusual
    start = ResultStart(status, tuple(headers))
    if end <= _START_SIZE and not have_secret(headers):
        if len(_known_starts) >= _MAX_STARTS:
            _known_starts.clear()
        _known_starts[data] = start
    return start


def _finished(data: bytes) -> Finished:
    end = len(data)
    at = inside(data, 1, end)
    values = [*_NOTHING]
    while at < end:
        key = data[at]
        value = data[at + 1]
        if value < 0x80:
            at += 2
        else:
            value, at = read_varint(data, at + 1)
        place, bound = _READ[key]
        if not bound:
            stop = at + value
            values[place] = data[at:stop].decode()
            at = stop
        elif value < bound:
            values[place] = value if bound > 2 else value > 0
        elif key == LOAD[0] and value == LOAD[1]:
            begin, at = _sized_at(data, at, end)
            values[-1] = read_load(data[begin:at])
        else:
            raise Unusual
    if at != end:
        raise Unusual
    return Finished(*values)


def _integer(data: bytes, at: int, limit: int) -> tuple[int, int]:
    value, at = read_varint(data, at)
    if value >= limit:
        raise Unusual
    return value, at
