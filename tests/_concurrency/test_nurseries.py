"""Blocks with tasks behind them let their user's exceptions out as they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from hostler import wire
from hostler._concurrency.nurseries import is_cancellation, open_background, open_sheltered
from hostler.agent import open_agent
from hostler.config import AgentConfig, StoreConfig
from hostler.drivers.process import open_process_driver
from hostler.drivers.sim import open_sim_driver
from hostler.functions import open_cached_functions
from hostler.lb import open_lb_agent
from hostler.nodes.workers import Place, open_peers
from hostler.pool import ConsistentHashPlacer, open_dns_pool, open_static_pool
from hostler.runner import open_pure_runner
from hostler.store import open_datastore


class Mine(Exception):
    pass


async def raise_over(task: Callable[[], Awaitable[None]]) -> None:
    """Leave a block by an exception once its task waits (or has failed)."""
    async with open_background() as nursery:
        nursery.start_soon(task)
        await trio.testing.wait_all_tasks_blocked()
        raise Mine


async def test_an_exception_of_the_block_is_not_wrapped_and_ends_the_tasks() -> None:
    ended = []

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    with pytest.raises(Mine):
        await raise_over(task)
    assert ended == [True]


async def test_a_regular_end_waits_for_the_tasks(autojump_clock: trio.testing.MockClock) -> None:
    async with open_background() as nursery:
        nursery.start_soon(trio.sleep, 5)
    assert trio.current_time() == 5


async def test_a_cancellation_passes_through() -> None:
    with trio.CancelScope() as scope:
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_failing_tasks_are_a_group_with_the_block_s_own_exception_in_it() -> None:
    async def fail() -> None:
        raise KeyError

    with pytest.raises(ExceptionGroup) as caught:
        await raise_over(fail)
    assert caught.group_contains(KeyError)

    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError

    with pytest.raises(ExceptionGroup) as caught:
        await raise_over(fail_late)
    assert caught.group_contains(KeyError, depth=1)
    assert caught.group_contains(Mine, depth=1)


# --- sheltered tasks -------------------------------------------------------------------------


async def close_with_help(told: list[str]) -> None:
    """A block that, however it ends, closes with the help of a sheltered task."""
    ask, answered = trio.Event(), trio.Event()

    async def help_() -> None:
        await ask.wait()
        await trio.sleep(1)
        answered.set()
        try:
            await trio.sleep_forever()
        finally:
            told.append("ended")

    async with open_sheltered() as nursery:
        nursery.start_soon(help_)
        try:
            await trio.sleep(10)
            if trio.current_time() < 20:
                raise Mine
        finally:
            with trio.CancelScope(shield=True):
                ask.set()
                await answered.wait()
                told.append("closed")


@pytest.mark.parametrize("cancelled_after", [0, 5])
async def test_sheltered_tasks_help_a_cancelled_block_to_close_and_end_then(
    autojump_clock: trio.testing.MockClock, cancelled_after: float
) -> None:
    told: list[str] = []
    with trio.move_on_after(cancelled_after) as scope:
        await close_with_help(told)
    assert scope.cancelled_caught
    assert told == ["closed", "ended"]
    assert trio.current_time() == cancelled_after + 1


async def test_they_help_a_block_that_fails_and_one_that_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[str] = []
    with pytest.raises(Mine):
        await close_with_help(told)
    await trio.sleep(10)
    await close_with_help(told)
    assert told == ["closed", "ended"] * 2


async def test_one_that_fails_cancels_the_block_and_tells_why() -> None:
    async def fail() -> None:
        raise KeyError

    reached = []

    async def run() -> None:
        async with open_sheltered() as nursery:
            nursery.start_soon(fail)
            try:
                await trio.sleep_forever()
            finally:
                reached.append(True)

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(KeyError)
    assert reached == [True]


# --- what leaves them ------------------------------------------------------------------------


@pytest.mark.process
async def test_an_exception_comes_out_of_whole_nodes_as_it_is(tmp_path: Path) -> None:
    place = Place(number=0, count=1, listeners=(), ready=0, orders=0, folder=str(tmp_path))
    with pytest.raises(Mine):
        async with (
            wire.open_loop(),
            open_process_driver(),
            open_sim_driver() as driver,
            open_agent(driver, config=AgentConfig(iofs_path=str(tmp_path)), grace=0) as agent,
            open_pure_runner(agent, "127.0.0.1:0") as runner,
            open_static_pool([runner.address]),
            open_dns_pool([runner.address]) as pool,
            open_lb_agent(pool, ConsistentHashPlacer()),
            open_datastore(StoreConfig(db_url="sqlite3://:memory:")) as store,
            open_cached_functions(store),
            open_peers(place),
        ):
            raise Mine


async def test_a_cancellation_is_one_in_any_number_of_groups_but_not_beside_an_error() -> None:
    seen: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            async with trio.open_nursery(), trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
        except BaseException as error:
            seen.append(error)
            raise
    (group,) = seen
    assert isinstance(group, BaseExceptionGroup)
    assert is_cancellation(group)
    assert not is_cancellation(BaseExceptionGroup("", [group, Mine()]))
    assert not is_cancellation(KeyboardInterrupt())
    assert not is_cancellation(Mine())
