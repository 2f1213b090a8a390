"""Dates as they stand in JSON documents and wire messages: RFC 3339 with milliseconds.

Fn's rules (its clients compare texts): written with exactly three digits of fraction, cut off,
in the zone that the value carries; read with any fraction or none. An unset date is written as
the year 1, and an empty text is read as the Unix epoch, which is not unset.
"""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache

__all__ = [
    "EPOCH",
    "UNSET_TEXT",
    "format_date",
    "parse_date",
]

UNSET_TEXT = "0001-01-01T00:00:00.000Z"
"""How an unset date is written."""

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):\d\d:\d\d([.,]\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
"""The form only, and what ``fromisoformat`` takes though RFC 3339 does not."""


_MILLISECONDS = [f".{number:03}Z" for number in range(1000)]

_SHOWN = 64
"""Characters of a bad text in an error, which may go back to a peer."""


def format_date(date: dt.datetime | None) -> str:
    """``2025-09-26T12:57:15.123Z``; ``None`` is the unset date. Cut to milliseconds.

    Raises `ValueError` for a date without a zone, or in one with seconds, which RFC 3339 can't
    write.
    """
    if date is None:
        return UNSET_TEXT
    if date.tzinfo is dt.UTC:  # nearly always, and mostly in the same second as others
        fields = date.year, date.month, date.day, date.hour, date.minute, date.second
        return _second(fields) + _MILLISECONDS[date.microsecond // 1000]
    offset = date.utcoffset()
    if offset is None:
        raise ValueError(f"a date needs a zone: {date!r}")
    text = date.isoformat(timespec="milliseconds")
    if not offset:
        return text[:-6] + "Z"
    if offset % dt.timedelta(minutes=1):
        raise ValueError(f"the zone of a date must be in whole minutes: {date!r}")
    return text


@lru_cache(maxsize=64)
def _second(fields: tuple[int, int, int, int, int, int]) -> str:
    return dt.datetime(*fields).isoformat()


def parse_date(text: str) -> dt.datetime | None:
    """Read an RFC 3339 date; ``None`` = unset. Digits behind microseconds are cut off.

    Raises `ValueError` for anything else.
    """
    if text == UNSET_TEXT:
        return None
    if not text:
        return EPOCH
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"not an RFC 3339 date: {text[:_SHOWN]!r}")
    try:
        date = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"not a date: {text!r}: {error}") from error
    return None if _is_unset(date) else date


def _is_unset(date: dt.datetime) -> bool:
    """Go's zero time is one moment, whatever zone it is written in.

    Computed without a conversion to UTC, which overflows in the year 1.
    """
    return date.year == 1 and date.replace(tzinfo=None) - dt.datetime.min == date.utcoffset()
