"""Where apps, functions and triggers are kept: the contract of a datastore.

`hostler.store` has the one for SQL databases. An embedding program may bring its own, or wrap
one. What values may be is in `hostler.rules`, the errors in `hostler.rules.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

import attrs
import msgspec

from .errors import HostlerError
from .models import App, Fn, Trigger

__all__ = [
    "AppFilter",
    "AppPatch",
    "Changes",
    "Collection",
    "Contents",
    "Datastore",
    "DatastoreError",
    "FnFilter",
    "FnPatch",
    "Page",
    "TriggerFilter",
    "TriggerPatch",
]

Item = TypeVar("Item", covariant=True)
_NO_TEXTS: Mapping[str, str] = MappingProxyType({})
_NO_VALUES: Mapping[str, msgspec.Raw] = MappingProxyType({})


class DatastoreError(HostlerError):
    """A datastore can't be opened; the text says which and why, without a password."""


@attrs.frozen
class Page(Generic[Item]):
    """A part of a list, in the order of the names (of their UTF-8 bytes)."""

    items: Sequence[Item]
    next_cursor: str = ""
    """Where the next page begins; "" if this one was not full. That page may be empty."""


@attrs.frozen(kw_only=True)
class AppFilter:
    """Which apps to list."""

    name: str = ""
    """Exactly this name; "" = any."""
    cursor: str = ""
    """The ``next_cursor`` of the page before, as the client sent it; "" = from the start."""
    per_page: int = 0
    """Items at most; 0 and less = all."""


@attrs.frozen(kw_only=True)
class FnFilter:
    """Which functions to list: all conditions must hold. Fields as in `AppFilter`."""

    app_id: str
    name: str = ""
    cursor: str = ""
    per_page: int = 0


@attrs.frozen(kw_only=True)
class TriggerFilter:
    """Which triggers to list: all conditions must hold. Fields as in `AppFilter`."""

    app_id: str
    fn_id: str = ""
    name: str = ""
    cursor: str = ""
    per_page: int = 0


@attrs.frozen(kw_only=True)
class AppPatch:
    """Changes of an app. A field with its default changes nothing.

    As in Fn's API there is no difference between an absent, a null and a zero field, but for
    ``syslog_url``. ``shape`` can't be changed, and is not looked at.
    """

    id: str = ""
    """Must be that of the app, or "": it is in the document that a client got."""
    name: str = ""
    """The same: a name is never changed."""
    config: Mapping[str, str] = attrs.field(default=_NO_TEXTS, repr=False)
    """Merged key by key; an empty value removes its key."""
    annotations: Mapping[str, msgspec.Raw] = _NO_VALUES
    """Merged key by key; ``null`` and ``""`` (as JSON) remove their key."""
    syslog_url: str | None = None
    """``None`` changes nothing, "" removes it."""


@attrs.frozen(kw_only=True)
class FnPatch:
    """Changes of a function, as `AppPatch`.

    ``name``, ``app_id`` and ``shape`` can't be changed, and those of a document are not looked at.
    """

    id: str = ""
    image: str = ""
    memory: int = 0
    timeout: int = 0
    idle_timeout: int = 0
    config: Mapping[str, str] = attrs.field(default=_NO_TEXTS, repr=False)
    annotations: Mapping[str, msgspec.Raw] = _NO_VALUES


@attrs.frozen(kw_only=True)
class TriggerPatch:
    """Changes of a trigger, as `AppPatch`. Its ``type`` can't be changed, and is not looked at.

    The changed trigger has to pass all checks of a new one, also those against other triggers.
    """

    id: str = ""
    name: str = ""
    app_id: str = ""
    fn_id: str = ""
    source: str = ""
    annotations: Mapping[str, msgspec.Raw] = _NO_VALUES


@attrs.frozen
class Contents:
    """All that a datastore holds."""

    apps: Sequence[App] = ()
    fns: Sequence[Fn] = ()
    triggers: Sequence[Trigger] = ()

    def __str__(self) -> str:
        """How many there are of each kind."""
        kinds = ("app", self.apps), ("function", self.fns), ("trigger", self.triggers)
        counts = [f"{len(things)} {name}{'s' * (len(things) != 1)}" for name, things in kinds]
        return f"{counts[0]}, {counts[1]} and {counts[2]}"

    def titles(self) -> dict[str, str]:
        """What to call each of them, by its id: ``trigger shop/pay/web``."""
        paths = {app.id: app.name for app in self.apps}
        titles = {app.id: f"app {app.name}" for app in self.apps}
        for fn in self.fns:
            paths[fn.id] = f"{paths.get(fn.app_id, fn.app_id)}/{fn.name}"
            titles[fn.id] = f"function {paths[fn.id]}"
        for trigger in self.triggers:
            path = paths.get(trigger.fn_id, f"{trigger.app_id}/{trigger.fn_id}")
            titles[trigger.id] = f"trigger {path}/{trigger.name}"
        return titles


@attrs.frozen
class Changes:
    """What an import changes, as titles of `Contents`."""

    created: Sequence[str] = ()
    updated: Sequence[str] = ()
    unchanged: int = 0


Thing = TypeVar("Thing", bound=App | Fn | Trigger)
Patch = TypeVar("Patch", bound=AppPatch | FnPatch | TriggerPatch)
Filter = TypeVar("Filter", bound=AppFilter | FnFilter | TriggerFilter)
_Patch = TypeVar("_Patch", bound=AppPatch | FnPatch | TriggerPatch, contravariant=True)
_Filter = TypeVar("_Filter", bound=AppFilter | FnFilter | TriggerFilter, contravariant=True)


class Collection(Protocol[Thing, _Patch, _Filter]):
    """The apps, the functions or the triggers of a datastore.

    What an operation returns belongs to the caller. An operation is one transaction: it happens
    wholly or not at all, and of concurrent ones none is lost. Every operation may raise

    * `APIError` of `hostler.rules.errors` with the code and the text that the client gets. Which
      ones, and that the first of several is told, is said below and at `Datastore`;
    * `DatastoreUnavailable` (503): the database is down, or too slow. Whether a change was made
      is then unknown. It is worth to try again later.

    An operation that is cancelled has ended when `Cancelled` comes out: no transaction, connection
    or thread of it is left. It may have been made or not.
    """

    async def list(self, where: _Filter) -> Page[Thing]:
        """One page. Functions and triggers are those of one app; of an unknown app there are none.

        Raises `InvalidCursor`, and where no app is named `FnMissingAppID` or `TriggerMissingAppID`.
        """
        ...

    async def create(self, new: Thing) -> Thing:
        """Keep ``new``, which has no id, and return it with its id and dates."""
        ...

    async def get(self, id: str) -> Thing:
        """Raises `AppNotFound`, `FnNotFound` or `TriggerNotFound`."""
        ...

    async def update(self, id: str, patch: _Patch) -> Thing:
        """Change it and return all of it. ``updated_at`` moves if there was something to change.

        Raises as `get`; `AppIDMismatch`, `FnIDMismatch` or `TriggerIDMismatch` for a patch with
        another id; and the errors of the values.
        """
        ...

    async def delete(self, id: str) -> None:
        """Remove it with what belongs to it: an app's functions and triggers, a function's
        triggers. Raises as `get`."""
        ...


class Datastore(Protocol):
    """Apps, functions and triggers, and the look-ups that calls need. All operations are as
    `Collection` says."""

    @property
    def apps(self) -> Collection[App, AppPatch, AppFilter]:
        """``create`` raises `AppIDProvided`, the errors of the values
        (`hostler.rules.check_new_app`), and `AppExists` if the name is taken; ``update`` raises
        `AppNameImmutable`. Dates of a new app are not looked at."""
        ...

    @property
    def fns(self) -> Collection[Fn, FnPatch, FnFilter]:
        """``create`` raises `FnIDProvided`, the errors of the values
        (`hostler.rules.check_new_fn`), `AppNotFound`, and `FnExists` if the app has one of this
        name. Memory and times of 0 become the defaults, and the shape is the app's."""
        ...

    @property
    def triggers(self) -> Collection[Trigger, TriggerPatch, TriggerFilter]:
        """``create`` raises `TriggerIDProvided`, `TriggerCreatedAtProvided`,
        `TriggerUpdatedAtProvided`, the errors of the values
        (`hostler.rules.check_new_trigger`), `AppNotFound`, `FnNotFound`, `TriggerFnNotInApp`,
        `TriggerSourceExists` and `TriggerExists`; ``update`` the same for the changed trigger."""
        ...

    async def app_id_by_name(self, name: str) -> str:
        """Raises `AppNotFound`."""
        ...

    async def find(self, fn_id: str) -> tuple[App, Fn]:
        """The function and its app, at once: a datastore is a `hostler.functions.FunctionSource`.

        Raises `FnNotFound`.
        """
        ...

    async def trigger_by_source(self, app_id: str, type: str, source: str) -> Trigger:
        """The trigger with exactly this source, which begins with a slash.

        Raises `TriggerNotFound`.
        """
        ...
