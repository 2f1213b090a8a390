"""Listeners around the operations of the datastore."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from hostler.api import (
    AppListener,
    FnListener,
    Listener,
    ListeningDatastore,
    TriggerListener,
    api_app,
)
from hostler.datastore import (
    AppFilter,
    AppPatch,
    Datastore,
    FnFilter,
    FnPatch,
    Page,
    TriggerFilter,
    TriggerPatch,
)
from hostler.errors import APIError
from hostler.models import App, Fn, Trigger
from tests.conftest import Logs

from ._client import Client

_CALLBACKS = [name for name in vars(Listener) if name.startswith(("before_", "after_"))]


class _Recorder:
    """Tells of every callback, and does with its arguments what listeners do by default."""

    kind = ""

    def __init__(self, record: list[str], name: str = "") -> None:
        self.record = record
        self.name = name

    def __getattribute__(self, attribute: str) -> Any:
        if attribute in _CALLBACKS:
            self.record.append(f"{self.name}{self.kind} {attribute}")
        return super().__getattribute__(attribute)


class AppRecorder(_Recorder, AppListener):
    kind = "app"


class FnRecorder(_Recorder, FnListener):
    kind = "fn"


class TriggerRecorder(_Recorder, TriggerListener):
    kind = "trigger"


def recorders(record: list[str]) -> list[Listener[Any, Any, Any]]:
    return [kind(record) for kind in (AppRecorder, FnRecorder, TriggerRecorder)]


def an_app(name: str = "demo") -> App:
    return App(id="", name=name)


async def test_every_operation_has_its_callbacks(store: Datastore) -> None:
    record: list[str] = []
    listening = ListeningDatastore(store, recorders(record))
    app = await listening.apps.create(an_app())
    fn = await listening.fns.create(Fn(id="", name="f", app_id=app.id, image="i"))
    trigger = await listening.triggers.create(
        Trigger(id="", name="t", app_id=app.id, fn_id=fn.id, type="http", source="/s")
    )
    await listening.apps.get(app.id)
    await listening.fns.get(fn.id)
    await listening.triggers.get(trigger.id)
    await listening.apps.list(AppFilter())
    await listening.fns.list(FnFilter(app_id=app.id))
    await listening.triggers.list(TriggerFilter(app_id=app.id))
    await listening.apps.update(app.id, AppPatch())
    await listening.fns.update(fn.id, FnPatch())
    await listening.triggers.update(trigger.id, TriggerPatch())
    await listening.triggers.delete(trigger.id)
    await listening.fns.delete(fn.id)
    await listening.apps.delete(app.id)
    kinds = ("app", "fn", "trigger")
    assert sorted(record) == sorted(f"{kind} {name}" for kind in kinds for name in _CALLBACKS)
    creations = [f"{kind} {name}" for kind in kinds for name in ("before_create", "after_create")]
    assert record[:6] == creations


async def test_looking_up_what_to_call_is_no_operation_of_the_api(store: Datastore) -> None:
    record: list[str] = []
    listening = ListeningDatastore(store, recorders(record))
    app = await store.apps.create(an_app())
    fn = await store.fns.create(Fn(id="", name="f", app_id=app.id, image="i"))
    made = Trigger(id="", name="t", app_id=app.id, fn_id=fn.id, type="http", source="/s")
    trigger = await store.triggers.create(made)
    assert await listening.app_id_by_name("demo") == app.id
    assert await listening.find(fn.id) == (app, fn)
    assert await listening.trigger_by_source(app.id, "http", "/s") == trigger
    assert record == []


async def test_listeners_are_called_in_their_order(store: Datastore) -> None:
    record: list[str] = []
    listening = ListeningDatastore(store, [AppRecorder(record, "1 "), AppRecorder(record, "2 ")])
    app = await listening.apps.create(an_app())
    await listening.apps.delete(app.id)
    assert record == [
        f"{place} app {name}"
        for name in ("before_create", "after_create", "before_delete", "after_delete")
        for place in "12"
    ]


class Changer(AppListener):
    """Changes what it is asked about."""

    async def before_create(self, app: App) -> App:
        return attrs.evolve(app, config={**app.config, "OWNER": "me"})

    async def before_update(self, app_id: str, patch: AppPatch) -> AppPatch:
        return attrs.evolve(patch, config={**patch.config, "CHANGED": "yes"})

    async def before_list(self, where: AppFilter) -> AppFilter:
        return attrs.evolve(where, name="mine")

    async def after_get(self, app: App) -> App:
        return attrs.evolve(app, config=dict.fromkeys(app.config, "***"))

    async def after_list(self, page: Page[App]) -> Page[App]:
        return Page([await self.after_get(app) for app in page.items], page.next_cursor)


async def test_a_listener_may_change_what_is_done_and_what_is_read(store: Datastore) -> None:
    api = Client(api_app(store, listeners=[Changer()]))
    mine = await api.made("/v2/apps", {"name": "mine", "config": {"A": "1"}})
    await api.made("/v2/apps", {"name": "other"})
    assert mine["config"] == {"A": "1", "OWNER": "me"}
    path = f"/v2/apps/{mine['id']}"
    changed = (await api.put(path, {"config": {"A": ""}})).json
    assert changed["config"] == {"CHANGED": "yes", "OWNER": "me"}
    hidden = {"CHANGED": "***", "OWNER": "***"}
    assert (await api.get(path)).json["config"] == hidden
    assert [item["config"] for item in (await api.get("/v2/apps")).json["items"]] == [hidden]


class Raiser(AppListener):
    """Raises ``error`` in the callback that is called ``where``."""

    def __init__(self, where: str, error: Exception) -> None:
        self._error = error

        async def raising(*_arguments: object) -> Any:
            await trio.lowlevel.checkpoint()
            raise self._error

        setattr(self, where, raising)


VETO = APIError(403, "Not yours")


async def test_a_listener_may_veto(store: Datastore) -> None:
    app = await store.apps.create(an_app())
    path = f"/v2/apps/{app.id}"
    for where, request in (
        ("before_create", ("POST", "/v2/apps", {"name": "new"})),
        ("before_update", ("PUT", path, {"config": {"A": "1"}})),
        ("before_delete", ("DELETE", path, None)),
        ("before_get", ("GET", path, None)),
        ("after_get", ("GET", path, None)),
        ("before_list", ("GET", "/v2/apps", None)),
        ("after_list", ("GET", "/v2/apps", None)),
    ):
        record: list[str] = []
        listeners = [Raiser(where, VETO), AppRecorder(record)]
        answer = await Client(api_app(store, listeners=listeners)).send(*request)
        assert answer.fails(403, "Not yours"), where
        assert f"app {where}" not in record, "the next one was asked"
    assert (await store.apps.list(AppFilter())).items == [app]


async def test_a_fault_before_the_change_is_a_500_and_nothing_is_done(
    store: Datastore, logs: Logs
) -> None:
    listener = Raiser("before_create", RuntimeError("secret"))
    answer = await Client(api_app(store, listeners=[listener])).post("/v2/apps", {"name": "a"})
    assert answer.fails(500, "internal server error")
    logs.expect_error("request failed")
    assert (await store.apps.list(AppFilter())).items == []


@pytest.mark.parametrize("error", [RuntimeError("secret"), APIError(400, "too late")])
async def test_an_error_after_the_change_does_not_deny_it(
    store: Datastore, logs: Logs, error: Exception
) -> None:
    """Fn reports the error, though the change was made."""
    record: list[str] = []
    app = await store.apps.create(an_app())
    for where, request in (
        ("after_create", ("POST", "/v2/apps", {"name": "new"})),
        ("after_update", ("PUT", f"/v2/apps/{app.id}", {"config": {"A": "1"}})),
        ("after_delete", ("DELETE", f"/v2/apps/{app.id}", None)),
    ):
        listeners = [Raiser(where, error), AppRecorder(record)]
        answer = await Client(api_app(store, listeners=listeners)).send(*request)
        assert answer.status in (200, 204), answer
        assert logs.expect_error("listener failed after the change")
        assert f"app {where}" in record, "the next one was not told"
    assert [item.name for item in (await store.apps.list(AppFilter())).items] == ["new"]


async def test_deleting_an_app_tells_only_of_the_app(store: Datastore) -> None:
    record: list[str] = []
    app = await store.apps.create(an_app())
    await store.fns.create(Fn(id="", name="f", app_id=app.id, image="i"))
    await ListeningDatastore(store, recorders(record)).apps.delete(app.id)
    assert record == ["app before_delete", "app after_delete"]


async def test_what_is_no_listener_is_refused(store: Datastore) -> None:
    listener: Any = object()
    with pytest.raises(TypeError, match="is no listener"):
        ListeningDatastore(store, [listener])
