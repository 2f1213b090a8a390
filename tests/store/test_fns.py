from __future__ import annotations

import attrs
import pytest

from hostler.config import StoreConfig
from hostler.datastore import AppPatch, FnFilter, FnPatch
from hostler.errors import FnNotFound
from hostler.rules.errors import (
    AppNotFound,
    FnExists,
    FnIDMismatch,
    FnInvalidMemory,
    FnInvalidTimeout,
    FnMissingAppID,
    FnMissingID,
    TriggerNotFound,
)
from hostler.store import SqlDatastore, open_datastore

from .things import a_fn, a_trigger, an_app, raw


async def test_a_function_is_kept_as_it_was_given(store: SqlDatastore) -> None:
    app = await store.apps.create(an_app(shape="GENERIC_X86", config={"A": "1"}))
    given = a_fn(
        app,
        "a~b.c:d@e=f&g+h$i",
        image="registry/ü:1",
        memory=256,
        timeout=60,
        idle_timeout=90,
        config={"B": "2"},
        annotations=raw(k="[1, 2]"),
        shape="GENERIC_ARM",
    )
    made = await store.fns.create(given)
    assert made == attrs.evolve(
        given,
        id=made.id,
        annotations=raw(k="[1,2]"),
        shape="GENERIC_X86",
        created_at=made.created_at,
        updated_at=made.created_at,
    )
    assert await store.fns.get(made.id) == made
    assert await store.find(made.id) == (app, made)


async def test_defaults(store: SqlDatastore) -> None:
    app = await store.apps.create(an_app())
    fn = await store.fns.create(a_fn(app, memory=0, timeout=0, idle_timeout=0))
    assert (fn.memory, fn.timeout, fn.idle_timeout, fn.config) == (128, 30, 30, {})


async def test_an_app_must_exist(store: SqlDatastore) -> None:
    app = await store.apps.create(an_app())
    await store.apps.delete(app.id)
    with pytest.raises(AppNotFound):
        await store.fns.create(a_fn(app))


async def test_a_name_is_taken_once_in_an_app(store: SqlDatastore) -> None:
    app, other = await store.apps.create(an_app()), await store.apps.create(an_app("other"))
    await store.fns.create(a_fn(app))
    await store.fns.create(a_fn(other))
    await store.fns.create(a_fn(app, "Pay"))
    with pytest.raises(FnExists):
        await store.fns.create(a_fn(app, image="another:1"))


@pytest.mark.parametrize("key", ["nothing", "pay ", "\0", "\udfff"])
async def test_what_is_not_there_is_not_found(store: SqlDatastore, key: str) -> None:
    for lookup in (
        lambda: store.fns.get(key),
        lambda: store.find(key),
        lambda: store.fns.update(key, FnPatch()),
        lambda: store.fns.delete(key),
    ):
        with pytest.raises(FnNotFound):
            await lookup()


async def test_an_id_is_needed(store: SqlDatastore) -> None:
    for lookup in (
        lambda: store.fns.get(""),
        lambda: store.fns.update("", FnPatch()),
        lambda: store.fns.delete(""),
    ):
        with pytest.raises(FnMissingID):
            await lookup()
    with pytest.raises(FnMissingAppID):
        await store.fns.list(FnFilter(app_id=""))


async def test_an_update_merges_and_moves_the_date(store: SqlDatastore) -> None:
    app = await store.apps.create(an_app())
    fn = await store.fns.create(a_fn(app, config={"a": "1", "b": "2"}, annotations=raw(k="1")))
    patch = FnPatch(
        image="shop/pay:2", memory=512, config={"a": "", "c": "3"}, annotations=raw(k="null")
    )
    changed = await store.fns.update(fn.id, patch)
    assert changed == attrs.evolve(
        fn,
        image="shop/pay:2",
        memory=512,
        config={"b": "2", "c": "3"},
        annotations={},
        updated_at=changed.updated_at,
    )
    assert changed.updated_at is not None
    assert fn.updated_at is not None
    assert changed.updated_at > fn.updated_at
    assert await store.fns.get(fn.id) == changed
    assert await store.fns.update(fn.id, patch) == changed


async def test_a_refused_update_changes_nothing(store: SqlDatastore) -> None:
    """Fn answers 400 for another id in the body, and then changes that function."""
    app = await store.apps.create(an_app())
    fn, other = await store.fns.create(a_fn(app)), await store.fns.create(a_fn(app, "other"))
    with pytest.raises(FnIDMismatch):
        await store.fns.update(fn.id, FnPatch(id=other.id, image="evil:1"))
    with pytest.raises(FnInvalidTimeout):
        await store.fns.update(fn.id, FnPatch(image="evil:1", timeout=-1))
    assert [*(await store.fns.list(FnFilter(app_id=app.id))).items] == [other, fn]


async def test_limits_are_those_of_the_configuration(url: str) -> None:
    async with open_datastore(StoreConfig(db_url=url, max_fn_memory=100, max_fn_timeout=999)) as it:
        app = await it.apps.create(an_app())
        with pytest.raises(FnInvalidMemory, match=r"should be between 1 and 100$"):
            await it.fns.create(a_fn(app))  # the default is over the limit
        fn = await it.fns.create(a_fn(app, memory=100, timeout=999))
    async with open_datastore(StoreConfig(db_url=url)) as it:
        with pytest.raises(FnInvalidTimeout, match=r"must be between 1 and 300$"):
            await it.fns.update(fn.id, FnPatch(image="x"))
        assert (await it.fns.update(fn.id, FnPatch(timeout=300))).timeout == 300


async def test_deleting_a_function_removes_its_triggers(store: SqlDatastore) -> None:
    app = await store.apps.create(an_app())
    fn = await store.fns.create(a_fn(app))
    trigger = await store.triggers.create(a_trigger(fn))
    await store.fns.delete(fn.id)
    with pytest.raises(FnNotFound):
        await store.fns.delete(fn.id)
    with pytest.raises(TriggerNotFound):
        await store.triggers.get(trigger.id)
    assert await store.apps.get(app.id) == app


async def test_a_function_keeps_its_shape(store: SqlDatastore) -> None:
    app = await store.apps.create(an_app(shape="GENERIC_X86_ARM"))
    fn = await store.fns.create(a_fn(app))
    await store.apps.update(app.id, AppPatch(config={"a": "1"}))
    assert (await store.fns.update(fn.id, FnPatch(image="x"))).shape == "GENERIC_X86_ARM"
