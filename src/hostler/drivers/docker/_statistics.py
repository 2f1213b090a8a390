"""What a container uses, out of the engine's answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ._streams import JSON


@attrs.frozen(kw_only=True)
class Sample:
    """One sample, in Fn's terms: bytes since the container's start, bytes of memory now, and
    percent of one CPU since the sample before."""

    net_rx: int = 0
    net_tx: int = 0
    disk_read: int = 0
    disk_write: int = 0
    mem_usage: int = 0
    mem_limit: int = 0
    cpu_user: int = 0
    cpu_kernel: int = 0
    cpu_total: int = 0

    def as_metrics(self) -> dict[str, int]:
        """By the names that Fn gives them."""
        return attrs.asdict(self)


def make_sample(now: JSON, before: JSON | None) -> Sample:
    """``now`` and ``before`` are answers of the engine's ``/containers/{id}/stats``. CPU is 0
    without ``before``, and after a container has ended, which the engine answers with zeros."""
    networks = (_at(now, "networks") or {}).values()
    user, kernel, total = _cpu(now, before)
    return Sample(
        net_rx=sum(_number(network, "rx_bytes") for network in networks),
        net_tx=sum(_number(network, "tx_bytes") for network in networks),
        disk_read=_disk(now, "read"),
        disk_write=_disk(now, "write"),
        mem_usage=_number(now, "memory_stats", "usage"),
        mem_limit=_number(now, "memory_stats", "limit"),
        cpu_user=user,
        cpu_kernel=kernel,
        cpu_total=total,
    )


def _cpu(now: JSON, before: JSON | None) -> tuple[int, int, int]:
    """User, kernel and both, in percent of one CPU.

    The container's time is compared with the system's, which is the sum over all CPUs. Fn takes
    their number from the list of usages by CPU, which cgroup v2 does not have, so that its values
    are 0 there; the engine tells the number itself since API 1.27.
    """
    if before is None:
        return 0, 0, 0
    system = _delta(now, before, "system_cpu_usage")
    if system <= 0:
        return 0, 0, 0
    by_cpu = _at(now, "cpu_stats", "cpu_usage", "percpu_usage") or ()
    cpus = _number(now, "cpu_stats", "online_cpus") or len(by_cpu)

    def percent(name: str) -> int:
        used = max(0, _delta(now, before, "cpu_usage", name))
        return round(used * cpus * 100 / system)

    return percent("usage_in_usermode"), percent("usage_in_kernelmode"), percent("total_usage")


def _delta(now: JSON, before: JSON, *path: str) -> int:
    return _number(now, "cpu_stats", *path) - _number(before, "cpu_stats", *path)


def _disk(now: JSON, operation: str) -> int:
    """Bytes of ``operation`` over all devices: ``Read`` with cgroup v1, ``read`` with v2."""
    entries = _at(now, "blkio_stats", "io_service_bytes_recursive") or ()
    return sum(
        _number(entry, "value")
        for entry in entries
        if str(entry.get("op", "")).lower() == operation
    )


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _number(value: Any, *path: str) -> int:
    found = _at(value, *path)
    return found if isinstance(found, int) else 0
