"""The runner of a call that is known without its placer's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trio.testing import MockClock

from hostler.abc import Placed, Runner, RunnerCall
from hostler.pool import BoundedPlacer, CallNeed, StaticPool, SweepPlacer, WarmPlacer, need_of
from hostler.pool.attempts import Sweep
from hostler.protocol import LoadHint

from .fakes import FakeRunner, make_call, make_runners
from .placers import make_of_kind


class Watched(WarmPlacer):
    """Counts how often its order is asked for."""

    orders = 0

    def first_choice(
        self, call: RunnerCall, need: CallNeed, runners: Sequence[Runner], now: float
    ) -> Runner | None:
        return super().first_choice(call, need, runners, now)

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        self.orders += 1
        return super().order(call, runners)


class LastFirst(WarmPlacer):
    """Has an order of its own, and nothing else."""

    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterator[Runner]:
        return iter(runners[::-1])


class LastFirstIndeed(LastFirst):
    """Inherits that order."""


class NowFirst(LastFirst):
    """Knows the first of it, too."""

    def first_choice(
        self, call: RunnerCall, need: CallNeed, runners: Sequence[Runner], now: float
    ) -> Runner | None:
        return runners[0]


def warm_up(placer: SweepPlacer, *runners: Runner) -> None:
    """The last of them is heard of last."""
    need = need_of(make_call())
    for runner in runners:
        placer.loads.begin(runner.address, need, 0)
        placer.loads.end(runner.address, need, Placed(), 0)


async def test_the_order_is_not_asked_for_if_the_first_takes_the_call(
    autojump_clock: MockClock,
) -> None:
    placer, runners, call = make_of_kind(Watched), make_runners(), make_call()
    warm_up(placer, runners[1], runners[2])
    await placer.place_call(StaticPool(runners), call)
    assert (call.runner_address, call.attempts, placer.orders) == ("r2:1", 1, 0)


async def test_the_first_that_refuses_is_not_tried_twice(autojump_clock: MockClock) -> None:
    placer, runners, call = make_of_kind(Watched), make_runners(), make_call()
    runners[2].slots = runners[1].slots = runners[0].slots = 0
    warm_up(placer, runners[1], runners[2])
    await placer.place_call(StaticPool(runners), call)
    assert (call.runner_address, placer.orders) == ("r3:1", 1)
    assert all(sum(runner.attempts.values()) <= 1 for runner in runners)
    assert sum(runners[2].attempts.values()) == sum(runners[1].attempts.values()) == 1


async def test_a_runner_that_the_pool_does_not_list_is_not_the_first(
    autojump_clock: MockClock,
) -> None:
    placer, runners, call = make_of_kind(Watched), make_runners(), make_call()
    warm_up(placer, runners[1], runners[2])
    await placer.place_call(StaticPool(runners[:2]), call)
    assert (call.runner_address, call.attempts, placer.orders) == ("r1:1", 1, 1)


async def test_a_runner_whose_place_is_left_to_others_is_not_the_first(
    autojump_clock: MockClock,
) -> None:
    placer, runners, call = make_of_kind(Watched), make_runners(2), make_call()
    for runner in runners:
        placer.loads.note(runner.address, LoadHint(free_memory=2**30, complete=True), 0)
    warm_up(placer, runners[1])
    placer.loads._runners["r1:1"].held_until = 5
    await placer.place_call(StaticPool(runners), call)
    assert (call.runner_address, placer.orders) == ("r0:1", 1)


async def test_who_has_an_order_of_its_own_only_is_asked_for_that(
    autojump_clock: MockClock,
) -> None:
    for kind, wanted in (
        (LastFirst, "r3:1"),
        (LastFirstIndeed, "r3:1"),
        (NowFirst, "r0:1"),
    ):
        placer, runners, call = make_of_kind(kind), make_runners(), make_call()
        warm_up(placer, runners[1])
        await placer.place_call(StaticPool(runners), call)
        assert (call.runner_address, call.attempts) == (wanted, 1)


async def test_placers_know_no_first_by_default(autojump_clock: MockClock) -> None:
    placer, runners, call = make_of_kind(BoundedPlacer), make_runners(1), make_call()
    assert placer.first_choice(call, need_of(call), runners, 0) is None
    await placer.place_call(StaticPool(runners), call)
    assert call.runner_address == "r0:1"


class Reserving(FakeRunner):
    reserves = True


def test_the_runners_of_a_sweep_come_out_once_and_in_order() -> None:
    others: list[FakeRunner] = make_runners(4)
    others[2] = Reserving("r9:1")
    asked = 0

    def order() -> Iterator[Runner]:
        nonlocal asked
        asked += 1
        yield from others

    sweep = Sweep(order())
    assert not asked
    assert sweep.more
    assert sweep.next_reserving() is others[2]
    assert sweep.next_reserving() is None
    assert [*sweep] == [others[0], others[1], others[3]]
    assert not sweep.more
    assert asked == 1
    assert [*Sweep(order())] == others
