"""What callers, listeners, overriders and wrapping drivers see; how an agent ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import trio
import trio.testing

from hostler import options
from hostler.abc import (
    CallRequest,
    ResponseWriter,
)
from hostler.drivers.sim import (
    SimRequest,
    SimResponse,
    echo,
    open_sim_driver,
)
from hostler.errors import (
    APIError,
    CallResourceTooBig,
    CallTimeout,
)
from hostler.models import Call
from hostler.protocol import Headers

from .fakes import Wrapping
from .functions import hang
from .nodes import Recorder, Recording, open_node, until


async def drip(request: SimRequest) -> SimResponse:
    """A response that never ends."""

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"drop"
            await trio.sleep(1)

    return SimResponse(body=pieces())


async def test_overrider_comes_before_the_contract_and_the_slot_key(
    autojump_clock: object, tmp_path: Path
) -> None:
    def overrider(
        request: CallRequest, model: Call, extensions: Mapping[str, str]
    ) -> Mapping[str, str]:
        model.config |= {"ADDED": extensions["tenant"], "FN_FORMAT": "nonsense"}
        return {"seen": "yes"}

    async with (
        open_sim_driver({"echo": echo}) as driver,
        open_node(driver, tmp_path, overrider=overrider) as node,
    ):
        for tenant in ("a", "b"):
            call = node.call("echo", None, options.with_extensions({"tenant": tenant}))
            await node.agent.submit(call)
            assert call.extensions == {"seen": "yes"}
        first, second = driver.containers()
        assert (first.env["ADDED"], second.env["ADDED"]) == ("a", "b")
        assert first.env["FN_FORMAT"] == "http-stream"
        assert first.env["FN_LISTENER"] == "unix:/tmp/iofs/lsnr.sock"
        assert first.task.extensions == {"seen": "yes"}


@pytest.mark.parametrize("memory", [2**64 - 1, 2**44, 1025])
async def test_scenario_03_too_much_memory_is_refused(
    autojump_clock: object, tmp_path: Path, memory: int
) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        with pytest.raises(CallResourceTooBig):
            node.call(memory=memory)
        with pytest.raises(CallResourceTooBig):
            node.call(memory=1000, tmpfs_size=25)
        with pytest.raises(CallResourceTooBig):
            node.call(cpus=4001)


async def test_weakness_03_17_registry_token_is_for_its_own_launch(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:

        async def run(*extensions: tuple[str, str]) -> None:
            extension = options.with_extensions(dict(extensions))
            await node.agent.submit(node.call("echo", None, extension))

        async with trio.open_nursery() as nursery:
            for token in ("one", "two", ""):
                nursery.start_soon(run, ("FN_REGISTRY_TOKEN", token))
        tokens = sorted(container.task.registry_token for container in driver.containers())
        assert tokens == ["", "one", "two"]


async def test_the_credentials_of_a_call_are_for_its_own_launch(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def credentials(image: str) -> dict[str, str]:
        return {"username": "u", "password": "p"}

    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        async with trio.open_nursery() as nursery:
            for given in ([options.with_docker_auth(credentials)], []):
                nursery.start_soon(node.agent.submit, node.call("echo", None, *given))
        found = [container.task.docker_auth for container in driver.containers()]
        assert sorted(auth is None for auth in found) == [False, True]


async def test_scenario_03_hooks_run_around_each_call_with_its_own_extensions(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"echo": echo}) as sim:
        driver = Wrapping(sim)
        async with open_node(driver, tmp_path) as node:
            for number in ("1", "2"):
                extension = options.with_extensions({"x": number})
                await node.agent.submit(node.call("echo", None, extension, id=number))
            assert driver.record == ["before 1 1", "after 1", "before 2 2", "after 2"]
            assert sim.statistics().created == 1
        assert driver.record[-1] == "close"
        assert driver.record.count("close") == 1


@pytest.mark.parametrize("stage", ["before", "after"])
async def test_scenario_03_failing_hook_fails_the_call_and_closes_the_container(
    autojump_clock: object, tmp_path: Path, stage: str
) -> None:
    async with open_sim_driver({"echo": echo}) as sim:
        driver = Wrapping(sim)
        driver.fail = stage
        async with open_node(driver, tmp_path) as node:
            with pytest.raises(APIError, match=f"{stage} failed"):
                await node.run(id="1")
            await until(lambda: node.agent.statistics().at_rest)
            after = ["after 1"] if stage == "after" else []
            assert driver.record == ["before 1 None", *after, "close"]


async def test_hook_runs_after_a_failed_dispatch(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver({"hang": hang}) as sim:
        driver = Wrapping(sim)
        async with open_node(driver, tmp_path) as node:
            with pytest.raises(CallTimeout):
                await node.run("hang", id="1", timeout=1)
            await until(lambda: node.agent.statistics().at_rest)
            assert driver.record == ["before 1 None", "after 1", "close"]


async def test_driver_extension_separates_containers(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"echo": echo}) as sim, open_node(Wrapping(sim), tmp_path) as node:
        for value in ("a", "b", "a"):
            extension = options.with_extensions({"shared": value})
            await node.agent.submit(node.call("echo", None, extension))
        assert sim.statistics().created == 2


async def test_slot_key_of_the_lb_wins(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        for config in ({"A": "1"}, {"A": "2"}):
            key = options.with_slot_hash_id(b"k" * 32)
            await node.agent.submit(node.call("echo", None, key, config=config))
        assert driver.statistics().created == 1


@pytest.mark.parametrize(("image", "started"), [("hang", 0), ("drip", 200)])
async def test_weakness_03_6_client_cancel_is_a_cancel(
    autojump_clock: object, tmp_path: Path, image: str, started: int
) -> None:
    record: list[str] = []
    images = {"hang": hang, "drip": drip}
    async with open_sim_driver(images) as driver, open_node(driver, tmp_path) as node:
        node.agent.add_listener(Recording(record))
        recorder = Recorder()
        with trio.move_on_after(5) as scope:
            await node.agent.submit(node.call(image, writer=recorder))
        assert scope.cancelled_caught
        assert recorder.status == started
        assert record == ["before running", "after error cancelled"]
        statistics = node.agent.statistics()
        assert (statistics.canceled, statistics.errors) == (1, 0)
        await until(lambda: node.agent.statistics().at_rest)
        assert driver.statistics().containers == 0


async def test_writer_error_ends_the_call_as_it_is(autojump_clock: object, tmp_path: Path) -> None:
    class Gone(ResponseWriter):
        async def start(self, status: int, headers: Headers) -> None:
            raise trio.BrokenResourceError("the LB is gone")

        async def write(self, data: bytes | memoryview) -> None:
            raise AssertionError

    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        with pytest.raises(trio.BrokenResourceError, match="LB is gone"):
            await node.agent.submit(node.call(writer=Gone()))


async def test_slow_reader_slows_the_function(autojump_clock: object, tmp_path: Path) -> None:
    produced = 0

    async def fast(request: SimRequest) -> SimResponse:
        async def pieces() -> AsyncIterator[bytes]:
            nonlocal produced
            for _ in range(1000):
                produced += 1
                yield b"x" * 65536

        return SimResponse(body=pieces())

    class Slow(Recorder):
        async def write(self, data: bytes | memoryview) -> None:
            await trio.sleep_forever()

    async with open_sim_driver({"fast": fast}) as driver, open_node(driver, tmp_path) as node:
        with trio.move_on_after(1):
            await node.agent.submit(node.call("fast", writer=Slow()))
        assert 0 < produced < 20
