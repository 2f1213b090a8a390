"""Reservations at a pure runner: what its LB sees, and what is left of each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from hostler.agent import ContainerState
from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.protocol import (
    Commit,
    Data,
    EngagementFailed,
    Finished,
    GRPCStatus,
    Reserved,
    ResultStart,
    RunnerFrame,
    TryCall,
)
from hostler.runner.engagement import EXPECTED_COMMIT, EXPECTED_TRY
from tests.agent.nodes import until
from tests.conftest import Logs

from .fakes import PlayedEngagement, a_try, engage
from .runners import SimRunner, open_sim_runner, try_call

START = 1.0


async def _echo(request: SimRequest) -> SimResponse:
    return SimResponse(body=await request.read())


def reserving(image: str = "echo", **model: Any) -> TryCall:
    return msgspec.structs.replace(try_call(image, **model), reserve=True)


@asynccontextmanager
async def open_bench(path: Path, **options: Any) -> AsyncIterator[SimRunner]:
    async with (
        open_sim_driver() as driver,
        open_sim_runner(driver, path, **options) as runner,
    ):
        driver.add_image("echo", _echo, start_time=START)
        yield runner


async def rest_of(receive: Callable[[], Any]) -> list[RunnerFrame]:
    frames = []
    while (frame := await receive()) is not None:
        frames.append(frame)
    return frames


@pytest.mark.parametrize("pieces", [[b""], [b"abc"], [b"a" * 100, b"b" * 100, b""]])
@pytest.mark.parametrize("with_commit", [True, False])
async def test_a_reserved_call_runs_after_its_commit(
    autojump_clock: object, tmp_path: Path, pieces: list[bytes], with_commit: bool
) -> None:
    async with open_bench(tmp_path) as runner:
        async with runner.client.engage(reserving()) as engagement:
            assert await engagement.receive() == Reserved()
            assert runner.agent.statistics().holding == 1
            frames = [
                Data(piece, eof=index == len(pieces)) for index, piece in enumerate(pieces, 1)
            ]
            first = frames.pop(0) if with_commit else None
            await engagement.commit(first)
            for frame in frames:
                await engagement.send(frame)
            head, *data, last = await rest_of(engagement.receive)
        assert isinstance(head, ResultStart)
        assert b"".join(d.data for d in data if isinstance(d, Data)) == b"".join(pieces)
        assert isinstance(last, Finished)
        assert last.success
        assert last.load is not None
        assert last.load.reserves
        assert (await runner.client.status()).reservations
        assert runner.value("fn_reservation_committed_count") == 1


@pytest.mark.parametrize("with_commit", [True, False])
async def test_a_detached_call_is_acknowledged_when_its_body_has_followed_the_commit(
    autojump_clock: object, tmp_path: Path, with_commit: bool
) -> None:
    """And runs to its end, though the load balancer is gone then."""
    got: list[bytes] = []

    async def note(request: SimRequest) -> SimResponse:
        got.append(await request.read())
        return SimResponse()

    async with open_bench(tmp_path) as runner:
        runner.driver.add_image("note", note)
        async with runner.client.engage(reserving("note", type="detached")) as engagement:
            assert await engagement.receive() == Reserved()
            first = Data(b"be") if with_commit else None
            await engagement.commit(first)
            await engagement.send(Data(b"gin"))
            with trio.move_on_after(1) as early:
                await engagement.receive()
            assert early.cancelled_caught
            await engagement.send(Data(b"", eof=True))
            assert await engagement.receive() == ResultStart(202)
        await until(lambda: runner.service.statistics().detached == 0)
        assert got == [b"begin" if with_commit else b"gin"]


async def test_a_warm_runner_reserves_without_delay(autojump_clock: object, tmp_path: Path) -> None:
    async with open_bench(tmp_path) as runner:
        await runner.call()
        began = trio.current_time()
        async with runner.client.engage(reserving()) as engagement:
            assert await engagement.receive() == Reserved()
        assert trio.current_time() == began


@pytest.mark.parametrize("moment", [0.0, START / 2, START + 0.5])
async def test_an_lb_that_leaves_frees_the_slot_within_100_ms(
    autojump_clock: object, tmp_path: Path, moment: float
) -> None:
    """Before, during and after the launch; a container that was on its way stays for the next."""
    async with open_bench(tmp_path) as runner:
        with trio.move_on_after(moment):
            async with runner.client.engage(reserving()) as engagement:
                assert await engagement.receive() == Reserved()
                await engagement.receive()
        await until(lambda: runner.service.statistics().active == 0, seconds=0.1)
        s = runner.agent.statistics()
        assert (s.queued, s.running, s.holding) == (0, 0, 0)
        if moment:
            await until(lambda: runner.agent.statistics().containers == {ContainerState.IDLE: 1})
        assert (await runner.call()).success
        assert runner.agent.statistics().launches == 1


async def test_a_reservation_without_a_commit_is_refused_in_time(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_bench(tmp_path) as runner:
        async with runner.client.engage(reserving()) as engagement:
            assert await engagement.receive() == Reserved()
            began = trio.current_time()
            (last,) = await rest_of(engagement.receive)
        assert trio.current_time() - began == pytest.approx(2, abs=0.02)
        assert isinstance(last, Finished)
        assert last.error_code == 503
        assert runner.value("fn_reservation_abandoned_count") == 1


async def test_a_full_runner_refuses_a_reservation(autojump_clock: object, tmp_path: Path) -> None:
    async with (
        open_bench(tmp_path, memory=128) as runner,
        runner.client.engage(reserving()) as engagement,
    ):
        assert await engagement.receive() == Reserved()
        async with runner.client.engage(reserving()) as other:
            (last,) = await rest_of(other.receive)
        assert isinstance(last, Finished)
        assert last.error_code == 503


async def test_a_draining_runner_refuses_what_it_holds(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_bench(tmp_path) as runner,
        runner.client.engage(reserving()) as engagement,
        trio.open_nursery() as nursery,
    ):
        assert await engagement.receive() == Reserved()
        began = trio.current_time()
        nursery.start_soon(runner.service.drain, 30)
        (last,) = await rest_of(engagement.receive)
        assert isinstance(last, Finished)
        assert (last.error_code, trio.current_time()) == (503, began)


async def test_a_detached_call_is_acknowledged_after_its_commit(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_bench(tmp_path) as runner:
        async with runner.client.engage(reserving(type="detached")) as engagement:
            assert await engagement.receive() == Reserved()
            await engagement.commit(Data(b"x", eof=True))
            assert await engagement.receive() == ResultStart(202)
        await until(lambda: runner.service.statistics().detached == 0)
        assert runner.agent.statistics().completed == 1


async def test_a_detached_call_that_was_never_committed_does_not_run(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_bench(tmp_path) as runner:
        async with runner.client.engage(reserving(type="detached")) as engagement:
            assert await engagement.receive() == Reserved()
        await until(lambda: runner.service.statistics().detached == 0, seconds=0.1)
        s = runner.agent.statistics()
        assert (s.completed, s.canceled, s.holding) == (0, 1, 0)


async def test_a_failed_launch_is_the_outcome_of_a_reservation(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    async with open_bench(tmp_path) as runner:
        runner.driver.add_image("bad", _echo, exit_on_start=3)
        async with runner.client.engage(reserving("bad")) as engagement:
            (last,) = await rest_of(engagement.receive)
        assert isinstance(last, Finished)
        assert not last.success
        assert last.error_code == 502


@pytest.mark.parametrize("frame", [Data(b"x"), TryCall("{}")])
async def test_anything_but_a_commit_breaks_the_reservation(
    autojump_clock: object, tmp_path: Path, frame: Data | TryCall
) -> None:
    async with open_bench(tmp_path) as runner:
        async with runner.client.engage(reserving()) as engagement:
            assert await engagement.receive() == Reserved()
            await engagement.send(frame)
            with pytest.raises(EngagementFailed) as caught:
                await engagement.receive()
        assert (caught.value.status, caught.value.text) == (2, EXPECTED_COMMIT)
        assert runner.agent.statistics().containers == {ContainerState.IDLE: 1}


@pytest.mark.parametrize("first", [Commit(), msgspec.structs.replace(a_try(), reserve=True)])
async def test_an_agent_that_takes_none_answers_as_to_any_unknown_frame(
    first: Commit | TryCall,
) -> None:
    """That tells the LB that the call has not run, and to send it whole."""
    engagement = PlayedEngagement(first)
    with pytest.raises(GRPCStatus) as caught:
        await engage(engagement)
    assert (caught.value.status, caught.value.text) == (2, EXPECTED_TRY)
    assert engagement.sent == []
