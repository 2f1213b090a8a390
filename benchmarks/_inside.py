"""Measuring a part of hostler inside of this process, without sockets to clients or functions."""

from __future__ import annotations

import time
from array import array
from collections.abc import Awaitable, Callable

import trio

from ._measure import Metrics
from ._scenario import Settings

SLICE = 0.1
"""Seconds of one slice: short enough for some of them to be spared by busy neighbours."""


class _Loop:
    """A closed loop of ``clients`` tasks around one operation."""

    def __init__(self, operation: Callable[[], Awaitable[None]]) -> None:
        self._operation = operation
        self.latencies = array("d")

    async def client(self) -> None:
        while True:
            begin = time.perf_counter()
            await self._operation()
            self.latencies.append(time.perf_counter() - begin)

    async def slice(self) -> tuple[int, float, float]:
        """Operations, CPU seconds, and seconds of one slice."""
        count, cpu, wall = len(self.latencies), time.process_time(), time.perf_counter()
        await trio.sleep(SLICE)
        operations = len(self.latencies) - count
        return operations, time.process_time() - cpu, time.perf_counter() - wall


async def measure_inside(
    operation: Callable[[], Awaitable[None]], settings: Settings, *, clients: int
) -> Metrics:
    """Run ``operation`` in ``clients`` tasks at once. What it raises ends the measurement.

    ``cpu_us_per_request/process`` is over the whole time, ``cpu_least_us_per_request/process``
    that of the cheapest slice, which busy neighbours disturb least.
    """
    loop = _Loop(operation)
    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(loop.client)
        await trio.sleep(settings.warm_up)
        loop.latencies = array("d")
        slices = [await loop.slice() for _ in range(max(1, round(settings.seconds / SLICE)))]
        while not any(operations for operations, _, _ in slices):  # on a very busy machine
            slices.append(await loop.slice())
        nursery.cancel_scope.cancel()
    counts, cpus, walls = zip(*(one for one in slices if one[0]), strict=True)
    latencies = sorted(loop.latencies)
    return {
        "requests_per_s": sum(counts) / sum(walls),
        "latency_p50_us": latencies[len(latencies) // 2] * 1e6,
        "latency_p99_us": latencies[len(latencies) * 99 // 100] * 1e6,
        "cpu_us_per_request/process": sum(cpus) / sum(counts) * 1e6,
        "cpu_least_us_per_request/process": min(
            cpu / count for cpu, count in zip(cpus, counts, strict=True)
        )
        * 1e6,
    }
