"""Load balancers hear of a runner's load: soon, not too often, and not all at the same moment."""

from __future__ import annotations

import itertools

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock, wait_all_tasks_blocked

from hostler._concurrency.signal import Signal
from hostler._fast import FastAgent
from hostler.calls import PendingCall
from hostler.protocol import LoadHint
from hostler.runner.load_feed import QUICK, SLOW, TURN, LoadFeed

from .fakes import ToldAgent

MIB = 2**20


class Source(ToldAgent, FastAgent):
    """Has the load that a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.now: LoadHint | None = LoadHint(complete=True)
        self.change = Signal()
        self.heard: dict[str, list[tuple[float, LoadHint]]] = {}

    def load(self) -> LoadHint | None:
        return self.now

    def load_figures(self) -> LoadHint | None:
        if self.now is None or len(self.now.warm) <= 1:
            return self.now
        return replace(self.now, warm={}, complete=False)

    def refuse(self, call: PendingCall) -> bool:
        return False

    async def wait_load_change(self) -> None:
        await self.change.wait()

    def set(self, free: int, active: int = 0, refused: int = 0) -> None:
        self.now = LoadHint(active=active, free_memory=free * MIB, complete=True, refused=refused)
        self.change.note()

    async def hear(self, name: str, feed: LoadFeed) -> None:
        async for hint in feed.watch():
            self.heard.setdefault(name, []).append((trio.current_time(), hint))


async def test_an_agent_without_load_ends_the_feed(autojump_clock: MockClock) -> None:
    source = Source()
    source.now = None
    feed = LoadFeed(source)
    await source.hear("a", feed)
    assert not source.heard
    assert repr(feed) == "<LoadFeed watchers=0>"


async def test_the_load_is_told_at_once_and_room_soon_after(autojump_clock: MockClock) -> None:
    source = Source()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.hear, "a", LoadFeed(source))
        await trio.sleep(3)
        assert [at for at, _ in source.heard["a"]] == pytest.approx([0])
        source.set(free=128)
        await trio.sleep(QUICK + 0.001)
        assert source.heard["a"][-1][0] == pytest.approx(3 + QUICK)
        assert source.heard["a"][-1][1].free_memory == 128 * MIB
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("busy", "told_at"), [(2 * QUICK, 4.5 * QUICK), (QUICK / 10, SLOW + 2 * QUICK)]
)
async def test_room_that_was_gone_for_a_moment_is_told_if_calls_were_refused_meanwhile(
    autojump_clock: MockClock, busy: float, told_at: float
) -> None:
    """Their load balancers were told that there is none. It comes sooner if the feed saw that."""
    source = Source()
    source.set(free=128)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.hear, "a", LoadFeed(source))
        await trio.sleep(1.5 * QUICK)
        source.set(free=0)
        await trio.sleep(busy)
        source.set(free=128, refused=1)
        await trio.sleep(2 * SLOW)
        times = [at for at, _ in source.heard["a"]]
        assert times == pytest.approx([0, told_at], abs=QUICK)
        nursery.cancel_scope.cancel()


async def test_changes_are_told_together_and_load_alone_rarely(autojump_clock: MockClock) -> None:
    source = Source()
    source.set(free=1024)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.hear, "a", LoadFeed(source))
        for number in range(1000):
            await trio.sleep(0.01)
            source.set(free=1024 - number % 7, active=number)
        nursery.cancel_scope.cancel()
    times = [at for at, _ in source.heard["a"]]
    assert 10 / SLOW / 2 <= len(times) <= 10 / SLOW + 1
    # and with room that comes and goes
    source.heard.clear()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.hear, "a", LoadFeed(source))
        for number in range(1000):
            await trio.sleep(0.01)
            source.set(free=1024 if number % 20 < 10 else 0)
        nursery.cancel_scope.cancel()
    times = [at - began for at, _ in source.heard["a"]]
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= QUICK


async def test_one_hears_first_of_room_and_the_next_only_if_it_is_still_there(
    autojump_clock: MockClock,
) -> None:
    source = Source()
    feed = LoadFeed(source)
    first: list[str] = []
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(source.hear, name, feed)
            await wait_all_tasks_blocked()
        await trio.sleep(1)
        for _ in range(6):
            source.heard.clear()
            source.set(free=256)
            await trio.sleep(QUICK + TURN / 2)
            assert len(source.heard) == 1
            first += source.heard
            source.set(free=0)  # it has used it
            await trio.sleep(2 * SLOW)
            assert all(
                hint.free_memory == 0
                for name in "abc"
                for _, hint in source.heard.get(name, [])[1:]
            )
        source.heard.clear()
        source.set(free=256)  # nobody uses it
        await trio.sleep(QUICK + 4 * TURN)
        assert set(source.heard) == set("abc")
        nursery.cancel_scope.cancel()
    assert {name: first.count(name) for name in "abc"} == {"a": 2, "b": 2, "c": 2}
    assert repr(feed) == "<LoadFeed watchers=0>"


@pytest.mark.fast
async def test_many_hot_functions_are_named_seldom_but_room_is_told_soon(
    autojump_clock: MockClock,
) -> None:
    names, spacing = {b"%d" % number: 1 for number in range(1280)}, 2.0
    source = Source()

    def set(free: int, active: int) -> None:
        source.now = LoadHint(active=active, free_memory=free * MIB, warm=names, complete=True)
        source.change.note()

    set(free=10, active=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.hear, "a", LoadFeed(source))
        for number in range(1000):
            await trio.sleep(0.01)
            set(free=1 if number % 20 < 10 else 10, active=number)
        heard = source.heard.pop("a")
        assert any(not hint.complete for _, hint in heard)
        assert all(hint.warm == (names if hint.complete else {}) for _, hint in heard)
        times = [at for at, hint in heard if hint.complete]
        assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= spacing
        assert len(times) >= 10 / spacing * 0.9
        # What was left out is told in the end.
        await trio.sleep(spacing)
        set(free=1, active=0)
        await trio.sleep(spacing + 3 * SLOW)
        set(free=10, active=0)
        await trio.sleep(spacing + 3 * SLOW)
        assert source.heard["a"][-1][1] == source.now
        told = len(source.heard["a"])
        await trio.sleep(10)
        assert len(source.heard["a"]) == told
        nursery.cancel_scope.cancel()
