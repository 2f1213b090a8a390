"""API listeners, and the datastore that asks and tells them.

A listener is an `AppListener`, `FnListener` or `TriggerListener`. Its methods are called in tasks
of requests, also of several at a time. All of them do nothing until they are overridden.

**Before** an operation the listeners are asked in the order in which they were given. Each gets
what the one before returned, and returns what is to be used: its argument, or something else.
One that raises vetoes the operation: nothing is done, no other listener is called, and the client
gets the error, if it is an `hostler.errors.APIError`; any other one is a 500 that tells nothing.

**After** a change (create, update, delete) the listeners are told, in the same order. The change
is made, so it is reported as made: what a listener raises is logged, and the others are called
nevertheless. (Fn reports an error for a change that it made.)

**After** a read each listener may return something else than it got. Nothing was changed, so what
one raises is the answer: a listener that hides something fails safely.

An app that is deleted takes its functions and triggers with it, and a function its triggers; only
the listeners of what was named are called. Looking things up in order to call a function is no
operation of the API: that has call listeners and call overriders (`hostler.abc`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, TypeVar

import structlog

from ..datastore import (
    AppFilter,
    AppPatch,
    Collection,
    Datastore,
    Filter,
    FnFilter,
    FnPatch,
    Page,
    Patch,
    Thing,
    TriggerFilter,
    TriggerPatch,
)
from ..models import App, Fn, Trigger


class Listener(Generic[Thing, Patch, Filter]):
    """Is asked and told about one kind of thing: apps, functions or triggers."""

    async def before_create(self, new: Thing) -> Thing:
        """Return what to store: ``new`` as the client sent it, or another one. A function's memory
        (MB) and times (seconds) are 0 if the client gave none. Values, and whether an app or a
        function exists, are checked after all listeners. An error vetoes."""
        return new

    async def after_create(self, created: Thing) -> None:
        """``created`` is what was stored, with its id, its dates and the defaults."""

    async def before_update(self, id: str, patch: Patch) -> Patch:
        """Return the changes to make: ``patch``, or others. Whether ``id`` exists, and whether the
        values are valid, is checked after all listeners. An error vetoes."""
        return patch

    async def after_update(self, updated: Thing) -> None:
        """``updated`` is the whole thing as it is now. Perhaps nothing has changed."""

    async def before_delete(self, id: str) -> None:
        """It is about to be deleted with what belongs to it, if it exists. An error vetoes."""

    async def after_delete(self, id: str) -> None:
        """It is deleted. No listener is told of what belonged to it and is deleted too."""

    async def before_get(self, id: str) -> None:
        """It is about to be read, if it exists. An error vetoes."""

    async def after_get(self, found: Thing) -> Thing:
        """Return what the client gets: ``found``, which was read, or another one. An error is the
        answer."""
        return found

    async def before_list(self, where: Filter) -> Filter:
        """Return what to list: ``where``, or another filter. Its cursor and its ``app_id`` are as
        the client sent them; its ``per_page`` is from 1 to 100. An error vetoes."""
        return where

    async def after_list(self, page: Page[Thing]) -> Page[Thing]:
        """Return the page that the client gets: ``page``, which was read, or another one, perhaps
        with fewer items. An error is the answer."""
        return page


class AppListener(Listener[App, AppPatch, AppFilter]):
    """Is asked and told about apps."""


class FnListener(Listener[Fn, FnPatch, FnFilter]):
    """Is asked and told about functions."""


class TriggerListener(Listener[Trigger, TriggerPatch, TriggerFilter]):
    """Is asked and told about triggers."""


log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class ListeningCollection(Generic[Thing, Patch, Filter]):
    """``inner`` with ``listeners`` around its operations."""

    def __init__(
        self,
        inner: Collection[Thing, Patch, Filter],
        listeners: Iterable[Listener[Thing, Patch, Filter]],
    ) -> None:
        self._inner = inner
        self._listeners = tuple(listeners)

    async def list(self, where: Filter) -> Page[Thing]:
        """As ``inner``, with the listeners before and after, like all operations."""
        for listener in self._listeners:
            where = await listener.before_list(where)
        page = await self._inner.list(where)
        for listener in self._listeners:
            page = await listener.after_list(page)
        return page

    async def create(self, new: Thing) -> Thing:
        for listener in self._listeners:
            new = await listener.before_create(new)
        created = await self._inner.create(new)
        await _tell(created, (listener.after_create for listener in self._listeners))
        return created

    async def get(self, id: str) -> Thing:
        for listener in self._listeners:
            await listener.before_get(id)
        found = await self._inner.get(id)
        for listener in self._listeners:
            found = await listener.after_get(found)
        return found

    async def update(self, id: str, patch: Patch) -> Thing:
        for listener in self._listeners:
            patch = await listener.before_update(id, patch)
        updated = await self._inner.update(id, patch)
        await _tell(updated, (listener.after_update for listener in self._listeners))
        return updated

    async def delete(self, id: str) -> None:
        for listener in self._listeners:
            await listener.before_delete(id)
        await self._inner.delete(id)
        await _tell(id, (listener.after_delete for listener in self._listeners))


async def _tell(value: _T, steps: Iterable[Callable[[_T], Awaitable[None]]]) -> None:
    """The change is made: an error of a listener stops neither the others nor the answer."""
    for step in steps:
        try:
            await step(value)
        except Exception:
            log.exception("listener failed after the change", listener=step.__qualname__)


class ListeningDatastore:
    """``store`` with ``listeners`` around its operations; their contract is in
    `hostler.api.Listener`. Look-ups for calls (``find``, ``app_id_by_name``,
    ``trigger_by_source``) go straight to ``store``.

    Raises `TypeError` for what is no listener.
    """

    def __init__(self, store: Datastore, listeners: Iterable[Listener[Any, Any, Any]]) -> None:
        of_apps: list[AppListener] = []
        of_fns: list[FnListener] = []
        of_triggers: list[TriggerListener] = []
        for listener in listeners:
            if isinstance(listener, AppListener):
                of_apps.append(listener)
            elif isinstance(listener, FnListener):
                of_fns.append(listener)
            elif isinstance(listener, TriggerListener):
                of_triggers.append(listener)
            else:
                raise TypeError(f"{listener!r} is no listener")
        self.apps = ListeningCollection(store.apps, of_apps)
        self.fns = ListeningCollection(store.fns, of_fns)
        self.triggers = ListeningCollection(store.triggers, of_triggers)
        self.find = store.find
        self.app_id_by_name = store.app_id_by_name
        self.trigger_by_source = store.trigger_by_source
