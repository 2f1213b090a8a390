"""What runners tell of their load by themselves: waiting calls hear of room without asking."""

from __future__ import annotations

import gc
import random
from collections.abc import AsyncGenerator

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from hostler.abc import Runner, RunnerCall, RunnerPool
from hostler.config import PlacerConfig, PoolConfig
from hostler.errors import RunnerClosed
from hostler.pool import CallNeed, LoadTracker, NaivePlacer
from hostler.pool.dynamic import LoadBroadcast, LoadWatch
from hostler.pool.placer import PROBES
from hostler.protocol import EngagementFailed, LoadHint, NotSent

from .fakes import FakeRunner, TellingPool, fresh_metrics, make_call
from .placers import is_idle, make, occupy

MIB = 2**20
FN = CallNeed("fn", memory=128 * MIB, idle_seconds=30)
FULL = LoadHint(complete=True)


def room(megabytes: int) -> LoadHint:
    return LoadHint(free_memory=megabytes * MIB, complete=True)


def test_a_runner_that_tells_is_full_or_not() -> None:
    book = LoadTracker()
    assert not book.is_full("a", FN, 0)
    book.note("a", room(100), 0)
    assert book.is_full("a", FN, 1000)  # this does not age
    book.note("a", LoadHint(free_memory=100 * MIB, reclaimable_memory=28 * MIB, complete=True), 0)
    assert not book.is_full("a", FN, 0)
    book.begin("a", FN, 0)  # takes that
    assert book.is_full("a", FN, 0)
    book.note("a", room(200), 0)
    assert not book.is_full("a", FN, 0)


def test_a_runner_that_is_not_heard_any_more_is_not_known_to_be_full() -> None:
    book = LoadTracker()
    book.note("a", FULL, 0)
    book.note("a", None, 0)
    book.note("b", None, 0)
    assert not book.is_full("a", FN, 0)
    assert not book.is_full("b", FN, 0)


def test_a_runner_without_cpus_is_full_for_who_needs_them() -> None:
    book = LoadTracker()
    two = attrs.evolve(FN, key="two", cpus=2000)
    book.note("a", LoadHint(free_memory=2**30, free_cpus=1000, complete=True), 0)
    assert (book.is_full("a", two, 0), book.is_full("a", FN, 0)) == (True, False)
    assert not book.has_room("a", two, 0)
    book.note("a", LoadHint(free_memory=2**30, free_cpus=1000, reclaimable_cpus=1000), 0)
    assert not book.is_full("a", two, 0)
    assert not book.has_room("a", two, 0)  # not without an eviction
    book.begin("a", two, 0)  # takes that
    assert book.is_full("a", two, 0)
    book.note("a", LoadHint(free_memory=2**30, complete=True), 0)
    assert not book.is_full("a", two, 0)  # it does not tell


async def test_room_without_cpus_wakes_only_who_needs_none(autojump_clock: MockClock) -> None:
    runner = FakeRunner(slots=0, seconds=60)
    placer, pool = make(), TellingPool([runner])
    pool.add_load_listener(placer)
    pool.news.tell(runner, LoadHint(complete=True, free_cpus=0))
    hungry, modest = make_call("hungry"), make_call("modest")
    hungry.model.cpus = 2000
    async with trio.open_nursery() as nursery:
        await occupy(nursery, placer, pool, hungry, modest)
        await trio.sleep(60)  # now probes are rare
        runner.slots = 2
        pool.news.tell(runner, LoadHint(free_memory=2**30, free_cpus=1000, complete=True))
        await trio.sleep(0.002)
        assert runner.order == ["modest"]
        pool.news.tell(runner, LoadHint(free_memory=2**30, free_cpus=2000, complete=True))
        await trio.sleep(0.01)
        assert runner.order == ["modest", "hungry"]
        nursery.cancel_scope.cancel()


async def test_of_many_lines_one_call_probes_the_runners_that_are_full(
    autojump_clock: MockClock,
) -> None:
    """Not one for each line: with hundreds of functions waiting that would be hundreds."""
    runner = FakeRunner(slots=0, seconds=60)
    placer, pool = make(), TellingPool([runner])
    pool.add_load_listener(placer)
    pool.news.tell(runner, FULL)
    calls = [make_call(f"c{number}") for number in range(20)]
    for number, call in enumerate(calls):
        call.model.fn_id = f"fn{number}"
    async with trio.open_nursery() as nursery:
        await occupy(nursery, placer, pool, *calls)
        await trio.sleep(60)
        assert 10 < calls[0].attempts <= 2 + 62 * PROBES / PlacerConfig().retry_max_delay
        # Only while the first is under way another one may.
        assert sum(call.attempts for call in calls[1:]) <= 5
        nursery.cancel_scope.cancel()


async def test_room_wakes_as_many_waiting_calls_as_fit(autojump_clock: MockClock) -> None:
    """While the runner says that it is full hardly anything is tried, at Fn 145 times each."""
    runner = FakeRunner(slots=0, seconds=60)
    placer, pool = make(), TellingPool([runner])
    pool.add_load_listener(placer)
    pool.news.tell(runner, FULL)
    calls = [make_call(f"c{number}") for number in range(20)]
    async with trio.open_nursery() as nursery:
        await occupy(nursery, placer, pool, *calls)
        await trio.sleep(60)
        assert placer.statistics().waiting == 20
        probes = runner.attempts.total()
        assert probes <= 2 + 62 * PROBES / PlacerConfig().retry_max_delay
        runner.slots = 3
        pool.news.tell(runner, room(3 * 128 + 100))
        await trio.sleep(0.01)
        assert (runner.active, runner.attempts.total()) == (3, probes + 3)
        assert sorted(runner.order) == [call.model.id for call in calls[:3]]
        nursery.cancel_scope.cancel()
    assert is_idle(placer)


async def test_a_new_call_passes_over_runners_that_are_full(autojump_clock: MockClock) -> None:
    full = [FakeRunner(f"full:{number}", slots=0) for number in range(5)]
    free = FakeRunner("free:1", seconds=0)
    placer, pool = make(), TellingPool([*full, free])
    pool.add_load_listener(placer)
    for runner in full:
        pool.news.tell(runner, FULL)
    for number in range(20):
        call = make_call(f"c{number}")
        await placer.place_call(pool, call)
        assert call.attempts == 1


async def test_news_are_repeated_to_new_listeners_that_are_not_kept_alive() -> None:
    placer = NaivePlacer(metrics=fresh_metrics())
    runner = FakeRunner()
    pool = TellingPool([runner])
    pool.news.tell(runner, None)  # nothing was known
    pool.news.tell(runner, FULL)
    pool.add_load_listener(placer)
    pool.add_load_listener(placer)
    assert placer.loads.is_full(runner.address, FN, 0)
    assert repr(pool.news) == "<LoadBroadcast listeners=1 runners=1>"
    del placer
    gc.collect()
    pool.news.tell(runner, None)
    assert repr(pool.news) == "<LoadBroadcast listeners=0 runners=0>"


class Speaker(FakeRunner):
    """Tells one hint and fails, as the script says."""

    def __init__(self, *ends: Exception | None) -> None:
        super().__init__()
        self.ends = list(ends)
        self.asked: list[float] = []

    async def watch_load(self) -> AsyncGenerator[LoadHint, None]:
        self.asked.append(trio.current_time())
        await trio.sleep(1)
        end = self.ends.pop(0)
        if isinstance(end, NotSent | RunnerClosed):
            raise end
        yield FULL
        if end is not None:
            raise end


class News(LoadBroadcast):
    """Keeps what a watch tells."""

    def __init__(self) -> None:
        super().__init__(TellingPool([]))
        self.told: list[LoadHint | None] = []

    def tell(self, runner: Runner, hint: LoadHint | None) -> None:
        self.told.append(hint)


LOST, UNKNOWN = EngagementFailed(14, "lost"), EngagementFailed(13, "broken")


@pytest.mark.parametrize("last", [None, UNKNOWN])
async def test_a_lost_watch_is_taken_up_again_ever_more_slowly(
    autojump_clock: MockClock, last: Exception | None
) -> None:
    runner = Speaker(LOST, *[NotSent("refused")] * 11, RunnerClosed(), LOST, last)
    news, config = News(), PoolConfig()
    await LoadWatch(runner, news, config, random.Random(1)).run()
    assert news.told == [FULL, None, *[None] * 12, FULL, None, FULL, None]
    pauses = [b - a - 1 for a, b in zip(runner.asked, runner.asked[1:], strict=False)]
    assert pauses[0] <= 0.12 * config.probe_interval
    assert max(pauses) <= 1.2 * config.probe_interval
    assert pauses[11] >= 0.8 * config.probe_interval
    assert pauses[-1] <= 0.12 * config.probe_interval  # it had told something


async def test_cancelling_a_watch_says_that_nothing_is_known(autojump_clock: MockClock) -> None:
    news = News()
    async with trio.open_nursery() as nursery:
        watch = LoadWatch(Speaker(LOST), news, PoolConfig(), random.Random(1))
        nursery.start_soon(watch.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert news.told == [None]


async def test_pools_listen_to_nobody_by_default() -> None:
    class Bare(RunnerPool):
        async def runners(self, call: RunnerCall) -> tuple[Runner, ...]:
            await trio.lowlevel.checkpoint()
            return ()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    Bare().add_load_listener(make())
    assert [hint async for hint in FakeRunner().watch_load()] == []
