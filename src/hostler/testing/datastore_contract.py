"""The contract of `hostler.datastore.Datastore`, as checks that every datastore has to pass."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import msgspec
import trio

from ..datastore import (
    AppFilter,
    AppPatch,
    Datastore,
    FnFilter,
    FnPatch,
    TriggerFilter,
    TriggerPatch,
)
from ..models import App, Fn, Trigger
from ..rules import errors
from .contracts import Check, check_each, require

OpenDatastore = Callable[[], AbstractAsyncContextManager[Datastore]]
"""Opens an empty datastore."""


async def _app(store: Datastore, name: str = "shop") -> App:
    return await store.apps.create(App(id="", name=name, config={"A": "1", "B": "2"}))


async def _fn(store: Datastore, app: App, name: str = "pay") -> Fn:
    return await store.fns.create(Fn(id="", name=name, app_id=app.id, image="shop/pay:1"))


async def _trigger(store: Datastore, fn: Fn, name: str = "web", source: str = "/pay") -> Trigger:
    new = Trigger(id="", name=name, app_id=fn.app_id, fn_id=fn.id, type="http", source=source)
    return await store.triggers.create(new)


async def _raises(kind: type[Exception], operation: Awaitable[object], what: str) -> None:
    try:
        await operation
    except kind:
        return
    except Exception as error:  # noqa: BLE001  (told of here)
        require(False, f"{what} raises {error!r} instead of {kind.__name__}")
    require(False, f"{what} does not raise {kind.__name__}")


async def keeps(store: Datastore) -> None:
    """What is created gets an id and dates, and can be read again."""
    app = await _app(store)
    require(app.id, "a new app has no id")
    fn = await _fn(store, app)
    require(fn.id, "a new function has no id")
    trigger = await _trigger(store, fn)
    require(trigger.id, "a new trigger has no id")
    for one in (app, fn, trigger):
        require(one.created_at and one.updated_at, f"{type(one).__name__} has no dates")
    require(await store.apps.get(app.id) == app, "another app is read than was created")
    require(await store.fns.get(fn.id) == fn, "another function is read than was created")
    read = await store.triggers.get(trigger.id)
    require(read == trigger, "another trigger is read than was created")
    require(fn.memory and fn.timeout and fn.idle_timeout, "a function has no default limits")


async def gives_copies(store: Datastore) -> None:
    """What an operation returns belongs to the caller."""
    app = await _app(store)
    app.config["A"] = "changed"
    (await store.apps.get(app.id)).config["B"] = "changed"
    config = (await store.apps.get(app.id)).config
    require(config == {"A": "1", "B": "2"}, "a caller's change of a result changes what is kept")


async def refuses_what_is_taken(store: Datastore) -> None:
    """Names are unique, of functions and triggers in their app; sources, too."""
    app = await _app(store)
    fn = await _fn(store, app)
    await _trigger(store, fn)
    await _raises(errors.AppExists, _app(store), "a second app of a name")
    await _raises(errors.FnExists, _fn(store, app), "a second function of a name")
    same_name = _trigger(store, fn, source="/b")
    await _raises(errors.TriggerExists, same_name, "a second trigger of a name")
    same_source = _trigger(store, fn, name="b")
    await _raises(errors.TriggerSourceExists, same_source, "a second trigger of a source")
    await _fn(store, await _app(store, "other"))


async def refuses_what_is_wrong(store: Datastore) -> None:
    """Values are checked, and so is what they refer to."""
    app = await _app(store)
    new = store.apps.create(App(id="mine", name="other"))
    await _raises(errors.AppIDProvided, new, "an app that brings its id")
    nameless = store.apps.create(App(id="", name=""))
    await _raises(errors.AppMissingName, nameless, "an app without a name")
    imageless = store.fns.create(Fn(id="", name="f", app_id=app.id, image=""))
    await _raises(errors.FnMissingImage, imageless, "a function without an image")
    nowhere = store.fns.create(Fn(id="", name="f", app_id="nowhere", image="i"))
    await _raises(errors.AppNotFound, nowhere, "a function of an unknown app")
    fn = await _fn(store, await _app(store, "other"))
    foreign = Trigger(id="", name="t", app_id=app.id, fn_id=fn.id, type="http", source="/t")
    create = store.triggers.create(foreign)
    await _raises(errors.TriggerFnNotInApp, create, "a trigger of another app's function")


async def finds(store: Datastore) -> None:
    """The look-ups that calls need."""
    app = await _app(store)
    fn = await _fn(store, app)
    trigger = await _trigger(store, fn)
    require(await store.app_id_by_name(app.name) == app.id, "app_id_by_name gives another id")
    require(await store.find(fn.id) == (app, fn), "find gives another app or function")
    found = await store.trigger_by_source(app.id, "http", "/pay")
    require(found == trigger, "trigger_by_source gives another trigger")


async def says_what_is_missing(store: Datastore) -> None:
    """An unknown id, name or source is "not found", in each operation."""
    app, fn, trigger = errors.AppNotFound, errors.FnNotFound, errors.TriggerNotFound
    missing: list[tuple[type[Exception], Callable[[], Awaitable[object]], str]] = [
        (app, lambda: store.apps.get("x"), "apps.get"),
        (app, lambda: store.apps.update("x", AppPatch()), "apps.update"),
        (app, lambda: store.apps.delete("x"), "apps.delete"),
        (fn, lambda: store.fns.get("x"), "fns.get"),
        (fn, lambda: store.fns.update("x", FnPatch()), "fns.update"),
        (fn, lambda: store.fns.delete("x"), "fns.delete"),
        (trigger, lambda: store.triggers.get("x"), "triggers.get"),
        (trigger, lambda: store.triggers.update("x", TriggerPatch()), "triggers.update"),
        (trigger, lambda: store.triggers.delete("x"), "triggers.delete"),
        (app, lambda: store.app_id_by_name("x"), "app_id_by_name"),
        (fn, lambda: store.find("x"), "find"),
        (trigger, lambda: store.trigger_by_source("x", "http", "/x"), "trigger_by_source"),
    ]
    for kind, operation, name in missing:
        await _raises(kind, operation(), f"{name} of what is not there")


async def changes(store: Datastore) -> None:
    """A patch changes what it names, key by key, and nothing else."""
    app = await _app(store)
    note = {"note": msgspec.Raw(b'"x"')}
    patch = AppPatch(config={"A": "", "C": "3"}, annotations=note)
    changed = await store.apps.update(app.id, patch)
    require(changed.config == {"B": "2", "C": "3"}, f"a patch makes the config {changed.config}")
    require(dict(changed.annotations) == note, "a patch does not set an annotation")
    require(await store.apps.get(app.id) == changed, "a change is not kept")
    fn = await _fn(store, app)
    updated = await store.fns.update(fn.id, FnPatch(image="shop/pay:2"))
    require(updated.image == "shop/pay:2", "a patch does not change the image")
    require(updated.memory == fn.memory, "a patch changes what it does not name")
    other = store.apps.update(app.id, AppPatch(id="other"))
    await _raises(errors.AppIDMismatch, other, "a patch with another id")
    renamed = store.apps.update(app.id, AppPatch(name="renamed"))
    await _raises(errors.AppNameImmutable, renamed, "a patch with another name")


async def loses_no_change(store: Datastore) -> None:
    """Concurrent patches of different keys are all kept."""
    app = await _app(store)

    async def change(key: str) -> None:
        await store.apps.update(app.id, AppPatch(config={key: "x"}))

    keys = [f"K{number}" for number in range(8)]
    async with trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(change, key)
    lost = set(keys) - set((await store.apps.get(app.id)).config)
    require(not lost, f"concurrent changes are lost: {sorted(lost)}")


async def lists(store: Datastore) -> None:
    """Lists are sorted by name, filtered, and cut into pages."""
    names = ["B", "a", "c", "d"]
    apps = {name: await _app(store, name) for name in reversed(names)}
    seen: list[str] = []
    cursor = ""
    for _ in names:
        page = await store.apps.list(AppFilter(cursor=cursor, per_page=2))
        require(len(page.items) <= 2, f"a page of 2 has {len(page.items)} items")
        seen += [app.name for app in page.items]
        cursor = page.next_cursor
        if not cursor:
            break
    require(seen == names, f"the pages have {seen} instead of {names}")
    only = await store.apps.list(AppFilter(name="c"))
    require([app.name for app in only.items] == ["c"], "the filter by name does not hold")
    fn = await _fn(store, apps["a"])
    await _fn(store, apps["c"])
    await _trigger(store, fn)
    fns = await store.fns.list(FnFilter(app_id=apps["a"].id))
    require([one.id for one in fns.items] == [fn.id], "a list has functions of another app")
    triggers = await store.triggers.list(TriggerFilter(app_id=apps["c"].id))
    require(not triggers.items, "a list has triggers of another app")
    require(not (await store.fns.list(FnFilter(app_id="x"))).items, "an unknown app has functions")
    await _raises(errors.FnMissingAppID, store.fns.list(FnFilter(app_id="")), "a list of no app")


async def removes(store: Datastore) -> None:
    """What belongs to something goes with it, and nothing else does."""
    app, other = await _app(store), await _app(store, "other")
    fn, second, kept = await _fn(store, app), await _fn(store, app, "b"), await _fn(store, other)
    first_trigger = await _trigger(store, fn)
    second_trigger = await _trigger(store, second, "b", "/b")
    await store.fns.delete(fn.id)
    gone = store.triggers.get(first_trigger.id)
    await _raises(errors.TriggerNotFound, gone, "a trigger of a removed function")
    await store.triggers.get(second_trigger.id)
    await store.apps.delete(app.id)
    await _raises(errors.FnNotFound, store.fns.get(second.id), "a function of a removed app")
    gone = store.triggers.get(second_trigger.id)
    await _raises(errors.TriggerNotFound, gone, "a trigger of a removed app")
    await store.fns.get(kept.id)
    await _app(store)


DATASTORE_CHECKS: tuple[Check[Datastore], ...] = (
    keeps,
    gives_copies,
    refuses_what_is_taken,
    refuses_what_is_wrong,
    finds,
    says_what_is_missing,
    changes,
    loses_no_change,
    lists,
    removes,
)
"""Each takes an empty datastore."""


async def check_datastore(open_datastore: OpenDatastore) -> None:
    """Check a datastore against the whole contract, each part on an empty one.

    Raises an ``ExceptionGroup`` of `ContractBroken` and whatever else was raised.
    """
    await check_each(DATASTORE_CHECKS, open_datastore)
