"""Rows of the tables as models, and back."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import msgspec
from sqlalchemy import RowMapping

from hostler.dates import EPOCH
from hostler.models import App, Fn, Trigger

from ._schema import apps, fns, triggers

_texts = msgspec.json.Decoder(dict[str, str])
_values = msgspec.json.Decoder(dict[str, msgspec.Raw])


def now(after: dt.datetime | None = None) -> dt.datetime:
    """The time, in whole milliseconds, as the API writes it; later than ``after`` in any case, so
    that a change can be told by its date even if the clock steps back."""
    date = _date(time.time_ns() // 1_000_000)
    return date if after is None else max(date, after + dt.timedelta(milliseconds=1))


def app_row(app: App) -> dict[str, Any]:
    return {
        "id": app.id,
        "name": app.name,
        "config": _json(app.config),
        "annotations": _json(app.annotations),
        "syslog_url": app.syslog_url,
        "shape": app.shape,
        "created_at": _millis(app.created_at),
        "updated_at": _millis(app.updated_at),
    }


def app_of(row: RowMapping) -> App:
    return App(
        id=row[apps.c.id],
        name=row[apps.c.name],
        config=_texts.decode(row[apps.c.config]),
        annotations=_annotations(row[apps.c.annotations]),
        syslog_url=row[apps.c.syslog_url],
        shape=row[apps.c.shape],
        created_at=_date(row[apps.c.created_at]),
        updated_at=_date(row[apps.c.updated_at]),
    )


def fn_row(fn: Fn) -> dict[str, Any]:
    return {
        "id": fn.id,
        "name": fn.name,
        "app_id": fn.app_id,
        "image": fn.image,
        "memory": fn.memory,
        "timeout": fn.timeout,
        "idle_timeout": fn.idle_timeout,
        "config": _json(fn.config),
        "annotations": _json(fn.annotations),
        "shape": fn.shape,
        "created_at": _millis(fn.created_at),
        "updated_at": _millis(fn.updated_at),
    }


def fn_of(row: RowMapping) -> Fn:
    return Fn(
        id=row[fns.c.id],
        name=row[fns.c.name],
        app_id=row[fns.c.app_id],
        image=row[fns.c.image],
        memory=row[fns.c.memory],
        timeout=row[fns.c.timeout],
        idle_timeout=row[fns.c.idle_timeout],
        config=_texts.decode(row[fns.c.config]),
        annotations=_annotations(row[fns.c.annotations]),
        shape=row[fns.c.shape],
        created_at=_date(row[fns.c.created_at]),
        updated_at=_date(row[fns.c.updated_at]),
    )


def trigger_row(trigger: Trigger) -> dict[str, Any]:
    return {
        "id": trigger.id,
        "name": trigger.name,
        "app_id": trigger.app_id,
        "fn_id": trigger.fn_id,
        "type": trigger.type,
        "source": trigger.source,
        "annotations": _json(trigger.annotations),
        "created_at": _millis(trigger.created_at),
        "updated_at": _millis(trigger.updated_at),
    }


def trigger_of(row: RowMapping) -> Trigger:
    return Trigger(
        id=row[triggers.c.id],
        name=row[triggers.c.name],
        app_id=row[triggers.c.app_id],
        fn_id=row[triggers.c.fn_id],
        type=row[triggers.c.type],
        source=row[triggers.c.source],
        annotations=_annotations(row[triggers.c.annotations]),
        created_at=_date(row[triggers.c.created_at]),
        updated_at=_date(row[triggers.c.updated_at]),
    )


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
