"""What the kernel's files say about the room for containers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostler.agent.capacity import (
    IdleCpus,
    MachineLimits,
    headroom,
    read_cgroup_limits,
    read_machine,
    total_resources,
)
from hostler.agent.resources import MIB, Resources
from hostler.config import AgentConfig
from hostler.errors import ConfigError
from tests.conftest import Logs

GIB = 1024 * MIB


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal:       99 kB\nMemAvailable:   4194304 kB\nMemFree: 1 kB\n"
CPUINFO = "processor\t: 0\nmodel name : x\n\nprocessor\t: 1\n"


def test_machine_without_limits(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/meminfo": MEMINFO, "proc/cpuinfo": CPUINFO})
    assert read_machine(root) == MachineLimits(available_memory=4 * GIB, processors=2)


def test_cgroup_version_1(tmp_path: Path) -> None:
    base = "sys/fs/cgroup"
    root = write(
        tmp_path,
        {
            f"{base}/memory/memory.limit_in_bytes": "1073741824\n",
            f"{base}/cpu/cpu.cfs_quota_us": "150000\n",
            f"{base}/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert read_cgroup_limits(root) == (GIB, 1500)


@pytest.mark.parametrize("quota", ["-1", "0", "", "max"])
def test_no_quota_is_no_limit(tmp_path: Path, quota: str) -> None:
    base = "sys/fs/cgroup"
    root = write(
        tmp_path,
        {
            f"{base}/cpu/cpu.cfs_quota_us": quota,
            f"{base}/cpu/cpu.cfs_period_us": "100000",
            f"{base}/cpu.max": f"{quota or 'max'} 100000",
            f"{base}/memory.max": "max\n",
        },
    )
    assert read_cgroup_limits(root) == (None, None)


def test_weakness_03_11_cgroup_version_2_and_its_ancestors(tmp_path: Path) -> None:
    base = "sys/fs/cgroup"
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/runner.service\n",
            f"{base}/system.slice/memory.max": "2147483648\n",
            f"{base}/system.slice/cpu.max": "max 100000\n",
            f"{base}/system.slice/runner.service/memory.max": "max\n",
            f"{base}/system.slice/runner.service/cpu.max": "250000 100000\n",
        },
    )
    assert read_cgroup_limits(root) == (2 * GIB, 2500)


@pytest.mark.parametrize("own", ["0::/\n", "0::/../../outside\n", "0::/not/mounted/here\n"])
def test_cgroup_version_2_inside_a_container(tmp_path: Path, own: str) -> None:
    base = "sys/fs/cgroup"
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": own,
            f"{base}/memory.max": "536870912\n",
            f"{base}/cpu.max": "50000 100000\n",
        },
    )
    assert read_cgroup_limits(root) == (512 * MIB, 500)


@pytest.mark.parametrize(
    ("available", "pool", "kept"),
    [
        (GIB, 0, 256 * MIB),
        (4 * GIB, 0, 4 * GIB // 10),
        (4 * GIB, 100, 4 * GIB // 10 + 100 * MIB),
        (100 * GIB, 0, 5 * GIB),
    ],
)
def test_headroom(available: int, pool: int, kept: int) -> None:
    assert headroom(available, pool) == kept


def test_the_smallest_limit_counts() -> None:
    machine = MachineLimits(
        available_memory=8 * GIB, memory_limit=4 * GIB, processors=4, cpu_limit=2500
    )
    assert total_resources(machine, AgentConfig()) == Resources(4 * GIB - 4 * GIB // 10, 2500)
    config = AgentConfig(max_total_memory_bytes=GIB + 1, max_total_cpu_mcpus=1999)
    assert total_resources(machine, config) == Resources(GIB + 1, 1999)


def test_elsewhere_than_on_linux() -> None:
    machine = MachineLimits(available_memory=None, processors=2)
    assert total_resources(machine, AgentConfig()) == Resources(2 * GIB, 2000)


def test_too_little_memory_is_an_error() -> None:
    machine = MachineLimits(available_memory=256 * MIB, processors=2)
    with pytest.raises(ConfigError, match="Out of memory"):
        total_resources(machine, AgentConfig())


def test_little_is_a_warning(logs: Logs) -> None:
    machine = MachineLimits(available_memory=400 * MIB, processors=2, cpu_limit=500)
    total_resources(machine, AgentConfig())
    assert logs.with_event("little memory")
    assert logs.with_event("less than one processor")


def test_this_machine_has_something() -> None:
    machine = read_machine()
    assert machine.available_memory
    assert machine.processors > 0


def test_idle_cpus_are_those_of_the_time_between_two_looks(tmp_path: Path) -> None:
    stat, cpus = tmp_path / "stat", sorted(os.sched_getaffinity(0))
    idle = IdleCpus(stat)

    def write(user: int, idle_ticks: int) -> None:
        lines = [f"cpu{cpu} {user} 0 0 {idle_ticks} 0 0 0 0 0 0" for cpu in (*cpus, 9999)]
        stat.write_text("cpu  1 2 3 4 5 6 7 8 9 0\n" + "\n".join(lines) + "\nintr 1\n")

    write(100, 100)
    assert idle.milli_cpus(0.0) is None
    write(175, 125)
    assert idle.milli_cpus(0.1) is None  # not yet
    assert idle.milli_cpus(IdleCpus.SECONDS) == 100 * round(10 * 0.25 * len(cpus))
    stat.write_text(f"cpu{cpus[0]} what\n")
    assert idle.milli_cpus(2.0) is None
    stat.unlink()
    assert idle.milli_cpus(3.0) is None
