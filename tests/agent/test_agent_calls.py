"""What callers, listeners, overriders and wrapping drivers see; how an agent ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hostler import options
from hostler.abc import (
    CallListener,
    CallRequest,
    ContainerTask,
    Cookie,
    Driver,
    ResponseWriter,
)
from hostler.call import PendingCall
from hostler.drivers.sim import (
    SimDriver,
    SimExit,
    SimRequest,
    SimResponse,
    echo,
    open_sim_driver,
)
from hostler.errors import (
    APIError,
    CallResourceTooBig,
    CallTimeout,
    ContainerOutOfMemory,
    FunctionResponseError,
    ServerBusy,
)
from hostler.frames import Headers
from hostler.models import Call
from tests.conftest import Logs

from .nodes import Recorder, open_node, until


async def hang(request: SimRequest) -> SimResponse:
    await request.read()
    await trio.sleep_forever()
    raise AssertionError


async def drip(request: SimRequest) -> SimResponse:
    """A response that never ends."""

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"drop"
            await trio.sleep(1)

    return SimResponse(body=pieces())


class Recording(CallListener):
    def __init__(self, record: list[str], name: str = "") -> None:
        self.record, self.name = record, name

    async def before_call(self, call: PendingCall) -> None:
        self.record.append(f"before{self.name} {call.model.status}")

    async def after_call(self, call: PendingCall) -> None:
        self.record.append(f"after{self.name} {call.model.status} {call.model.error}")
        await trio.sleep(1)  # has to be possible for a cancelled call, too


async def test_listeners_run_in_order_and_see_a_complete_model(
    autojump_clock: object, tmp_path: Path
) -> None:
    record: list[str] = []
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        node.agent.add_listener(Recording(record, "1"))
        node.agent.add_listener(Recording(record, "2"))
        call = node.call()
        await node.agent.submit(call)
        assert record == [
            "before1 running",
            "before2 running",
            "after1 success ",
            "after2 success ",
        ]
        assert call.model.started_at is not None
        assert call.model.completed_at is not None
        assert call.model.completed_at >= call.model.started_at


_FULL: dict[str, dict[str, Any]] = {
    "no room": {"enable_nb_resource_tracker": True},
    "no time": {"slot_wait_msecs": 1000},
}


@pytest.mark.parametrize("why", ["no room", "no time", "cancelled", "closed"])
async def test_a_call_that_never_got_a_container_is_complete_too(
    autojump_clock: object, tmp_path: Path, why: str
) -> None:
    refusal = "Timed out - server too busy"
    async with (
        open_sim_driver({"hang": hang, "echo": echo}) as driver,
        open_node(driver, tmp_path, memory=128, drain_grace_msecs=0, **_FULL.get(why, {})) as node,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(node.run, "hang")
        await until(lambda: node.agent.statistics().running == 1)
        call = node.call()
        if why == "closed":
            node.agent.close_admission()
        if why == "cancelled":
            with trio.move_on_after(1):
                await node.agent.submit(call)
        else:
            with pytest.raises(ServerBusy):
                await node.agent.submit(call)
        nursery.cancel_scope.cancel()
    assert call.model.status == "error"
    assert call.model.error == ("cancelled" if why == "cancelled" else refusal)
    assert call.model.completed_at is not None
    assert call.model.started_at is None


async def test_scenario_03_crash_is_an_error_with_text_for_the_listener(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def crash(request: SimRequest) -> SimResponse:
        raise SimExit(134)

    record: list[str] = []
    async with open_sim_driver({"crash": crash}) as driver, open_node(driver, tmp_path) as node:
        node.agent.add_listener(Recording(record))
        with pytest.raises(FunctionResponseError):
            await node.run("crash")
        text = "error receiving function response: the container was killed by signal 6"
        assert record == ["before running", f"after error {text}"]


async def test_weakness_04_13_out_of_memory_says_so(autojump_clock: object, tmp_path: Path) -> None:
    async def hungry(request: SimRequest) -> SimResponse:
        raise SimExit(137, out_of_memory=True)

    async with open_sim_driver({"hungry": hungry}) as driver, open_node(driver, tmp_path) as node:
        with pytest.raises(ContainerOutOfMemory):
            await node.run("hungry")


async def test_before_listener_ends_the_call_and_spares_the_container(
    autojump_clock: object, tmp_path: Path
) -> None:
    class Refuse(CallListener):
        async def before_call(self, call: PendingCall) -> None:
            if call.model.id == "refused":
                raise APIError(418, "teapot")

    record: list[str] = []
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        node.agent.add_listener(Refuse())
        node.agent.add_listener(Recording(record))
        with pytest.raises(APIError, match="teapot"):
            await node.run(id="refused")
        assert record == []
        await node.run()
        assert driver.statistics().created == 1


async def test_who_was_told_of_a_calls_begin_hears_of_its_end_also_if_it_never_runs(
    autojump_clock: object, tmp_path: Path
) -> None:
    class Stubborn(CallListener):
        async def before_call(self, call: PendingCall) -> None:
            if call.model.id == "refused":
                raise APIError(418, "teapot")
            await trio.sleep_forever()

    record: list[str] = []
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        for listener in (Recording(record, "1"), Stubborn(), Recording(record, "2")):
            node.agent.add_listener(listener)
        call = node.call(id="refused")
        with pytest.raises(APIError, match="teapot"):
            await node.agent.submit(call)
        assert record == ["before1 running", "after1 error teapot"]
        assert call.model.completed_at is not None
        assert call.timings.execution_ns == 0
        record.clear()
        call = node.call(id="cancelled")
        with trio.move_on_after(5):
            await node.agent.submit(call)
        assert record == ["before1 running", "after1 error cancelled"]
        assert (call.model.status, call.model.error) == ("error", "cancelled")
        statistics = node.agent.statistics()
        assert (statistics.queued, statistics.errors, statistics.canceled) == (0, 1, 1)
        assert driver.statistics().created == 1


async def test_a_listener_added_between_begin_and_end_of_a_call_is_told_of_neither(
    autojump_clock: object, tmp_path: Path
) -> None:
    class Inviting(CallListener):
        async def before_call(self, call: PendingCall) -> None:
            node.agent.add_listener(Recording(record))

    record: list[str] = []
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        node.agent.add_listener(Inviting())
        await node.run()
        assert record == []


async def test_failing_after_listener_is_logged_and_the_next_one_runs(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    class Broken(CallListener):
        async def after_call(self, call: PendingCall) -> None:
            raise ValueError("broken")

    record: list[str] = []
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        node.agent.add_listener(Broken())
        node.agent.add_listener(Recording(record))
        await node.run()
        assert record[-1] == "after success "
        logs.expect_error("call listener failed")


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


class Wrapping(Driver):
    """A driver of a service provider around the sim driver."""

    def __init__(self, inner: SimDriver) -> None:
        self.inner = inner
        self.record: list[str] = []
        self.fail = ""

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        async def before(model: Call, extensions: Mapping[str, str]) -> None:
            self.record.append(f"before {model.id} {extensions.get('x')}")
            if self.fail == "before":
                raise APIError(499, "before failed")

        async def after(model: Call, extensions: Mapping[str, str]) -> None:
            self.record.append(f"after {model.id}")
            if self.fail == "after":
                raise APIError(499, "after failed")

        async def close() -> None:
            self.record.append("close")

        task.before_call, task.after_call, task.close = before, after, close
        return await self.inner.create_cookie(task)

    def slot_key_extension(self, extensions: Mapping[str, str]) -> str:
        return extensions.get("shared", "")


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
