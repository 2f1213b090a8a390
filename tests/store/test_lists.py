from __future__ import annotations

import pytest

from hostler.datastore import AppFilter, FnFilter, TriggerFilter
from hostler.models import Trigger
from hostler.rules import PageCursor, encode_cursor
from hostler.rules.errors import InvalidCursor
from hostler.store import SqlDatastore

from .things import a_fn, a_trigger, an_app

NAMES = ["a", "Z", "z", "_", "-", "7", "aa", "a-b", "a_b", "aB", "é", "𐐀", "\uff21", "名"]
"""Among them one whose UTF-16 form sorts otherwise than its code points, as \ud801 < \uff21."""


async def _all_apps(store: SqlDatastore, per_page: int) -> list[list[str]]:
    pages, cursor = [], ""
    while True:
        page = await store.apps.list(AppFilter(per_page=per_page, cursor=cursor))
        pages.append([app.name for app in page.items])
        cursor = page.next_cursor
        if not cursor:
            return pages


async def test_names_are_ordered_by_their_bytes_on_every_database(store: SqlDatastore) -> None:
    for name in NAMES:
        await store.apps.create(an_app(name))
    expected = sorted(NAMES, key=str.encode)
    assert await _all_apps(store, 0) == [expected]
    assert await _all_apps(store, 5) == [expected[:5], expected[5:10], expected[10:]]
    assert await _all_apps(store, -1) == [expected]


async def test_a_full_page_has_a_cursor_also_if_it_is_the_last(store: SqlDatastore) -> None:
    for name in ("a", "b"):
        await store.apps.create(an_app(name))
    page = await store.apps.list(AppFilter(per_page=2))
    assert page.next_cursor == encode_cursor(PageCursor("b")) == "Yg"
    last = await store.apps.list(AppFilter(per_page=2, cursor=page.next_cursor))
    assert (last.items, last.next_cursor) == ([], "")


@pytest.mark.parametrize("cursor", ["!", "a", "YQ==", "_w", "YQ Yg", "YQBiAGM"])
async def test_weakness_05_7_a_bad_cursor_is_a_400(store: SqlDatastore, cursor: str) -> None:
    app = await store.apps.create(an_app())
    for listing in (
        lambda: store.apps.list(AppFilter(cursor=cursor)),
        lambda: store.fns.list(FnFilter(app_id=app.id, cursor=cursor)),
        lambda: store.triggers.list(TriggerFilter(app_id=app.id, cursor=cursor)),
    ):
        with pytest.raises(InvalidCursor) as caught:
            await listing()
        assert caught.value.code == 400


async def test_conditions_are_anded(store: SqlDatastore) -> None:
    app, other = await store.apps.create(an_app()), await store.apps.create(an_app("other"))
    one, two = await store.fns.create(a_fn(app, "one")), await store.fns.create(a_fn(app, "two"))
    foreign = await store.fns.create(a_fn(other, "one"))
    a = await store.triggers.create(a_trigger(one, "a", "/1"))
    b = await store.triggers.create(a_trigger(two, "a", "/2"))
    c = await store.triggers.create(a_trigger(two, "c", "/3"))
    assert [*(await store.apps.list(AppFilter(name="other"))).items] == [other]
    assert [*(await store.fns.list(FnFilter(app_id=app.id))).items] == [one, two]
    assert [*(await store.fns.list(FnFilter(app_id=other.id, name="one"))).items] == [foreign]
    for where, expected in (
        (TriggerFilter(app_id=app.id), [a, b, c]),
        (TriggerFilter(app_id=app.id, fn_id=two.id), [b, c]),
        (TriggerFilter(app_id=app.id, fn_id=two.id, name="a"), [b]),
        (TriggerFilter(app_id=app.id, fn_id=foreign.id), []),
        (TriggerFilter(app_id=app.id, name="a", cursor="Yg"), []),
    ):
        assert [*(await store.triggers.list(where)).items] == expected


@pytest.mark.parametrize("per_page", [1, 2, 3])
async def test_no_trigger_is_skipped_between_pages_if_names_are_the_same(
    store: SqlDatastore, per_page: int
) -> None:
    """Fn's cursor is a name alone, and skips the rest of the triggers of that name."""
    app = await store.apps.create(an_app())
    expected = []
    for number in range(4):
        fn = await store.fns.create(a_fn(app, f"fn{number}"))
        expected.append(await store.triggers.create(a_trigger(fn, "same", f"/{number}")))
    fn = await store.fns.create(a_fn(app, "last"))
    expected.append(await store.triggers.create(a_trigger(fn, "zz", "/last")))
    found: list[Trigger] = []
    cursor = ""
    while True:
        where = TriggerFilter(app_id=app.id, per_page=per_page, cursor=cursor)
        page = await store.triggers.list(where)
        found += page.items
        cursor = page.next_cursor
        if not cursor:
            break
    assert found == expected
