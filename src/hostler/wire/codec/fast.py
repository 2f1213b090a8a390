"""Measured hand codec for frames and load hints; property tests prove equality with betterproto.

betterproto takes 40 to 240 microseconds for a message, most of it to make its objects; the
functions here take 2 to 10. They only know the shapes that encoders normally write. For all else
they return ``None``, and `hostler.wire.codec.messages` leaves the message to betterproto. So the
model of the messages stays betterproto's.

``ClientMsg`` and ``RunnerMsg`` have their ``DataFrame`` under the same number, so one function each
way serves both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from struct import Struct
from typing import Any

from msgspec.structs import replace

from ...headers import have_secret
from ...protocol import (
    SLOT_DIGEST,
    Commit,
    Data,
    Finished,
    Headers,
    LoadHint,
    Reserved,
    ResultStart,
    TryCall,
)
from ..buffers import Buffer

# Keys: field number times 8, plus 0 for a varint or 2 for what has a length. Those of fields
# with numbers under 16 are one byte.
_TRY_ARM = b"\x0a"  # ClientMsg.try
_RESERVE_ARM = b"\xaa\x06"  # ClientMsg.reserve, number 101
_WAIT_MS = b"\xa8\x06"  # TryCall.waitMs, number 101
_SPARE_WARM = b"\xb0\x06\x01"  # TryCall.spareWarm, number 102, true
_LAUNCH = b"\xb8\x06\x01"  # TryCall.launch, number 103, true
_SURPLUS = b"\xc0\x06\x01"  # TryCall.surplus, number 104, true

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
    if frame.spare_warm:
        parts.append(_SPARE_WARM)
    if frame.launch:
        parts.append(_LAUNCH)
    if frame.surplus:
        parts.append(_SURPLUS)
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
    spare_warm = launch = surplus = False
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
        elif data[at : at + 3] == _SPARE_WARM:
            spare_warm, stop = True, at + 3
        elif data[at : at + 3] == _LAUNCH:
            launch, stop = True, at + 3
        elif data[at : at + 3] == _SURPLUS:
            surplus, stop = True, at + 3
        elif data[at : at + 2] == _WAIT_MS:
            wait_ms, stop = read_varint(data, at + 2)
        else:
            raise Unusual
        at = stop
    if at != end or wait_ms >= 2**32:
        raise Unusual
    return TryCall(call, slot, extensions, reserve, wait_ms, spare_warm, launch, surplus)


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


DATA_ARM = 0x12  # `data` of both
_DATA_FIELD = 0x0A  # DataFrame.data
_EOF_FIELD = b"\x10\x01"  # DataFrame.eof, true

_NO_DATA = {False: b"\x12\x00", True: b"\x12\x02" + _EOF_FIELD}
"""A whole message, by ``eof``."""


def encode_data(frame: Data) -> bytes:
    """The message."""
    data = frame.data
    if not data:
        return _NO_DATA[frame.eof]
    size = len(data)
    length = sized(size)
    inner = 1 + len(length) + size
    if frame.eof:
        return b"".join((b"\x12", sized(inner + 2), b"\x0a", length, data, _EOF_FIELD))
    return b"".join((b"\x12", sized(inner), b"\x0a", length, data))


def around_data(size: int, eof: bool) -> tuple[bytes, bytes]:
    """What stands before and behind ``size`` bytes of data (there are some) in their message."""
    tail = _EOF_FIELD if eof else b""
    length = sized(size)
    inner = sized(1 + len(length) + size + len(tail))
    return b"".join((b"\x12", inner, b"\x0a", length)), tail


def decode_data(data: Buffer) -> Data:
    """A message that begins with `DATA_ARM`. Raises `Unusual` or IndexError for other shapes than
    encoders normally write."""
    end = len(data)
    at = inside(data, 1, end)
    size = 0
    if at < end and data[at] == _DATA_FIELD:
        size, at = read_varint(data, at + 1)
    stop = at + size
    if stop == end:
        return Data(bytes(data[at:]))
    if data[stop:] == _EOF_FIELD:
        return Data(bytes(data[at:stop]), eof=True)
    raise Unusual


_BEGIN = b"\x08\x01\x12"
"""That it was a success, and the key of the details."""

_SCHEDULER, _EXECUTION, _IMAGE = b"@", b"H", b"Z"
_SCHEDULER_KEY, _EXECUTION_KEY = _SCHEDULER[0], _EXECUTION[0]

_DATE_SIZE = 24
"""Of a date as nodes write it."""

_DATES = Struct(3 * f"2s{_DATE_SIZE}s")
_KNOWN_SIZE = 512

_HINT_AFTER_IMAGE = 5
"""Bytes beside those of the image before the first of the hint, if both are short."""


def hot_fields(frame: Finished) -> bytes | None:
    """All of a ``CallFinished`` but the hint; ``None`` if there is more to say, or less."""
    if (
        not frame.success
        or frame.error_code
        or frame.error_text
        or frame.error_user
        or frame.image_pull_wait_ns
        or frame.ctr_prep_ns
        or frame.ctr_create_ns
        or frame.init_start_ns
    ):
        return None
    created, started, completed = frame.created_at, frame.started_at, frame.completed_at
    dates = f"*\x18{created}2\x18{started}:\x18{completed}".encode()
    details, image = frame.details.encode(), frame.image.encode()
    scheduler_ns, execution_ns = frame.scheduler_ns, frame.execution_ns
    if (
        not (details and image)
        or not len(created) == len(started) == len(completed) == _DATE_SIZE
        or len(dates) != _DATES.size  # a character took more than one byte
        or not (0 <= scheduler_ns < 2**63 and 0 < execution_ns < 2**63)
    ):
        return None
    parts = (
        _BEGIN,
        sized(len(details)),
        details,
        dates,
        _SCHEDULER + varint(scheduler_ns) if scheduler_ns else b"",  # mostly it took no time
        _EXECUTION,
        varint(execution_ns),
        _IMAGE,
        sized(len(image)),
        image,
    )
    return b"".join(parts)


def read_hot_end(data: bytes) -> Finished | None:
    """The reverse, for a whole ``RunnerMsg`` of that shape, with or without a hint; ``None`` for
    others. Raises ValueError or IndexError as `hostler.wire.codec.fast` does."""
    end = len(data)
    at = inside(data, 1, end)
    begin = at + 4
    if data[at : begin - 1] != _BEGIN or (size := data[begin - 1]) > 0x7F:
        return None
    dates = begin + size
    at = dates + _DATES.size
    if at > end:
        return None
    first, created, second, started, third, completed = _DATES.unpack_from(data, dates)
    if first != b"*\x18" or second != b"2\x18" or third != b":\x18":
        return None
    key = data[at]
    scheduler_ns = 0
    if key == _SCHEDULER_KEY:
        scheduler_ns, at = read_varint(data, at + 1)
        key = data[at]
    if key != _EXECUTION_KEY:
        return None
    execution_ns, at = read_varint(data, at + 1)
    rest = data[at:]
    found = _known(rest) if 1 < len(rest) <= _KNOWN_SIZE else _rest(rest)
    if found is None or scheduler_ns >= 2**63 or execution_ns >= 2**63:
        return None
    image, load = found
    return Finished(
        True,
        data[begin:dates].decode(),
        0,
        "",
        False,
        created.decode(),
        started.decode(),
        completed.decode(),
        scheduler_ns,
        execution_ns,
        image,
        0,
        0,
        0,
        0,
        load,
    )


def _known(data: bytes) -> tuple[str, LoadHint | None] | None:
    """As `_rest`. It is the same in most calls, of whatever function, but for the slot."""
    of_any, slot = of_any_slot(data, data[1] + _HINT_AFTER_IMAGE)
    found = _known_rest(of_any)
    if not slot or found is None or found[1] is None:
        return found
    load = with_slot(found[1], slot)
    return (found[0], load) if load is not None else _rest(data)


def _rest(data: bytes) -> tuple[str, LoadHint | None] | None:
    """The image, and the hint if there is one; ``None`` if something else is there."""
    if not data.startswith(_IMAGE):
        return None
    size, begin = read_varint(data, 1)
    end = begin + size
    image = data[begin:end].decode()
    if end == len(data):
        return image, None
    if not data.startswith(LOAD, end):
        return None
    return image, read_load(data[inside(data, end + 2, len(data)) :])


_known_rest = lru_cache(maxsize=256)(_rest)

LOAD = b"\xaa\x06"
"""The key of ``CallFinished.load``, number 101."""

_ACTIVE, _MEMORY, _RETRY, _SLOT, _WARM, _COMPLETE = 0x08, 0x10, 0x18, 0x22, 0x2A, 0x30
_RESERVES, _RECLAIMABLE = 0x38, 0x40
_FREE_CPUS, _RECLAIMABLE_CPUS, _SLOTS, _REFUSED = 0x48, 0x50, 0x58, 0x60
_PROTECTED, _PROTECTED_CPUS, _SHARE = 0x68, 0x70, 0x78

_LEAVE = b"\x80\x01\x01"
"""``leave`` and that it is true. To who expects keys of one byte it is a part of one byte."""

_IDLE = b"\x88\x01"
"""The key of ``idle_cpus``, number 17."""

_STARTING = b"\x90\x01"
"""The key of ``starting``, number 18."""

_SLOT_EXTENSION = b"\x9a\x01"
"""The key of ``slot_extensions``, number 19."""

_WARM_SLOT, _WARM_COUNT = 0x0A, 0x10

_HINT_LIMITS = {
    _ACTIVE: 2**32,
    _MEMORY: 2**64,
    _RETRY: 2**32,
    _COMPLETE: 2,
    _RESERVES: 2,
    _RECLAIMABLE: 2**64,
    _FREE_CPUS: 2**32,
    _RECLAIMABLE_CPUS: 2**32,
    _SLOTS: 2**32,
    _REFUSED: 2**32,
    _PROTECTED: 2**64,
    _PROTECTED_CPUS: 2**32,
    _SHARE: 2**32,
}

_NUMBERS = (
    ("active", _ACTIVE),
    ("free_memory", _MEMORY),
    ("retry_after_ms", _RETRY),
    ("complete", _COMPLETE),
    ("reserves", _RESERVES),
    ("reclaimable_memory", _RECLAIMABLE),
    ("free_cpus", _FREE_CPUS),
    ("reclaimable_cpus", _RECLAIMABLE_CPUS),
    ("slots", _SLOTS),
    ("refused", _REFUSED),
    ("protected_memory", _PROTECTED),
    ("protected_cpus", _PROTECTED_CPUS),
    ("share", _SHARE),
)
"""In the order of their keys."""

_all_but_slots = attrgetter(
    *(name for name, _ in _NUMBERS), "leave", "idle_cpus", "starting", "slot_extensions"
)
"""All of a hint but its slots."""

_FIRST = 3
"""Of the numbers, those before the slots."""

_MAX_KNOWN_WARM = 8

_USUAL_WARM = b"%c%c%c%c%%b%c%%c" % (
    *(_WARM, SLOT_DIGEST + 4),
    *(_WARM_SLOT, SLOT_DIGEST),
    _WARM_COUNT,
)
"""One of ``warm`` as nearly all are: there may be hundreds."""

_USUAL_SIZE = SLOT_DIGEST + 4
_SLOT_MARK, _WARM_MARK = b"%c%c" % (_SLOT, SLOT_DIGEST), _USUAL_WARM[:4]

ANY_SLOT = bytes(SLOT_DIGEST)
"""Stands for the slot in what is remembered of hints. Nothing else in them has so many zeros."""


def encode_load(hint: LoadHint) -> bytes | None:
    """``CallFinished.load``; ``None`` if a number is out of range."""
    # A runner under steady load says the same again and again, of one function or another.
    warm, slot = tuple(hint.warm.items()), hint.slot
    if len(slot) == SLOT_DIGEST and (not warm or (len(warm) == 1 and warm[0][0] == slot)):
        warm = ((ANY_SLOT, warm[0][1]),) if warm else ()
        of_any = _known_hint(_all_but_slots(hint), ANY_SLOT, warm)
        return of_any and of_any.replace(ANY_SLOT, slot)
    encode = _known_hint if len(warm) <= _MAX_KNOWN_WARM else _encode
    return encode(_all_but_slots(hint), slot, warm)


def _encode(
    fields: tuple[Any, ...], slot: bytes, warm: tuple[tuple[bytes, int], ...]
) -> bytes | None:
    *numbers, leave, idle_cpus, starting, slot_extensions = fields
    parts: list[bytes] = []
    for (_, key), value in zip(_NUMBERS, numbers, strict=True):
        if value is None:  # (CPUs, the only number for which 0 is something else than nothing)
            parts.append(b"")
        elif not 0 <= value < _HINT_LIMITS[key]:
            return None
        else:
            written = value or key == _FREE_CPUS
            parts.append(SHORT[key] + sized(value) if written else b"")
    slots = [_sized_hint(_SLOT, slot)] if slot else []
    for name, count in warm:
        if not 0 <= count < 2**32:
            return None
        if 0 < count < 0x80 and len(name) == SLOT_DIGEST:
            slots.append(_USUAL_WARM % (name, count))
            continue
        number = SHORT[_WARM_COUNT] + varint(count) if count else b""
        slots.append(_sized_hint(_WARM, (_sized_hint(_WARM_SLOT, name) if name else b"") + number))
    if leave:
        parts.append(_LEAVE)
    for key_of_two, count_of in ((_IDLE, idle_cpus), (_STARTING, starting or None)):
        if count_of is None:
            continue
        if not 0 <= count_of < 2**32:
            return None
        parts.append(key_of_two + varint(count_of))
    for extension in slot_extensions:
        encoded = extension.encode()
        parts.append(_SLOT_EXTENSION + varint(len(encoded)) + encoded)
    all_of_it = b"".join(parts[:_FIRST] + slots + parts[_FIRST:])
    return b"%b%b%b" % (LOAD, varint(len(all_of_it)), all_of_it)


def _sized_hint(key: int, value: bytes) -> bytes:
    return b"%c%b%b" % (key, varint(len(value)), value)


_known_hint = lru_cache(maxsize=256)(_encode)

_MAX_KNOWN_HINT_SIZE = 256


def read_load(part: bytes) -> LoadHint:
    """As `decode_load`, for all of ``part``."""
    # A runner under steady load says the same again and again.
    if len(part) <= _MAX_KNOWN_HINT_SIZE:
        return _known_load(part)
    return decode_load(part, 0, len(part))


@lru_cache(maxsize=256)
def _known_load(part: bytes) -> LoadHint:
    return decode_load(part, 0, len(part))


def of_any_slot(data: bytes, at: int) -> tuple[bytes, bytes]:
    """``data``, of which a hint begins at ``at``, with `ANY_SLOT` in the place of its slot, and
    that slot; empty if there is none where most hints have it."""
    begin = data.find(_SLOT_MARK, at) + 2
    end = begin + SLOT_DIGEST
    slot = data[begin:end]
    if begin < 2 or len(slot) < SLOT_DIGEST or ANY_SLOT in data:
        return data, b""
    warm = end + len(_WARM_MARK)
    if data[end:warm] == _WARM_MARK and data.startswith(slot, warm):
        rest = data[warm + SLOT_DIGEST :]
        return b"%b%b%b%b%b" % (data[:begin], ANY_SLOT, _WARM_MARK, ANY_SLOT, rest), slot
    return b"%b%b%b" % (data[:begin], ANY_SLOT, data[end:]), slot


def with_slot(hint: LoadHint, slot: bytes) -> LoadHint | None:
    """What of `of_any_slot` was decoded as ``hint``; ``None`` if the slot stood elsewhere."""
    if hint.slot != ANY_SLOT:
        return None
    warm = {slot if name == ANY_SLOT else name: hint.warm[name] for name in hint.warm}
    return replace(hint, slot=slot, warm=warm)


def decode_load(data: bytes, at: int, end: int) -> LoadHint:
    """The ``LoadHint`` between ``at`` and ``end``. Raises ValueError or IndexError for shapes
    that are not known here."""
    numbers = dict.fromkeys(_HINT_LIMITS, 0)
    slot = b""
    warm: dict[bytes, int] = {}
    knows_cpus = leave = False
    two_byte: dict[bytes, int | None] = {_IDLE: None, _STARTING: None}
    slot_extensions: list[str] = []
    while at < end:
        key, value = data[at], data[at + 1]
        if value < 0x80:
            at += 2
        else:
            value, at = read_varint(data, at + 1)
        if key in numbers:
            if value >= _HINT_LIMITS[key]:
                raise ValueError(value)
            numbers[key] = value
            knows_cpus = knows_cpus or key == _FREE_CPUS
            continue
        begin, at = at, at + value
        if key == _WARM and value == _USUAL_SIZE and at <= end and _is_usual(data, begin):
            warm[data[begin + 2 : at - 2]] = data[at - 1]
            continue
        if key == _SLOT:
            slot = data[begin:at]
        elif key == _WARM:
            name, count = _warm(data, begin, at)
            warm[name] = count
        elif data[begin - 2 : at] == _LEAVE:
            leave = True
        elif (two := data[begin - 2 : begin]) in two_byte:
            two_byte[two], at = read_varint(data, begin)
        elif two == _SLOT_EXTENSION:
            size, begin = read_varint(data, begin)
            at = begin + size
            slot_extensions.append(data[begin:at].decode())
        else:
            raise ValueError(key)
    idle, starting = two_byte[_IDLE], two_byte[_STARTING] or 0
    if at != end or (idle or 0) >= 2**32 or starting >= 2**32:
        raise ValueError(at)
    return LoadHint(
        active=numbers[_ACTIVE],
        free_memory=numbers[_MEMORY],
        retry_after_ms=numbers[_RETRY],
        reclaimable_memory=numbers[_RECLAIMABLE],
        slot=slot,
        warm=warm,
        complete=numbers[_COMPLETE] > 0,
        reserves=numbers[_RESERVES] > 0,
        free_cpus=numbers[_FREE_CPUS] if knows_cpus else None,
        reclaimable_cpus=numbers[_RECLAIMABLE_CPUS],
        slots=numbers[_SLOTS],
        refused=numbers[_REFUSED],
        protected_memory=numbers[_PROTECTED],
        protected_cpus=numbers[_PROTECTED_CPUS],
        share=numbers[_SHARE],
        leave=leave,
        idle_cpus=idle,
        starting=starting,
        slot_extensions=tuple(slot_extensions),
    )


def _is_usual(data: bytes, at: int) -> bool:
    """Whether what begins there, and has the length of one of `_USUAL_WARM`, is one."""
    return (
        data[at + _USUAL_SIZE - 2] == _WARM_COUNT
        and data[at + _USUAL_SIZE - 1] < 0x80
        and data[at : at + 2] == _USUAL_WARM[2:4]
    )


def _warm(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    slot, count = b"", 0
    while at < end:
        key = data[at]
        value, at = read_varint(data, at + 1)
        if key == _WARM_SLOT:
            slot, at = data[at : at + value], at + value
        elif key == _WARM_COUNT and value < 2**32:
            count = value
        else:
            raise ValueError(key)
    if at != end:
        raise ValueError(at)
    return slot, count


SHORT = [bytes((value,)) for value in range(0x80)]
"""The values of one byte, for those whom a function call costs too much."""

_MORE = [bytes((value | 0x80,)) for value in range(0x80)]
"""Bytes that others follow."""

_SECOND = [(byte << 7) - 0x80 for byte in range(0x100)]

_THIRD = [(byte << 14) - 0x4000 for byte in range(0x100)]
"""What a byte in that place adds to what was read before it, whose last bit says that it is there:
most of what needs more than a byte needs no more than these, and is read without arithmetic."""


def varint(value: int) -> bytes:
    """``value``, which must not be negative, in groups of seven bits."""
    if value < 0x80:
        return SHORT[value]
    if value < 0x4000:
        return _MORE[value & 0x7F] + SHORT[value >> 7]
    if value < 0x20_0000:
        return _MORE[value & 0x7F] + _MORE[value >> 7 & 0x7F] + SHORT[value >> 14]
    if value < 0x1000_0000:
        low = value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14 & 0x7F | 0x80
        return bytes((*low, value >> 21))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


sized = lru_cache(maxsize=1024)(varint)
"""As `varint`, for lengths of what is sent, which are often the same."""


def read_varint(data: Buffer, at: int) -> tuple[int, int]:
    """(value, position after it). Raises IndexError at the end of ``data``, or of 64 bits."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    byte = data[at + 1]
    value += _SECOND[byte]
    if byte < 0x80:
        return value, at + 2
    byte = data[at + 2]
    value += _THIRD[byte]
    at += 3
    shift = 14
    while byte > 0x7F:
        shift += 7
        if shift > 63:
            raise IndexError(at)
        byte = data[at]
        value += (byte << shift) - (0x80 << shift - 7)
        at += 1
    return value, at


class Unusual(ValueError):
    """Not one of the shapes that are known here. (Undecodable text is a ValueError, too.)"""


def inside(data: Buffer, at: int, end: int) -> int:
    """Where the value begins whose length stands at ``at`` and which ends at ``end``."""
    size, at = read_varint(data, at)
    if at + size != end:
        raise Unusual
    return at
