"""Calls over many functions whose containers are killed at random: ``python -m benchmarks.soak``.

Tells the rate, how many calls were hit, how resident memory develops, and what is left.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import attrs
import msgspec
import trio

from hostler.errors import ContainerInitFailed, FunctionResponseError

from ._embedded import Embedded, label, open_embedded, without_logs
from ._kills import FUNCTION, EngineKiller, Failure, Killer, Kills, ProcessKiller, unexplained
from ._measure import Metrics
from ._memory import MemoryLog
from ._usage import descendants

FUNCTIONS = 50
CLIENTS = 8
ROOM = 80
"""Containers that fit: a busy function has several."""
CALLS_PER_KILL = 25
SAMPLES = 80
"""Of the memory, over all calls."""
BLOCKS_PER_FAILURE = 4
"""Python objects of a `Failure`: itself, two times, a text."""
REST_LIMIT = 120.0
"""Seconds after the last call in which all containers have to idle out."""


class SoakPlan(msgspec.Struct, frozen=True, kw_only=True):
    driver: str
    calls: int
    idle_timeout: int = 15
    """Seconds."""


@attrs.define
class Soak:
    """A run. One call of a hundred crashes its container; after every `CALLS_PER_KILL` calls a
    container is killed, whatever it does."""

    embedded: Embedded
    killer: Killer
    calls: int
    idle_timeout: int
    crashes: int = 0
    kills: Kills = attrs.Factory(Kills)
    failures: list[Failure] = attrs.Factory(list)
    memory: MemoryLog = attrs.Factory(MemoryLog)
    dice: random.Random = attrs.Factory(lambda: random.Random(1))

    async def run(self) -> None:
        numbers = iter(range(self.calls))
        orders, received = trio.open_memory_channel[None](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kill, received)
            async with orders, trio.open_nursery() as clients:
                for _ in range(CLIENTS):
                    clients.start_soon(self._client, numbers, orders)

    async def _client(self, numbers: Iterator[int], orders: trio.MemorySendChannel[None]) -> None:
        for number in numbers:  # shared by all clients
            if number % (self.calls // SAMPLES or 1) == 0:
                self.memory.sample(number, own=len(self.failures) * BLOCKS_PER_FAILURE)
            await self._call()
            if number % CALLS_PER_KILL == 0:
                await orders.send(None)

    async def _call(self) -> None:
        function = f"fn-{int(self.dice.triangular(0, FUNCTIONS, 0))}"
        crash = self.dice.random() < 0.01
        self.crashes += crash
        call = self.embedded.call(
            function,
            config={FUNCTION: function},
            headers={"Fnt-Do": ["crash" if crash else "sleep=20"]},
            idle_timeout=self.idle_timeout,
        )
        begin = trio.current_time()
        try:
            await self.embedded.agent.submit(call)
        except (FunctionResponseError, ContainerInitFailed) as error:
            if not crash:
                end = trio.current_time()
                self.failures.append(Failure(function, begin, end, str(error)))

    async def _kill(self, orders: trio.MemoryReceiveChannel[None]) -> None:
        async with orders:
            async for _ in orders:
                begin = trio.current_time()
                function = await trio.to_thread.run_sync(self.killer.strike, self.dice)
                if function is not None:
                    self.kills.add(function, begin)


async def measure(plan: SoakPlan) -> Metrics:
    threads, files, tasks = _threads(), _files(), _tasks()
    with closing(_killer(plan.driver)) as killer:
        async with open_embedded(plan.driver, memory=ROOM * 32) as embedded:
            soak = Soak(embedded, killer, plan.calls, plan.idle_timeout)
            begin = trio.current_time()
            await soak.run()
            seconds = trio.current_time() - begin
            left = await _rest(soak)
    final = embedded.agent.statistics()
    return {
        "requests_per_s": plan.calls / seconds,
        "containers_launched": final.launches,
        "containers_evicted": final.evictions,
        "containers_killed": len(soak.kills),
        "calls_failed": len(soak.failures),
        "calls_failed_without_a_kill": len(_unexplained(soak)),
        "calls_crashed_as_asked": soak.crashes,
        **soak.memory.metrics(),
        **left,
        "left_processes": len(descendants(os.getpid())),
        "left_tasks": max(0, _tasks() - tasks),
        "left_files": max(0, _files() - files),
        "left_threads": max(0, _threads() - threads),
    }


def _killer(driver: str) -> Killer:
    return EngineKiller(label()) if driver == "docker" else ProcessKiller()


async def _rest(soak: Soak) -> Metrics:
    """Wait until all containers have idled out, and tell what is there although it should not;
    not later, because the driver's end would clean up behind the agent."""
    agent = soak.embedded.agent
    with trio.fail_after(REST_LIMIT):
        while not agent.statistics().at_rest:  # noqa: ASYNC110  (nothing tells)
            await trio.sleep(0.1)
    containers = await trio.to_thread.run_sync(soak.killer.containers)
    directories = [entry for entry in os.scandir(soak.embedded.iofs) if entry.is_dir()]
    return {"left_containers": len(containers), "left_directories": len(directories)}


def _unexplained(soak: Soak) -> list[Failure]:
    found = unexplained(soak.failures, soak.kills)
    for failure in found:
        print(f"failed without a kill: {failure}", file=sys.stderr)
    return found


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


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
