from __future__ import annotations

import msgspec
import pytest

from hostler.datastore import AppFilter, AppPatch, FnFilter, TriggerFilter
from hostler.rules.errors import (
    AppExists,
    AppIDMismatch,
    AppInvalidShape,
    AppMissingID,
    AppNameImmutable,
    AppNotFound,
    FnNotFound,
    InvalidSyslogURL,
    TriggerNotFound,
)
from hostler.store import SqlDatastore
from tests.support.ids import parse_id

from .things import a_fn, a_trigger, an_app, raw


async def test_an_app_is_kept_as_it_was_given(store: SqlDatastore) -> None:
    given = an_app(
        "Ünïcode-名前_7",
        config={"A": "", "B": "ü😀", "C": "nul\0and\nline"},
        annotations=raw(x_y='{"b": 1.50, "a": [1, "\\u00e9 😀"]}', z="true"),
        syslog_url="tcp://logs:514",
        shape="GENERIC_ARM",
    )
    made = await store.apps.create(given)
    parse_id(made.id)
    assert made.created_at == made.updated_at is not None
    assert made.config == given.config
    assert bytes(made.annotations["x/y"]) == '{"b":1.50,"a":[1,"\\u00e9 😀"]}'.encode()
    assert (made.name, made.syslog_url, made.shape) == (
        "Ünïcode-名前_7",
        "tcp://logs:514",
        "GENERIC_ARM",
    )
    assert await store.apps.get(made.id) == made
    assert await store.app_id_by_name("Ünïcode-名前_7") == made.id
    assert given.id == ""


async def test_a_name_is_taken_once_whatever_else_looks_like_it(store: SqlDatastore) -> None:
    names = ["shop", "Shop", "shöp", "shop_"]
    ids = {name: (await store.apps.create(an_app(name))).id for name in names}
    with pytest.raises(AppExists):
        await store.apps.create(an_app("Shop"))
    for name in names:
        assert await store.app_id_by_name(name) == ids[name]


@pytest.mark.parametrize("key", ["", "nothing", "SHOP", "shop ", "sh\0op", "\ud800", "x" * 3000])
async def test_what_is_not_there_is_not_found(store: SqlDatastore, key: str) -> None:
    app = await store.apps.create(an_app())
    for lookup in (
        lambda: store.app_id_by_name(key),
        lambda: store.apps.get(key or "x"),
        lambda: store.apps.update(key or "x", AppPatch()),
        lambda: store.apps.delete(key or "x"),
    ):
        with pytest.raises(AppNotFound):
            await lookup()
    assert (await store.apps.list(AppFilter(name=key or "x"))).items == []
    assert await store.apps.get(app.id) == app


async def test_an_id_is_needed(store: SqlDatastore) -> None:
    for lookup in (
        lambda: store.apps.get(""),
        lambda: store.apps.update("", AppPatch()),
        lambda: store.apps.delete(""),
    ):
        with pytest.raises(AppMissingID):
            await lookup()


async def test_an_update_merges_and_moves_the_date(store: SqlDatastore) -> None:
    app = await store.apps.create(
        an_app(
            config={"keep": "1", "change": "2", "drop": "3"},
            annotations=raw(keep="1", change='"2"', drop="3"),
            syslog_url="udp://a:1",
        )
    )
    patch = AppPatch(
        id=app.id,
        name=app.name,
        config={"change": "x", "drop": "", "never": ""},
        annotations=raw(change='{"z": 1, "a": 2}', drop="null", never='""'),
        syslog_url="",
    )
    changed = await store.apps.update(app.id, patch)
    assert changed.config == {"keep": "1", "change": "x"}
    assert changed.annotations == raw(keep="1", change='{"z":1,"a":2}')
    assert changed.syslog_url == ""
    assert changed.created_at == app.created_at
    assert changed.updated_at is not None
    assert app.updated_at is not None
    assert changed.updated_at > app.updated_at
    assert await store.apps.get(app.id) == changed


async def test_an_update_without_a_change_moves_nothing(store: SqlDatastore) -> None:
    app = await store.apps.create(an_app(config={"a": "1"}, annotations=raw(k='{"a":[1]}')))
    for patch in (
        AppPatch(),
        AppPatch(config={"a": "1", "b": ""}),
        AppPatch(annotations=raw(k='{"a": [ 1 ]}', x="null")),
        AppPatch(syslog_url=""),
    ):
        assert await store.apps.update(app.id, patch) == app
    assert await store.apps.get(app.id) == app


async def test_the_order_of_members_is_a_change(store: SqlDatastore) -> None:
    app = await store.apps.create(an_app(annotations=raw(k='{"a":1,"b":2}')))
    changed = await store.apps.update(app.id, AppPatch(annotations=raw(k='{"b":2,"a":1}')))
    assert changed.annotations["k"] == msgspec.Raw(b'{"b":2,"a":1}')
    assert changed.updated_at != app.updated_at


async def test_a_refused_update_changes_nothing(store: SqlDatastore) -> None:
    app = await store.apps.create(an_app())
    other = await store.apps.create(an_app("other"))
    with pytest.raises(AppIDMismatch):
        await store.apps.update(app.id, AppPatch(id=other.id, config={"a": "1"}))
    with pytest.raises(AppNameImmutable):
        await store.apps.update(app.id, AppPatch(name="new", config={"a": "1"}))
    with pytest.raises(InvalidSyslogURL, match=r'^invalid syslog url: "http://x" invalid scheme'):
        await store.apps.update(app.id, AppPatch(syslog_url="http://x", config={"a": "1"}))
    with pytest.raises(AppInvalidShape):
        await store.apps.create(an_app("third", shape="GENERIC_Z80"))
    assert [*(await store.apps.list(AppFilter())).items] == [other, app]


async def test_deleting_an_app_removes_its_functions_and_triggers(store: SqlDatastore) -> None:
    app, other = await store.apps.create(an_app()), await store.apps.create(an_app("other"))
    fn, kept = await store.fns.create(a_fn(app)), await store.fns.create(a_fn(other))
    trigger = await store.triggers.create(a_trigger(fn))
    kept_trigger = await store.triggers.create(a_trigger(kept))
    await store.apps.delete(app.id)
    with pytest.raises(AppNotFound):
        await store.apps.delete(app.id)
    with pytest.raises(FnNotFound):
        await store.fns.get(fn.id)
    with pytest.raises(TriggerNotFound):
        await store.triggers.get(trigger.id)
    assert (await store.fns.list(FnFilter(app_id=app.id))).items == []
    assert (await store.triggers.list(TriggerFilter(app_id=app.id))).items == []
    assert await store.find(kept.id) == (other, kept)
    assert await store.triggers.get(kept_trigger.id) == kept_trigger


async def test_large_values_come_back(store: SqlDatastore) -> None:
    config = {f"K{number}": "ü" * 1000 for number in range(450)}
    app = await store.apps.create(an_app(config=config))
    assert (await store.apps.get(app.id)).config == config
