"""The documents of the API: what a client sends and what it gets.

Their schemas in the API's description are made of these types. What a client sends is declared
loosely, so that a bad value gets Fn's text and not only "Invalid JSON": the narrower bounds that
a client can rely on are only in the schema, and the store's validation keeps them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ._schemas import (
    ANNOTATION_CHANGES,
    APP_NAME,
    DATE,
    FN_NAME,
    IDLE_TIMEOUT,
    IMAGE,
    IMAGE_CHANGE,
    MEMORY,
    NEW_ANNOTATION,
    NEW_ANNOTATIONS,
    SHAPE,
    SOURCE,
    SYSLOG_URL,
    TIMEOUT,
    TRIGGER_NAME,
    TRIGGER_TYPE,
    schema,
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
