"""Function lookup: sources, the fixed table, and the cached lookup of another node.

A declaration file is YAML or TOML (by its ending) and lists apps and their functions::

    apps:
      - name: shop
        config: {REGION: north}            # optional, as all but the names and the image
        syslog_url: udp://logs.example:514
        fns:
          - name: checkout
            image: registry.example/shop/checkout:3
            memory: 256                    # MB, 1 to 8192, default 128
            timeout: 30                    # seconds, 1 to 300, default 30
            idle_timeout: 60               # seconds, 1 to 3600, default 30
            config: {LOG_LEVEL: debug}
            annotations: {team: payments}
        triggers:                          # /t/shop/checkout calls the function
          - name: checkout
            source: /checkout
            fn: checkout

An ``id`` may be given to an app, a function or a trigger. Without one it is derived from the names,
so it stays the same on every machine that reads the file and for as long as the names do.

Ranges and rules are Fn's (its API's rules for new apps and functions).

`CachedFunctions` asks another node, one question at a time for each thing. It uses an answer for
seconds, and for minutes if asking again fails. So an LB goes on serving what it has served while
its API is away.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import attrs
import trio

from ._concurrency.flight_cache import SingleFlightCache
from ._concurrency.nurseries import open_background
from ._declarations import Section
from .config import ApiConfig
from .datastore import Datastore
from .errors import ConfigError, FnNotFound
from .ids import format_id
from .models import DEFAULT_IDLE_TIMEOUT, DEFAULT_MEMORY, DEFAULT_TIMEOUT, App, Fn, Trigger
from .rules import MAX_IDLE_TIMEOUT, MAX_MEMORY, MAX_TIMEOUT
from .rules.errors import AppNotFound, TriggerNotFound

__all__ = [
    "CachedFunctions",
    "Catalog",
    "FunctionSource",
    "FunctionTable",
    "TriggerSource",
    "load_functions",
    "open_cached_functions",
    "parse_functions",
    "stable_id",
]


class FunctionSource(Protocol):
    """Where a front end finds functions. An embedding program may bring its own."""

    async def find(self, fn_id: str) -> tuple[App, Fn]:
        """The function and its app. Neither may be changed by the caller.

        Raises `FnNotFound`, or another `APIError` that the client will see. It runs in the
        request's scope and may be cancelled.
        """
        ...


class TriggerSource(Protocol):
    """Where a front end finds triggers. An embedding program may bring its own."""

    async def find_trigger(self, app_name: str, source: str) -> tuple[App, Fn, Trigger]:
        """The HTTP trigger of the app with exactly this source, and its function.

        None of them may be changed by the caller. Raises `AppNotFound`, `TriggerNotFound`,
        `FnNotFound`, or another `APIError` that the client will see. It runs in the request's
        scope and may be cancelled.
        """
        ...


class Catalog(FunctionSource, TriggerSource, Protocol):
    """Both: all that a front end looks up."""


@attrs.frozen
class FunctionTable:
    """A fixed set of functions: a `Catalog`."""

    apps: Mapping[str, App]
    """By id."""
    fns: Mapping[str, Fn]
    """By id."""
    triggers: Mapping[tuple[str, str], Trigger] = MappingProxyType({})
    """By the app's id and the source."""

    @classmethod
    def of(
        cls, apps: Iterable[App], fns: Iterable[Fn], triggers: Iterable[Trigger] = ()
    ) -> FunctionTable:
        """Raises `ConfigError` for ids and sources that appear twice, a function without its app,
        and a trigger without its function."""
        app_by_id: dict[str, App] = {}
        fn_by_id: dict[str, Fn] = {}
        for app in apps:
            if app.id in app_by_id:
                raise ConfigError(f"app {app.name!r}: id {app.id!r} is used twice")
            app_by_id[app.id] = app
        for fn in fns:
            if fn.id in fn_by_id:
                raise ConfigError(f"fn {fn.name!r}: id {fn.id!r} is used twice")
            if fn.app_id not in app_by_id:
                raise ConfigError(f"fn {fn.name!r}: there is no app with id {fn.app_id!r}")
            fn_by_id[fn.id] = fn
        return cls(
            MappingProxyType(app_by_id),
            MappingProxyType(fn_by_id),
            MappingProxyType(_by_source(triggers, fn_by_id)),
        )

    @cached_property
    def _app_by_name(self) -> Mapping[str, App]:
        return {app.name: app for app in self.apps.values()}

    def lookup(self, fn_id: str) -> tuple[App, Fn]:
        """Raises `FnNotFound`."""
        fn = self.fns.get(fn_id)
        if fn is None:
            raise FnNotFound()
        return self.apps[fn.app_id], fn

    async def find(self, fn_id: str) -> tuple[App, Fn]:
        """As `lookup`; never waits."""
        return self.lookup(fn_id)

    async def find_trigger(self, app_name: str, source: str) -> tuple[App, Fn, Trigger]:
        """Never waits. Raises `AppNotFound` and `TriggerNotFound`."""
        app = self._app_by_name.get(app_name)
        if app is None:
            raise AppNotFound()
        trigger = self.triggers.get((app.id, source))
        if trigger is None:
            raise TriggerNotFound()
        return app, self.fns[trigger.fn_id], trigger


def _by_source(
    triggers: Iterable[Trigger], fns: Mapping[str, Fn]
) -> dict[tuple[str, str], Trigger]:
    found: dict[tuple[str, str], Trigger] = {}
    ids: set[str] = set()
    for trigger in triggers:
        place = trigger.app_id, trigger.source
        fn = fns.get(trigger.fn_id)
        if trigger.id in ids:
            raise ConfigError(f"trigger {trigger.name!r}: id {trigger.id!r} is used twice")
        if fn is None or fn.app_id != trigger.app_id:
            raise ConfigError(
                f"trigger {trigger.name!r}: its app has no fn with id {trigger.fn_id!r}"
            )
        if place in found:
            raise ConfigError(
                f"trigger {trigger.name!r}: its app has source {trigger.source!r} already"
            )
        ids.add(trigger.id)
        found[place] = trigger
    return found


def stable_id(*names: str) -> str:
    """A 26-character id that depends on nothing but ``names`` (128 bits of their SHA-256)."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    time_ms, machine_id, counter = digest[:6], digest[6:12], digest[12:16]
    return format_id(*(int.from_bytes(part, "big") for part in (time_ms, machine_id, counter)))


def load_functions(path: str | Path) -> FunctionTable:
    """Read a declaration file. Blocks on the disk; meant for start-up.

    Raises `ConfigError`; its text names the file, the entry and the field.
    """
    from ._document import read_document  # takes a parser of YAML, which few nodes need

    return parse_functions(read_document(Path(path), "functions file"), source=str(path))


def parse_functions(document: object, *, source: str = "functions") -> FunctionTable:
    """Make a table of a decoded declaration file. Raises `ConfigError`, which names ``source``."""
    top = Section(source, document)
    top.only("apps")
    apps: list[App] = []
    fns: list[Fn] = []
    triggers: list[Trigger] = []
    for entry in top.entries("apps"):
        app = _app(entry)
        entry.unique(app.name, (other.name for other in apps), "name")
        entry.unique(app.id, (other.id for other in apps), "id")
        apps.append(app)
        _fns(entry, app, fns)
        _triggers(entry, app, fns, triggers)
    return FunctionTable.of(apps, fns, triggers)


def _app(entry: Section) -> App:
    entry.only("name", "id", "config", "annotations", "syslog_url", "fns", "triggers")
    name = entry.name("an app", app=True)
    return App(
        id=entry.identifier() or stable_id("app", name),
        name=name,
        config=entry.strings("config"),
        annotations=entry.annotations(),
        syslog_url=entry.syslog_url(),
    )


def _fns(parent: Section, app: App, fns: list[Fn]) -> None:
    for entry in parent.entries("fns"):
        fn = _fn(entry, app)
        siblings = (other.name for other in fns if other.app_id == app.id)
        entry.unique(fn.name, siblings, "name")
        entry.unique(fn.id, (other.id for other in fns), "id")
        fns.append(fn)


def _fn(entry: Section, app: App) -> Fn:
    entry.only("name", "id", "image", "memory", "timeout", "idle_timeout", "config", "annotations")
    name = entry.name("a function")
    return Fn(
        id=entry.identifier() or stable_id("fn", app.name, name),
        name=name,
        app_id=app.id,
        image=entry.text("image", required=True),
        memory=entry.number("memory", DEFAULT_MEMORY, MAX_MEMORY, "MB"),
        timeout=entry.number("timeout", DEFAULT_TIMEOUT, MAX_TIMEOUT, "seconds"),
        idle_timeout=entry.number(
            "idle_timeout", DEFAULT_IDLE_TIMEOUT, MAX_IDLE_TIMEOUT, "seconds"
        ),
        config=entry.strings("config"),
        annotations=entry.annotations(),
    )


def _triggers(parent: Section, app: App, fns: list[Fn], triggers: list[Trigger]) -> None:
    fn_ids = {fn.name: fn.id for fn in fns if fn.app_id == app.id}
    for entry in parent.entries("triggers"):
        entry.only("name", "id", "source", "fn", "annotations")
        name = entry.name("a trigger", app=True)
        fn = entry.text("fn", required=True)
        if fn not in fn_ids:
            raise entry.fail("fn", f"the app has no function {fn!r}")
        trigger = Trigger(
            id=entry.identifier() or stable_id("trigger", app.name, name),
            name=name,
            app_id=app.id,
            fn_id=fn_ids[fn],
            type="http",
            source=entry.source(),
            annotations=entry.annotations(),
        )
        siblings = [other for other in triggers if other.app_id == app.id]
        entry.unique(name, (other.name for other in siblings), "name")
        entry.unique(trigger.source, (other.source for other in siblings), "source")
        entry.unique(trigger.id, (other.id for other in triggers), "id")
        triggers.append(trigger)


class CachedFunctions:
    """A `hostler.functions.Catalog` over a datastore; `open_cached_functions` makes it.

    What is not there is remembered too, for a shorter time, and apart from the rest, so that
    nobody can push functions out by asking for what does not exist. A question goes on while
    somebody waits for its answer, or has an old one that it would renew; who stops waiting does
    not end it for others.
    """

    def __init__(self, store: Datastore, nursery: trio.Nursery, config: ApiConfig) -> None:
        self._app_ids = SingleFlightCache(store.app_id_by_name, nursery, config)
        self._apps = SingleFlightCache(store.apps.get, nursery, config)
        self._fns = SingleFlightCache(store.fns.get, nursery, config)

        async def trigger(place: tuple[str, str]) -> Trigger:
            app_id, source = place
            return await store.trigger_by_source(app_id, "http", source)

        self._triggers = SingleFlightCache(trigger, nursery, config)

    def __repr__(self) -> str:
        return f"<CachedFunctions apps={len(self._apps)} fns={len(self._fns)}>"

    async def find(self, fn_id: str) -> tuple[App, Fn]:
        """Raises `FnNotFound`, `AppNotFound`, and what a look-up fails with if there is no
        answer that is young enough."""
        fn = await self._fns.get(fn_id)
        return await self._apps.get(fn.app_id), fn

    async def find_trigger(self, app_name: str, source: str) -> tuple[App, Fn, Trigger]:
        """As `find`; also raises `TriggerNotFound`."""
        app = await self._apps.get(await self._app_ids.get(app_name))
        trigger = await self._triggers.get((app.id, source))
        return app, await self._fns.get(trigger.fn_id), trigger

    def clear(self) -> None:
        """Forget everything: something has changed. Questions under way are asked anew."""
        for cache in (self._app_ids, self._apps, self._fns, self._triggers):
            cache.clear()


@asynccontextmanager
async def open_cached_functions(
    store: Datastore, config: ApiConfig | None = None
) -> AsyncIterator[CachedFunctions]:
    """Leaving the block ends all questions; who still waits for one gets an error (503)."""
    async with open_background() as nursery:
        try:
            yield CachedFunctions(store, nursery, config or ApiConfig())
        finally:
            nursery.cancel_scope.cancel()
