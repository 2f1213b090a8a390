"""The `Finished` of a call that went well on a container that was there, as nearly all do. See
`_engage_codec` for the why."""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from hostler.protocol import Finished, LoadHint

from ._load_codec import LOAD, of_any_slot, read_load, with_slot
from ._varint import inside, read_varint, sized, varint

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
    others. Raises ValueError or IndexError as `_engage_codec` does."""
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
