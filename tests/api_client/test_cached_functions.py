"""Looking functions up: cached, one question at a time, and through failures of whom it asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from hostler.config import ApiConfig
from hostler.errors import APIError, FnNotFound
from hostler.functions import CachedFunctions, open_cached_functions
from hostler.models import App, Fn, Trigger
from hostler.rules.errors import AppNotFound, DatastoreUnavailable, TriggerNotFound
from tests.conftest import Logs

Clock = trio.testing.MockClock
TTL, MISSING, STALE = 5, 1, 600


@attrs.define
class Things:
    """Apps or functions of a `Registry`."""

    ask: Callable[[str], Awaitable[None]]
    kind: str
    missing: type[APIError]
    items: dict[str, Any]

    async def get(self, id: str) -> Any:
        await self.ask(f"{self.kind} {id}")
        if id not in self.items:
            raise self.missing
        return self.items[id]


class Registry:
    """Apps and functions whose look-ups take as long, and fail, as the test wants."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.cancelled = 0
        self.delay = 0.0
        self.error: Exception | None = None
        fn = Fn(id="f", name="fn", app_id="a", image="1")
        self.fns = Things(self._ask, "fn", FnNotFound, {"f": fn})
        self.apps = Things(self._ask, "app", AppNotFound, {"a": App(id="a", name="app")})
        self.of_source = {
            ("a", "/s"): Trigger(id="t", name="t", app_id="a", fn_id="f", type="http", source="/s")
        }

    async def _ask(self, what: str) -> None:
        self.asked[what] += 1
        try:
            await trio.sleep(self.delay)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error

    async def app_id_by_name(self, name: str) -> str:
        await self._ask(f"name {name}")
        for id, app in self.apps.items.items():
            if app.name == name:
                return id
        raise AppNotFound

    async def trigger_by_source(self, app_id: str, type: str, source: str) -> Trigger:
        await self._ask(f"trigger {app_id} {type} {source}")
        if (app_id, source) not in self.of_source:
            raise TriggerNotFound
        return self.of_source[app_id, source]


@asynccontextmanager
async def opened(**config: Any) -> AsyncIterator[tuple[Registry, CachedFunctions]]:
    registry = Registry()
    store: Any = registry
    async with open_cached_functions(store, ApiConfig(**config)) as functions:
        yield registry, functions


async def image(functions: CachedFunctions, fn_id: str = "f") -> str:
    _, fn = await functions.find(fn_id)
    return fn.image


async def in_parallel(count: int, function: Callable[[], Awaitable[object]]) -> list[object]:
    results: list[object] = []

    async def one() -> None:
        try:
            results.append(await function())
        except APIError as error:
            results.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return results


async def test_answers_are_kept_for_five_seconds(autojump_clock: Clock) -> None:
    async with opened() as (registry, functions):
        for _ in range(3):
            app, fn = await functions.find("f")
            assert (app.name, fn.name) == ("app", "fn")
        assert registry.asked == {"fn f": 1, "app a": 1}
        registry.fns.items["f"] = Fn(id="f", name="fn", app_id="a", image="2")
        await trio.sleep(TTL - 0.01)
        assert await image(functions) == "1"
        await trio.sleep(0.02)
        assert await image(functions) == "2"
        assert registry.asked == {"fn f": 2, "app a": 2}


async def test_the_four_reads_of_a_trigger(autojump_clock: Clock) -> None:
    async with opened() as (registry, functions):
        for _ in range(2):
            app, fn, trigger = await functions.find_trigger("app", "/s")
            assert (app.id, fn.id, trigger.id) == ("a", "f", "t")
        assert registry.asked == {"name app": 1, "app a": 1, "trigger a http /s": 1, "fn f": 1}
        with pytest.raises(AppNotFound):
            await functions.find_trigger("other", "/s")
        with pytest.raises(TriggerNotFound):
            await functions.find_trigger("app", "/other")


async def test_many_at_once_ask_once(autojump_clock: Clock) -> None:
    async with opened() as (registry, functions):
        registry.delay = 1
        images = await in_parallel(100, lambda: image(functions))
        assert images == ["1"] * 100
        assert registry.asked == {"fn f": 1, "app a": 1}


async def test_who_stops_waiting_does_not_end_the_question_of_others(autojump_clock: Clock) -> None:
    async with opened() as (registry, functions):
        registry.delay = 1
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.5) as first:
                nursery.start_soon(in_parallel, 2, lambda: image(functions))
                await image(functions)
            assert first.cancelled_caught
        assert (registry.asked["fn f"], registry.cancelled) == (1, 0)
        assert await image(functions) == "1"
        assert registry.asked["fn f"] == 1


async def test_a_question_that_nobody_waits_for_is_dropped(autojump_clock: Clock) -> None:
    async with opened() as (registry, functions):
        registry.delay = 100
        begin = trio.current_time()
        for _ in range(3):
            with trio.move_on_after(1):
                await image(functions)
        await trio.testing.wait_all_tasks_blocked()
        assert (registry.asked["fn f"], registry.cancelled) == (3, 3)
        assert functions._fns.in_flight == 0
        assert trio.current_time() - begin < 10


async def test_one_failure_reaches_all_who_waited_each_with_an_error_of_its_own(
    autojump_clock: Clock,
) -> None:
    async with opened() as (registry, functions):
        registry.error = DatastoreUnavailable()
        registry.delay = 1
        errors = await in_parallel(3, lambda: image(functions))
        assert [type(error) for error in errors] == [DatastoreUnavailable] * 3
        assert len({id(error) for error in errors}) == 3
        assert registry.asked["fn f"] == 1
        registry.error = None
        assert await image(functions) == "1"  # failures are not kept


async def test_old_answers_are_used_while_asking_fails_up_to_an_age(
    autojump_clock: Clock, logs: Logs
) -> None:
    async with opened() as (registry, functions):
        await image(functions)
        await trio.sleep(TTL)
        registry.error = DatastoreUnavailable()
        for _ in range(200):
            assert await image(functions) == "1"
            await trio.sleep(0.01)
        assert registry.asked["fn f"] <= 4  # about once a second, and not for each call
        (line,) = [line for line in logs.with_event("look-ups fail") if line["key"] == "f"]
        assert line["log_level"] == "warning"
        registry.error = None
        await trio.sleep(2)
        registry.fns.items["f"] = Fn(id="f", name="fn", app_id="a", image="2")
        assert await image(functions) == "2"
        assert logs.with_event("look-ups succeed again")
        registry.error = DatastoreUnavailable()
        await trio.sleep(TTL + STALE - 1)
        assert await image(functions) == "2"
        await trio.sleep(2)
        with pytest.raises(DatastoreUnavailable):
            await image(functions)


async def test_a_slow_answer_does_not_hold_up_who_has_an_old_one(autojump_clock: Clock) -> None:
    async with opened() as (registry, functions):
        await image(functions)
        await trio.sleep(TTL)
        registry.delay = 10
        registry.fns.items["f"] = Fn(id="f", name="fn", app_id="a", image="2")
        begin = trio.current_time()
        assert await image(functions) == "1"
        assert trio.current_time() - begin <= 1.1  # half a second for each of its two look-ups
        assert await image(functions) == "1"
        assert trio.current_time() - begin <= 1.1
        await trio.sleep(10)  # the question went on, though nobody waited for it
        assert (await image(functions), registry.cancelled) == ("2", 0)
        assert registry.asked["fn f"] == 2


async def test_what_is_not_there_is_remembered_for_a_second(autojump_clock: Clock) -> None:
    async with opened() as (registry, functions):
        for _ in range(5):
            with pytest.raises(FnNotFound):
                await image(functions, "g")
        assert registry.asked == {"fn g": 1}
        registry.fns.items["g"] = Fn(id="g", name="g", app_id="a", image="new")
        await trio.sleep(MISSING)
        assert await image(functions, "g") == "new"


async def test_what_was_deleted_is_gone_though_there_is_an_old_answer(
    autojump_clock: Clock,
) -> None:
    async with opened() as (registry, functions):
        await image(functions)
        del registry.fns.items["f"]
        await trio.sleep(TTL)
        with pytest.raises(FnNotFound):
            await image(functions)
        await trio.sleep(MISSING)
        registry.error = DatastoreUnavailable()
        with pytest.raises(DatastoreUnavailable):  # and does not come back
            await image(functions)


async def test_the_number_of_answers_is_bounded_and_the_least_used_goes(
    autojump_clock: Clock,
) -> None:
    async with opened(lookup_size=3) as (registry, functions):
        for number in range(4):
            registry.fns.items[f"f{number}"] = Fn(id=f"f{number}", name="x", app_id="a", image="i")
        for fn_id in ("f0", "f1", "f2", "f0", "f3", "f0", "f2"):
            await image(functions, fn_id)
        assert len(functions._fns) == 3
        assert registry.asked["fn f0"] == 1
        await image(functions, "f1")
        assert registry.asked["fn f1"] == 2


async def test_asking_for_what_is_not_there_pushes_nothing_out(autojump_clock: Clock) -> None:
    async with opened(lookup_size=3) as (registry, functions):
        await image(functions)
        for number in range(2000):
            with pytest.raises(FnNotFound):
                await image(functions, f"none{number}")
        assert len(functions._fns._missing) == 1000
        await image(functions)
        assert registry.asked["fn f"] == 1


async def test_after_a_change_everything_is_asked_anew(autojump_clock: Clock) -> None:
    async with opened() as (registry, functions):
        await image(functions)
        with pytest.raises(FnNotFound):
            await image(functions, "g")
        registry.fns.items["g"] = Fn(id="g", name="g", app_id="a", image="new")
        registry.fns.items["f"] = Fn(id="f", name="fn", app_id="a", image="2")
        functions.clear()
        assert (await image(functions), await image(functions, "g")) == ("2", "new")


async def test_an_answer_on_its_way_when_something_changes_is_not_kept(
    autojump_clock: Clock,
) -> None:
    async with opened() as (registry, functions):
        registry.delay = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functions.find, "f")
            await trio.sleep(0.5)
            functions.clear()
        assert registry.asked["fn f"] == 1
        await image(functions)
        assert registry.asked["fn f"] == 2


async def test_an_internal_error_is_raised_or_logged_but_never_lost(
    autojump_clock: Clock, logs: Logs
) -> None:
    async with opened() as (registry, functions):
        registry.error = ValueError("broken")
        with pytest.raises(ValueError, match="broken"):
            await image(functions)
        registry.error = None
        await image(functions)
        await trio.sleep(TTL)
        registry.error = ValueError("broken again")
        assert await image(functions) == "1"
    logs.expect_error("internal error in a look-up")
    logs.expect_error("internal error in a look-up")


async def test_closing_ends_questions_and_tells_who_waits(autojump_clock: Clock) -> None:
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        async with opened() as (registry, functions):
            registry.delay = 100

            async def wait() -> None:
                with pytest.raises(DatastoreUnavailable):
                    await image(functions)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
        assert registry.cancelled == 1
        assert trio.current_time() - begin < 1
