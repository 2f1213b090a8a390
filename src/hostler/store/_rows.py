"""Values of models as those of rows, and back."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import msgspec

from hostler.dates import EPOCH

_texts = msgspec.json.Decoder(dict[str, str])
_values = msgspec.json.Decoder(dict[str, msgspec.Raw])


def now(after: dt.datetime | None = None) -> dt.datetime:
    """The time, in whole milliseconds, as the API writes it; later than ``after`` in any case, so
    that a change can be told by its date even if the clock steps back."""
    date = _date(time.time_ns() // 1_000_000)
    return date if after is None else max(date, after + dt.timedelta(milliseconds=1))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _annotations(text: str) -> dict[str, msgspec.Raw]:
    # Each on memory of its own, as those that were just decoded from a request.
    return {key: raw.copy() for key, raw in _values.decode(text).items()}


def _millis(date: dt.datetime | None) -> int:
    assert date is not None
    return (date - EPOCH) // dt.timedelta(milliseconds=1)


def _date(millis: int) -> dt.datetime:
    return EPOCH + dt.timedelta(milliseconds=millis)


ENCODERS: dict[str, Callable[[Any], Any]] = {
    "config": _json,
    "annotations": _json,
    "created_at": _millis,
    "updated_at": _millis,
}
"""By field. The others are in a row as they are."""
DECODERS: dict[str, Callable[[Any], Any]] = {
    "config": _texts.decode,
    "annotations": _annotations,
    "created_at": _date,
    "updated_at": _date,
}
