"""Cold calls, stage by stage, side by side with the driver alone: ``python -m benchmarks.cold``.

In each round, with functions that were never called before:

* *engine* (Docker only): the same container, created and started by the bare client of the engine
* *driver*: create and start a container by the driver's own methods, and wait for its socket
* *agent*: one cold call, with the defaults, so in a network name space that was ready
* *unprepared* (Docker only): one cold call of an agent that keeps no name spaces ready
* *warm*: the first call of a function whose container is kept ready, and then hot calls

They follow each other within a second, so ratios of the times of one round say more than times.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import docker
import msgspec
import trio

from hostler.abc import ContainerTask
from hostler.drivers.docker import DockerDriver, DockerOptions
from hostler.testing import ReadyWatch

from ._embedded import MIB, Embedded, open_embedded, without_logs
from ._measure import Metrics

HOT = 9
"""Hot calls after each first call, of which the median counts."""
PAUSE = 0.05
"""Seconds between two measurements, for the removal of what was before."""
IDLE_TIMEOUT = 1
"""Seconds that a container stays after its cold call: each has a name space while it is there."""
STAGES = ("validate", "create", "start", "socket")


class ColdPlan(msgspec.Struct, frozen=True, kw_only=True):
    driver: str
    rounds: int


class Cold:
    """Measures; times are milliseconds, by name."""

    def __init__(self, embedded: Embedded, unprepared: Embedded | None) -> None:
        self._embedded = embedded
        self._unprepared = unprepared
        self._client = docker.from_env() if unprepared is not None else None
        self._numbers = itertools.count()
        self.times: dict[str, list[float]] = {}

    async def round(self) -> None:
        for part in self._parts():
            await part(f"fn-{next(self._numbers)}")
            await trio.sleep(PAUSE)

    def _parts(self) -> list[Callable[[str], Awaitable[None]]]:
        parts: list[Callable[[str], Awaitable[None]]]
        parts = [self._driver_alone, self._cold_call, self._kept_ready]
        if self._unprepared is not None:
            parts = [self._engine_alone, self._driver_alone, self._cold_call]
            parts += [self._unprepared_call, self._kept_ready]
        return parts

    def _note(self, name: str, seconds: float) -> None:
        self.times.setdefault(name, []).append(seconds * 1e3)

    def _task(self, name: str) -> ContainerTask:
        folder = Path(tempfile.mkdtemp(dir=self._embedded.iofs))
        os.chmod(folder, 0o777)
        return ContainerTask(
            id=f"bench-{os.getpid()}-{name}",
            image=self._embedded.image,
            env={"FN_FORMAT": "http-stream", "FN_LISTENER": "unix:/tmp/iofs/lsnr.sock"},
            memory=32 * MIB,
            iofs_agent_path=str(folder),
            iofs_docker_path=str(folder),
        )

    async def _engine_alone(self, name: str) -> None:
        """With the driver's options, but on the engine's bridge network, and by nobody else's
        code: what any program needs that asks this engine for the container."""
        assert self._unprepared is not None
        cookie = await self._unprepared.driver.create_cookie(self._task(name))
        options: DockerOptions = cookie.options
        await cookie.aclose()
        created, started = await trio.to_thread.run_sync(self._create_and_start, options)
        self._note("engine_create", created)
        self._note("engine_start", started)
        self._note("engine_create_and_start", created + started)

    def _create_and_start(self, options: DockerOptions) -> tuple[float, float]:
        assert self._client is not None
        api = self._client.api
        begin = time.perf_counter()
        api.create_container_from_config(options.payload(), options.name)  # type: ignore[no-untyped-call]  # the stubs lack its types
        created = time.perf_counter()
        try:
            api.start(options.name)
            return created - begin, time.perf_counter() - created
        finally:
            api.remove_container(options.name, v=True, force=True)

    async def _driver_alone(self, name: str) -> None:
        task = self._task(name)
        with ReadyWatch(task.iofs_agent_path) as watch:
            marks = await self._stages(task, watch)
        for stage, begin, end in zip(STAGES, marks, marks[1:], strict=False):
            self._note(f"driver_{stage}", end - begin)
        self._note("driver_create_and_start", marks[3] - marks[1])
        self._note("driver_total", marks[4] - marks[0])

    async def _stages(self, task: ContainerTask, watch: ReadyWatch) -> list[float]:
        """The moments between the stages."""
        marks = [trio.current_time()]
        cookie = await self._embedded.driver.create_cookie(task)
        try:
            await cookie.validate_image()
            marks.append(trio.current_time())
            await cookie.create_container()
            marks.append(trio.current_time())
            await cookie.run()
            marks.append(trio.current_time())
            await watch.ready()
            marks.append(trio.current_time())
        finally:
            await cookie.aclose()
        return marks

    async def _cold_call(self, name: str) -> None:
        self._note("cold_call", await self._time(name))

    async def _unprepared_call(self, name: str) -> None:
        assert self._unprepared is not None
        call = self._unprepared.call(name, idle_timeout=IDLE_TIMEOUT)
        begin = trio.current_time()
        await self._unprepared.agent.submit(call)
        self._note("unprepared_cold_call", trio.current_time() - begin)

    async def _time(self, name: str) -> float:
        call = self._embedded.call(name, idle_timeout=IDLE_TIMEOUT)
        begin = trio.current_time()
        await self._embedded.agent.submit(call)
        took = trio.current_time() - begin
        times = call.timings
        if times.init_start_ns:
            self._note("agent_prepare", times.ctr_prep_ns / 1e9)
            self._note("agent_create_and_start", times.ctr_create_ns / 1e9)
            self._note("agent_socket", times.init_start_ns / 1e9)
            self._note("agent_execution", times.execution_ns / 1e9)
        return took

    async def _kept_ready(self, name: str) -> None:
        hold = self._embedded.agent.keep_warm(self._embedded.call(name, idle_timeout=IDLE_TIMEOUT))
        await hold.wait_ready()
        await trio.sleep(PAUSE)
        self._note("kept_ready_first_call", await self._time(name))
        hot = []
        for _ in range(HOT):
            await trio.sleep(PAUSE)  # or the caches would be hotter than before the first call
            hot.append(await self._time(name))
        self._note("hot_call", statistics.median(hot))
        hold.release()


@asynccontextmanager
async def _open_unprepared(driver_name: str) -> AsyncIterator[Embedded | None]:
    """An agent without a pool of name spaces; ``None`` for drivers without networks."""
    if driver_name != "docker":
        yield None
        return
    async with open_embedded(
        driver_name, memory=4096, experimental_prefork_pool_size=0
    ) as unprepared:
        yield unprepared


def _check_pool(embedded: Embedded) -> None:
    """Raises `RuntimeError` if a call was measured for which no name space was ready."""
    driver = embedded.driver
    if isinstance(driver, DockerDriver) and driver.statistics().prefork.misses:
        raise RuntimeError("the pool was empty: calls were measured that had none")


def ratios(times: Mapping[str, Sequence[float]]) -> Metrics:
    """Of each two times of the same round, the median of their ratio."""
    engine = "engine" if "engine_create_and_start" in times else "driver"
    wanted = {
        "cold_over_create_and_start": ("cold_call", f"{engine}_create_and_start"),
        "cold_over_driver": ("cold_call", "driver_total"),
        "kept_ready_over_hot": ("kept_ready_first_call", "hot_call"),
    }
    if "unprepared_cold_call" in times:
        wanted["unprepared_over_create_and_start"] = (
            "unprepared_cold_call",
            f"{engine}_create_and_start",
        )
    return {
        name: statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))
        for name, (over, under) in wanted.items()
    }


async def measure(plan: ColdPlan) -> Metrics:
    async with (
        open_embedded(plan.driver, memory=4096) as embedded,
        _open_unprepared(plan.driver) as unprepared,
    ):
        cold = Cold(embedded, unprepared)
        await cold.round()  # the first one pays for imports and threads
        cold.times.clear()
        for _ in range(plan.rounds):
            await cold.round()
        _check_pool(embedded)
    medians = {f"{name}_ms": statistics.median(times) for name, times in cold.times.items()}
    return medians | ratios(cold.times)


def main() -> None:
    without_logs()
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=ColdPlan)
    sys.stdout.buffer.write(msgspec.json.encode(trio.run(measure, plan)) + b"\n")


if __name__ == "__main__":
    main()
