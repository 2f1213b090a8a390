"""Operations at the same time: from several nodes, which know nothing of each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import trio

from hostler.config import StoreConfig
from hostler.datastore import AppFilter, AppPatch, FnFilter, FnPatch, TriggerPatch
from hostler.errors import APIError
from hostler.rules.errors import (
    AppExists,
    AppNotFound,
    FnExists,
    FnNotFound,
    TriggerExists,
    TriggerSourceExists,
)
from hostler.store import SqlDatastore, open_datastore

from .things import a_fn, a_trigger, an_app, raw

Nodes = list[SqlDatastore]


@pytest.fixture
async def nodes(url: str) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        config = StoreConfig(db_url=url, db_pool_size=4, db_timeout=60)
        yield [await stack.enter_async_context(open_datastore(config)) for _ in range(2)]


async def _all(*operations: Callable[[], Awaitable[object]]) -> Counter[str]:
    """Run all at once, and count what came of them."""
    outcomes: Counter[str] = Counter()

    async def one(operation: Callable[[], Awaitable[object]]) -> None:
        try:
            await operation()
        except APIError as error:
            outcomes[type(error).__name__] += 1
        else:
            outcomes["done"] += 1

    async with trio.open_nursery() as nursery:
        for operation in operations:
            nursery.start_soon(one, operation)
    return outcomes


async def test_no_update_is_lost(nodes: Nodes) -> None:
    app = await nodes[0].apps.create(an_app())
    fn = await nodes[0].fns.create(a_fn(app))

    def app_update(number: int) -> Callable[[], Awaitable[object]]:
        patch = AppPatch(config={f"K{number}": "1"}, annotations=raw(**{f"k{number}": "1"}))
        return lambda: nodes[number % 2].apps.update(app.id, patch)

    def fn_update(number: int) -> Callable[[], Awaitable[object]]:
        patch = FnPatch(config={f"K{number}": "1"})
        return lambda: nodes[number % 2].fns.update(fn.id, patch)

    numbers = range(16)
    updates = [update(number) for number in numbers for update in (app_update, fn_update)]
    assert await _all(*updates) == {"done": 32}
    changed_app, changed_fn = await nodes[1].find(fn.id)
    assert changed_app.config == changed_fn.config == {f"K{number}": "1" for number in numbers}
    assert set(changed_app.annotations) == {f"k{number}" for number in numbers}


async def test_one_of_many_gets_the_name(nodes: Nodes) -> None:
    def create(number: int) -> Callable[[], Awaitable[object]]:
        return lambda: nodes[number % 2].apps.create(an_app())

    assert await _all(*map(create, range(12))) == {"done": 1, AppExists.__name__: 11}
    (app,) = (await nodes[0].apps.list(AppFilter())).items

    def create_fn(number: int) -> Callable[[], Awaitable[object]]:
        return lambda: nodes[number % 2].fns.create(a_fn(app))

    assert await _all(*map(create_fn, range(12))) == {"done": 1, FnExists.__name__: 11}
    (fn,) = (await nodes[0].fns.list(FnFilter(app_id=app.id))).items

    def create_trigger(number: int) -> Callable[[], Awaitable[object]]:
        same = {"source": "/same"} if number < 6 else {"name": "same"}
        other = {"name": f"n{number}"} if number < 6 else {"source": f"/{number}"}
        return lambda: nodes[number % 2].triggers.create(a_trigger(fn, **same, **other))

    assert await _all(*map(create_trigger, range(12))) == {
        "done": 2,
        TriggerSourceExists.__name__: 5,
        TriggerExists.__name__: 5,
    }


async def test_one_of_many_triggers_gets_the_source_by_an_update(nodes: Nodes) -> None:
    fn = await nodes[0].fns.create(a_fn(await nodes[0].apps.create(an_app())))
    made = [
        await nodes[0].triggers.create(a_trigger(fn, f"n{number}", f"/{number}"))
        for number in range(6)
    ]

    def update(number: int) -> Callable[[], Awaitable[object]]:
        patch = TriggerPatch(source="/same")
        return lambda: nodes[number % 2].triggers.update(made[number].id, patch)

    assert await _all(*map(update, range(6))) == {"done": 1, TriggerSourceExists.__name__: 5}


async def test_nothing_is_made_in_what_is_being_deleted(nodes: Nodes) -> None:
    """Each either comes before the deletion, and is deleted too, or is told that it is too late."""
    app = await nodes[0].apps.create(an_app())
    fn = await nodes[0].fns.create(a_fn(app))

    def create_fn(number: int) -> Callable[[], Awaitable[object]]:
        return lambda: nodes[number % 2].fns.create(a_fn(app, f"f{number}"))

    def create_trigger(number: int) -> Callable[[], Awaitable[object]]:
        trigger = a_trigger(fn, f"t{number}", f"/{number}")
        return lambda: nodes[number % 2].triggers.create(trigger)

    creations = [make(number) for number in range(8) for make in (create_fn, create_trigger)]
    half = len(creations) // 2
    outcomes = await _all(
        *creations[:half], lambda: nodes[0].apps.delete(app.id), *creations[half:]
    )
    assert set(outcomes) <= {"done", AppNotFound.__name__, FnNotFound.__name__}
    assert sum(outcomes.values()) == len(creations) + 1
    with pytest.raises(FnNotFound):
        await nodes[1].fns.get(fn.id)
    assert (await nodes[1].fns.list(FnFilter(app_id=app.id))).items == []


async def test_readers_do_not_wait_for_a_writer(nodes: Nodes) -> None:
    app = await nodes[0].apps.create(an_app())

    async def write(number: int) -> object:
        return await nodes[0].apps.update(app.id, AppPatch(config={"n": str(number)}))

    async def read() -> object:
        return await nodes[1].apps.get(app.id)

    operations = [lambda n=number: write(n) for number in range(10)]
    assert await _all(*operations, *[read] * 30) == {"done": 40}
