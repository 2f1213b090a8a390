"""Cold calls, stage by stage, side by side with the driver alone: ``python -m benchmarks.cold``.

In each round, with functions that were never called before:

* *driver*: create and start a container by the driver's own methods, and wait for its socket
* *agent*: one cold call
* *warm*: the first call of a function whose container is kept ready, and then hot calls
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
from pathlib import Path

import msgspec
import trio

from hostler.abc import ContainerTask
from hostler.testing import ReadyWatch

from ._embedded import MIB, Embedded, open_embedded, without_logs
from ._measure import Metrics

HOT = 9
"""Hot calls after each first call, of which the median counts."""
PAUSE = 0.05
"""Seconds between two measurements, for the removal of what was before."""
STAGES = ("validate", "create", "start", "socket")


class ColdPlan(msgspec.Struct, frozen=True, kw_only=True):
    driver: str
    rounds: int


class Cold:
    """Measures; times are milliseconds, by name."""

    def __init__(self, embedded: Embedded) -> None:
        self._embedded = embedded
        self._numbers = itertools.count()
        self.times: dict[str, list[float]] = {}

    async def round(self) -> None:
        for part in (self._driver_alone, self._cold_call, self._kept_ready):
            await part(f"fn-{next(self._numbers)}")
            await trio.sleep(PAUSE)

    def _note(self, name: str, seconds: float) -> None:
        self.times.setdefault(name, []).append(seconds * 1e3)

    async def _driver_alone(self, name: str) -> None:
        embedded = self._embedded
        folder = Path(tempfile.mkdtemp(dir=embedded.iofs))
        os.chmod(folder, 0o777)
        task = ContainerTask(
            id=f"bench-{name}",
            image=embedded.image,
            env={"FN_FORMAT": "http-stream", "FN_LISTENER": "unix:/tmp/iofs/lsnr.sock"},
            memory=32 * MIB,
            iofs_agent_path=str(folder),
            iofs_docker_path=str(folder),
        )
        with ReadyWatch(str(folder)) as watch:
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

    async def _time(self, name: str) -> float:
        call = self._embedded.call(name)
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
        hold = self._embedded.agent.keep_warm(self._embedded.call(name))
        await hold.wait_ready()
        await trio.sleep(PAUSE)
        self._note("kept_ready_first_call", await self._time(name))
        hot = []
        for _ in range(HOT):
            await trio.sleep(PAUSE)  # or the caches would be hotter than before the first call
            hot.append(await self._time(name))
        self._note("hot_call", statistics.median(hot))
        hold.release()


async def measure(plan: ColdPlan) -> Metrics:
    async with open_embedded(plan.driver, memory=4096) as embedded:
        cold = Cold(embedded)
        await cold.round()  # the first one pays for imports and threads
        cold.times.clear()
        for _ in range(plan.rounds):
            await cold.round()
    medians = {name: statistics.median(times) for name, times in cold.times.items()}
    metrics = {f"{name}_ms": median for name, median in medians.items()}
    metrics["cold_over_create_and_start"] = (
        medians["cold_call"] / medians["driver_create_and_start"]
    )
    metrics["cold_over_driver"] = medians["cold_call"] / medians["driver_total"]
    metrics["kept_ready_over_hot"] = medians["kept_ready_first_call"] / medians["hot_call"]
    return metrics


def main() -> None:
    without_logs()
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=ColdPlan)
    sys.stdout.buffer.write(msgspec.json.encode(trio.run(measure, plan)) + b"\n")


if __name__ == "__main__":
    main()
