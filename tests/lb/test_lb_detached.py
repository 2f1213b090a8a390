"""Detached calls: what the client waits for, and what goes on without it."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from hostler.abc import (
    Outcome,
    Placed,
    RunnerCall,
)
from hostler.bodies import BodyBudget, BytesBody, ReplayBody
from hostler.config import BodyConfig, LBConfig
from hostler.errors import (
    FunctionError,
    RequestTooBig,
    ServerBusy,
)
from hostler.lb import LBStatistics
from hostler.protocol import AttemptObserver
from tests.conftest import Logs
from tests.pool.fakes import FakeRunner, RecordingWriter, full, make_call

from .bench import Recorder, acknowledging, open_bench


async def test_a_detached_call_returns_with_the_acknowledgement_and_goes_on(
    autojump_clock: MockClock,
) -> None:
    record: list[str] = []
    async with open_bench(acknowledging(60), grace=100, listeners=(Recorder(record),)) as bench:
        writer = RecordingWriter()
        await bench.agent.submit(make_call(kind="detached", writer=writer))
        assert trio.current_time() == pytest.approx(1)
        assert bench.agent.statistics() == LBStatistics(calls=1, running=1, detached=1)
        await trio.sleep(61)
        assert bench.agent.statistics() == LBStatistics(calls=1, completed=1)
    assert (writer.heads, writer.data) == ([], b"")
    assert record == ["before running", "after success"]


async def test_a_detached_call_survives_its_submitter(autojump_clock: MockClock) -> None:
    async with open_bench(acknowledging(60), grace=100) as bench:
        with trio.CancelScope() as scope:
            await bench.agent.submit(make_call(kind="detached"))
            scope.cancel()
            await trio.lowlevel.checkpoint()
        await trio.sleep(100)
    assert bench.runner.order == ["call1"]


async def test_a_detached_call_ends_with_its_submitter_before_the_acknowledgement(
    autojump_clock: MockClock,
) -> None:
    async with open_bench(acknowledging(60)) as bench:
        with trio.move_on_after(0.5):
            await bench.agent.submit(make_call(kind="detached"))
        assert bench.runner.active == 0
        assert bench.agent.statistics() == LBStatistics(calls=1, canceled=1)


async def test_a_detached_call_that_can_not_be_placed_fails_its_submitter(
    autojump_clock: MockClock,
) -> None:
    async with open_bench(full(), placer_seconds=0.3) as bench:
        with pytest.raises(ServerBusy):
            await bench.agent.submit(make_call(kind="detached"))
        assert trio.current_time() == pytest.approx(0.3, abs=0.01)


async def test_an_error_after_the_acknowledgement_is_nobodys_answer(
    autojump_clock: MockClock, logs: Logs
) -> None:
    async with open_bench(acknowledging(1, FunctionError(502, "function failed"))) as bench:
        await bench.agent.submit(make_call(kind="detached"))
        await trio.sleep(5)
        assert bench.agent.statistics() == LBStatistics(calls=1, errors=1)
    async with open_bench(acknowledging(1, OSError("internal"))) as bench:
        await bench.agent.submit(make_call(kind="detached"))
        await trio.sleep(5)
    logs.expect_error("detached call failed")


async def test_the_reservation_of_a_detached_call_ends(autojump_clock: MockClock) -> None:
    config = LBConfig(execution_headroom=10_000.0)
    async with open_bench(acknowledging(9999), config=config) as bench:
        await bench.agent.submit(make_call(kind="detached", timeout=20))
        await trio.sleep_until(34.9)
        assert bench.agent.statistics().detached == 1
        await trio.sleep_until(35.1)  # 5 of the placer, 20 of the call, 10 of headroom
        assert bench.agent.statistics() == LBStatistics(calls=1, timeouts=1)
        assert bench.runner.active == 0


async def test_a_detached_call_that_ends_without_an_acknowledgement_is_acknowledged(
    autojump_clock: MockClock,
) -> None:
    async with open_bench(FakeRunner(seconds=0)) as bench:
        await bench.agent.submit(make_call(kind="detached"))
        assert bench.agent.statistics() == LBStatistics(calls=1, completed=1)


async def test_weakness_02_3_a_detached_body_does_not_depend_on_the_request(
    autojump_clock: MockClock,
) -> None:
    """The source of the body is overwritten and closed once the client has its answer."""
    bodies: dict[str, bytes] = {}

    async def run(runner: FakeRunner, call: RunnerCall, observer: AttemptObserver) -> Outcome:
        observer.committed()
        await call.writer.start(202, ())
        await trio.sleep(1)
        async with call.body.open() as stream:
            parts = []
            while part := await stream.receive_some(1000):
                parts.append(bytes(part))
                await trio.lowlevel.checkpoint()
        bodies[call.model.id] = b"".join(parts)
        return Placed()

    async with open_bench(FakeRunner(script=run)) as bench:
        sent = {}
        for number in range(8):
            source = bytearray(bytes([number]) * 50_000)
            sent[f"c{number}"] = bytes(source)
            send, receive = trio.testing.memory_stream_one_way_pair()
            await send.send_all(source)
            await send.aclose()
            await bench.agent.submit(
                make_call(f"c{number}", kind="detached", body=ReplayBody(receive, limit=10))
            )
            await receive.aclose()
            source[:] = b"\xff" * len(source)
        await trio.sleep(10)
    assert bodies == sent


async def test_a_detached_body_counts_until_its_call_ends(autojump_clock: MockClock) -> None:
    bodies = BodyBudget()
    async with open_bench(acknowledging(60), grace=100, bodies=bodies) as bench:
        await bench.agent.submit(make_call(kind="detached", body=BytesBody(b"four")))
        assert bodies.memory == 4
        await trio.sleep(61)
        assert bodies.memory == 0
        with trio.move_on_after(0.5):
            await bench.agent.submit(make_call(kind="detached", body=BytesBody(b"four")))
        assert bodies.memory == 0


async def test_a_detached_body_for_which_there_is_no_room_is_a_503() -> None:
    bodies = BodyBudget(BodyConfig(body_memory=3, body_disk=3))
    async with open_bench(FakeRunner(), bodies=bodies) as bench:
        with pytest.raises(ServerBusy):
            await bench.agent.submit(make_call(kind="detached", body=BytesBody(b"four")))
        assert bench.agent.statistics() == LBStatistics(calls=1, server_busy=1)
        assert (bodies.memory, bench.runner.attempts.total()) == (0, 0)


async def test_a_detached_body_has_a_limit() -> None:
    async with open_bench(FakeRunner(), config=LBConfig(max_detached_body=10)) as bench:
        for body in (BytesBody(b"x" * 11), ReplayBody(BytesBody(b"x" * 11).open())):
            with pytest.raises(RequestTooBig):
                await bench.agent.submit(make_call(kind="detached", body=body))
        assert bench.agent.statistics() == LBStatistics(calls=2, errors=2)
        assert bench.runner.attempts.total() == 0
