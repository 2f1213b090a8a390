"""The `Finished` of a call that went well on a container that was there, as nearly all do. See
`_engage_codec` for the why."""

from __future__ import annotations

from hostler.frames import Finished

from ._varint import sized, varint

_BEGIN = b"\x08\x01\x12"
"""That it was a success, and the key of the details."""
_SCHEDULER, _EXECUTION, _IMAGE = b"@", b"H", b"Z"
_DATE_SIZE = 24
"""Of a date as nodes write it."""
_DATES_SIZE = 3 * (2 + _DATE_SIZE)


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
        or len(dates) != _DATES_SIZE  # a character took more than one byte
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
