"""The agent with a real engine: what Fn's own tests of its agent do there, and more.

Names of tests carry the scenario: 03 = call construction and function contract, 04 = eviction and
start failures with room for one container.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

import pytest
import trio

from hostler import options
from hostler.abc import ContainerTask, Cookie, Driver
from hostler.agent.output import truncation_line
from hostler.bodies import BytesBody
from hostler.drivers.docker import DockerDriver
from hostler.errors import (
    APIError,
    CallTimeout,
    ContainerInitFailed,
    ContainerInitTimeout,
    ContainerOutOfMemory,
    FunctionResponseError,
)
from hostler.models import Call
from tests.conftest import Logs

from .fakes import StreamBody
from .machine import LIMIT, Machine, do, pid, until
from .nodes import Recorder, kill

pytestmark = pytest.mark.docker


async def test_scenario_03_second_call_gets_its_own_echo(machine: Machine) -> None:
    async with machine.open() as node:
        for text in (b"one", b"two"):
            assert (await do(node, machine, body=BytesBody(text))).body == text
        assert node.agent.statistics().launches == 1


async def test_all_stages_of_a_cold_call_are_timed(machine: Machine) -> None:
    async with machine.open() as node:
        cold, hot = node.call(machine.image), node.call(machine.image)
        await node.agent.submit(cold)
        await node.agent.submit(hot)
        times = cold.timings
        stages = (times.ctr_prep_ns, times.ctr_create_ns, times.init_start_ns)
        assert all(stages)
        assert sum(stages) <= times.scheduler_ns
        assert times.image_pull_wait_ns == 0  # the image is there
        assert 0 < times.execution_ns < times.scheduler_ns
        assert (hot.timings.ctr_create_ns, hot.timings.init_start_ns) == (0, 0)


async def test_a_cancelled_program_leaves_no_container(machine: Machine) -> None:
    """One idles, one runs a call; whoever cancels is around the driver, too."""
    with trio.fail_after(LIMIT), trio.CancelScope() as scope:
        async with machine.open() as node, trio.open_nursery() as nursery:
            await do(node, machine)
            nursery.start_soon(functools.partial(do, node, machine, "sleep=60000", fn_id="busy"))
            await until(lambda: node.agent.statistics().running == 1)
            assert len(machine.containers()) == 2
            scope.cancel()
    assert scope.cancelled_caught
    assert machine.containers() == []
    assert os.listdir(machine.iofs) == []


async def test_out_of_memory_says_so(machine: Machine, logs: Logs) -> None:
    async with machine.open() as node:
        with pytest.raises(ContainerOutOfMemory) as caught:
            await do(node, machine, "eat=300", memory=32)
        assert caught.value.code == 502
        (line,) = logs.with_event("container ended during a call")
        assert (line["exit_code"], line["status"]) == (137, "killed")
        assert (await do(node, machine, "eat=1", memory=32)).status == 200


async def test_out_of_memory_before_it_is_ready_says_so(machine: Machine) -> None:
    async with machine.open() as node:
        with pytest.raises(ContainerOutOfMemory) as caught:
            await do(node, machine, memory=32, config={"FNT_START": "eat=300"})
        assert (caught.value.code, caught.value.blame) == (502, "user")


@pytest.mark.parametrize(
    ("what", "code", "reason"),
    [
        ("exit=7", 7, "exited with code 7"),
        ("exit=0", 0, "exited with code 0"),
        ("crash", 134, "was killed by signal 6"),
    ],
)
async def test_scenario_04_function_ends_during_the_request(
    machine: Machine, logs: Logs, what: str, code: int, reason: str
) -> None:
    async with machine.open() as node:
        first = await pid(node, machine)
        with pytest.raises(FunctionResponseError) as caught:
            await do(node, machine, what)
        assert (caught.value.code, caught.value.blame) == (502, "user")
        assert str(caught.value) == f"error receiving function response: the container {reason}"
        (line,) = logs.with_event("container ended during a call")
        assert line["exit_code"] == code
        assert await pid(node, machine) != first


async def test_calls_of_containers_that_were_killed_while_they_idled_are_served(
    machine: Machine,
) -> None:
    """The first one finds out before the engine tells."""
    async with machine.open() as node:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(do, node, machine, "sleep=2000")
        assert node.agent.statistics().launches == 3
        for container in machine.containers():
            kill(machine.engine.inspect_container(container["Id"])["State"]["Pid"])
        for _ in range(4):
            assert (await do(node, machine, body=BytesBody(b"x"))).body == b"x"
        assert node.agent.statistics().errors == 0


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ("exit=0", "exited with code 0"),
        ("exit=0;delay=200", "exited with code 0"),
        ("exit=3", "exited with code 3"),
        ("crash", "was killed by signal 6"),
    ],
)
async def test_scenario_04_exit_at_start_is_init_failed(
    machine: Machine, start: str, reason: str
) -> None:
    async with machine.open() as node:
        with pytest.raises(ContainerInitFailed) as caught:
            await do(node, machine, config={"FNT_START": start})
        assert (caught.value.code, caught.value.blame) == (502, "user")
        assert str(caught.value) == f"{ContainerInitFailed()}: the container {reason}"


async def test_scenario_03_start_limit(machine: Machine) -> None:
    async with machine.open(hot_start_timeout_msecs=1000.0) as node:
        with pytest.raises(ContainerInitTimeout):
            await do(node, machine, config={"FNT_START": "hang"})


async def test_client_cancel_is_a_cancel_and_ends_the_function(machine: Machine) -> None:
    async with machine.open() as node:
        first = await pid(node, machine)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(do, node, machine, "hang")
            await until(lambda: node.agent.statistics().running == 1)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        statistics = node.agent.statistics()
        assert (statistics.canceled, statistics.errors) == (1, 0)
        await until(lambda: not machine.containers())
        assert await pid(node, machine) != first


async def test_cancel_before_the_request_spares_the_container(machine: Machine) -> None:
    """The launch goes on for the next call."""
    async with machine.open() as node:
        with trio.move_on_after(0.02) as scope:
            await do(node, machine)
        assert scope.cancelled_caught
        await do(node, machine)
        assert node.agent.statistics().launches == 1


async def test_detached_call_is_bounded_by_its_own_deadline(machine: Machine) -> None:
    async with machine.open() as node:
        await do(node, machine, "hang", type="detached", timeout=1)
        await until(lambda: node.agent.statistics().timeouts == 1)


async def test_scenario_03_late_body_of_a_call_that_timed_out_is_nobody_elses(
    machine: Machine,
) -> None:
    async with machine.open() as node:
        await do(node, machine)
        with pytest.raises(CallTimeout):
            await do(node, machine, "", StreamBody(b"late", silent=True), timeout=1)
        assert (await do(node, machine, "", StreamBody(b"own"))).body == b"own"


class Wrapping(Driver):
    """A service provider's driver around the Docker driver: hooks, and what starts may do."""

    def __init__(self, inner: DockerDriver, record: list[str], fail: str = "") -> None:
        self.inner = inner
        self.record = record
        self.fail = fail

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        async def hook(name: str, model: Call, extensions: Mapping[str, str]) -> None:
            self.record.append(f"{name} {model.id} {extensions.get('x')}")
            if name == self.fail:
                raise APIError(499, f"{name} failed")

        async def close() -> None:
            self.record.append("close")

        task.before_call = functools.partial(hook, "before")
        task.after_call = functools.partial(hook, "after")
        task.close = close
        return await self.inner.create_cookie(task)


async def test_scenario_03_hooks_run_around_each_call(machine: Machine) -> None:
    record: list[str] = []
    async with machine.open(lambda driver: Wrapping(driver, record)) as node:
        for number in ("1", "2"):
            extension = options.with_extensions({"x": number})
            await node.agent.submit(node.call(machine.image, None, extension, id=number))
        assert record == ["before 1 1", "after 1 1", "before 2 2", "after 2 2"]
    assert record[4:] == ["close"]


@pytest.mark.parametrize("stage", ["before", "after"])
async def test_scenario_03_failing_hook_fails_the_call(machine: Machine, stage: str) -> None:
    record: list[str] = []
    async with machine.open(lambda driver: Wrapping(driver, record, stage)) as node:
        with pytest.raises(APIError, match=f"{stage} failed"):
            await do(node, machine, id="1")
    assert record == ["before 1 None", *(["after 1 None"] if stage == "after" else []), "close"]


class FailingLater(Wrapping):
    """Every container but the first exits when it starts."""

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        cookie = await self.inner.create_cookie(task)
        if self.record:
            cookie.options.env["FNT_START"] = "exit=1"
        self.record.append(task.id)
        return cookie


async def test_scenario_03_failing_launches_hit_no_call_that_was_served(machine: Machine) -> None:
    record: list[str] = []
    async with machine.open(lambda driver: FailingLater(driver, record)) as node:
        await do(node, machine, "sleep=3000")  # one as slow is not waited for: there are launches

        async def client(name: bytes) -> None:
            for _ in range(3):
                answer = await do(node, machine, "sleep=200", BytesBody(name))
                assert answer.body == name

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client, b"a")
            nursery.start_soon(client, b"b")
        assert len(record) > 1


async def test_scenario_03_root_is_read_only_and_tmp_is_not(machine: Machine) -> None:
    async with machine.open() as node:
        mounts = (await do(node, machine, "read=/proc/mounts")).body.decode().splitlines()
        fields = {line.split()[1]: line.split()[3].split(",") for line in mounts}
        assert "ro" in fields["/"]
        assert {"rw", "nosuid", "nodev", "noexec", "relatime"} <= set(fields["/tmp"])
        four = BytesBody(b"x" * 4 * 2**20)
        assert (await do(node, machine, "write=/tmp/file", four)).body.strip() == b"ok"
        refused = await do(node, machine, "write=/file", BytesBody(b"x"))
        assert b"Read-only file system" in refused.body


async def test_scenario_03_tmpfs_with_size_and_inodes(machine: Machine) -> None:
    async with machine.open(max_tmpfs_inodes=1025) as node:
        mounts = (await do(node, machine, "read=/proc/mounts", tmpfs_size=1)).body.decode()
        (tmp,) = [line for line in mounts.splitlines() if line.split()[1] == "/tmp"]
        assert {"size=1024k", "nr_inodes=1025"} <= set(tmp.split()[3].split(","))
        four = BytesBody(b"x" * 4 * 2**20)
        answer = await do(node, machine, "write=/tmp/file", four, tmpfs_size=1)
        assert b"No space left on device" in answer.body


async def test_output_belongs_to_its_call_and_is_limited(machine: Machine, logs: Logs) -> None:
    async with machine.open(keep_logs=True, debug_logs=True, max_log_size_bytes=1000) as node:
        small = node.call(machine.image, id="small", headers={"Fnt-Do": ["out=text;err=more"]})
        big = node.call(machine.image, id="big", headers={"Fnt-Do": ["outlines=200"]})
        # The engine passes output on by a way of its own, which may take longer.
        await node.agent.submit(small)
        await until(lambda: len(small.log) == len(b"text\nmore\n"))
        await node.agent.submit(big)
        await until(lambda: len(big.log) > 1000)
    assert big.log == b"o" * 1000 + truncation_line(1000)
    shown = {
        (event["call_id"], event["tag"], event["line"])
        for event in logs.with_event("function output")
    }
    assert {("small", "stdout", "text"), ("small", "stderr", "more")} <= shown


async def test_a_response_is_passed_on_while_it_is_made(machine: Machine) -> None:
    """The function makes its second line long after the test is over."""
    async with machine.open() as node, trio.open_nursery() as nursery:
        recorder = Recorder()
        headers = {"Fnt-Do": ["lines=2,every=600000"]}
        call = node.call(machine.image, writer=recorder, headers=headers, timeout=600)
        nursery.start_soon(node.agent.submit, call)
        await until(lambda: recorder.body == b"line 1\n")
        nursery.cancel_scope.cancel()
