"""The SQL datastore passes the suite of all datastores, and the suite finds faults."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hostler.config import StoreConfig
from hostler.datastore import AppFilter, Datastore, Page
from hostler.models import App
from hostler.rules.errors import AppNotFound
from hostler.store import SqlDatastore, open_datastore
from hostler.testing import DATASTORE_CHECKS, ContractBroken, check_datastore


@pytest.mark.parametrize("check", DATASTORE_CHECKS, ids=lambda check: check.__name__)
async def test_datastore(
    store: SqlDatastore, check: Callable[[Datastore], Awaitable[None]]
) -> None:
    await check(store)


class Changed:
    """``inner`` with other attributes."""

    def __init__(self, inner: Any, **others: Any) -> None:
        self._inner = inner
        self.__dict__.update(others)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _kept_in_memory(store: SqlDatastore) -> Any:
    """Gives everybody the same object of an app."""
    kept: dict[str, App] = {}

    async def create(new: App) -> App:
        app = await store.apps.create(new)
        return kept.setdefault(app.id, app)

    async def get(id: str) -> App:
        return kept.setdefault(id, await store.apps.get(id))

    return Changed(store, apps=Changed(store.apps, create=create, get=get))


def _without_ids(store: SqlDatastore) -> Any:
    async def create(new: App) -> App:
        app = await store.apps.create(new)
        app.id = ""
        return app

    return Changed(store, apps=Changed(store.apps, create=create))


def _overwriting(store: SqlDatastore) -> Any:
    async def create(new: App) -> App:
        for app in (await store.apps.list(AppFilter())).items:
            if app.name == new.name:
                return app
        return await store.apps.create(new)

    return Changed(store, apps=Changed(store.apps, create=create))


def _unchecked(store: SqlDatastore) -> Any:
    async def create(new: App) -> App:
        new.id = ""
        return await store.apps.create(new)

    return Changed(store, apps=Changed(store.apps, create=create))


def _finding_the_wrong(store: SqlDatastore) -> Any:
    async def app_id_by_name(name: str) -> str:
        return (await store.app_id_by_name(name))[:-1]

    return Changed(store, app_id_by_name=app_id_by_name)


def _silent(store: SqlDatastore) -> Any:
    async def delete(id: str) -> None:
        try:
            await store.apps.delete(id)
        except AppNotFound:
            return

    return Changed(store, apps=Changed(store.apps, delete=delete))


def _unchanging(store: SqlDatastore) -> Any:
    async def update(id: str, patch: Any) -> App:
        return await store.apps.get(id)

    return Changed(store, apps=Changed(store.apps, update=update))


def _unsorted(store: SqlDatastore) -> Any:
    async def page(where: Any) -> Page[App]:
        found = await store.apps.list(where)
        return Page(list(reversed(found.items)), found.next_cursor)

    return Changed(store, apps=Changed(store.apps, list=page))


def _keeping(store: SqlDatastore) -> Any:
    async def delete(id: str) -> None:
        await store.fns.get(id)

    return Changed(store, fns=Changed(store.fns, delete=delete))


@pytest.mark.parametrize(
    ("fault", "check", "text"),
    [
        (_without_ids, "keeps", "has no id"),
        (_kept_in_memory, "gives_copies", "a caller's change"),
        (_overwriting, "refuses_what_is_taken", "does not raise AppExists"),
        (_unchecked, "refuses_what_is_wrong", "does not raise AppIDProvided"),
        (_finding_the_wrong, "finds", "another id"),
        (_silent, "says_what_is_missing", "apps.delete"),
        (_unchanging, "changes", "makes the config"),
        (_unchanging, "loses_no_change", "changes are lost"),
        (_unsorted, "lists", "the pages have"),
        (_keeping, "removes", "does not raise TriggerNotFound"),
    ],
)
async def test_suite_finds_a_fault(
    tmp_path: Path, fault: Callable[[SqlDatastore], Any], check: str, text: str
) -> None:
    numbers = iter(range(100))

    @asynccontextmanager
    async def open_subject() -> AsyncIterator[Datastore]:
        url = f"sqlite3://{tmp_path}/{next(numbers)}.db"
        async with open_datastore(StoreConfig(db_url=url)) as store:
            yield fault(store)

    with pytest.raises(ExceptionGroup) as caught:
        await check_datastore(open_subject)
    errors = {note.removeprefix("in "): e for e in caught.value.exceptions for note in e.__notes__}
    assert isinstance(errors[check], ContractBroken)
    assert text in str(errors[check])
