"""`LoadHint` by hand: it comes with every finished call. See `_engage_codec` for the why."""

from __future__ import annotations

from functools import lru_cache
from operator import attrgetter

from msgspec.structs import replace

from hostler.protocol import SLOT_DIGEST, LoadHint

from ._varint import SHORT, read_varint, sized, varint

LOAD = b"\xaa\x06"
"""The key of ``CallFinished.load``, number 101."""
_ACTIVE, _MEMORY, _RETRY, _SLOT, _WARM, _COMPLETE = 0x08, 0x10, 0x18, 0x22, 0x2A, 0x30
_RESERVES, _RECLAIMABLE = 0x38, 0x40
_FREE_CPUS, _RECLAIMABLE_CPUS, _SLOTS, _REFUSED = 0x48, 0x50, 0x58, 0x60
_WORTHY, _WORTHY_CPUS, _SHARE = 0x68, 0x70, 0x78
_LEAVE = b"\x80\x01\x01"
"""``leave`` and that it is true. To who expects keys of one byte it is a part of one byte."""
_IDLE = b"\x88\x01"
"""The key of ``idle_cpus``, number 17."""
_STARTING = b"\x90\x01"
"""The key of ``starting``, number 18."""
_WARM_SLOT, _WARM_COUNT = 0x0A, 0x10
_LIMITS = {
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
    _WORTHY: 2**64,
    _WORTHY_CPUS: 2**32,
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
    ("worthy_memory", _WORTHY),
    ("worthy_cpus", _WORTHY_CPUS),
    ("share", _SHARE),
)
"""In the order of their keys."""
_numbers = attrgetter(*(name for name, _ in _NUMBERS))
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
        of_any = _known(_numbers(hint), ANY_SLOT, warm, hint.leave, hint.idle_cpus, hint.starting)
        return of_any and of_any.replace(ANY_SLOT, slot)
    encode = _known if len(warm) <= _MAX_KNOWN_WARM else _encode
    return encode(_numbers(hint), hint.slot, warm, hint.leave, hint.idle_cpus, hint.starting)


def _encode(
    numbers: tuple[int | None, ...],
    slot: bytes,
    warm: tuple[tuple[bytes, int], ...],
    leave: bool,
    idle_cpus: int | None,
    starting: int,
) -> bytes | None:
    parts: list[bytes] = []
    for (_, key), value in zip(_NUMBERS, numbers, strict=True):
        if value is None:  # (CPUs, the only number for which 0 is something else than nothing)
            parts.append(b"")
        elif not 0 <= value < _LIMITS[key]:
            return None
        else:
            written = value or key == _FREE_CPUS
            parts.append(SHORT[key] + sized(value) if written else b"")
    slots = [_sized(_SLOT, slot)] if slot else []
    for name, count in warm:
        if not 0 <= count < 2**32:
            return None
        if 0 < count < 0x80 and len(name) == SLOT_DIGEST:
            slots.append(_USUAL_WARM % (name, count))
            continue
        number = SHORT[_WARM_COUNT] + varint(count) if count else b""
        slots.append(_sized(_WARM, (_sized(_WARM_SLOT, name) if name else b"") + number))
    if leave:
        parts.append(_LEAVE)
    for key_of_two, count_of in ((_IDLE, idle_cpus), (_STARTING, starting or None)):
        if count_of is None:
            continue
        if not 0 <= count_of < 2**32:
            return None
        parts.append(key_of_two + varint(count_of))
    all_of_it = b"".join(parts[:_FIRST] + slots + parts[_FIRST:])
    return b"%b%b%b" % (LOAD, varint(len(all_of_it)), all_of_it)


def _sized(key: int, value: bytes) -> bytes:
    return b"%c%b%b" % (key, varint(len(value)), value)


_known = lru_cache(maxsize=256)(_encode)
_MAX_KNOWN_SIZE = 256


def read_load(part: bytes) -> LoadHint:
    """As `decode_load`, for all of ``part``."""
    # A runner under steady load says the same again and again.
    if len(part) <= _MAX_KNOWN_SIZE:
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
    numbers = dict.fromkeys(_LIMITS, 0)
    slot = b""
    warm: dict[bytes, int] = {}
    knows_cpus = leave = False
    idle: int | None = None
    starting = 0
    while at < end:
        key, value = data[at], data[at + 1]
        if value < 0x80:
            at += 2
        else:
            value, at = read_varint(data, at + 1)
        if key in numbers:
            if value >= _LIMITS[key]:
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
        elif data[begin - 2 : begin] == _IDLE:
            idle, at = read_varint(data, begin)
        elif data[begin - 2 : begin] == _STARTING:
            starting, at = read_varint(data, begin)
        else:
            raise ValueError(key)
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
        worthy_memory=numbers[_WORTHY],
        worthy_cpus=numbers[_WORTHY_CPUS],
        share=numbers[_SHARE],
        leave=leave,
        idle_cpus=idle,
        starting=starting,
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
