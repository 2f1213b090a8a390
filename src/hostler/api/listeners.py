"""API listeners, and the datastore that asks and tells them.

A listener is any object of one or several of these classes. Its methods are called in tasks of
requests, also of several at a time. All of them do nothing until they are overridden.

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
from typing import TypeVar

import structlog

from ..datastore import (
    AppFilter,
    AppPatch,
    Datastore,
    FnFilter,
    FnPatch,
    Page,
    TriggerFilter,
    TriggerPatch,
)
from ..models import App, Fn, Trigger


class AppListener:
    """Is asked and told about apps."""

    async def before_app_create(self, app: App) -> App:
        """Returns the app to store: ``app`` as the client sent it, or another. Its values are
        checked only when all listeners have had it. An error vetoes."""
        return app

    async def after_app_create(self, app: App) -> None:
        """``app`` is what was stored."""

    async def before_app_update(self, app_id: str, patch: AppPatch) -> AppPatch:
        """Returns the changes to make: ``patch``, or others. Whether there is such an app, and
        whether the values are valid, is checked when all listeners have had it. An error vetoes."""
        return patch

    async def after_app_update(self, app: App) -> None:
        """``app`` is the whole app, as it is now; nothing may have changed."""

    async def before_app_delete(self, app_id: str) -> None:
        """The app is about to go with its functions and triggers, if there is one. An error
        vetoes."""

    async def after_app_delete(self, app_id: str) -> None:
        """The app is gone, and its functions and triggers with it, of which no listener is told."""

    async def before_app_get(self, app_id: str) -> None:
        """The app is about to be read, if there is one. An error vetoes."""

    async def after_app_get(self, app: App) -> App:
        """Returns the app that the client gets: ``app``, which was read, or another. An error is
        the answer."""
        return app

    async def before_apps_list(self, where: AppFilter) -> AppFilter:
        """Returns what to list: ``where``, or another filter. Its cursor is as the client sent it;
        its ``per_page`` is from 1 to 100. An error vetoes."""
        return where

    async def after_apps_list(self, page: Page[App]) -> Page[App]:
        """Returns the page that the client gets: ``page``, which was read, or another, which may
        have fewer apps. An error is the answer."""
        return page


class FnListener:
    """Is asked and told about functions, as `AppListener` about apps."""

    async def before_fn_create(self, fn: Fn) -> Fn:
        """Returns the function to store: ``fn`` as the client sent it, or another. Memory (MB) and
        times (seconds) are 0 where the client gave none. Its values are checked only when all
        listeners have had it. An error vetoes."""
        return fn

    async def after_fn_create(self, fn: Fn) -> None:
        """``fn`` is what was stored, with its id, its dates and the defaults."""

    async def before_fn_update(self, fn_id: str, patch: FnPatch) -> FnPatch:
        """Returns the changes to make: ``patch``, or others. Whether there is such a function, and
        whether the values are valid, is checked when all listeners have had it. An error vetoes."""
        return patch

    async def after_fn_update(self, fn: Fn) -> None:
        """``fn`` is the whole function, as it is now; nothing may have changed."""

    async def before_fn_delete(self, fn_id: str) -> None:
        """The function is about to go with its triggers, if there is one. An error vetoes."""

    async def after_fn_delete(self, fn_id: str) -> None:
        """The function is gone, and its triggers with it, of which no listener is told."""

    async def before_fn_get(self, fn_id: str) -> None:
        """The function is about to be read, if there is one. An error vetoes."""

    async def after_fn_get(self, fn: Fn) -> Fn:
        """Returns the function that the client gets: ``fn``, which was read, or another. An error
        is the answer."""
        return fn

    async def before_fns_list(self, where: FnFilter) -> FnFilter:
        """Returns what to list: ``where``, or another filter, as for
        `AppListener.before_apps_list`. Its ``app_id`` may be that of no app, or "". An error
        vetoes."""
        return where

    async def after_fns_list(self, page: Page[Fn]) -> Page[Fn]:
        """Returns the page that the client gets: ``page``, which was read, or another, which may
        have fewer functions. An error is the answer."""
        return page


class TriggerListener:
    """Is asked and told about triggers, as `AppListener` about apps."""

    async def before_trigger_create(self, trigger: Trigger) -> Trigger:
        """Returns the trigger to store: ``trigger`` as the client sent it, or another. Its values,
        and whether its app and its function exist, are checked only when all listeners have had it.
        An error vetoes."""
        return trigger

    async def after_trigger_create(self, trigger: Trigger) -> None:
        """``trigger`` is what was stored, with its id and its dates."""

    async def before_trigger_update(self, trigger_id: str, patch: TriggerPatch) -> TriggerPatch:
        """Returns the changes to make: ``patch``, or others. Whether there is such a trigger, and
        whether the values are valid, is checked when all listeners have had it. An error vetoes."""
        return patch

    async def after_trigger_update(self, trigger: Trigger) -> None:
        """``trigger`` is the whole trigger, as it is now; nothing may have changed."""

    async def before_trigger_delete(self, trigger_id: str) -> None:
        """The trigger is about to go, if there is one. An error vetoes."""

    async def after_trigger_delete(self, trigger_id: str) -> None:
        """The trigger is gone. Not told of triggers that went with their app or function."""

    async def before_trigger_get(self, trigger_id: str) -> None:
        """The trigger is about to be read, if there is one. An error vetoes."""

    async def after_trigger_get(self, trigger: Trigger) -> Trigger:
        """Returns the trigger that the client gets: ``trigger``, which was read, or another. An
        error is the answer."""
        return trigger

    async def before_triggers_list(self, where: TriggerFilter) -> TriggerFilter:
        """Returns what to list: ``where``, or another filter, as for
        `AppListener.before_apps_list`. Its ``app_id`` may be that of no app, or "". An error
        vetoes."""
        return where

    async def after_triggers_list(self, page: Page[Trigger]) -> Page[Trigger]:
        """Returns the page that the client gets: ``page``, which was read, or another, which may
        have fewer triggers. An error is the answer."""
        return page


Listener = AppListener | FnListener | TriggerListener

log = structlog.get_logger(__name__)

_T = TypeVar("_T")


class ListeningDatastore(Datastore):
    """``store`` with ``listeners`` around its operations; their contract is in
    `hostler.api.Listener`. Look-ups for calls (``find``, ``app_id_by_name``,
    ``trigger_by_source``) go straight to ``store``.

    Raises `TypeError` for what is no listener.
    """

    def __init__(self, store: Datastore, listeners: Iterable[Listener]) -> None:
        listeners = tuple(listeners)
        for listener in listeners:
            if not isinstance(listener, Listener):
                raise TypeError(f"{listener!r} is no listener")
        self._store = store
        self._apps = [item for item in listeners if isinstance(item, AppListener)]
        self._fns = [item for item in listeners if isinstance(item, FnListener)]
        self._triggers = [item for item in listeners if isinstance(item, TriggerListener)]

    # --- apps ---

    async def list_apps(self, where: AppFilter) -> Page[App]:
        where = await _through(where, (item.before_apps_list for item in self._apps))
        page = await self._store.list_apps(where)
        return await _through(page, (item.after_apps_list for item in self._apps))

    async def create_app(self, app: App) -> App:
        app = await _through(app, (item.before_app_create for item in self._apps))
        created = await self._store.create_app(app)
        await _tell(created, (item.after_app_create for item in self._apps))
        return created

    async def get_app(self, app_id: str) -> App:
        for listener in self._apps:
            await listener.before_app_get(app_id)
        app = await self._store.get_app(app_id)
        return await _through(app, (item.after_app_get for item in self._apps))

    async def update_app(self, app_id: str, patch: AppPatch) -> App:
        for listener in self._apps:
            patch = await listener.before_app_update(app_id, patch)
        app = await self._store.update_app(app_id, patch)
        await _tell(app, (item.after_app_update for item in self._apps))
        return app

    async def delete_app(self, app_id: str) -> None:
        for listener in self._apps:
            await listener.before_app_delete(app_id)
        await self._store.delete_app(app_id)
        await _tell(app_id, (item.after_app_delete for item in self._apps))

    async def app_id_by_name(self, name: str) -> str:
        return await self._store.app_id_by_name(name)

    # --- functions ---

    async def list_fns(self, where: FnFilter) -> Page[Fn]:
        where = await _through(where, (item.before_fns_list for item in self._fns))
        page = await self._store.list_fns(where)
        return await _through(page, (item.after_fns_list for item in self._fns))

    async def create_fn(self, fn: Fn) -> Fn:
        fn = await _through(fn, (item.before_fn_create for item in self._fns))
        created = await self._store.create_fn(fn)
        await _tell(created, (item.after_fn_create for item in self._fns))
        return created

    async def get_fn(self, fn_id: str) -> Fn:
        for listener in self._fns:
            await listener.before_fn_get(fn_id)
        fn = await self._store.get_fn(fn_id)
        return await _through(fn, (item.after_fn_get for item in self._fns))

    async def find(self, fn_id: str) -> tuple[App, Fn]:
        return await self._store.find(fn_id)

    async def update_fn(self, fn_id: str, patch: FnPatch) -> Fn:
        for listener in self._fns:
            patch = await listener.before_fn_update(fn_id, patch)
        fn = await self._store.update_fn(fn_id, patch)
        await _tell(fn, (item.after_fn_update for item in self._fns))
        return fn

    async def delete_fn(self, fn_id: str) -> None:
        for listener in self._fns:
            await listener.before_fn_delete(fn_id)
        await self._store.delete_fn(fn_id)
        await _tell(fn_id, (item.after_fn_delete for item in self._fns))

    # --- triggers ---

    async def list_triggers(self, where: TriggerFilter) -> Page[Trigger]:
        where = await _through(where, (item.before_triggers_list for item in self._triggers))
        page = await self._store.list_triggers(where)
        return await _through(page, (item.after_triggers_list for item in self._triggers))

    async def create_trigger(self, trigger: Trigger) -> Trigger:
        trigger = await _through(trigger, (item.before_trigger_create for item in self._triggers))
        created = await self._store.create_trigger(trigger)
        await _tell(created, (item.after_trigger_create for item in self._triggers))
        return created

    async def get_trigger(self, trigger_id: str) -> Trigger:
        for listener in self._triggers:
            await listener.before_trigger_get(trigger_id)
        trigger = await self._store.get_trigger(trigger_id)
        return await _through(trigger, (item.after_trigger_get for item in self._triggers))

    async def trigger_by_source(self, app_id: str, type: str, source: str) -> Trigger:
        return await self._store.trigger_by_source(app_id, type, source)

    async def update_trigger(self, trigger_id: str, patch: TriggerPatch) -> Trigger:
        for listener in self._triggers:
            patch = await listener.before_trigger_update(trigger_id, patch)
        trigger = await self._store.update_trigger(trigger_id, patch)
        await _tell(trigger, (item.after_trigger_update for item in self._triggers))
        return trigger

    async def delete_trigger(self, trigger_id: str) -> None:
        for listener in self._triggers:
            await listener.before_trigger_delete(trigger_id)
        await self._store.delete_trigger(trigger_id)
        await _tell(trigger_id, (item.after_trigger_delete for item in self._triggers))


async def _through(value: _T, steps: Iterable[Callable[[_T], Awaitable[_T]]]) -> _T:
    """What the last step makes of what the others made of ``value``."""
    for step in steps:
        value = await step(value)
    return value


async def _tell(value: _T, steps: Iterable[Callable[[_T], Awaitable[None]]]) -> None:
    """The change is made: an error of a listener stops neither the others nor the answer."""
    for step in steps:
        try:
            await step(value)
        except Exception:
            log.exception("listener failed after the change", listener=step.__qualname__)
