"""Slot queues: order, and which call hears of which launch."""

from __future__ import annotations

import attrs
import pytest

from hostler.agent.slots import Launch, SlotQueue, SlotQueues, SlotWaiter
from hostler.errors import ServerBusy

from .fakes import FakeOwner, FakeSlot, pending


@attrs.define
class Bench:
    owner: FakeOwner = attrs.Factory(FakeOwner)
    queues: SlotQueues[FakeSlot] = attrs.field(init=False)
    queue: SlotQueue[FakeSlot] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.owner.time = 0.0
        self.queues = SlotQueues(self.owner)
        self.queue = self.queues.get("key")

    @property
    def launches(self) -> list[Launch[FakeSlot]]:
        return self.owner.launches

    def join(self) -> SlotWaiter[FakeSlot]:
        return self.queue.join(pending())

    def begin(self) -> None:
        for launch in self.launches:
            launch.begun = True


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_scenario_06_last_in_first_out(bench: Bench) -> None:
    slots = [FakeSlot(number) for number in range(10)]
    for slot in slots:
        bench.queue.offer(slot)
    assert all(bench.queue.withdraw(slots[number]) for number in (9, 0, 5))
    assert not bench.queue.withdraw(slots[5])
    assert bench.queue.take(0) is slots[8]
    assert bench.queue.withdraw(slots[7])
    assert bench.queue.take(0) is slots[6]


def test_scenario_06_nothing_is_handed_out_twice(bench: Bench) -> None:
    first, second = FakeSlot(1), FakeSlot(2)
    bench.queue.offer(first)
    bench.queue.offer(second)
    assert bench.queue.take(0) is second
    assert bench.queue.withdraw(first)
    waiters = [bench.join() for _ in range(10)]
    assert not any(waiter.done.is_set() for waiter in waiters)
    assert (first.taken, second.taken) == (0, 1)


def test_scenario_06_new_queue_is_empty(bench: Bench) -> None:
    assert bench.queue.empty
    assert bench.queue.take(0) is None


def test_weakness_03_2_a_burst_launches_one_for_each(bench: Bench) -> None:
    for _ in range(7):
        bench.join()
    assert len(bench.launches) == 7


def test_the_longest_waiting_call_is_served_first(bench: Bench) -> None:
    first, second = bench.join(), bench.join()
    slot = FakeSlot(1)
    assert bench.queue.offer(slot)
    assert (first.slot, second.slot) == (slot, None)


def test_a_launch_that_nobody_needs_any_more_is_given_up_unless_it_has_begun(bench: Bench) -> None:
    bench.join()
    assert bench.queue.offer(FakeSlot(1))
    (launch,) = bench.launches
    assert launch.scope.cancel_called
    bench.queue.launch_dropped(launch)
    assert bench.queue.empty


def test_a_spare_launch_serves_the_next_call(bench: Bench) -> None:
    first = bench.join()
    bench.begin()
    bench.queue.leave(first)
    second = bench.join()
    (launch,) = bench.launches
    assert launch.waiter is second
    bench.queue.launched(launch, FakeSlot(1))
    assert second.slot is not None
    assert second.timings is launch.timings
    assert launch.waiter is None  # nothing keeps the call


def test_weakness_03_9_a_failed_launch_reaches_the_call_that_waited_for_it(bench: Bench) -> None:
    waiter, error = bench.join(), ValueError("broken")
    assert bench.queue.launch_failed(bench.launches[0], error)
    assert waiter.error is error
    assert bench.queue.empty


def test_a_failed_launch_of_a_call_that_was_served_reaches_nobody(bench: Bench) -> None:
    waiter = bench.join()
    bench.begin()
    bench.queue.offer(FakeSlot(1))
    assert not bench.queue.launch_failed(bench.launches[0], ValueError())
    assert waiter.error is None


def test_a_call_whose_launch_failed_waits_for_a_living_container(bench: Bench) -> None:
    first, second = bench.join(), bench.join()
    slot = FakeSlot(1)
    bench.queue.launched(bench.launches[0], slot)
    assert first.slot is slot
    bench.queue.launch_failed(bench.launches[1], ValueError())
    assert not second.done.is_set()
    assert len(bench.launches) == 2  # and is not launched for again and again
    bench.queue.offer(slot)
    assert second.slot is slot


def test_without_a_container_to_hope_for_the_setback_is_told(bench: Bench) -> None:
    first, second = bench.join(), bench.join()
    slot, error = FakeSlot(1), ValueError()
    bench.queue.launched(bench.launches[0], slot)
    bench.queue.launch_failed(bench.launches[1], error)
    bench.queue.gone(slot)
    assert second.error is error
    assert first.error is None
    assert bench.queue.empty


def test_all_launches_fail_and_each_call_gets_its_own_error(bench: Bench) -> None:
    waiters = [bench.join() for _ in range(3)]
    errors = [ValueError(str(number)) for number in range(3)]
    for launch, error in zip(bench.launches, errors, strict=True):
        bench.queue.launch_failed(launch, error)
    assert [waiter.error for waiter in waiters] == errors


def test_launches_change_calls_with_the_containers(bench: Bench) -> None:
    first, second = bench.join(), bench.join()
    bench.queue.launched(bench.launches[1], FakeSlot(1))  # meant for the second
    assert first.slot is not None
    assert bench.launches[0].waiter is second
    assert second.launch is bench.launches[0]


def test_who_lost_its_launch_to_a_call_without_one_gets_a_new_one(bench: Bench) -> None:
    first = bench.join()
    slot = FakeSlot(1)
    bench.queue.launched(bench.launches[0], slot)
    second, third = bench.join(), bench.join()
    bench.queue.launch_failed(bench.launches[1], ValueError())
    bench.queue.launched(bench.launches[2], FakeSlot(2))
    assert second.slot is not None
    assert third.slot is None
    assert len(bench.launches) == 4
    assert bench.launches[3].waiter is third
    assert first.done.is_set()


def test_weakness_03_7_a_queue_is_kept_while_something_is_in_it(bench: Bench) -> None:
    waiter = bench.join()
    assert bench.queues.get("key") is bench.queue
    bench.queue.launch_failed(bench.launches[0], ValueError())
    assert len(bench.queues) == 0
    assert waiter.error is not None


def test_refusing_all_ends_every_wait(bench: Bench) -> None:
    waiters = [bench.join() for _ in range(3)]
    bench.queue.refuse_all()
    assert all(isinstance(waiter.error, ServerBusy) for waiter in waiters)
    assert all(launch.scope.cancel_called for launch in bench.launches)


def ready(bench: Bench, count: int) -> list[FakeSlot]:
    """Idle slots, the one that was used last at the end."""
    slots = [FakeSlot(number) for number in range(count)]
    for slot in slots:
        bench.queue.launched(bench.queue.add_spare(), slot)
    return slots


def test_those_to_keep_are_the_most_recently_used(bench: Bench) -> None:
    bench.queue.keep(2)
    slots = ready(bench, 4)
    assert [bench.queue.keeps(slot) for slot in slots] == [False, False, True, True]
    assert bench.queue.take(0) is slots[3]  # a busy one counts
    assert [bench.queue.keeps(slot) for slot in slots] == [False, False, True, False]
    bench.queue.gone(slots[2])
    assert [bench.queue.keeps(slot) for slot in slots[:2]] == [False, True]
    bench.queue.keep(0)
    assert not any(bench.queue.keeps(slot) for slot in slots)


def test_idle_slots_are_told_when_who_is_to_stay_may_have_changed(bench: Bench) -> None:
    (slot,) = ready(bench, 1)
    assert slot.reconsidered == 0
    bench.queue.keep(1)
    bench.queue.keep(1)
    assert slot.reconsidered == 1
    other = FakeSlot(9)
    bench.queue.launched(bench.queue.add_spare(), other)
    assert slot.reconsidered == 2
    bench.queue.gone(other)
    assert slot.reconsidered == 3


def test_a_queue_that_was_forgotten_still_knows_how_many_to_keep(bench: Bench) -> None:
    bench.queues.keep("new", 1)
    assert len(bench.queues) == 1  # nothing is in it yet
    queue = bench.queues.get("new")
    slot = FakeSlot(1)
    queue.launched(queue.add_spare(), slot)
    assert queue.keeps(slot)
    queue.gone(slot)
    assert bench.queues.find("new") is None
    again = bench.queues.get("new")
    again.launched(again.add_spare(), slot)
    assert again.keeps(slot)


def test_a_spare_launch_is_for_a_call_whose_own_has_failed(bench: Bench) -> None:
    slots = ready(bench, 1)
    assert bench.queue.take(0) is slots[0]
    waiter = bench.join()
    bench.queue.launch_failed(bench.launches[0], ValueError("no"))
    assert waiter.launch_error is not None
    spare = bench.queue.add_spare()
    assert spare.waiter is waiter
    assert bench.queue.launched(spare, FakeSlot(2))
    assert waiter.done.is_set()


def test_a_call_with_two_failed_launches_counts_once_among_the_setbacks(bench: Bench) -> None:
    first = bench.join()
    bench.begin()
    bench.queue.launched(bench.launches[0], slot := FakeSlot(1))
    assert first.slot is slot
    second = bench.join()
    assert bench.queue.launch_failed(bench.launches[1], ValueError("first"))
    assert bench.queue.waiting_without_launch == 1
    spare = bench.queue.add_spare()
    assert spare.waiter is second
    assert bench.queue.launch_failed(spare, ValueError("second"))
    assert bench.queue.waiting_without_launch == 1
    assert bench.queue.offer(slot)
    assert second.slot is slot
    assert bench.queue.waiting_without_launch == 0
