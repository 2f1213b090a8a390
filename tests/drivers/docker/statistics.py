"""Statistics as an engine answers them, and metrics that show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
import trio.testing
from prometheus_client import CollectorRegistry

from .conftest import WAIT


def answer(version: int, *, user: int, kernel: int, total: int, system: int) -> dict[str, Any]:
    """An engine's answer, as it looks with this version of cgroup; 4 CPUs."""
    usage: dict[str, Any] = {
        "total_usage": total,
        "usage_in_usermode": user,
        "usage_in_kernelmode": kernel,
    }
    read, write = ("Read", "Write") if version == 1 else ("read", "write")
    if version == 1:
        usage["percpu_usage"] = [total // 4] * 4
    return {
        "cpu_stats": {"cpu_usage": usage, "system_cpu_usage": system, "online_cpus": 4},
        "memory_stats": {"usage": 3_000_000, "limit": 134_217_728},
        "networks": {
            "eth0": {"rx_bytes": 100, "tx_bytes": 7},
            "eth1": {"rx_bytes": 11, "tx_bytes": 2},
        },
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"major": 8, "minor": 0, "op": read, "value": 4096},
                {"major": 8, "minor": 16, "op": read, "value": 512},
                {"major": 8, "minor": 0, "op": write, "value": 1024},
                {"major": 8, "minor": 0, "op": "Total", "value": 5632},
            ]
        },
    }


def read(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    return -1 if found is None else found


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(WAIT):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.01)
