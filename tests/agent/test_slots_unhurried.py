"""Slot queues: calls that wait without a launch, and that nobody is ever forgotten."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hostler.agent.slots import Launch, SlotQueue, SlotQueues, SlotWaiter

from .fakes import FakeOwner, FakeSlot, pending

RUN, START = 0.1, 1.0


class Bench:
    """A queue with one busy container, whose times are known."""

    def __init__(self) -> None:
        owner = FakeOwner()
        self.launches = owner.launches
        self.queue: SlotQueue[FakeSlot] = SlotQueues(owner).get("key")
        self.slot = FakeSlot(0)
        self.queue.launched(self.queue.add_spare(), self.slot)
        self.queue.policy.started(START)
        self.queue.policy.ran(RUN, 0.0)
        assert self.queue.take(0) is self.slot


async def test_a_spare_launch_for_a_call_that_waits_without_is_the_only_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    waiter = bench.queue.join(pending())
    spare = bench.queue.add_spare()
    assert spare.waiter is waiter
    with trio.move_on_after(10 * START):
        await bench.queue.served(waiter)
    bench.queue.ran(1000, 0.0)
    assert bench.launches == []


async def test_who_gets_a_launch_in_the_moment_when_its_patience_ends_is_not_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    waiter = bench.queue.join(pending())
    got: list[FakeSlot] = []

    async def wait() -> None:
        got.append(await bench.queue.served(waiter))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        waiter.wait_scope.cancel()  # as its deadline does, ...
        bench.queue.gone(bench.slot)  # ... and before its task runs
        (launch,) = bench.launches
        await trio.testing.wait_all_tasks_blocked()
        bench.queue.launched(launch, FakeSlot(1))
    assert len(got) == 1


class Traffic(RuleBasedStateMachine):
    """All that may come to a queue, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.owner = FakeOwner()
        self.owner.time = 0.0
        self.made = 0
        self.begun: list[Launch[FakeSlot]] = []
        self.asked = self.owner.launches
        self.busy: list[FakeSlot] = []
        self.waiting: list[SlotWaiter[FakeSlot]] = []
        self.served: list[SlotWaiter[FakeSlot]] = []
        self.queue = SlotQueues(self.owner).get("key")

    def slot(self) -> FakeSlot:
        self.made += 1
        return FakeSlot(self.made)

    def settle(self) -> None:
        """Launches that were given up end, and calls that are done go on."""
        while dropped := [launch for launch in self.asked if launch.waiter is None]:
            self.asked.remove(dropped[0])
            self.queue.launch_dropped(dropped[0])
        done = [waiter for waiter in self.waiting if waiter.done.is_set()]
        self.waiting = [waiter for waiter in self.waiting if not waiter.done.is_set()]
        self.busy += [waiter.slot for waiter in done if waiter.slot is not None]

    @initialize(known=st.booleans())
    def begin(self, known: bool) -> None:
        if known:
            self.queue.launched(self.queue.add_spare(), self.slot())
            self.queue.policy.started(START)
            self.queue.policy.ran(RUN, self.owner.time)

    @rule()
    def join(self) -> None:
        slot = self.queue.take(0)
        if slot is None:
            self.waiting.append(self.queue.join(pending()))
        else:
            self.busy.append(slot)

    @rule()
    def add_spare(self) -> None:
        self.begun.append(self.queue.add_spare())

    @precondition(lambda self: self.asked)
    @rule(last=st.booleans())
    def has_room(self, last: bool) -> None:
        launch = self.asked.pop(-last)
        launch.begin(self.owner.time)
        self.begun.append(launch)

    @precondition(lambda self: self.asked)
    @rule(wait=st.booleans())
    def has_no_room(self, wait: bool) -> None:
        self.queue.launch_failed(self.asked.pop(0), ValueError("no room"), wait=wait)

    @precondition(lambda self: self.begun)
    @rule()
    def its_turn_comes(self) -> None:
        launch = self.begun.pop(0)
        if self.queue.confirm(launch):
            self.begun.append(launch)
        else:
            self.queue.launch_dropped(launch)

    @precondition(lambda self: self.begun)
    @rule(last=st.booleans())
    def is_ready(self, last: bool) -> None:
        slot = self.slot()
        oldest = self.waiting[0] if self.waiting else None
        self.queue.launched(self.begun.pop(-last), slot)
        assert oldest is None or oldest.slot is slot

    @precondition(lambda self: self.begun)
    @rule(wait=st.booleans())
    def launch_fails(self, wait: bool) -> None:
        self.queue.launch_failed(self.begun.pop(0), ValueError("failed"), wait=wait)

    @precondition(lambda self: self.busy)
    @rule(seconds=st.sampled_from([0.001, 0.1, 10.0]), reusable=st.booleans())
    def call_ends(self, seconds: float, reusable: bool) -> None:
        slot = self.busy.pop(0)
        slot.give_back(reusable=reusable)
        if not reusable:
            self.queue.gone(slot)
        self.queue.ran(seconds, self.owner.time)
        oldest = self.waiting[0] if self.waiting and reusable else None
        if reusable:
            self.queue.offer(slot)
        assert oldest is None or oldest.slot is slot

    @precondition(lambda self: self.waiting)
    @rule(last=st.booleans())
    def leaves(self, last: bool) -> None:
        self.queue.leave(self.waiting.pop(-last))

    @precondition(lambda self: any(True for _ in self.queue.idle()))
    @rule()
    def is_evicted(self) -> None:
        self.queue.gone(next(self.queue.idle()))

    @rule(seconds=st.sampled_from([0.01, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.owner.time += seconds
        for waiter in tuple(self.waiting):
            if waiter.wait_scope.deadline <= self.owner.time:
                assert self.queue._may_wait_on(waiter)

    @rule(count=st.integers(0, 2))
    def keep(self, count: int) -> None:
        self.queue.keep(count)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        self.settle()
        queue = self.queue
        assert list(queue._waiters) == self.waiting
        assert queue._launches == {*self.asked, *self.begun}
        for waiter in self.waiting:
            if waiter.launch is not None:
                assert waiter.launch.waiter is waiter
                assert waiter.launch in queue._launches
            else:
                assert waiter in queue._undecided or waiter.launch_error is not None
        for launch in queue._launches:
            assert launch.waiter is None or launch.waiter.launch is launch
        assert all(queue._waiters.keys() >= {w} and w.launch is None for w in queue._undecided)
        assert all(launch.waiter is None and launch.begun for launch in queue._spare)
        assert queue.waiting_without_launch == sum(w.launch_error is not None for w in self.waiting)
        assert not (self.waiting and queue.idle_count)
        if self.waiting:
            assert queue.alive or queue._launches


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
