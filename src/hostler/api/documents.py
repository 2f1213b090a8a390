"""The API's JSON documents, and their conversion from and to models.

Their schemas in the API's description are made of these types. What a client sends is declared
loosely, so that a bad value gets Fn's text and not only "Invalid JSON": the narrower bounds that
a client can rely on are only in the schema, and the store's validation keeps them.

What the API's description promises about the values that clients send.

A value inside these bounds is valid. Some outside are valid too, where the bound can't be
written as a schema: names may have letters beyond ASCII, for example.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .. import models
from ..datastore import AppPatch, FnPatch, TriggerPatch
from ..dates import format_date, parse_date
from ..errors import InvalidJSON
from ..rules import (
    MAX_KEY_BYTES,
    MAX_KEYS,
    MAX_NAME_BYTES,
    MAX_SOURCE_BYTES,
    MAX_TEXT_BYTES,
    SHAPES,
    TRIGGER_TYPES,
)


def schema(text: str, **extra: Any) -> Meta:
    """A description, and bounds that the decoder does not look at."""
    return Meta(description=text, extra_json_schema=extra)


def _name(text: str, pattern: str) -> Meta:
    return schema(text, minLength=1, maxLength=MAX_NAME_BYTES, pattern=pattern)


_LETTERS = "Letters, digits, `_` and `-`, also letters beyond ASCII; at most 255 bytes of UTF-8."

_UNSET_DATE = "0001-01-01T00:00:00.000Z"

DATE = f"RFC 3339 with milliseconds, set by the server; `{_UNSET_DATE}` = unset."

APP_NAME = _name(f"{_LETTERS} Can't be changed.", "^[A-Za-z0-9_-]+$")

TRIGGER_NAME = _name(_LETTERS, "^[A-Za-z0-9_-]+$")

FN_NAME = _name(
    "What needs no escape in a path of a URL. Can't be changed.", r"^[A-Za-z0-9_.~$&+=:@-]+$"
)

MEMORY = schema("MB (2**20 bytes), 0 = the default, 128.", format="int64", minimum=0)

TIMEOUT = schema("Seconds that a call may run, 0 = the default, 30.", format="int32", minimum=0)

IDLE_TIMEOUT = schema(
    "Seconds that a hot container may idle, 0 = the default, 30.", format="int32", minimum=0
)

IMAGE = schema("Reference of the image.", minLength=1, maxLength=MAX_TEXT_BYTES, pattern="^[!-~]+$")

IMAGE_CHANGE = schema(
    'Reference of the image; "" changes nothing.', maxLength=MAX_TEXT_BYTES, pattern="^[!-~]*$"
)

SHAPE = schema("Processors that the app's functions are for.", enum=list(SHAPES))

SYSLOG_URL = schema(
    'One URL that the output of the functions goes to, "" = none. Its scheme is one of `udp`, '
    "`tcp`, `tcp+tls`, `unix` and `unixgram`.",
    maxLength=MAX_TEXT_BYTES,
    pattern=(
        r"^((udp|tcp|tcp\+tls)://[a-z][a-z0-9.-]*(:[1-9][0-9]{0,3})?"
        r"|(unix|unixgram):///[A-Za-z0-9_./-]+)?$"
    ),
)

TRIGGER_TYPE = schema("Only `http`.", enum=list(TRIGGER_TYPES))

SOURCE = schema(
    "Path below `/t/{app name}`, with its leading slash.",
    maxLength=MAX_SOURCE_BYTES,
    pattern="^/[!-~]*$",
)

_KEYS: dict[str, Any] = {
    "maxProperties": MAX_KEYS,
    "propertyNames": {"pattern": f"^[!-~]{{1,{MAX_KEY_BYTES}}}$"},
}

_VALUES = "Each value has at most 512 bytes as compact JSON."

NEW_ANNOTATIONS = schema(f'Any JSON but null and "". {_VALUES}', **_KEYS)

NEW_ANNOTATION = schema("A value.", **{"not": {"enum": [None, ""]}})

ANNOTATION_CHANGES = schema(
    f'Merged key by key; "" and null remove a key. {_VALUES} The endpoints that the server adds '
    "to what is read are skipped.",
    **_KEYS,
)

Id = Annotated[str, schema("Identifier, given by the server.", readOnly=True)]

GivenId = Annotated[str, schema("Identifier of what is there.", minLength=1)]

Date = Annotated[str, schema(DATE, format="date-time", readOnly=True)]

NewConfig = Annotated[dict[str, str | None], Meta(description="Environment of the functions.")]

ConfigChanges = Annotated[
    dict[str, str | None], Meta(description='Merged key by key; "" and null remove a key.')
]

Config = Annotated[dict[str, str], Meta(description="Environment of the functions.")]

NewAnnotations = Annotated[dict[str, Annotated[msgspec.Raw, NEW_ANNOTATION]], NEW_ANNOTATIONS]

AnnotationChanges = Annotated[dict[str, msgspec.Raw], ANNOTATION_CHANGES]

Annotations = Annotated[dict[str, msgspec.Raw], Meta(description="Values are any JSON.")]


class Document(msgspec.Struct, kw_only=True):
    """Base of what a client sends: ``required`` are the fields that it can't leave out."""

    required: ClassVar[tuple[str, ...]] = ()


class NewApp(Document, kw_only=True):
    """An app to create."""

    required = ("name",)
    id: Id = ""
    name: Annotated[str, APP_NAME] = ""
    config: NewConfig = {}
    annotations: NewAnnotations = {}
    syslog_url: Annotated[str, SYSLOG_URL] = ""
    shape: Annotated[str, SHAPE] = ""


class AppChange(Document, kw_only=True):
    """What is to be changed of an app. Maps are merged into those that are there."""

    id: Id = ""
    name: Annotated[str, Meta(description="Can't be changed: the app's own, or nothing.")] = ""
    config: ConfigChanges = {}
    annotations: AnnotationChanges = {}
    syslog_url: Annotated[str, SYSLOG_URL] | UnsetType = UNSET


class NewFn(Document, kw_only=True):
    """A function to create. A number that is 0 is its default."""

    required = ("name", "app_id", "image")
    id: Id = ""
    name: Annotated[str, FN_NAME] = ""
    app_id: GivenId = ""
    image: Annotated[str, IMAGE] = ""
    memory: Annotated[int, MEMORY] = 0
    timeout: Annotated[int, TIMEOUT] = 0
    idle_timeout: Annotated[int, IDLE_TIMEOUT] = 0
    config: NewConfig = {}
    annotations: NewAnnotations = {}


class FnChange(Document, kw_only=True):
    """What is to be changed of a function. Maps are merged, "" and 0 change nothing."""

    id: Id = ""
    image: Annotated[str, IMAGE_CHANGE] = ""
    memory: Annotated[int, MEMORY] = 0
    timeout: Annotated[int, TIMEOUT] = 0
    idle_timeout: Annotated[int, IDLE_TIMEOUT] = 0
    config: ConfigChanges = {}
    annotations: AnnotationChanges = {}


class NewTrigger(Document, kw_only=True):
    """A trigger to create."""

    required = ("name", "app_id", "fn_id", "type", "source")
    id: Id = ""
    name: Annotated[str, TRIGGER_NAME] = ""
    app_id: GivenId = ""
    fn_id: GivenId = ""
    type: Annotated[str, TRIGGER_TYPE] = ""
    source: Annotated[str, SOURCE] = ""
    annotations: NewAnnotations = {}
    created_at: Date | UnsetType = UNSET
    updated_at: Date | UnsetType = UNSET


class TriggerChange(Document, kw_only=True):
    """What is to be changed of a trigger. Annotations are merged, "" changes nothing."""

    id: Id = ""
    name: Annotated[str, TRIGGER_NAME] = ""
    app_id: str = ""
    fn_id: str = ""
    source: Annotated[str, SOURCE] = ""
    annotations: AnnotationChanges = {}


class App(msgspec.Struct, kw_only=True):
    """A group of functions with common configuration."""

    id: Id
    name: str
    config: Config | UnsetType = UNSET
    annotations: Annotations | UnsetType = UNSET
    syslog_url: str | UnsetType = UNSET
    shape: str
    created_at: Date
    updated_at: Date


class Fn(msgspec.Struct, kw_only=True):
    """A function: an image and how to run it."""

    id: Id
    name: str
    app_id: str
    image: str
    memory: Annotated[int, Meta(description="MB (2**20 bytes).")]
    timeout: Annotated[int, Meta(description="Seconds that a call may run.")]
    idle_timeout: Annotated[int, Meta(description="Seconds that a hot container may idle.")]
    config: Config
    annotations: Annotations | UnsetType = UNSET
    shape: str
    created_at: Date
    updated_at: Date


class Trigger(msgspec.Struct, kw_only=True):
    """A way to call a function by a path of the app."""

    id: Id
    name: str
    app_id: str
    fn_id: str
    created_at: Date
    updated_at: Date
    type: str
    source: str
    annotations: Annotations | UnsetType = UNSET


Cursor = Annotated[
    str, Meta(description="Where the next page begins. Missing on a page that is not full.")
]


class AppList(msgspec.Struct, kw_only=True):
    """A page of apps, by name."""

    next_cursor: Cursor | UnsetType = UNSET
    items: list[App]


class FnList(msgspec.Struct, kw_only=True):
    """A page of functions, by name."""

    next_cursor: Cursor | UnsetType = UNSET
    items: list[Fn]


class TriggerList(msgspec.Struct, kw_only=True):
    """A page of triggers, by name."""

    next_cursor: Cursor | UnsetType = UNSET
    items: list[Trigger]


class Error(msgspec.Struct, kw_only=True):
    """Why a request failed."""

    message: str


FN_ENDPOINT = "fnproject.io/fn/invokeEndpoint"

TRIGGER_ENDPOINT = "fnproject.io/trigger/httpEndpoint"

_COMPUTED = (FN_ENDPOINT, TRIGGER_ENDPOINT)
"""Annotations that the server makes anew whenever it is asked. A client that sends back what it
got must not make them stored ones."""


def new_app(document: NewApp) -> models.App:
    return models.App(
        id=document.id,
        name=document.name,
        config=_given(document.config),
        annotations=_annotations(document.annotations),
        syslog_url=document.syslog_url,
        shape=document.shape,
    )


def app_patch(document: AppChange) -> AppPatch:
    return AppPatch(
        id=document.id,
        name=document.name,
        config=_changes(document.config),
        annotations=_annotations(document.annotations),
        syslog_url=None if document.syslog_url is UNSET else document.syslog_url,
    )


def new_fn(document: NewFn) -> models.Fn:
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


def fn_patch(document: FnChange) -> FnPatch:
    return FnPatch(
        id=document.id,
        image=document.image,
        memory=document.memory,
        timeout=document.timeout,
        idle_timeout=document.idle_timeout,
        config=_changes(document.config),
        annotations=_annotations(document.annotations),
    )


def new_trigger(document: NewTrigger) -> models.Trigger:
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


def trigger_patch(document: TriggerChange) -> TriggerPatch:
    return TriggerPatch(
        id=document.id,
        name=document.name,
        app_id=document.app_id,
        fn_id=document.fn_id,
        source=document.source,
        annotations=_annotations(document.annotations),
    )


def app_document(app: models.App) -> App:
    return App(
        id=app.id,
        name=app.name,
        config=app.config or UNSET,
        annotations=app.annotations or UNSET,
        syslog_url=app.syslog_url or UNSET,
        shape=app.shape,
        created_at=format_date(app.created_at),
        updated_at=format_date(app.updated_at),
    )


def fn_document(fn: models.Fn, endpoint: str = "") -> Fn:
    return Fn(
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


def trigger_document(trigger: models.Trigger, endpoint: str = "") -> Trigger:
    return Trigger(
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


_T = TypeVar("_T")

_WHOLE = re.compile(rb"(-?[0-9]{1,20})\.0+")

_BAD = (msgspec.DecodeError, UnicodeError, RecursionError)

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode(body: bytes, type_: type[_T]) -> _T:
    """``body`` as a document of ``type_``.

    Field names match in any case, unknown ones are skipped, ``null`` leaves a field as if it
    was not there. Anything behind the document is an error (Go's decoder skips it).

    Raises `InvalidJSON`.
    """
    try:
        fields = {name.lower(): raw for name, raw in _FIELDS.decode(body).items()}
        given = {name: _plain(raw) for name, raw in fields.items() if bytes(raw) != b"null"}
        return msgspec.json.decode(msgspec.json.encode(given), type=type_)
    except _BAD as error:
        raise InvalidJSON from error


def _plain(raw: msgspec.Raw) -> msgspec.Raw:
    """``128.0`` is the number 128, and as whole."""
    if match := _WHOLE.fullmatch(raw):
        return msgspec.Raw(match[1])
    return raw


def check_annotations_json(values: Iterable[msgspec.Raw]) -> None:
    """Raises `InvalidJSON` for what is no JSON: the decoder only skips over raw parts."""
    try:
        for value in values:
            msgspec.json.decode(value)
    except _BAD as error:
        raise InvalidJSON from error
