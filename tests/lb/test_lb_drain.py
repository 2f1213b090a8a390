"""The end of an LB agent, and cancellation at every point."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from hostler.abc import (
    NotPlaced,
    Outcome,
    Placed,
    Runner,
    RunnerCall,
)
from hostler.calls import PendingCall
from hostler.errors import (
    APIError,
    HostlerError,
    ServerBusy,
    ServiceReservationFailure,
)
from hostler.lb import DrainReport, LBAgent, LBStatistics, ResourceUse
from hostler.protocol import AttemptObserver
from tests.conftest import Logs
from tests.pool.fakes import FakePool, FakeRunner, make_call

from .bench import Bench, Recorder, acknowledging, open_bench


async def test_drain_refuses_the_new_and_the_searching_and_waits_for_the_running(
    autojump_clock: MockClock,
) -> None:
    ends: list[object] = []

    async def submit(agent: LBAgent, call: PendingCall) -> None:
        try:
            await agent.submit(call)
            ends.append((call.model.id, trio.current_time()))
        except APIError as error:
            ends.append((call.model.id, error.code, trio.current_time()))

    async with trio.open_nursery() as nursery:
        async with open_bench(FakeRunner(seconds=8), placer_seconds=99) as bench:
            nursery.start_soon(submit, bench.agent, make_call("runs"))
            await trio.sleep(1)
            nursery.start_soon(submit, bench.agent, make_call("waits"))
            await trio.sleep(1)
        with pytest.raises(ServerBusy):
            await bench.agent.submit(make_call("late"))
        assert trio.current_time() == pytest.approx(8, abs=0.1)
    (waits, runs) = ends
    assert waits == ("waits", 503, pytest.approx(2, abs=0.1))
    assert runs == ("runs", pytest.approx(8, abs=0.1))
    assert bench.agent.statistics() == LBStatistics(calls=3, completed=1, server_busy=2)


async def test_a_drain_that_has_begun_takes_what_finds_a_runner(
    autojump_clock: MockClock, logs: Logs
) -> None:
    """As a front end does it: no call waits, those that it has accepted run, one grace for all."""
    runner = FakeRunner(seconds=2, slots=2)
    async with trio.open_nursery() as nursery:
        async with open_bench(runner, grace=30, placer_seconds=99) as bench:
            for name in ("first", "second"):
                nursery.start_soon(bench.agent.submit, make_call(name))
            await trio.sleep(0.1)
            nursery.start_soon(_refused, bench.agent, make_call("waits"))
            await trio.sleep(0.1)
            bench.agent.begin_drain(30)
            runner.slots = 3
            await bench.agent.submit(make_call("accepted"))
        report = bench.agent.drain_report
    assert report is not None
    assert (report.completed, report.refused, report.clean) == (3, 1, False)
    (line,) = logs.with_event("lb agent has drained")
    assert (line["log_level"], line["refused"], line["tasks"]) == ("warning", 1, 0)


async def _refused(agent: LBAgent, call: PendingCall) -> None:
    with pytest.raises(ServerBusy):
        await agent.submit(call)


async def test_begin_and_end_of_a_drain_share_one_grace(autojump_clock: MockClock) -> None:
    runner = FakeRunner(seconds=9999, slots=9)
    ends: list[Exception] = []

    async def submit(agent: LBAgent) -> None:
        try:
            await agent.submit(make_call())
        except ServiceReservationFailure as error:
            ends.append(error)

    async with trio.open_nursery() as nursery, open_bench(runner, grace=7) as bench:
        nursery.start_soon(submit, bench.agent)
        await trio.sleep(1)
        bench.agent.begin_drain(7)
        await trio.sleep(5)  # a front end takes its time
    assert trio.current_time() == pytest.approx(1 + 7, abs=0.1)
    report = bench.agent.drain_report
    assert report is not None
    assert report == DrainReport(seconds=report.seconds, canceled=1)
    assert report.seconds == pytest.approx(7, abs=0.1)
    assert len(ends) == 1


async def test_a_clean_drain_reports_zeros(autojump_clock: MockClock, logs: Logs) -> None:
    before = ResourceUse.now()
    async with open_bench(acknowledging(3)) as bench:
        await bench.agent.submit(make_call("sync"))
        await bench.agent.submit(make_call("detached", kind="detached"))
    report = bench.agent.drain_report
    assert report is not None
    assert report == DrainReport(seconds=report.seconds, completed=1)
    assert report.since(before) == report
    assert report.clean
    assert logs.with_event("lb agent has drained")[0]["log_level"] == "info"


async def test_a_report_tells_what_the_program_has_left() -> None:
    before = ResourceUse.now()
    clean = DrainReport(seconds=1.0, completed=5)
    async with trio.open_nursery() as nursery:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            nursery.start_soon(trio.sleep_forever)
            found = clean.since(before)
            assert (found.sockets, found.tasks) == (2, 1)
            assert not found.clean
            nursery.cancel_scope.cancel()
    assert clean.since(before) == clean


async def test_weakness_02_5_drain_has_an_end(autojump_clock: MockClock) -> None:
    ends: list[Exception] = []

    async def submit(agent: LBAgent) -> None:
        try:
            await agent.submit(make_call("stuck"))
        except HostlerError as error:
            ends.append(error)

    runner = FakeRunner(seconds=9999, slots=9)
    async with trio.open_nursery() as nursery, open_bench(runner, grace=7) as bench:
        nursery.start_soon(submit, bench.agent)
        await trio.sleep(1)
    assert trio.current_time() == pytest.approx(8, abs=0.1)
    assert runner.active == 0
    assert [type(error) for error in ends] == [ServiceReservationFailure]
    assert bench.agent.statistics() == LBStatistics(calls=1, canceled=1)


async def test_a_drain_cancels_the_scope_that_a_call_was_lent(autojump_clock: MockClock) -> None:
    call = make_call("stuck")

    async def submit(agent: LBAgent) -> None:
        with trio.CancelScope() as call.scope:
            await agent.submit(call)

    runner = FakeRunner(seconds=9999, slots=9)
    async with trio.open_nursery() as nursery, open_bench(runner, grace=7) as bench:
        nursery.start_soon(submit, bench.agent)
        await trio.sleep(1)
    assert trio.current_time() == pytest.approx(8, abs=0.1)
    assert runner.active == 0
    assert call.scope is not None
    assert call.scope.cancelled_caught
    assert bench.agent.statistics() == LBStatistics(calls=1, canceled=1)


async def refuse_then_hang(
    runner: FakeRunner, call: RunnerCall, observer: AttemptObserver
) -> Outcome:
    """The second attempt is not committed."""
    if runner.attempts[call.model.id] > 1:
        await trio.sleep_forever()
    await trio.lowlevel.checkpoint()
    observer.committed()
    call.runner_address = runner.address
    return NotPlaced(ServerBusy())


async def run_before_it_says_so(
    runner: FakeRunner, call: RunnerCall, observer: AttemptObserver
) -> Outcome:
    observer.committed()
    await trio.sleep_forever()
    raise AssertionError


class HungPool(FakePool):
    async def runners(self, call: RunnerCall) -> list[Runner]:
        await trio.sleep_forever()
        raise AssertionError


@pytest.mark.parametrize("lent", [True, False])
@pytest.mark.parametrize(
    ("runner", "pool", "busy"),
    [
        (FakeRunner(), HungPool([]), True),
        (FakeRunner(script=refuse_then_hang), None, True),
        (FakeRunner(slots=0), None, True),
        (FakeRunner(seconds=9999), None, False),
        (FakeRunner(script=run_before_it_says_so), None, False),
    ],
    ids=["looks for runners", "asks one again", "waits", "runs", "runs unsaid"],
)
async def test_only_a_call_that_a_runner_had_may_have_run(
    autojump_clock: MockClock, runner: FakeRunner, pool: FakePool | None, busy: bool, lent: bool
) -> None:
    """At the end of all grace, which may come at the same time as the refusal of the others."""
    runner.attempts.clear()
    call, errors = make_call(), list[Exception]()

    async def submit(agent: LBAgent) -> None:
        with trio.CancelScope() as scope:
            call.scope = scope if lent else None
            try:
                await agent.submit(call)
            except APIError as error:
                errors.append(error)
        if scope.cancelled_caught:
            errors.append(call.cancelled_error())

    async with (
        trio.open_nursery() as nursery,
        open_bench(runner, pool=pool, placer_seconds=9999) as bench,
    ):
        nursery.start_soon(submit, bench.agent)
        await trio.sleep(1)
        await wait_all_tasks_blocked()
        bench.agent.abort()
    assert list(map(type, errors)) == [ServerBusy if busy else ServiceReservationFailure]


async def test_a_call_that_is_over_leaves_a_lent_scope_alone(autojump_clock: MockClock) -> None:
    with trio.CancelScope() as scope:
        async with open_bench(acknowledging(0.5), grace=7) as bench:
            for kind in ("sync", "detached"):
                call = make_call(kind=kind)
                call.scope = scope
                await bench.agent.submit(call)
            bench.agent.abort()
    assert not scope.cancel_called


async def test_a_drain_waits_for_all_calls_in_one_scope(autojump_clock: MockClock) -> None:
    runner = FakeRunner(seconds=1, slots=9)
    ended: list[float] = []

    async def submit(agent: LBAgent, seconds: float) -> None:
        call = make_call()
        call.scope = submitting.cancel_scope
        runner.seconds = seconds
        await agent.submit(call)
        ended.append(trio.current_time())

    async with trio.open_nursery() as submitting:
        async with open_bench(runner, grace=7) as bench:
            for seconds in (1, 3):
                submitting.start_soon(submit, bench.agent, seconds)
                await trio.sleep(0.5)
        assert ended == pytest.approx([1, 3.5], abs=0.1)
    assert not submitting.cancel_scope.cancel_called


async def test_drain_ends_detached_calls_too(autojump_clock: MockClock) -> None:
    async with open_bench(acknowledging(9999), grace=7) as bench:
        await bench.agent.submit(make_call(kind="detached"))
    assert trio.current_time() == pytest.approx(8, abs=0.1)
    assert bench.runner.active == 0
    assert bench.agent.statistics() == LBStatistics(calls=1, canceled=1)


async def test_an_exception_in_the_block_ends_everything_and_comes_out_as_it_is(
    autojump_clock: MockClock,
) -> None:
    bench: Bench | None = None
    with pytest.raises(ValueError, match="mine"):  # noqa: PT012  (the block is what is tested)
        async with open_bench(acknowledging(9999), grace=7) as bench:
            await bench.agent.submit(make_call(kind="detached"))
            raise ValueError("mine")
    assert bench is not None
    assert trio.current_time() == pytest.approx(1)
    assert bench.runner.active == 0


@pytest.mark.parametrize("rounds", range(0, 40, 2))
@pytest.mark.parametrize("kind", ["sync", "detached"])
async def test_cancelled_at_any_point_all_counts_return_to_zero(rounds: int, kind: str) -> None:
    runner = FakeRunner(seconds=0, latency=0)

    async def run(runner: FakeRunner, call: RunnerCall, observer: AttemptObserver) -> Outcome:
        if call.attempts < 3:
            await trio.lowlevel.checkpoint()
            return NotPlaced(ServerBusy())
        observer.committed()
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        await call.writer.start(202, ())
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        return Placed()

    runner.script = run
    record: list[str] = []
    async with open_bench(runner, listeners=(Recorder(record),)) as bench:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                call = make_call(kind="detached" if kind == "detached" else "sync")
                nursery.start_soon(bench.agent.submit, call)
                for _ in range(rounds):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        await wait_all_tasks_blocked()
        statistics = bench.agent.statistics()
        assert (statistics.queued, statistics.running, statistics.detached) == (0, 0, 0)
        assert statistics.completed + statistics.canceled == statistics.calls
        assert len(record) in (0, 2)
        assert bench.sample("fn_queued") == bench.sample("fn_running") == 0
