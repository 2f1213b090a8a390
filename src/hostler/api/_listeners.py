"""What a program can hook into the operations of the API on its datastore.

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

from hostler.datastore import (
    AppFilter,
    AppPatch,
    FnFilter,
    FnPatch,
    Page,
    TriggerFilter,
    TriggerPatch,
)
from hostler.models import App, Fn, Trigger


class AppListener:
    """Is asked and told about apps."""

    async def before_app_create(self, app: App) -> App:
        return app

    async def after_app_create(self, app: App) -> None:
        """``app`` is what was stored."""

    async def before_app_update(self, app_id: str, patch: AppPatch) -> AppPatch:
        return patch

    async def after_app_update(self, app: App) -> None:
        """``app`` is the whole app, as it is now; nothing may have changed."""

    async def before_app_delete(self, app_id: str) -> None:
        pass

    async def after_app_delete(self, app_id: str) -> None:
        pass

    async def before_app_get(self, app_id: str) -> None:
        pass

    async def after_app_get(self, app: App) -> App:
        return app

    async def before_apps_list(self, where: AppFilter) -> AppFilter:
        return where

    async def after_apps_list(self, page: Page[App]) -> Page[App]:
        return page


class FnListener:
    """Is asked and told about functions, as `AppListener` about apps."""

    async def before_fn_create(self, fn: Fn) -> Fn:
        return fn

    async def after_fn_create(self, fn: Fn) -> None:
        pass

    async def before_fn_update(self, fn_id: str, patch: FnPatch) -> FnPatch:
        return patch

    async def after_fn_update(self, fn: Fn) -> None:
        pass

    async def before_fn_delete(self, fn_id: str) -> None:
        pass

    async def after_fn_delete(self, fn_id: str) -> None:
        pass

    async def before_fn_get(self, fn_id: str) -> None:
        pass

    async def after_fn_get(self, fn: Fn) -> Fn:
        return fn

    async def before_fns_list(self, where: FnFilter) -> FnFilter:
        return where

    async def after_fns_list(self, page: Page[Fn]) -> Page[Fn]:
        return page


class TriggerListener:
    """Is asked and told about triggers, as `AppListener` about apps."""

    async def before_trigger_create(self, trigger: Trigger) -> Trigger:
        return trigger

    async def after_trigger_create(self, trigger: Trigger) -> None:
        pass

    async def before_trigger_update(self, trigger_id: str, patch: TriggerPatch) -> TriggerPatch:
        return patch

    async def after_trigger_update(self, trigger: Trigger) -> None:
        pass

    async def before_trigger_delete(self, trigger_id: str) -> None:
        pass

    async def after_trigger_delete(self, trigger_id: str) -> None:
        pass

    async def before_trigger_get(self, trigger_id: str) -> None:
        pass

    async def after_trigger_get(self, trigger: Trigger) -> Trigger:
        return trigger

    async def before_triggers_list(self, where: TriggerFilter) -> TriggerFilter:
        return where

    async def after_triggers_list(self, page: Page[Trigger]) -> Page[Trigger]:
        return page


Listener = AppListener | FnListener | TriggerListener
