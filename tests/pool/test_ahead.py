"""Calls that are sent to where a hot container is about to be free."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from hostler.abc import NotPlaced, Outcome, Placed, RunnerCall
from hostler.calls import PendingCall, Timings
from hostler.errors import ServerBusy
from hostler.pool import NaivePlacer, SweepPlacer, WarmPlacer
from hostler.pool.placer import need_of
from hostler.pool.waiting_room import (
    MAX_RUN_SECONDS,
    RUNS,
    CallQueue,
    QueuedCall,
    RunnerBacklog,
    Turn,
    WaitingRoom,
)
from hostler.protocol import UNOBSERVED, AttemptObserver, LoadHint

from .fakes import FakePool, FakeRunner, make_call, queue_of
from .placers import is_idle, make, make_room, occupy, place_all

RUNNER = FakeRunner("r:1")


def test_two_calls_per_container_may_be_there() -> None:
    backlog = RunnerBacklog()
    assert backlog.max_wait("r:1", 0.1) == 0
    backlog.learn(RUNNER, 2)
    for _ in range(4):
        backlog.begin("r:1")
        assert backlog.may_send("r:1")  # (one of them has just ended)
    backlog.begin("r:1")
    assert not backlog.may_send("r:1")
    backlog.end("r:1")
    assert backlog.may_send("r:1")
    assert backlog.in_flight("r:1") == 4
    assert backlog.in_flight("r:2") == 0
    backlog.begin("r:2")
    assert not backlog.may_send("r:2")  # nothing is known of it


def test_only_short_calls_wait_and_not_for_long() -> None:
    backlog = RunnerBacklog()
    backlog.learn(RUNNER, 1)
    assert backlog.max_wait("r:1", 0.1) == pytest.approx(RUNS * 0.1)
    assert backlog.max_wait("r:1", MAX_RUN_SECONDS) == RUNS * MAX_RUN_SECONDS
    assert backlog.max_wait("r:1", MAX_RUN_SECONDS + 0.001) == 0
    assert backlog.max_wait("r:1", 0) == MAX_RUN_SECONDS  # not known
    assert backlog.max_wait("r:2", 0.1) == 0
    backlog.learn(RUNNER, 0)
    assert backlog.max_wait("r:1", 0.1) == 0


def test_where_other_balancers_want_in_there_is_a_share() -> None:
    backlog = RunnerBacklog()
    backlog.learn(RUNNER, 4, 2)
    assert (backlog.share("r:1"), backlog.share("r:2")) == (2, 0)
    for count in range(4):
        assert backlog.may_join("r:1") == (count < 2)
        assert backlog.may_send("r:1") == (count - 1 < 2)
        backlog.begin("r:1")
    backlog.learn(RUNNER, 4)
    assert (backlog.share("r:1"), backlog.may_send("r:1")) == (0, True)
    assert not backlog.may_join("r:1")
    assert backlog


class Row:
    """A line of a room, in which a test lets calls stand, and the turns that they get."""

    def __init__(self, nursery: trio.Nursery, room: WaitingRoom, queue: CallQueue) -> None:
        self.room, self.queue = room, queue
        self.turns: list[Turn | None] = []
        self._nursery = nursery

    async def stand(self) -> trio.CancelScope:
        """One more call stands there, or leaves when the scope is cancelled."""
        scope = trio.CancelScope()
        self._nursery.start_soon(self._wait, scope)
        await wait_all_tasks_blocked()
        return scope

    async def _wait(self, scope: trio.CancelScope) -> None:
        now = trio.current_time()
        with scope:
            self.turns.append(
                await QueuedCall(self.queue, self.room.ticket(), now, now + 1e6).wait()
            )

    @property
    def in_flight(self) -> int:
        return self.queue.backlog.in_flight(RUNNER.address)

    def end_call(self) -> None:
        """A call of the line ends at the runner, as `Attempter` tells of it."""
        self.room.freed(RUNNER, self.queue)
        self.queue.backlog.end(RUNNER.address)


def test_who_waits_on_runners_and_where_the_next_waits_for_the_shortest_time() -> None:
    backlog, other = RunnerBacklog(), FakeRunner("r:2")
    assert (backlog.behind, backlog.shortest(), backlog.starting()) == (0, None, 0)
    backlog.learn(RUNNER, 2)
    backlog.learn(other, 4, starting=3)
    assert backlog.starting() == 3
    for address, calls in (("r:1", 3), ("r:2", 4), ("r:3", 5)):
        for _ in range(calls):
            backlog.begin(address)
    assert backlog.behind == 1  # nothing is known of the third
    assert backlog.shortest() is other
    for _ in range(3):
        backlog.begin("r:2")
    assert (backlog.behind, backlog.shortest()) == (4, RUNNER)
    backlog.begin("r:1")
    backlog.begin("r:2")
    assert backlog.shortest() is None
    backlog.learn(other, 7)
    assert (backlog.behind, backlog.starting()) == (3, 0)


KEY = "key"


@asynccontextmanager
async def open_row(*, slots: int, standing: int, running: int = 0) -> AsyncIterator[Row]:
    room = make_room()
    with queue_of(room, KEY) as queue:
        queue.backlog.learn(RUNNER, slots)
        for _ in range(running):
            queue.backlog.begin(RUNNER.address)
        async with trio.open_nursery() as nursery:
            row = Row(nursery, room, queue)
            for _ in range(standing):
                await row.stand()
            yield row
            nursery.cancel_scope.cancel()
    assert repr(room) == "<WaitingRoom waiting=0 queues=0>"


async def test_the_end_of_a_call_sends_two_until_one_waits_behind_each() -> None:
    async with open_row(slots=2, standing=9, running=2) as row:
        counts = []
        for _ in range(4):
            row.end_call()
            await wait_all_tasks_blocked()
            counts.append((row.in_flight, len(row.turns)))
    assert counts == [(3, 2), (4, 4), (4, 5), (4, 6)]


async def test_what_is_over_the_share_is_offered_to_nobody() -> None:
    async with open_row(slots=2, standing=9, running=4) as row:
        row.queue.backlog.learn(RUNNER, 2, 2)
        counts = []
        for _ in range(4):
            row.end_call()
            await wait_all_tasks_blocked()
            counts.append((row.in_flight, len(row.turns)))
    assert counts == [(3, 0), (2, 0), (2, 1), (2, 2)]


async def test_a_single_container_has_a_next_call_as_well() -> None:
    async with open_row(slots=1, standing=3, running=1) as row:
        row.end_call()
        await wait_all_tasks_blocked()
        assert (row.in_flight, len(row.turns)) == (2, 2)
        assert all(turn is not None and turn.hot is row.queue for turn in row.turns)


async def test_nothing_is_sent_ahead_while_another_line_waits() -> None:
    async with open_row(slots=2, standing=3, running=2) as row:
        with queue_of(row.room, "other") as other:
            row._nursery.start_soon(QueuedCall(other, row.room.ticket(), 0, 1e9).wait)
            await wait_all_tasks_blocked()
            other.refuse(trio.current_time(), 0, spare_warm=False)
            row.end_call()
            await wait_all_tasks_blocked()
            assert (row.in_flight, len(row.turns)) == (2, 1)


async def test_a_turn_that_is_cancelled_goes_to_the_next_and_is_counted_once() -> None:
    async with open_row(slots=2, standing=2, running=1) as row:
        leaves = await row.stand()
        await row.stand()
        row.end_call()  # for the first two
        row.queue.backlog.begin(RUNNER.address)
        leaves.cancel()
        row.end_call()  # one for it, one for the last
        assert row.in_flight == 4
        await wait_all_tasks_blocked()
        assert row.in_flight == 3
        assert len(row.turns) == 3


async def test_a_cancelled_turn_that_nobody_wants_counts_no_more() -> None:
    async with open_row(slots=1, standing=0, running=1) as row:
        leaves = await row.stand()
        leaves.cancel()
        row.end_call()
        assert row.in_flight == 1
        await wait_all_tasks_blocked()
        assert row.in_flight == 0
        assert row.turns == []


class LineRunner(FakeRunner):
    """At which one call may wait behind each of its containers, all of which are hot. The first
    call takes a start of ``START`` seconds."""

    def __init__(self, *, slots: int, seconds: float) -> None:
        super().__init__(slots=slots, seconds=seconds, latency=0.02)
        self.containers = trio.Semaphore(slots)
        self.waiting = self.most_waiting = self.waited_in_vain = 0
        self.waits: dict[str, list[float]] = {}
        """How long calls were allowed to wait, by their ids."""

    async def try_exec(self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED) -> Outcome:
        assert isinstance(call, PendingCall)
        self.waits.setdefault(call.model.id, []).append(call.queue_seconds)
        observer.committed()
        await trio.sleep(self.latency / 2)
        if not await self._container(call.queue_seconds):
            self.waited_in_vain += call.queue_seconds > 0
            await trio.sleep(self.latency / 2)
            return NotPlaced(ServerBusy(), retry_after=60.0, load=self._hint())
        try:
            call.timings = Timings(execution_ns=round(self.seconds * 1e9))
            if not self.order:
                call.timings.ctr_create_ns = call.timings.scheduler_ns = round(START * 1e9)
            await self.run(call)
        finally:
            self.containers.release()
        await trio.sleep(self.latency / 2)
        return Placed(load=self._hint())

    async def _container(self, seconds: float) -> bool:
        """Get one, if need be after that time."""
        with suppress(trio.WouldBlock):
            self.containers.acquire_nowait()
            return True
        if not seconds or self.waiting >= self.slots:
            return False
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            with trio.move_on_after(seconds) as scope:
                await self.containers.acquire()
            return not scope.cancelled_caught
        finally:
            self.waiting -= 1

    def _hint(self) -> LoadHint:
        return LoadHint(slot=b"slot", slots=self.slots)


START = 0.5


@asynccontextmanager
async def line_of(placer: SweepPlacer, pool: FakePool) -> AsyncIterator[CallQueue]:
    """The line of `make_call`, whose calls must all be over at the end."""
    room = placer._open_waiting_room(pool)
    with queue_of(room, need_of(make_call()).key) as queue:
        yield queue
        assert repr(queue.backlog) == "<RunnerBacklog in_flight=0>"
    del placer._waiting_rooms[id(pool)]
    assert is_idle(placer)


@pytest.mark.parametrize("slots", [1, 3])
async def test_containers_that_a_line_waits_for_do_not_idle_between_calls(
    autojump_clock: MockClock, slots: int
) -> None:
    runner, placer = LineRunner(slots=slots, seconds=0.1), make()
    pool, count = FakePool([runner]), 20 * slots
    async with line_of(placer, pool):
        calls = [make_call(f"c{number}") for number in range(count)]
        assert await place_all(placer, pool, calls) == [None] * count
    # 20 one after the other, with one journey at the ends and two before any could be sent ahead.
    assert trio.current_time() == pytest.approx(20 * 0.1 + 2 * 0.02, abs=0.005)
    assert runner.most_waiting == slots
    assert runner.waited_in_vain == 0
    assert {wait for waits in runner.waits.values() for wait in waits} == {0, RUNS * 0.1}


async def test_long_calls_are_not_sent_ahead_to_wait(autojump_clock: MockClock) -> None:
    runner, placer = LineRunner(slots=2, seconds=MAX_RUN_SECONDS + 0.1), make()
    pool = FakePool([runner])
    async with line_of(placer, pool):
        calls = [make_call(f"c{number}") for number in range(8)]
        assert await place_all(placer, pool, calls) == [None] * 8
    assert {wait for waits in runner.waits.values() for wait in waits} == {0}


@pytest.mark.parametrize("rounds", range(24))
async def test_cancelled_at_any_point_nothing_is_left_in_flight(
    autojump_clock: MockClock, rounds: int
) -> None:
    runner, placer = LineRunner(slots=1, seconds=0.1), make()
    pool, scope = FakePool([runner]), trio.CancelScope()

    async def cancelled() -> None:
        with scope:
            await placer.place_call(pool, make_call("cancelled"))

    async with line_of(placer, pool), trio.open_nursery() as nursery:
        await occupy(nursery, placer, pool, make_call("first"))
        nursery.start_soon(cancelled)
        await wait_all_tasks_blocked()
        await trio.sleep(0.03)
        await occupy(nursery, placer, pool, make_call("last"))
        await trio.sleep_until(0.12)  # the first is over for its LB, and both others have turns
        for _ in range(rounds):
            await trio.lowlevel.checkpoint()
        scope.cancel()
    assert scope.cancelled_caught
    assert runner.order[-1] == "last"


async def test_who_waits_for_a_hot_container_may_wait_there_to_be_the_next_on_it(
    autojump_clock: MockClock,
) -> None:
    """Whether another is started is for its load balancer to decide, not for the runner."""
    runner, placer = LineRunner(slots=1, seconds=0.3), make(WarmPlacer)
    pool = FakePool([runner])
    async with line_of(placer, pool) as queue:
        await placer.place_call(pool, make_call("learn"))
        async with trio.open_nursery() as nursery:
            await occupy(nursery, placer, pool, make_call("a"), make_call("hot"))
            assert len(queue) == 1
        assert runner.waits["hot"] == [pytest.approx(RUNS * 0.3)]


@pytest.mark.parametrize("rounds", range(8))
@pytest.mark.parametrize("kind", [NaivePlacer, WarmPlacer])
async def test_closed_at_any_point_around_a_turn_nothing_is_left_in_flight(
    autojump_clock: MockClock, kind: type[SweepPlacer], rounds: int
) -> None:
    runner, placer = LineRunner(slots=1, seconds=0.3), make(kind)
    pool = FakePool([runner])

    async def first() -> None:
        await placer.place_call(pool, make_call("first"))
        for _ in range(rounds):
            await trio.lowlevel.checkpoint()
        placer.close()

    async def second() -> None:
        with suppress(ServerBusy):
            await placer.place_call(pool, make_call("second"))

    async with line_of(placer, pool) as queue:
        await placer.place_call(pool, make_call("learn"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await trio.sleep(0.05)
            nursery.start_soon(second)
            await trio.sleep(0.15)  # (it has tried again once)
            assert len(queue) == 1


@pytest.mark.parametrize("contended", [False, True])
async def test_nobody_waits_at_a_runner_while_another_line_stands(
    autojump_clock: MockClock, contended: bool
) -> None:
    runner, placer = LineRunner(slots=1, seconds=0.3), make()
    pool = FakePool([runner])
    async with line_of(placer, pool), trio.open_nursery() as nursery:
        await occupy(nursery, placer, pool, make_call("first"))
        nursery.start_soon(placer.place_call, pool, make_call("next"))
        await trio.sleep(0.05)
        if contended:
            nursery.start_soon(placer.place_call, pool, make_call("other", fn_id="fn2"))
    assert runner.waits["next"][-1] == (0 if contended else pytest.approx(RUNS * 0.3))
