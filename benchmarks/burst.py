"""A burst of cold functions, beside the driver alone: ``python -m benchmarks.burst``.

`FUNCTIONS` calls at once, each of a function that was never called; and, in turn with that, as many
containers made by the driver's own methods, with the same bound on launches at the same time. The
ratio is what the agent adds. The first burst finds the name spaces that are ready by default, later
ones those of the pool that it has made grow, too. That no call waits for a timer shows in
``wakeup_max_ms``: the time from when a call was given its container until it went on.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
from pathlib import Path

import attrs
import msgspec
import trio
from prometheus_client import CollectorRegistry

from hostler.abc import ContainerTask
from hostler.config import AgentConfig
from hostler.metrics import AgentMetrics
from hostler.testing import ReadyWatch

from ._embedded import MIB, Embedded, open_embedded, without_logs
from ._measure import Metrics

FUNCTIONS = 40
IDLE_TIMEOUT = 10
"""Seconds; longer than a burst takes. To remove some containers while others are made would cost
those, and the driver alone does not do it either."""
REST_LIMIT = 120.0
"""Seconds after a burst in which its containers have to be gone."""


class BurstPlan(msgspec.Struct, frozen=True, kw_only=True):
    driver: str
    rounds: int


class Wakeups(AgentMetrics):
    """Keeps the longest."""

    longest_ns = 0

    def observe_wakeup(self, duration_ns: int) -> None:
        self.longest_ns = max(self.longest_ns, duration_ns)
        super().observe_wakeup(duration_ns)


@attrs.define
class Bursts:
    """Makes them; both return seconds until the last of `FUNCTIONS` was done."""

    embedded: Embedded
    numbers: itertools.count[int] = attrs.Factory(itertools.count)

    async def calls(self) -> float:
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(FUNCTIONS):
                name = f"fn-{next(self.numbers)}"
                call = self.embedded.call(name, idle_timeout=IDLE_TIMEOUT)
                nursery.start_soon(self.embedded.agent.submit, call)
        took = trio.current_time() - begin
        with trio.fail_after(REST_LIMIT):
            while not self.embedded.agent.statistics().at_rest:  # noqa: ASYNC110  (nothing tells)
                await trio.sleep(0.05)
        return took

    async def containers(self) -> float:
        ready: list[float] = []
        limiter = trio.CapacityLimiter(AgentConfig().launch_concurrency)
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(FUNCTIONS):
                nursery.start_soon(self._container, limiter, ready)
        return max(ready) - begin

    async def _container(self, limiter: trio.CapacityLimiter, ready: list[float]) -> None:
        folder = Path(tempfile.mkdtemp(dir=self.embedded.iofs))
        os.chmod(folder, 0o777)
        task = ContainerTask(
            id=f"burst-{os.getpid()}-{next(self.numbers)}",
            image=self.embedded.image,
            env={"FN_FORMAT": "http-stream", "FN_LISTENER": "unix:/tmp/iofs/lsnr.sock"},
            memory=32 * MIB,
            iofs_agent_path=str(folder),
            iofs_docker_path=str(folder),
        )
        cookie = await self.embedded.driver.create_cookie(task)
        try:
            with ReadyWatch(str(folder)) as watch:
                async with limiter:
                    await cookie.validate_image()
                    await cookie.create_container()
                    await cookie.run()
                    await watch.ready()
            ready.append(trio.current_time())
            while len(ready) < FUNCTIONS:  # noqa: ASYNC110  (removing one would cost the others)
                await trio.sleep(0.05)
        finally:
            await cookie.aclose()


async def measure(plan: BurstPlan) -> Metrics:
    metrics = Wakeups(CollectorRegistry())
    agent, driver = [], []
    async with open_embedded(plan.driver, memory=4096, metrics=metrics) as embedded:
        bursts = Bursts(embedded)
        for number in range(plan.rounds):
            if number % 2:
                driver.append(await bursts.containers())
            agent.append(await bursts.calls())
            if not number % 2:
                driver.append(await bursts.containers())
    return {
        "containers_per_s": FUNCTIONS / statistics.median(agent),
        "containers_per_s/first": FUNCTIONS / agent[0],
        "containers_per_s/driver": FUNCTIONS / statistics.median(driver),
        "burst_over_driver": statistics.median(a / b for a, b in zip(agent, driver, strict=True)),
        "wakeup_max_ms": metrics.longest_ns / 1e6,
    }


def main() -> None:
    without_logs()
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=BurstPlan)
    sys.stdout.buffer.write(msgspec.json.encode(trio.run(measure, plan)) + b"\n")


if __name__ == "__main__":
    main()
