"""The API's JSON documents, for the server and the client, and their conversion from and to models.

The schemas in the API's description are made of these types. What a client sends is declared
loosely, so that a bad value gets Fn's text and not only "Invalid JSON". The narrower bounds that
a client can rely on are only in the schema, and the store's validation keeps them: a value inside
of them is valid. Some outside are valid too, where the bound can't be written as a schema: names
may have letters beyond ASCII, for example.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Generic, TypeVar, cast

import attrs
import msgspec
from msgspec import UNSET, Meta, UnsetType

from . import models
from .datastore import (
    AppFilter,
    AppPatch,
    Contents,
    FnFilter,
    FnPatch,
    Page,
    Patch,
    Thing,
    TriggerFilter,
    TriggerPatch,
)
from .dates import format_date, parse_date
from .errors import ConfigError, InvalidJSON
from .rules import (
    MAX_KEY_BYTES,
    MAX_KEYS,
    MAX_NAME_BYTES,
    MAX_SOURCE_BYTES,
    MAX_TEXT_BYTES,
    SHAPES,
    TRIGGER_TYPES,
)


def schema(text: str, **extra: Any) -> Meta:
    """A description, and bounds that the decoder does not check."""
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


class Change(Document, kw_only=True):
    """What is to be changed. Maps are merged into those that are there."""


class NewApp(Document, kw_only=True):
    """An app to create."""

    required = ("name",)
    id: Id = ""
    name: Annotated[str, APP_NAME] = ""
    config: NewConfig = {}
    annotations: NewAnnotations = {}
    syslog_url: Annotated[str, SYSLOG_URL] = ""
    shape: Annotated[str, SHAPE] = ""


class AppChange(Change, kw_only=True):
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


class FnChange(Change, kw_only=True):
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


class TriggerChange(Change, kw_only=True):
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


class _Told(msgspec.Struct, kw_only=True):
    """Base of documents as a client reads them from any server."""


class Error(msgspec.Struct, kw_only=True):
    """Why a request failed."""

    message: str


FN_ENDPOINT = "fnproject.io/fn/invokeEndpoint"
TRIGGER_ENDPOINT = "fnproject.io/trigger/httpEndpoint"

_COMPUTED = (FN_ENDPOINT, TRIGGER_ENDPOINT)
"""Annotations that the server makes for each answer. They are not stored when a client sends them
back."""


def without_endpoints(annotations: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """What is stored of the annotations that a client sends or a server tells."""
    return {key: raw for key, raw in annotations.items() if key not in _COMPUTED}


Made = TypeVar("Made")
_DATES = ("created_at", "updated_at")


def model_of(type_: type[Made], document: msgspec.Struct) -> Made:
    """The model, or the patch, that ``document`` stands for. Raises `InvalidJSON`."""
    fields: Any = attrs.fields(cast("Any", type_))
    values: dict[str, Any] = {field.name: "" for field in fields if field.default is attrs.NOTHING}
    for name in document.__struct_fields__:
        value = getattr(document, name)
        if value is None or value is UNSET or (value == "" and isinstance(document, _Told)):
            continue
        if name == "config":
            value = _config(value, changes=isinstance(document, Change))
        elif name == "annotations" and not isinstance(document, _Told):
            check_annotations_json(value.values())
            value = without_endpoints(value)
        elif name in _DATES:
            value = _date(value)
        values[name] = value
    return type_(**values)


def _config(config: Mapping[str, str | None], *, changes: bool) -> dict[str, str]:
    """In a change null removes a key; in a new config it means nothing."""
    return {key: value or "" for key, value in config.items() if changes or value is not None}


def _date(text: str) -> dt.datetime | None:
    try:
        return parse_date(text)
    except ValueError as error:
        raise InvalidJSON from error


@attrs.frozen(kw_only=True)
class Kind(Generic[Thing, Patch]):
    """Apps, functions or triggers: their models, their documents, and the conversions."""

    name: str
    model: type[Thing]
    patch: type[Patch]
    filter: type[AppFilter | FnFilter | TriggerFilter]
    one: type[msgspec.Struct]
    page: type[msgspec.Struct]
    new: type[Document]
    change: type[Change]
    endpoint: str = ""
    """The annotation with the URL under which it can be called."""

    def document(self, thing: Thing, url: str = "") -> msgspec.Struct:
        """The server's document of ``thing``, which can be called at ``url`` ("" = not told)."""
        values: dict[str, Any] = {}
        for field in _fields(self.one):
            value = getattr(thing, field.name)
            if field.name in _DATES:
                value = format_date(value)
            elif field.name == "annotations" and url:
                value = {**value, self.endpoint: msgspec.Raw(msgspec.json.encode(url))}
            values[field.name] = value if field.required else value or UNSET
        return self.one(**values)

    def encode(self, sent: Thing | Patch) -> bytes:
        """The document that a client sends: without what is unset, so that a patch says only what
        it changes."""
        document = self.change if isinstance(sent, self.patch) else self.new
        unset = {field.name: field.default for field in attrs.fields(type(sent))}
        values = {}
        for name in document.__struct_fields__:
            value = getattr(sent, name)
            # (An empty syslog_url is sent in a patch, whose default is none.)
            if value or (value is not None and unset[name] is None):
                values[name] = dict(value) if isinstance(value, Mapping) else value
        return msgspec.json.encode(values)

    def read(self, body: bytes) -> Thing:
        """Read a server's document. Any field may be missing or null, except for the id.

        Raises `ValueError`, `msgspec.DecodeError` and `InvalidJSON`.
        """
        return self._told(msgspec.json.decode(body, type=_told(self.one)))

    def read_page(self, body: bytes) -> Page[Thing]:
        """Read a page of documents, as `read`."""
        page = msgspec.json.decode(body, type=_told_page(self.one))
        return Page([self._told(item) for item in page.items or ()], page.next_cursor or "")

    def read_stored(self, item: msgspec.Raw) -> Thing:
        """Read a document of an export: as `read`, but without what servers add."""
        thing = self.read(bytes(item))
        return attrs.evolve(thing, annotations=without_endpoints(thing.annotations))

    def _told(self, document: Any) -> Thing:
        if not document.id:
            raise ValueError("it tells no id")
        return model_of(self.model, document)


_fields = cache(msgspec.structs.fields)


@cache
def _told(type_: type[msgspec.Struct]) -> type[msgspec.Struct]:
    fields = [(field.name, field.type | None, None) for field in _fields(type_)]
    return msgspec.defstruct(type_.__name__, fields, bases=(_Told,))


@cache
def _told_page(type_: type[msgspec.Struct]) -> type[Any]:
    items: Any = list[_told(type_)]  # type: ignore[misc]
    fields = [("items", items | None, None), ("next_cursor", str | None, None)]
    return msgspec.defstruct("Page", fields)


APPS = Kind(
    name="App",
    model=models.App,
    patch=AppPatch,
    filter=AppFilter,
    one=App,
    page=AppList,
    new=NewApp,
    change=AppChange,
)

FNS = Kind(
    name="Fn",
    model=models.Fn,
    patch=FnPatch,
    filter=FnFilter,
    one=Fn,
    page=FnList,
    new=NewFn,
    change=FnChange,
    endpoint=FN_ENDPOINT,
)

TRIGGERS = Kind(
    name="Trigger",
    model=models.Trigger,
    patch=TriggerPatch,
    filter=TriggerFilter,
    one=Trigger,
    page=TriggerList,
    new=NewTrigger,
    change=TriggerChange,
    endpoint=TRIGGER_ENDPOINT,
)


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
    """Write ``128.0`` as the whole number 128."""
    if match := _WHOLE.fullmatch(raw):
        return msgspec.Raw(match[1])
    return raw


def check_annotations_json(values: Iterable[msgspec.Raw]) -> None:
    """Raises `InvalidJSON` for a value that is no JSON: the decoder skips raw parts."""
    try:
        for value in values:
            msgspec.json.decode(value)
    except _BAD as error:
        raise InvalidJSON from error


EXPORT_FORMAT = 1


class _Export(msgspec.Struct, forbid_unknown_fields=True):
    hostler_export: int
    apps: list[msgspec.Raw]
    fns: list[msgspec.Raw]
    triggers: list[msgspec.Raw]


def encode_export(contents: Contents) -> bytes:
    """The file of ``hostler export``: the API's documents, by kind and id."""

    def documents(kind: Kind[Any, Any], things: Iterable[Any]) -> list[msgspec.Raw]:
        sorted_ = sorted(things, key=lambda thing: str(thing.id))
        return [msgspec.Raw(msgspec.json.encode(kind.document(thing))) for thing in sorted_]

    export = _Export(
        EXPORT_FORMAT,
        documents(APPS, contents.apps),
        documents(FNS, contents.fns),
        documents(TRIGGERS, contents.triggers),
    )
    return msgspec.json.format(msgspec.json.encode(export), indent=1) + b"\n"


def decode_export(text: bytes) -> Contents:
    """The contents of a file that `encode_export` made. Raises `ConfigError`."""
    try:
        export = msgspec.json.decode(text, type=_Export)
    except _BAD as error:
        raise ConfigError(f"not a file of hostler export: {error}") from error
    if export.hostler_export != EXPORT_FORMAT:
        raise ConfigError(
            f"a file of another hostler: its format is {export.hostler_export}, "
            f"and this one reads {EXPORT_FORMAT}"
        )
    return Contents(
        _read_items(APPS, export.apps),
        _read_items(FNS, export.fns),
        _read_items(TRIGGERS, export.triggers),
    )


def _read_items(kind: Kind[Thing, Any], items: list[msgspec.Raw]) -> list[Thing]:
    things = []
    for number, item in enumerate(items, 1):
        try:
            things.append(kind.read_stored(item))
        except (*_BAD, ValueError, InvalidJSON) as error:
            raise ConfigError(f"{kind.name} {number} of the file can't be read: {error}") from error
    return things
