"""Between the documents of the API and the values of the datastore."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, UnsetType

from hostler import models
from hostler.datastore import AppPatch, FnPatch, TriggerPatch
from hostler.dates import format_date, parse_date
from hostler.errors import InvalidJSON

from . import _documents as documents
from ._json import check_annotations_json

FN_ENDPOINT = "fnproject.io/fn/invokeEndpoint"
TRIGGER_ENDPOINT = "fnproject.io/trigger/httpEndpoint"
_COMPUTED = (FN_ENDPOINT, TRIGGER_ENDPOINT)
"""Annotations that the server makes anew whenever it is asked. A client that sends back what it
got must not make them stored ones."""


def new_app(document: documents.NewApp) -> models.App:
    return models.App(
        id=document.id,
        name=document.name,
        config=_given(document.config),
        annotations=_annotations(document.annotations),
        syslog_url=document.syslog_url,
        shape=document.shape,
    )


def app_patch(document: documents.AppChange) -> AppPatch:
    return AppPatch(
        id=document.id,
        name=document.name,
        config=_changes(document.config),
        annotations=_annotations(document.annotations),
        syslog_url=None if document.syslog_url is UNSET else document.syslog_url,
    )


def new_fn(document: documents.NewFn) -> models.Fn:
    return models.Fn(
        id=document.id,
        name=document.name,
        app_id=document.app_id,
        image=document.image,
        memory=document.memory,
        timeout=document.timeout,
        idle_timeout=document.idle_timeout,
        config=_given(document.config),
        annotations=_annotations(document.annotations),
    )


def fn_patch(document: documents.FnChange) -> FnPatch:
    return FnPatch(
        id=document.id,
        image=document.image,
        memory=document.memory,
        timeout=document.timeout,
        idle_timeout=document.idle_timeout,
        config=_changes(document.config),
        annotations=_annotations(document.annotations),
    )


def new_trigger(document: documents.NewTrigger) -> models.Trigger:
    """Raises `InvalidJSON` for dates that are none."""
    try:
        created_at = None if document.created_at is UNSET else parse_date(document.created_at)
        updated_at = None if document.updated_at is UNSET else parse_date(document.updated_at)
    except ValueError as error:
        raise InvalidJSON from error
    return models.Trigger(
        id=document.id,
        name=document.name,
        app_id=document.app_id,
        fn_id=document.fn_id,
        type=document.type,
        source=document.source,
        annotations=_annotations(document.annotations),
        created_at=created_at,
        updated_at=updated_at,
    )


def trigger_patch(document: documents.TriggerChange) -> TriggerPatch:
    return TriggerPatch(
        id=document.id,
        name=document.name,
        app_id=document.app_id,
        fn_id=document.fn_id,
        source=document.source,
        annotations=_annotations(document.annotations),
    )


def app_document(app: models.App) -> documents.App:
    return documents.App(
        id=app.id,
        name=app.name,
        config=app.config or UNSET,
        annotations=app.annotations or UNSET,
        syslog_url=app.syslog_url or UNSET,
        shape=app.shape,
        created_at=format_date(app.created_at),
        updated_at=format_date(app.updated_at),
    )


def fn_document(fn: models.Fn, endpoint: str = "") -> documents.Fn:
    return documents.Fn(
        id=fn.id,
        name=fn.name,
        app_id=fn.app_id,
        image=fn.image,
        memory=fn.memory,
        timeout=fn.timeout,
        idle_timeout=fn.idle_timeout,
        config=fn.config,
        annotations=_annotated(fn.annotations, FN_ENDPOINT, endpoint),
        shape=fn.shape,
        created_at=format_date(fn.created_at),
        updated_at=format_date(fn.updated_at),
    )


def trigger_document(trigger: models.Trigger, endpoint: str = "") -> documents.Trigger:
    return documents.Trigger(
        id=trigger.id,
        name=trigger.name,
        app_id=trigger.app_id,
        fn_id=trigger.fn_id,
        created_at=format_date(trigger.created_at),
        updated_at=format_date(trigger.updated_at),
        type=trigger.type,
        source=trigger.source,
        annotations=_annotated(trigger.annotations, TRIGGER_ENDPOINT, endpoint),
    )


def _given(config: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in config.items() if value is not None}


def _changes(config: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value or "" for key, value in config.items()}


def _annotations(annotations: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    check_annotations_json(annotations.values())
    return {key: value for key, value in annotations.items() if key not in _COMPUTED}


def _annotated(
    annotations: Mapping[str, msgspec.Raw], key: str, endpoint: str
) -> dict[str, msgspec.Raw] | UnsetType:
    added = {key: msgspec.Raw(msgspec.json.encode(endpoint))} if endpoint else {}
    return {**annotations, **added} or UNSET
