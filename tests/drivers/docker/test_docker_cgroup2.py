"""A real engine on control groups of version 2.

On a machine whose controllers belong to version 1 such an engine starts, pauses and counts, but it
can't limit, and tells no usage of memory and CPU; `test_docker_statistics` has those.
"""

from __future__ import annotations

import pytest

from hostler.agent import ContainerState
from hostler.bodies import BytesBody
from hostler.drivers.docker.stats import Sample, make_sample
from hostler.errors import ContainerInitFailed, FunctionResponseError
from hostler.models import StatSample
from tests.agent.machine import Machine, do, open_machine, pid, until_state

from .own_engine import needs_dockerd, open_own_engine


def test_an_answer_of_version_2_without_controllers() -> None:
    """As an engine (26.1) gave it: no list of usages by CPU, `null` for the disks, no sums of
    memory."""
    real = {
        "cpu_stats": {
            "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "system_cpu_usage": 986_210_000_000,
            "online_cpus": 2,
            "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        },
        "memory_stats": {"stats": {"active_anon": 0, "file": 0, "inactive_file": 0, "slab": 0}},
        "blkio_stats": {"io_service_bytes_recursive": None, "io_serviced_recursive": None},
        "pids_stats": {},
        "networks": {"eth0": {"rx_bytes": 1042, "rx_packets": 11, "tx_bytes": 0, "tx_packets": 0}},
    }
    assert make_sample(real, real) == Sample(net_rx=1042)


@pytest.mark.docker
@needs_dockerd
async def test_calls_freezing_endings_and_samples() -> None:
    async with open_own_engine(cgroup2=True) as engine:
        with open_machine(engine.host, "fnt") as machine:
            assert machine.engine.info()["CgroupVersion"] == "2"
            await check_life(machine)
            await check_endings(machine)
            await check_samples(machine)
        assert await engine.containers() == []


async def check_life(machine: Machine) -> None:
    """A frozen container is thawed by the next call."""
    async with machine.open(freeze_idle_msecs=0.0) as node:
        first = await pid(node, machine)
        for body in (b"one", b"two"):
            await until_state(node, {ContainerState.PAUSED: 1})
            assert (await do(node, machine, body=BytesBody(body))).body == body
        assert await pid(node, machine) == first
        assert node.agent.statistics().thaws >= 2


async def check_endings(machine: Machine) -> None:
    async with machine.open() as node:
        with pytest.raises(FunctionResponseError, match="exited with code 7"):
            await do(node, machine, "exit=7")
        with pytest.raises(ContainerInitFailed, match="killed by signal 6"):
            await do(node, machine, config={"FNT_START": "crash"})


async def check_samples(machine: Machine) -> None:
    """One each second; launches of others come first."""
    async with machine.open() as node:
        stats: list[StatSample] = []
        while not stats:
            call = node.call(machine.image, headers={"Fnt-Do": ["sleep=1500"]})
            await node.agent.submit(call)
            stats = call.model.stats
        assert stats[0].metrics["net_rx"] >= 0
