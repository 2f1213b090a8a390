"""Placer, runner objects, pure runners, agents and containers together, on virtual time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from hostler.abc import Runner
from hostler.bodies import BytesBody
from hostler.config import PlacerConfig
from hostler.drivers.sim import SimDriver, SimRequest, SimResponse, open_sim_driver
from hostler.errors import ServerBusy
from hostler.pool import GrpcRunner, NaivePlacer, WarmPlacer
from hostler.pool.attempts import WINDOW
from hostler.pool.placer import need_of
from hostler.testing import FakePool, MemoryRunnerClient
from tests.runner.runners import SimRunner, open_sim_runner

from .fakes import RecordingWriter, fresh_metrics, make_call
from .placers import is_idle


@attrs.define(eq=False)
class Fleet:
    """Runners with one machine each, and what their functions have run."""

    nodes: list[SimRunner]
    runners: list[Runner]
    runs: Counter[str]

    def statistics(self, name: str) -> int:
        return sum(getattr(node.agent.statistics(), name) for node in self.nodes)


@asynccontextmanager
async def open_fleet(path: Path, *start_times: float, memory: int = 512) -> AsyncIterator[Fleet]:
    """One runner for each of ``start_times``, which its containers take to start."""
    runs: Counter[str] = Counter()

    async def work(request: SimRequest) -> SimResponse:
        body = await request.read()
        runs[body.decode()] += 1
        await trio.sleep(0.5)
        return SimResponse(body=body)

    async with AsyncExitStack() as stack:
        nodes, runners = [], list[Runner]()
        for number, seconds in enumerate(start_times):
            driver: SimDriver = await stack.enter_async_context(open_sim_driver())
            driver.add_image("image", work, start_time=seconds)
            folder = path / str(number)
            folder.mkdir()
            node = await stack.enter_async_context(open_sim_runner(driver, folder, memory=memory))
            runner = GrpcRunner(MemoryRunnerClient(node.service, address=f"r:{number}"))
            stack.push_async_callback(runner.aclose)
            await runner.status()
            assert runner.reserves
            nodes.append(node)
            runners.append(runner)
        yield Fleet(nodes, runners, runs)


def placer_with(delay: float) -> NaivePlacer:
    """One that asks a second runner after ``delay``."""
    config = PlacerConfig(hedge_percent=100, placer_timeout=20)
    placer = NaivePlacer(config, metrics=fresh_metrics(), rng=random.Random(1))
    for _ in range(WINDOW):
        placer._hedging.took(need_of(make_call()).key, delay)
        placer._hedging.begin("")
    return placer


async def test_a_stuck_start_is_hedged_and_its_container_serves_later(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_fleet(tmp_path, 10, 1) as fleet:
        placer = placer_with(2)
        for name in ("one", "two"):  # wherever the sweep starts
            writer = RecordingWriter()
            began = trio.current_time()
            call = make_call(name, body=BytesBody(name.encode()), writer=writer)
            await placer.place_call(FakePool(fleet.runners), call)
            assert writer.data == name.encode()
            assert trio.current_time() - began < 4
        assert fleet.runs == {"one": 1, "two": 1}
        assert fleet.statistics("holding") == 0
        assert is_idle(placer)


@pytest.mark.parametrize("moment", [0.5, 1.5, 2.5, 3.2])
async def test_a_client_that_leaves_frees_reservations_and_slots_within_100_ms(
    autojump_clock: MockClock, tmp_path: Path, moment: float
) -> None:
    """While the first runner starts, while both do, and while the function runs."""
    async with open_fleet(tmp_path, 3, 2) as fleet:
        placer = placer_with(1)
        with trio.move_on_after(moment) as scope:
            await placer.place_call(FakePool(fleet.runners), make_call("x", body=BytesBody(b"x")))
        assert scope.cancelled_caught
        await trio.sleep(0.1)
        held = [fleet.statistics(name) for name in ("queued", "running", "holding")]
        assert held == [0, 0, 0]
        assert all(node.service.statistics().active == 0 for node in fleet.nodes)
        assert is_idle(placer)


@pytest.mark.parametrize("seed", range(6))
async def test_random_calls_run_once_and_leave_nothing(
    autojump_clock: MockClock, tmp_path: Path, seed: int
) -> None:
    """More calls than room, clients that leave, starts that are slow."""
    rng = random.Random(seed)
    ends: dict[str, str] = {}
    async with open_fleet(tmp_path, 0.3, 2, 0, memory=256) as fleet:
        placer = placer_with(0.2)

        async def one(name: str) -> None:
            writer = RecordingWriter()
            await trio.sleep(rng.uniform(0, 4))
            ends[name] = "cancelled"
            patience = rng.choice([100, 100, rng.uniform(0, 3)])
            with trio.move_on_after(patience):
                try:
                    call = make_call(name, body=BytesBody(name.encode()), writer=writer)
                    await placer.place_call(FakePool(fleet.runners), call)
                    ends[name] = "done"
                    assert writer.data == name.encode()
                except ServerBusy:
                    ends[name] = "busy"

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(one, f"c{number}")
        assert max(fleet.runs.values()) == 1
        assert {name for name, end in ends.items() if end == "done"} <= set(fleet.runs)
        assert not {name for name, end in ends.items() if end == "busy"} & set(fleet.runs)
        assert "done" in ends.values()
        assert fleet.statistics("holding") == fleet.statistics("queued") == 0
        assert is_idle(placer)
        reserved = sum(node.value("fn_reservation_count") for node in fleet.nodes)
        assert reserved == sum(
            node.value("fn_reservation_committed_count")
            + node.value("fn_reservation_abandoned_count")
            for node in fleet.nodes
        )
        assert reserved > 0


async def test_the_next_calls_of_many_hot_functions_need_no_reservation(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """However many they are, it is known where each is hot, and that one is not any more."""
    names = [f"fn{number}" for number in range(100)]
    async with open_fleet(tmp_path, 0.1, memory=128 * len(names)) as fleet:
        metrics = fresh_metrics()
        placer, pool = WarmPlacer(metrics=metrics), FakePool(fleet.runners)

        async def reserved_in_a_round() -> float:
            before = metrics.reservations.value
            for name in names:
                call = make_call(name, fn_id=name, body=BytesBody(name.encode()))
                call.model.idle_timeout = 300
                await placer.place_call(pool, call)
            return metrics.reservations.value - before

        assert await reserved_in_a_round() == len(names)
        for _ in range(3):
            assert await reserved_in_a_round() == 0
        assert fleet.runs == dict.fromkeys(names, 4)
        await trio.sleep(310)  # all have idled out
        assert await reserved_in_a_round() == len(names)


async def test_nor_do_those_of_many_calls_that_end_together(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    names = [f"fn{number}" for number in range(100)]
    async with open_fleet(tmp_path, 0.1, memory=128 * len(names)) as fleet:
        metrics = fresh_metrics()
        placer, pool = WarmPlacer(metrics=metrics), FakePool(fleet.runners)
        reserved = list[float]()
        for _ in range(4):
            async with trio.open_nursery() as nursery:
                for name in names:
                    call = make_call(name, fn_id=name, body=BytesBody(name.encode()))
                    nursery.start_soon(placer.place_call, pool, call)
            reserved.append(metrics.reservations.value)
            await trio.sleep(1)
        assert reserved == [reserved[0]] * 4
        assert fleet.runs == dict.fromkeys(names, 4)
