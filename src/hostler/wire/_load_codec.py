"""`LoadHint` by hand: it comes with every finished call. See `_engage_codec` for the why."""

from __future__ import annotations

from functools import lru_cache

from hostler.frames import LoadHint

from ._varint import SHORT, read_varint, varint

_ACTIVE, _MEMORY, _RETRY, _SLOT, _WARM, _COMPLETE = 0x08, 0x10, 0x18, 0x22, 0x2A, 0x30
_RESERVES, _RECLAIMABLE = 0x38, 0x40
_FREE_CPUS, _RECLAIMABLE_CPUS, _SLOTS, _REFUSED = 0x48, 0x50, 0x58, 0x60
_WORTHY, _WORTHY_CPUS = 0x68, 0x70
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
}


def encode_load(hint: LoadHint) -> bytes | None:
    """A ``LoadHint``; ``None`` if a number is out of range."""
    parts = [
        _number(_ACTIVE, hint.active),
        _cached_number(_MEMORY, hint.free_memory),
        _number(_RETRY, hint.retry_after_ms),
    ]
    if hint.slot:
        parts.append(b"\x22%b%b" % (varint(len(hint.slot)), hint.slot))
    for slot, count in hint.warm.items():
        if not 0 <= count < 2**32:
            return None
        inner = b"\x10" + varint(count) if count else b""
        if slot:
            inner = b"\x0a%b%b%b" % (varint(len(slot)), slot, inner)
        parts.append(b"\x2a%b%b" % (varint(len(inner)), inner))
    if hint.complete:
        parts.append(b"\x30\x01")
    if hint.reserves:
        parts.append(b"\x38\x01")
    parts += (
        _cached_number(_RECLAIMABLE, hint.reclaimable_memory),
        _known_cpus(hint.free_cpus),
        _number(_RECLAIMABLE_CPUS, hint.reclaimable_cpus),
        _number(_SLOTS, hint.slots),
        _number(_REFUSED, hint.refused),
        _cached_number(_WORTHY, hint.worthy_memory),
        _number(_WORTHY_CPUS, hint.worthy_cpus),
    )
    try:
        return b"".join(parts)  # type: ignore[arg-type]
    except TypeError:  # one of them is ``None``
        return None


def _number(key: int, value: int) -> bytes | None:
    """A field; nothing for 0, ``None`` if it is out of range."""
    if not value:
        return b""
    if not 0 < value < _LIMITS[key]:
        return None
    return SHORT[key] + varint(value)


def _known_cpus(value: int | None) -> bytes | None:
    """The only number for which 0 is something else than nothing."""
    if value is None:
        return b""
    return _number(_FREE_CPUS, value) if value else b"\x48\x00"


_cached_number = lru_cache(maxsize=1024)(_number)
"""For bytes of memory, which are large numbers, and the same ones again and again."""


def decode_load(data: bytes, at: int, end: int) -> LoadHint:
    """The ``LoadHint`` between ``at`` and ``end``. Raises ValueError or IndexError for shapes
    that are not known here."""
    numbers = dict.fromkeys(_LIMITS, 0)
    slot = b""
    warm: dict[bytes, int] = {}
    knows_cpus = False
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
        if key == _SLOT:
            slot = data[begin:at]
        elif key == _WARM:
            name, count = _warm(data, begin, at)
            warm[name] = count
        else:
            raise ValueError(key)
    if at != end:
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
