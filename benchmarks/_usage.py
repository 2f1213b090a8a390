"""CPU time and memory of groups of processes, from /proc (proc(5)) and CPU clocks."""

from __future__ import annotations

import os
import time
from pathlib import Path

import attrs

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@attrs.frozen
class Usage:
    """``cpu_us``: user and system time so far, of all threads, also of those that have ended."""

    cpu_us: float
    resident_mb: float


def usage_of(pids: list[int]) -> Usage:
    """Of living processes together; those that are gone count nothing."""
    memory = 0
    for pid in pids:
        fields = _stat(pid)
        if fields:
            memory += int(fields[21])
    return Usage(sum(map(_cpu_ns, pids)) / 1e3, memory * PAGE / 2**20)


def _cpu_ns(pid: int) -> int:
    """The process's CPU-time clock, whose number is that of clock_getcpuclockid(3) on Linux.

    Exact, where /proc/PID/stat counts whole ticks of 10 ms per process: many functions with a
    little work each would add up to nothing.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:  # EINVAL: it has ended
        return 0


def machine_cpu_us() -> float:
    """CPU time that all processes and the kernel have used since the start of the machine."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) * 1e6 / TICKS


def descendants(pid: int) -> list[int]:
    """All children of ``pid``, theirs, and so on."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        if fields := _stat(int(entry)):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    todo = [pid]
    while todo:
        new = children.get(todo.pop(), [])
        found += new
        todo += new
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the program's name, which may hold blanks itself;
    nothing if the process has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()
