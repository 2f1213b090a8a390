from __future__ import annotations

import datetime as dt

import attrs
import pytest

from hostler.datastore import TriggerFilter, TriggerPatch
from hostler.errors import FnNotFound
from hostler.rules.errors import (
    AppNotFound,
    TriggerExists,
    TriggerFnNotInApp,
    TriggerIDMismatch,
    TriggerMissingAppID,
    TriggerMissingID,
    TriggerNotFound,
    TriggerSourceExists,
    TriggerUpdatedAtProvided,
)
from hostler.store import SqlDatastore

from .things import a_fn, a_trigger, an_app, raw


async def test_a_trigger_is_kept_as_it_was_given(store: SqlDatastore) -> None:
    fn = await store.fns.create(a_fn(await store.apps.create(an_app())))
    given = a_trigger(fn, "wéb", "/päy/😀 ", annotations=raw(k='{"b": 1, "a": 2}'))
    made = await store.triggers.create(given)
    assert made == attrs.evolve(
        given,
        id=made.id,
        annotations=raw(k='{"b":1,"a":2}'),
        created_at=made.created_at,
        updated_at=made.created_at,
    )
    assert await store.triggers.get(made.id) == made
    assert await store.trigger_by_source(fn.app_id, "http", "/päy/😀 ") == made


async def test_sources_match_exactly(store: SqlDatastore) -> None:
    fn = await store.fns.create(a_fn(await store.apps.create(an_app())))
    sources = ["/a", "/A", "/a/", "/a ", "/ä", "/" + "x" * 1023]
    made = {
        source: await store.triggers.create(a_trigger(fn, f"t{number}", source))
        for number, source in enumerate(sources)
    }
    for source, trigger in made.items():
        assert await store.trigger_by_source(fn.app_id, "http", source) == trigger
    for app_id, type, source in (
        (fn.app_id, "http", "/a  "),
        (fn.app_id, "http", "/a\0"),
        (fn.app_id, "http", ""),
        (fn.app_id, "HTTP", "/a"),
        ("x", "http", "/a"),
    ):
        with pytest.raises(TriggerNotFound):
            await store.trigger_by_source(app_id, type, source)


async def test_the_order_of_checks_against_others(store: SqlDatastore) -> None:
    app, other = await store.apps.create(an_app()), await store.apps.create(an_app("other"))
    fn, foreign = await store.fns.create(a_fn(app)), await store.fns.create(a_fn(other))
    await store.triggers.create(a_trigger(fn))
    for trigger, error in (
        (a_trigger(fn, app_id="x", fn_id="x"), AppNotFound),
        (a_trigger(fn, fn_id="x"), FnNotFound),
        (a_trigger(fn, fn_id=foreign.id), TriggerFnNotInApp),
        (a_trigger(fn), TriggerSourceExists),
        (a_trigger(fn, source="/other"), TriggerExists),
    ):
        with pytest.raises(error):
            await store.triggers.create(trigger)
    await store.triggers.create(a_trigger(foreign))


async def test_dates_are_not_the_clients(store: SqlDatastore) -> None:
    fn = await store.fns.create(a_fn(await store.apps.create(an_app())))
    date = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    with pytest.raises(TriggerUpdatedAtProvided, match=r"^Trigger Updated At Provided for Create$"):
        await store.triggers.create(a_trigger(fn, updated_at=date))


async def test_two_functions_may_have_triggers_of_one_name(store: SqlDatastore) -> None:
    app = await store.apps.create(an_app())
    for name in ("a", "b"):
        fn = await store.fns.create(a_fn(app, name))
        await store.triggers.create(a_trigger(fn, "same", f"/{name}"))
    assert len((await store.triggers.list(TriggerFilter(app_id=app.id, name="same"))).items) == 2


async def test_an_update_merges_and_moves_the_date(store: SqlDatastore) -> None:
    app = await store.apps.create(an_app())
    fn, other = await store.fns.create(a_fn(app)), await store.fns.create(a_fn(app, "other"))
    trigger = await store.triggers.create(a_trigger(fn, annotations=raw(a="1", b="2")))
    patch = TriggerPatch(
        name="new", fn_id=other.id, source="/new", annotations=raw(a="null", c="3")
    )
    changed = await store.triggers.update(trigger.id, patch)
    assert changed == attrs.evolve(
        trigger,
        name="new",
        fn_id=other.id,
        source="/new",
        annotations=raw(b="2", c="3"),
        updated_at=changed.updated_at,
    )
    assert changed.updated_at is not None
    assert trigger.updated_at is not None
    assert changed.updated_at > trigger.updated_at
    assert await store.triggers.get(trigger.id) == changed
    same = TriggerPatch(id=trigger.id, name="new", source="/new", annotations=raw(x='""'))
    assert await store.triggers.update(trigger.id, same) == changed


async def test_weakness_05_2_an_update_is_checked_like_a_new_trigger(store: SqlDatastore) -> None:
    app, other = await store.apps.create(an_app()), await store.apps.create(an_app("other"))
    fn, foreign = await store.fns.create(a_fn(app)), await store.fns.create(a_fn(other))
    first = await store.triggers.create(a_trigger(fn))
    second = await store.triggers.create(a_trigger(fn, "second", "/second"))
    for patch, error in (
        (TriggerPatch(id=first.id, source="/x"), TriggerIDMismatch),
        (TriggerPatch(app_id="x"), AppNotFound),
        (TriggerPatch(fn_id="x"), FnNotFound),
        (TriggerPatch(fn_id=foreign.id), TriggerFnNotInApp),
        (TriggerPatch(app_id=other.id), TriggerFnNotInApp),
        (TriggerPatch(source=first.source), TriggerSourceExists),
        (TriggerPatch(name=first.name), TriggerExists),
    ):
        with pytest.raises(error):
            await store.triggers.update(second.id, patch)
    assert await store.triggers.get(first.id) == first
    assert await store.triggers.get(second.id) == second


async def test_a_trigger_moves_to_another_app_with_its_function(store: SqlDatastore) -> None:
    app, other = await store.apps.create(an_app()), await store.apps.create(an_app("other"))
    fn, foreign = await store.fns.create(a_fn(app)), await store.fns.create(a_fn(other))
    trigger = await store.triggers.create(a_trigger(fn))
    moved = await store.triggers.update(trigger.id, TriggerPatch(app_id=other.id, fn_id=foreign.id))
    assert await store.trigger_by_source(other.id, "http", "/pay") == moved


async def test_deleting_a_trigger_frees_its_source(store: SqlDatastore) -> None:
    fn = await store.fns.create(a_fn(await store.apps.create(an_app())))
    trigger = await store.triggers.create(a_trigger(fn))
    await store.triggers.delete(trigger.id)
    for lookup in (
        lambda: store.triggers.get(trigger.id),
        lambda: store.triggers.delete(trigger.id),
        lambda: store.triggers.update(trigger.id, TriggerPatch()),
    ):
        with pytest.raises(TriggerNotFound):
            await lookup()
    await store.triggers.create(a_trigger(fn))


async def test_an_id_is_needed(store: SqlDatastore) -> None:
    for lookup in (
        lambda: store.triggers.get(""),
        lambda: store.triggers.update("", TriggerPatch()),
        lambda: store.triggers.delete(""),
    ):
        with pytest.raises(TriggerMissingID):
            await lookup()
    with pytest.raises(TriggerMissingAppID):
        await store.triggers.list(TriggerFilter(app_id=""))
