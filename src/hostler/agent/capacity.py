"""Capacity: how much memory and CPU the containers may use on this machine.

Sources: ``/proc/meminfo``, ``/proc/cpuinfo`` and the limits of the control group that the agent
itself runs in, version 1 or 2 (kernel documents ``cgroup-v1/memory``, ``sched-bwc``,
``cgroup-v2``). Headroom is Fn's: 10 % of the memory, within 256 MiB and 5 GiB.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import attrs
import structlog

from ..config import AgentConfig
from ..errors import ConfigError
from .resources import MIB, Resources

log = structlog.get_logger(__name__)

MIN_HEADROOM = 256 * MIB
MAX_HEADROOM = 5 * 1024 * MIB
LOW_MEMORY = 256 * MIB
LOW_CPUS = 1000
FALLBACK_MEMORY = 2048 * MIB
"""Bytes, where there is no ``/proc``; Fn's value."""


@attrs.frozen(kw_only=True)
class MachineLimits:
    """What the machine offers; ``None`` = no such limit, or not known."""

    available_memory: int | None
    memory_limit: int | None = None
    processors: int
    cpu_limit: int | None = None


def machine_resources(config: AgentConfig) -> Resources:
    """The resources that an agent alone on this machine gives to containers. Blocks for a moment.
    Raises `ConfigError` if there are none."""
    return total_resources(read_machine(), config)


def total_resources(machine: MachineLimits, config: AgentConfig) -> Resources:
    """The resources for all containers. Raises `ConfigError` if there are none."""
    total = Resources(_memory(machine, config), _cpus(machine, config))
    if total.memory < LOW_MEMORY:
        log.warning("little memory for functions", bytes=total.memory)
    if total.cpus < LOW_CPUS:
        log.warning("less than one processor for functions", milli_cpus=total.cpus)
    return total


def _memory(machine: MachineLimits, config: AgentConfig) -> int:
    available = FALLBACK_MEMORY
    if machine.available_memory is not None:
        available = machine.available_memory
        if machine.memory_limit is not None:
            available = min(available, machine.memory_limit)
        available -= headroom(available, config.experimental_prefork_pool_size or 0)
    if config.max_total_memory_bytes:
        available = min(available, config.max_total_memory_bytes)
    if available <= 0:
        raise ConfigError("Out of memory: the machine has none to spare for functions")
    return available


def headroom(available: int, prefork_pool_size: int = 0) -> int:
    """Bytes of ``available`` that functions don't get."""
    wanted = available // 10 + prefork_pool_size * MIB
    return max(MIN_HEADROOM, min(wanted, MAX_HEADROOM))


def _cpus(machine: MachineLimits, config: AgentConfig) -> int:
    cpus = machine.processors * 1000
    if machine.cpu_limit is not None:
        cpus = min(cpus, machine.cpu_limit)
    if config.max_total_cpu_mcpus:
        cpus = min(cpus, config.max_total_cpu_mcpus)
    if cpus <= 0:
        raise ConfigError("the machine has no CPU to spare for functions")
    return cpus


def read_machine(root: Path = Path("/")) -> MachineLimits:
    """Read the machine's limits. ``root`` is where its file systems are mounted. Blocks for a
    moment."""
    processors = _count_processors(_read(root / "proc/cpuinfo")) or os.cpu_count() or 1
    if not sys.platform.startswith("linux"):
        return MachineLimits(available_memory=None, processors=processors)
    memory_limit, cpu_limit = read_cgroup_limits(root)
    return MachineLimits(
        available_memory=_available_memory(_read(root / "proc/meminfo")),
        memory_limit=memory_limit,
        processors=processors,
        cpu_limit=cpu_limit,
    )


def _available_memory(meminfo: str) -> int | None:
    """The bytes of ``MemAvailable``; its unit is kB, which here means 1024 bytes."""
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name != "MemAvailable":
            continue
        match value.split():
            case [number, ("kB" | "MB") as unit] if number.isdecimal():
                return int(number) * (1024 if unit == "kB" else MIB)
    return None


def _count_processors(cpuinfo: str) -> int:
    return sum(line.partition(":")[0].strip() == "processor" for line in cpuinfo.splitlines())


def read_cgroup_limits(root: Path) -> tuple[int | None, int | None]:
    """(bytes of memory, milli-CPUs) that the agent's control group allows; the tightest counts.

    In a version 2 hierarchy each ancestor may have a limit of its own, so all are read.
    """
    base = root / "sys/fs/cgroup"
    memory = [_number(_read(base / "memory/memory.limit_in_bytes"))]
    cpus = [
        _quota(
            _read(base / "cpu/cpu.cfs_quota_us").strip(),
            _read(base / "cpu/cpu.cfs_period_us").strip(),
        )
    ]
    for folder in _unified_folders(base, _read(root / "proc/self/cgroup")):
        memory.append(_number(_read(folder / "memory.max")))
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        cpus.append(_quota(quota, period))
    return _tightest(memory), _tightest(cpus)


def _unified_folders(base: Path, own: str) -> list[Path]:
    """The folders of this process's version 2 group and its ancestors, up to the mount point."""
    for line in own.splitlines():
        if line.startswith("0::/"):
            # In a container the path may lie outside of what is mounted here. Then only the mount
            # point itself exists, and stands for this process's group.
            relative = Path(line.removeprefix("0::/"))
            if ".." in relative.parts:
                return [base]
            return [base / relative, *(base / parent for parent in relative.parents)]
    return [base]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdecimal() else None


def _quota(quota: str, period: str) -> int | None:
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        return int(quota) * 1000 // int(period)
    return None


def _tightest(limits: list[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


class IdleCpus:
    """How many CPUs nothing used lately, of the ones that this process may use, by
    ``/proc/stat``."""

    SECONDS = 0.5
    """Minimum time between two readings: the kernel counts in hundredths of a second."""

    def __init__(self, path: Path = Path("/proc/stat")) -> None:
        self._path = path
        self._names = {f"cpu{cpu}".encode() for cpu in os.sched_getaffinity(0)}
        self._idle = self._all = 0
        self._next_at = -math.inf
        self._known: int | None = None

    def __repr__(self) -> str:
        return f"<IdleCpus {self._known}>"

    def milli_cpus(self, now: float) -> int | None:
        """Idle milli-CPUs since the previous reading, in steps of 100; ``None`` = not known.
        ``now`` is in seconds of any clock."""
        if now >= self._next_at:
            self._next_at = now + self.SECONDS
            self._check()
        return self._known

    def _check(self) -> None:
        idle = total = 0
        try:
            for line in self._path.read_bytes().splitlines():
                name, *ticks = line.split()
                if name in self._names:
                    # user nice system idle iowait irq softirq steal (guest is part of user)
                    counts = [int(tick) for tick in ticks[:8]]
                    idle += counts[3] + counts[4]
                    total += sum(counts)
        except (OSError, ValueError, IndexError):
            self._known = None
            return
        was_idle, was_all, self._idle, self._all = self._idle, self._all, idle, total
        if was_all and total > was_all:
            share = max(0, idle - was_idle) / (total - was_all)
            self._known = 100 * round(10 * share * len(self._names))
