"""Pools watch runners over the real wire."""

from __future__ import annotations

import trio
from prometheus_client import CollectorRegistry

from hostler import wire
from hostler.pool import PoolMetrics, RunnerAccess, open_dynamic_pool
from tests.support.ports import free_port
from tests.wire.leaks import asyncio_tasks, open_sockets, settle
from tests.wire.services import Service

from .fleet import offered


async def test_a_runner_that_drains_gets_no_more_calls_and_is_found_after_its_restart() -> None:
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            sockets = open_sockets()
            metrics = PoolMetrics(CollectorRegistry())
            async with (
                wire.open_server(Service(), "127.0.0.1:0", loop=loop) as stays,
                trio.open_nursery() as nursery,
            ):
                first = await nursery.start(serve, f"127.0.0.1:{free_port()}", loop)
                addresses = [stays.address, first.address]
                access = RunnerAccess(loop=loop)
                async with open_dynamic_pool(addresses, access=access, metrics=metrics) as pool:

                    async def until(*wanted: str) -> None:
                        while await offered(pool) != list(wanted):  # noqa: ASYNC110  (a real server)
                            await trio.sleep(0.005)

                    await settle(lambda: len(first.connections), 1)
                    first.stop_accepting()
                    await until(stays.address)
                    assert (metrics.refusals.value, metrics.ejected.value) == (1, 0)
                    first.end.cancel()
                    await settle(lambda: metrics.ejected.value, 1)
                    again = await nursery.start(serve, first.address, loop)
                    began = trio.current_time()
                    await until(*addresses)
                    assert trio.current_time() - began < 20
                again.end.cancel()
            await settle(open_sockets, sockets)
            assert asyncio_tasks(loop) == 0


class _Served:
    """A server, and the way to end it."""

    def __init__(self, server: wire.GrpcServer, end: trio.CancelScope) -> None:
        self.address = server.address
        self.connections = server.connections
        self.stop_accepting = server.stop_accepting
        self.end = end


async def serve(
    bind: str, loop: wire.Loop, task_status: trio.TaskStatus[_Served] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.CancelScope() as end:
        async with wire.open_server(Service(), bind, loop=loop) as server:
            task_status.started(_Served(server, end))
            await trio.sleep_forever()
