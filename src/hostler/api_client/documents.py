"""The API's documents as a client sends and reads them.

Every field may be missing or, where Go has a map, null, but for the id of what the API tells of.
What has its default is not sent, so that a patch says only what it changes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec

from ..datastore import AppPatch, FnPatch, TriggerPatch
from ..dates import format_date, parse_date
from ..models import App, Fn, Trigger
from .calls import no_api

Document = TypeVar("Document")


class AppDocument(msgspec.Struct, omit_defaults=True, kw_only=True):
    id: str = ""
    name: str = ""
    config: dict[str, str] | None = None
    annotations: dict[str, msgspec.Raw] | None = None
    syslog_url: str | None = None
    shape: str = ""
    created_at: str = ""
    updated_at: str = ""

    @classmethod
    def of(cls, app: App | AppPatch) -> AppDocument:
        # "" means "remove" in a patch only.
        syslog_url = app.syslog_url if isinstance(app, AppPatch) else app.syslog_url or None
        return cls(
            id=app.id,
            name=app.name,
            config=_map(app.config),
            annotations=_map(app.annotations),
            syslog_url=syslog_url,
            shape=app.shape if isinstance(app, App) else "",
        )

    def value(self) -> App:
        return App(
            id=_id(self.id),
            name=self.name,
            config=self.config or {},
            annotations=self.annotations or {},
            syslog_url=self.syslog_url or "",
            shape=self.shape,
            created_at=_date(self.created_at),
            updated_at=_date(self.updated_at),
        )


class FnDocument(msgspec.Struct, omit_defaults=True, kw_only=True):
    id: str = ""
    name: str = ""
    app_id: str = ""
    image: str = ""
    memory: int = 0
    timeout: int = 0
    idle_timeout: int = 0
    config: dict[str, str] | None = None
    annotations: dict[str, msgspec.Raw] | None = None
    shape: str = ""
    created_at: str = ""
    updated_at: str = ""

    @classmethod
    def of(cls, fn: Fn | FnPatch) -> FnDocument:
        return cls(
            id=fn.id,
            name=fn.name if isinstance(fn, Fn) else "",
            app_id=fn.app_id if isinstance(fn, Fn) else "",
            image=fn.image,
            memory=fn.memory,
            timeout=fn.timeout,
            idle_timeout=fn.idle_timeout,
            config=_map(fn.config),
            annotations=_map(fn.annotations),
        )

    def value(self) -> Fn:
        return Fn(
            id=_id(self.id),
            name=self.name,
            app_id=self.app_id,
            image=self.image,
            memory=self.memory,
            timeout=self.timeout,
            idle_timeout=self.idle_timeout,
            config=self.config or {},
            annotations=self.annotations or {},
            shape=self.shape,
            created_at=_date(self.created_at),
            updated_at=_date(self.updated_at),
        )


class TriggerDocument(msgspec.Struct, omit_defaults=True, kw_only=True):
    id: str = ""
    name: str = ""
    app_id: str = ""
    fn_id: str = ""
    type: str = ""
    source: str = ""
    annotations: dict[str, msgspec.Raw] | None = None
    created_at: str = ""
    updated_at: str = ""

    @classmethod
    def of(cls, trigger: Trigger | TriggerPatch) -> TriggerDocument:
        document = cls(
            id=trigger.id,
            name=trigger.name,
            app_id=trigger.app_id,
            fn_id=trigger.fn_id,
            source=trigger.source,
            annotations=_map(trigger.annotations),
        )
        if isinstance(trigger, Trigger):
            document.type = trigger.type
            # The API refuses a new trigger with dates; so has it to be told of them.
            document.created_at = _text(trigger.created_at)
            document.updated_at = _text(trigger.updated_at)
        return document

    def value(self) -> Trigger:
        return Trigger(
            id=_id(self.id),
            name=self.name,
            app_id=self.app_id,
            fn_id=self.fn_id,
            type=self.type,
            source=self.source,
            annotations=self.annotations or {},
            created_at=_date(self.created_at),
            updated_at=_date(self.updated_at),
        )


class ListDocument(msgspec.Struct, Generic[Document], kw_only=True):
    items: list[Document] | None = None
    next_cursor: str = ""


def _id(text: str) -> str:
    if not text:
        raise no_api("it tells no id")
    return text


Value = TypeVar("Value")


def _map(values: Mapping[str, Value]) -> dict[str, Value] | None:
    return dict(values) or None


def _date(text: str) -> dt.datetime | None:
    return parse_date(text) if text else None


def _text(date: dt.datetime | None) -> str:
    return "" if date is None else format_date(date)
