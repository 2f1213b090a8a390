"""Static pools: lazy, closed concurrently, and over the real wire."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from hostler import wire
from hostler.abc import PKIData, Runner
from hostler.errors import ConfigError, ServerBusy
from hostler.pool import (
    NaivePlacer,
    RunnerAccess,
    StaticPool,
    mtls_runner_factory,
    open_static_pool,
)
from tests.conftest import Logs

from .bench import OneAtATime
from .fakes import FakeRunner, RecordingWriter, fresh_metrics, make_call
from .placers import make


async def test_runners_that_nobody_can_reach_are_no_reason_to_fail() -> None:
    async with open_static_pool(["127.0.0.1:1", "127.0.0.2:1"]) as pool:
        assert [runner.address for runner in await pool.runners(make_call())] == [
            "127.0.0.1:1",
            "127.0.0.2:1",
        ]


async def test_a_pool_of_nothing() -> None:
    async with open_static_pool([]) as pool:
        assert list(await pool.runners(make_call())) == []


@pytest.mark.parametrize("address", ["nonsense", ":1", "host:port"])
async def test_weakness_02_7_a_bad_address_fails_at_once(address: str) -> None:
    async with wire.open_loop() as loop:
        with pytest.raises(ConfigError, match="runner address"):
            mtls_runner_factory(loop)(address, "", None)


async def test_missing_pem_files_fail_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "missing.pem")
    async with wire.open_loop() as loop:
        with pytest.raises(ConfigError, match="Cannot stat"):
            mtls_runner_factory(loop)("h:1", "", PKIData(path, path, path))


async def test_the_factory_gets_what_it_needs() -> None:
    made: list[tuple[str, str, PKIData | None]] = []

    def factory(address: str, name: str, pki: PKIData | None) -> Runner:
        made.append((address, name, pki))
        return FakeRunner(address)

    pki = PKIData("ca", "key", "cert")
    access = RunnerAccess(factory=factory, pki=pki, cert_common_name="n")
    async with open_static_pool(["a:1", "b:2"], access):
        assert made == [("a:1", "n", pki), ("b:2", "n", pki)]


class SlowToClose(FakeRunner):
    async def aclose(self) -> None:
        try:
            await trio.sleep(3)
        finally:
            self.closed += 1


async def test_weakness_02_5_runners_are_closed_all_at_once(autojump_clock: MockClock) -> None:
    runners = [SlowToClose(f"r:{number}") for number in range(1, 6)]
    await StaticPool(runners).aclose()
    assert trio.current_time() == pytest.approx(3)
    assert [runner.closed for runner in runners] == [1] * 5


async def test_closing_has_the_callers_deadline(autojump_clock: MockClock) -> None:
    runners = [SlowToClose(f"r:{number}") for number in range(1, 6)]
    with trio.move_on_after(1):
        await StaticPool(runners).aclose()
    assert trio.current_time() == pytest.approx(1)
    assert [runner.closed for runner in runners] == [1] * 5


async def test_a_runner_that_fails_to_close_is_told_and_stops_no_other(logs: Logs) -> None:
    class Bad(FakeRunner):
        async def aclose(self) -> None:
            raise OSError("stuck")

    good = FakeRunner()
    await StaticPool([Bad("bad:1"), good]).aclose()
    assert good.closed == 1
    assert logs.expect_error("runner could not be closed")["runner"] == "bad:1"


async def test_a_block_left_by_an_exception_has_no_grace(autojump_clock: MockClock) -> None:
    runner = SlowToClose()
    with pytest.raises(ValueError, match="mine"):
        async with open_static_pool(["a:1"], RunnerAccess(factory=lambda *_: runner)):
            raise ValueError("mine")
    assert trio.current_time() == pytest.approx(0)
    assert runner.closed == 1


async def test_many_calls_wait_for_few_slots_over_the_wire() -> None:
    with socket.socket() as nobody:  # bound, not listening: refuses
        nobody.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{nobody.getsockname()[1]}"
        async with wire.open_loop() as loop:
            services = [OneAtATime(10), OneAtATime(10)]
            async with (
                wire.open_server(services[0], "127.0.0.1:0", loop=loop) as first,
                wire.open_server(services[1], "127.0.0.1:0", loop=loop) as second,
                open_static_pool(
                    [first.address, dead, second.address], RunnerAccess(loop=loop)
                ) as pool,
            ):
                placer = NaivePlacer(metrics=fresh_metrics(), rng=random.Random(1))
                calls = [make_call(f"c{number}") for number in range(200)]
                async with trio.open_nursery() as nursery:
                    for call in calls:
                        nursery.start_soon(placer.place_call, pool, call)
        for call in calls:
            assert isinstance(call.writer, RecordingWriter)
            assert call.writer.heads == [(200, ())] or call.writer.heads == [(200, [])]
        assert all(service.running == 0 for service in services)
        assert sum(call.attempts for call in calls) < 6 * len(calls)


async def test_a_pool_of_dead_runners_is_busy_in_time() -> None:
    placer = make(timeout=0.3)
    async with open_static_pool(["127.0.0.1:1"]) as pool:
        with trio.fail_after(60), pytest.raises(ServerBusy):
            await placer.place_call(pool, make_call())
