"""Functions of a database that are kept ready as their annotations say, from before their first
call on."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio

from hostler._concurrency.signal import Signal
from hostler.abc import CallRequest
from hostler.agent import ContainerState, keep_stored_warm
from hostler.agent import keep_warm as declared
from hostler.config import StoreConfig
from hostler.datastore import AppPatch, Datastore, FnPatch, Page
from hostler.drivers.sim import echo, open_sim_driver
from hostler.models import App, Call, Fn
from hostler.rules.errors import DatastoreUnavailable
from hostler.store import open_datastore
from tests.conftest import Logs

from .nodes import Node, open_node


def wants(count: int) -> dict[str, msgspec.Raw]:
    return {"hostler/min-warm": msgspec.Raw(b"%d" % count)}


@pytest.fixture
async def store() -> AsyncIterator[Datastore]:
    async with open_datastore(StoreConfig(db_url="sqlite3://:memory:")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared, "QUIET_SECONDS", 0.01)
    monkeypatch.setattr(declared, "PAGE", 2)


def ready(node: Node) -> int:
    return node.agent.statistics().containers.get(ContainerState.IDLE, 0)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110  (on the real clock, for the database's threads)
            await trio.sleep(0.005)


async def test_what_the_api_changes_is_followed(store: Datastore, tmp_path: Path) -> None:
    changed = Signal()
    app = await store.apps.create(App(id="", name="app"))
    fns = [
        await store.fns.create(
            Fn(id="", name=f"f{i}", app_id=app.id, image="echo", annotations=wants(i))
        )
        for i in range(3)  # more than a page, and one that wants nothing
    ]
    async with (
        open_sim_driver({"echo": echo, "other": echo}) as driver,
        open_node(driver, tmp_path) as node,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(keep_stored_warm, node.agent, store, changed)
        await until(lambda: ready(node) == 3)

        await store.fns.update(fns[0].id, FnPatch(annotations=wants(2)))
        changed.note()
        await until(lambda: ready(node) == 5)

        created = driver.statistics().created
        await store.fns.update(fns[1].id, FnPatch(image="other"))
        changed.note()
        await until(lambda: driver.statistics().created == created + 1)

        # An app's annotation is one of all its functions, but for those with their own.
        await store.apps.update(app.id, AppPatch(annotations=wants(1)))
        plain = await store.fns.create(Fn(id="", name="plain", app_id=app.id, image="echo"))
        created = driver.statistics().created
        changed.note()
        await until(lambda: driver.statistics().created == created + 1)

        for fn in (*fns, plain):
            await store.fns.delete(fn.id)
        changed.note()
        wishes = node.agent._launcher.warm
        await until(lambda: repr(wishes) == "<WarmPool functions=0>")
        nursery.cancel_scope.cancel()


async def test_changes_by_other_nodes_are_seen_in_time_and_an_outage_changes_nothing(
    store: Datastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    monkeypatch.setattr(declared, "REFRESH_SECONDS", 0.05)

    async def down(where: object) -> None:
        raise DatastoreUnavailable

    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_stored_warm, node.agent, store, Signal())
            app = await store.apps.create(App(id="", name="app", annotations=wants(1)))
            await store.fns.create(Fn(id="", name="f", app_id=app.id, image="echo"))
            await until(lambda: ready(node) == 1)
            with monkeypatch.context() as broken:
                broken.setattr(store.apps, "list", down)
                await until(lambda: len(logs.with_event("can't be read")) > 1)
                assert ready(node) == 1
            await store.fns.create(Fn(id="", name="g", app_id=app.id, image="echo"))
            await until(lambda: ready(node) == 2)
            nursery.cancel_scope.cancel()
        assert repr(node.agent._launcher.warm) == "<WarmPool functions=0>"
    assert node.agent.statistics().at_rest


async def test_a_reading_may_take_longer_than_the_time_between_two(
    autojump_clock: object, tmp_path: Path
) -> None:
    app = App(id="a", name="app", annotations=wants(1))
    fn = Fn(id="f", name="fn", app_id="a", image="echo")

    async def list_apps(where: object) -> Page[App]:
        await trio.sleep(2 * declared.REFRESH_SECONDS)
        return Page([app], "")

    async def list_fns(where: object) -> Page[Fn]:
        await trio.lowlevel.checkpoint()
        return Page([fn], "")

    apps, fns = SimpleNamespace(list=list_apps), SimpleNamespace(list=list_fns)
    slow: Any = SimpleNamespace(apps=apps, fns=fns)
    async with (
        open_sim_driver({"echo": echo}) as driver,
        open_node(driver, tmp_path) as node,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(keep_stored_warm, node.agent, slow, Signal())
        await trio.sleep(3 * declared.REFRESH_SECONDS)
        assert ready(node) == 1
        nursery.cancel_scope.cancel()


async def test_trouble_inside_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    """A row that can't be read, as another program may have left it, and a driver that fails."""
    monkeypatch.setattr(declared, "REFRESH_SECONDS", 0.05)
    database = tmp_path / "data" / "fn.db"
    (sockets := tmp_path / "sockets").mkdir()

    def slot_key_extension(extensions: Mapping[str, str]) -> str:
        return {"": "", "good": "g"}[extensions.get("kind", "")]

    def overrider(
        request: CallRequest, call: Call, extensions: Mapping[str, str]
    ) -> Mapping[str, str]:
        return {"kind": call.config["KIND"]}

    def write(annotations: str) -> None:
        with closing(sqlite3.connect(database)) as rows, rows:
            rows.execute("UPDATE hostler_fns SET annotations = ? WHERE name = 'f'", (annotations,))

    async with (
        open_datastore(StoreConfig(db_url=f"sqlite3://{database}")) as store,
        open_sim_driver({"echo": echo}) as driver,
        open_node(driver, sockets, overrider=overrider) as node,
        trio.open_nursery() as nursery,
    ):
        monkeypatch.setattr(driver, "slot_key_extension", slot_key_extension)
        app = await store.apps.create(App(id="", name="app", annotations=wants(1)))
        for name, kind in (("f", "good"), ("g", "bad")):
            await store.fns.create(
                Fn(id="", name=name, app_id=app.id, image="echo", config={"KIND": kind})
            )
        write("{")
        nursery.start_soon(keep_stored_warm, node.agent, store, Signal())
        await until(lambda: bool(logs.with_event("can't be read")))
        write("{}")
        await until(lambda: ready(node) == 1)
        nursery.cancel_scope.cancel()
    assert "truncated" in str(logs.expect_error("can't be read")["exception"])
    assert logs.expect_error("can't keep a function ready")["fn_id"]
    for _ in logs.with_event("can't be read"):  # it was looked at more than once
        logs.expect_error("can't be read")


async def test_what_was_refused_is_tried_again_and_told_once(
    store: Datastore, tmp_path: Path, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declared, "REFRESH_SECONDS", 0.01)
    refusals = 3

    def overrider(
        request: CallRequest, call: Call, extensions: Mapping[str, str]
    ) -> Mapping[str, str]:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise DatastoreUnavailable
        return extensions

    async with (
        open_sim_driver({"echo": echo}) as driver,
        open_node(driver, tmp_path, overrider=overrider) as node,
        trio.open_nursery() as nursery,
    ):
        app = await store.apps.create(App(id="", name="app", annotations=wants(1)))
        await store.fns.create(Fn(id="", name="f", app_id=app.id, image="echo"))
        nursery.start_soon(keep_stored_warm, node.agent, store, Signal())
        await until(lambda: ready(node) == 1)
        nursery.cancel_scope.cancel()
    assert refusals == 0
    assert len(logs.with_event("can't keep a function ready")) == 1
