"""Calls over many functions whose containers are killed at random: ``python -m benchmarks.soak``.

Tells the rate, how many calls were hit, how resident memory develops, and what is left.
"""

from __future__ import annotations

import gc
import os
import random
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import msgspec
import trio

from hostler.errors import ContainerInitFailed, FunctionResponseError

from ._embedded import Embedded, open_embedded, without_logs
from ._measure import Metrics
from ._usage import usage_of

FUNCTIONS = 50
CLIENTS = 8
SAMPLES = 40
"""Of the memory, over all calls."""


class SoakPlan(msgspec.Struct, frozen=True, kw_only=True):
    driver: str
    calls: int


@attrs.define
class Soak:
    """A run. A function's containers are killed (by themselves, as by the kernel: exit code 137)
    between 0.3 and 5 s after their start; one call of a hundred crashes its container."""

    embedded: Embedded
    calls: int
    hit: int = 0
    crashes: int = 0
    memory_kb: list[float] = attrs.Factory(list)
    dice: random.Random = attrs.Factory(lambda: random.Random(1))

    async def run(self) -> None:
        numbers = iter(range(self.calls))
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(self._client, numbers)

    async def _client(self, numbers: Iterator[int]) -> None:
        for number in numbers:  # shared by all clients
            if number % (self.calls // SAMPLES or 1) == 0:
                gc.collect()
                self.memory_kb.append(usage_of([os.getpid()]).resident_mb * 1000)
            await self._call()

    async def _call(self) -> None:
        function = int(self.dice.triangular(0, FUNCTIONS, 0))
        crash = self.dice.random() < 0.01
        self.crashes += crash
        call = self.embedded.call(
            f"fn-{function}",
            config={"FNT_START": f"die={300 + 94 * function};exit=137"},
            headers={"Fnt-Do": ["crash" if crash else ""]},
            idle_timeout=2,
        )
        try:
            await self.embedded.agent.submit(call)
        except (FunctionResponseError, ContainerInitFailed):
            self.hit += 1


async def measure(plan: SoakPlan) -> Metrics:
    threads, files = _threads(), _files()
    async with open_embedded(plan.driver, memory=40 * 32) as embedded:
        soak = Soak(embedded, plan.calls)
        begin = trio.current_time()
        await soak.run()
        seconds = trio.current_time() - begin
        agent, iofs = embedded.agent, embedded.iofs
        launches = agent.statistics().launches
        with trio.fail_after(60):
            while not agent.statistics().at_rest:  # noqa: ASYNC110  (idling out)
                await trio.sleep(0.1)
        directories = sum(1 for entry in os.scandir(iofs) if entry.is_dir())
    left = agent.statistics()
    later = soak.memory_kb[len(soak.memory_kb) // 4 :]
    calls = range(len(later))
    slope = statistics.linear_regression(calls, later).slope * SAMPLES / (plan.calls / 1000)
    return {
        "requests_per_s": plan.calls / seconds,
        "calls_hit_percent": 100 * soak.hit / plan.calls,
        "crashes_asked_for_percent": 100 * soak.crashes / plan.calls,
        "containers_launched": launches,
        "resident_kb_first": soak.memory_kb[0],
        "resident_kb_last": soak.memory_kb[-1],
        "resident_kb_per_1000_calls": slope,
        "left_containers": sum(left.containers.values()) + left.leaving,
        "left_directories": directories,
        "left_files": max(0, _files() - files),
        "left_threads": max(0, _threads() - threads),
    }


def _files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _threads() -> int:
    """Other than those that Trio keeps for reuse."""
    names = (Path("/proc/self/task", task, "comm") for task in os.listdir("/proc/self/task"))
    return sum("Trio" not in name.read_text() for name in names)


def main() -> None:
    without_logs()
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=SoakPlan)
    sys.stdout.buffer.write(msgspec.json.encode(trio.run(measure, plan)) + b"\n")


if __name__ == "__main__":
    main()
