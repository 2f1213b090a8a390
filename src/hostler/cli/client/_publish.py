"""An app, a function and its triggers, made or changed to what a ``func.yaml`` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from hostler.datastore import AppFilter, FnFilter, FnPatch, TriggerFilter, TriggerPatch
from hostler.models import App, Fn, Trigger
from hostler.rules import check_new_app

from ._func_file import FuncFile, FuncTrigger
from ._names import called
from ._show import FN_ENDPOINT, TRIGGER_ENDPOINT, field_of

if TYPE_CHECKING:
    from hostler.api_client import ApiClient


@attrs.frozen(kw_only=True)
class Deployed:
    """What there is now."""

    app: str
    function: str
    version: str
    image: str
    endpoint: str
    triggers: list[str]
    """The URLs of those that ``func.yaml`` has."""


async def check_app(server: str, name: str) -> None:
    """Before minutes of building: raises what `publish` would for a bad name of an app, and if
    the server does not answer. Changes nothing."""
    from hostler.api_client import open_api_client
    from hostler.config import ApiConfig

    check_new_app(App(id="", name=name))
    async with open_api_client(server, ApiConfig.from_env()) as api:
        await api.list_apps(AppFilter(name=name))


async def publish(server: str, app_name: str, func: FuncFile, image: str) -> Deployed:
    """One change after the other: after a failure some are made, and another try makes the rest."""
    from hostler.api_client import open_api_client
    from hostler.config import ApiConfig

    async with open_api_client(server, ApiConfig.from_env()) as api:
        app = await _app(api, app_name)
        fn = await _fn(api, app, func, image)
        triggers = [await _trigger(api, fn, wanted) for wanted in func.triggers]
        fn = await api.get_fn(fn.id)
    return Deployed(
        app=app.name,
        function=fn.name,
        version=func.version,
        image=image,
        endpoint=field_of(fn, FN_ENDPOINT),
        triggers=[field_of(trigger, TRIGGER_ENDPOINT) for trigger in triggers],
    )


async def _app(api: ApiClient, name: str) -> App:
    found = called(name, await api.list_apps(AppFilter(name=name)))
    return found[0] if found else await api.create_app(App(id="", name=name))


async def _fn(api: ApiClient, app: App, func: FuncFile, image: str) -> Fn:
    where = FnFilter(app_id=app.id, name=func.name)
    found = called(func.name, await api.list_fns(where))
    if found:
        patch = FnPatch(
            image=image,
            config=func.config,
            annotations=func.annotations,
            memory=func.memory,
            timeout=func.timeout,
            idle_timeout=func.idle_timeout,
        )
        return await api.update_fn(found[0].id, patch)
    new = Fn(
        id="",
        name=func.name,
        app_id=app.id,
        image=image,
        config=dict(func.config),
        annotations=dict(func.annotations),
        memory=func.memory,
        timeout=func.timeout,
        idle_timeout=func.idle_timeout,
    )
    return await api.create_fn(new)


async def _trigger(api: ApiClient, fn: Fn, wanted: FuncTrigger) -> Trigger:
    where = TriggerFilter(app_id=fn.app_id, name=wanted.name)
    found = called(wanted.name, await api.list_triggers(where))
    if found:
        patch = TriggerPatch(fn_id=fn.id, source=wanted.source)
        changed = await api.update_trigger(found[0].id, patch)
    else:
        new = Trigger(
            id="",
            name=wanted.name,
            app_id=fn.app_id,
            fn_id=fn.id,
            type="http",
            source=wanted.source,
        )
        changed = await api.create_trigger(new)
    return await api.get_trigger(changed.id)
