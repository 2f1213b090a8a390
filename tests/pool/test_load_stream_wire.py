"""Two load balancers and one runner over real sockets: room at the runner wakes who waits."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry

from hostler import wire
from hostler.bodies import BytesBody
from hostler.config import PlacerConfig
from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.pool import DynamicPool, NaivePlacer, PoolMetrics, RunnerAccess, open_dynamic_pool
from hostler.runner import open_pure_runner
from tests.agent.nodes import open_node
from tests.wire.leaks import asyncio_tasks, open_sockets, settle

from .fakes import fresh_metrics, make_call

NEVER = 3600.0
"""Seconds: no probe comes within the test."""


async def test_the_end_of_one_lbs_call_serves_the_call_that_waits_at_the_other(
    tmp_path: Path,
) -> None:
    release = trio.Event()

    async def work(request: SimRequest) -> SimResponse:
        if await request.read() == b"wait":
            await release.wait()
        return SimResponse()

    config = PlacerConfig(retry_all_delay=NEVER, retry_max_delay=NEVER)
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            sockets = open_sockets()
            async with (
                open_sim_driver({"image": work}) as driver,
                open_node(driver, tmp_path, memory=128, enable_nb_resource_tracker=True) as node,
                open_pure_runner(node.agent, "127.0.0.1:0", loop=loop) as runner,
            ):

                def pool() -> AbstractAsyncContextManager[DynamicPool]:
                    metrics = PoolMetrics(CollectorRegistry())
                    access = RunnerAccess(loop=loop)
                    return open_dynamic_pool([runner.address], access=access, metrics=metrics)

                async with pool() as one, pool() as other, trio.open_nursery() as nursery:
                    first = NaivePlacer(config, metrics=fresh_metrics())
                    second = NaivePlacer(config, metrics=fresh_metrics())
                    nursery.start_soon(
                        first.place_call, one, make_call("a", fn_id="a", body=BytesBody(b"wait"))
                    )
                    await settle(lambda: node.agent.statistics().running, 1)
                    waits = make_call("b", fn_id="b")
                    nursery.start_soon(second.place_call, other, waits)
                    await settle(lambda: second.statistics().waiting, 1)
                    release.set()
                assert waits.runner_address == runner.address
                assert waits.attempts <= 2
            await settle(open_sockets, sockets)
            assert asyncio_tasks(loop) == 0
