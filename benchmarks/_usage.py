"""CPU time and memory of groups of processes, from /proc (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@attrs.frozen
class Usage:
    """``cpu_us``: user and system time so far, in steps of a clock tick (10 ms as a rule)."""

    cpu_us: float
    resident_mb: float


def usage_of(pids: list[int]) -> Usage:
    """Of living processes together; those that are gone count nothing."""
    cpu, memory = 0, 0
    for pid in pids:
        fields = _stat(pid)
        if fields:
            cpu += int(fields[11]) + int(fields[12])
            memory += int(fields[21])
    return Usage(cpu * 1e6 / TICKS, memory * PAGE / 2**20)


def machine_cpu_us() -> float:
    """CPU time that all processes and the kernel have used since the start of the machine."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) * 1e6 / TICKS


def descendants(pid: int) -> list[int]:
    """All children of ``pid``, theirs, and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
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
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()
