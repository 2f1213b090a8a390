"""The nodes of the command line as parts of a program that works with them, to be cut off.

A node waits for its shutdown in its own task; here that wait is the work, so that it is cut off
under load too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

from hostler._concurrency.drain import DrainBudget
from hostler.abc import CallListener
from hostler.api_client import open_request
from hostler.config import AgentConfig
from hostler.drivers.sim import SimDriver, SimRequest, SimResponse, open_sim_driver
from hostler.errors import HostlerError
from hostler.functions import FunctionTable
from hostler.lb import open_lb_agent
from hostler.models import App, Fn
from hostler.nodes import (
    ApiSettings,
    Extensions,
    LBSettings,
    RunnerSettings,
    RunningNode,
    ServeSettings,
    open_api,
    open_lb,
    open_runner,
    open_serve,
)
from hostler.options import from_model
from hostler.pool import ConsistentHashPlacer, RunnerAccess, open_static_pool
from hostler.protocol import ResultStart, ServerEngagement
from hostler.wire import open_loop, open_server
from tests.agent.functions import hang
from tests.agent.nodes import call_model
from tests.wire.leaks import asyncio_tasks
from tests.wire.services import SUCCESS, Service, read_call

from .openers import Around, Use

NAMES = ("echo", "hang")
TABLE = FunctionTable.of(
    [App(id="app", name="app")],
    [Fn(id=name, name=name, app_id="app", image=name) for name in NAMES],
)
LOCAL = "127.0.0.1:0"
DRIVER = f"{__name__}:sim_driver"


async def _echo(request: SimRequest) -> SimResponse:
    return SimResponse(body=await request.read())


def sim_driver(config: AgentConfig) -> AbstractAsyncContextManager[SimDriver]:
    """What `DRIVER` names."""
    return open_sim_driver({"echo": _echo, "hang": hang})


Work = Callable[[Mapping[str, Any], trio.Nursery], Awaitable[None]]
"""Done with a node's addresses; the nursery is for what goes on in the node's drain."""


Opener = Callable[[Around], AbstractAsyncContextManager[RunningNode]]


async def _run(opened: Opener, work: Work, around: Around) -> None:
    async with trio.open_nursery() as clients:
        async with opened(around) as node:
            await work(node.line, clients)
        clients.cancel_scope.cancel()


def _settings(around: Around) -> dict[str, Any]:
    # The database stays, which is what it is for.
    database = f"sqlite3://{around.folder.parent}/node.db"
    folder = str(around.folder)
    env = {"FN_IOFS_PATH": folder, "FN_DB_URL": database, "FN_LOG_TAIL_BYTES": "10000"}
    env["FN_RUNNER_ADDRESSES"], env["FN_PLACER"] = around.at, "ch"
    return {"env": env, "bind": LOCAL, "grace": DrainBudget(0)}


# --- nodes ------------------------------------------------------------------------------------


def _serve(
    around: Around, functions: FunctionTable | None = TABLE
) -> AbstractAsyncContextManager[RunningNode]:
    return open_serve(ServeSettings(**_settings(around), driver=DRIVER, functions=functions))


def _api(around: Around) -> AbstractAsyncContextManager[RunningNode]:
    return open_api(ApiSettings(**_settings(around)))


@asynccontextmanager
async def _at_work(node: RunningNode) -> AsyncIterator[None]:
    """A startup action of a provider, with a task that lasts as long as the node."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.lowlevel.checkpoint()
        yield
        nursery.cancel_scope.cancel()


def _lb(around: Around) -> AbstractAsyncContextManager[RunningNode]:
    extensions = Extensions(startup=[_at_work, _at_work], call_listeners=[CallListener()])
    return open_lb(LBSettings(**_settings(around), functions=TABLE), extensions)


def _runner(around: Around) -> AbstractAsyncContextManager[RunningNode]:
    return open_runner(
        RunnerSettings(**_settings(around), driver=DRIVER, http_bind=LOCAL, stream_logs=True)
    )


async def _engage(engagement: ServerEngagement) -> None:
    call, _body = await read_call(engagement)
    await engagement.send(ResultStart(200))
    if '"image":"hang"' in call.models_call_json:
        await trio.sleep_forever()
    await engagement.send(SUCCESS)


@asynccontextmanager
async def _a_runner(folder: Path) -> AsyncIterator[Around]:
    """Without containers, which would stay."""
    service = Service(_engage)
    async with open_loop() as loop, open_server(service, LOCAL, loop=loop) as server:
        yield Around(folder, server.address, lambda: [service.running, asyncio_tasks(loop)])


# --- and what is done with them -----------------------------------------------------------------


async def _ask(node: Mapping[str, Any], path: str, method: str = "GET", **headers: str) -> None:
    with suppress(HostlerError):  # of a node that closes
        async with open_request(
            method, f"http://{node['http'][0]}{path}", headers=headers
        ) as answer:
            async for _ in answer.body:
                pass


async def _look(node: Mapping[str, Any], clients: trio.Nursery) -> None:
    for path in ("/ui/events", "/logs?follow=1"):
        clients.start_soon(_ask, node, path)
    await _ask(node, "/metrics")
    await _ask(node, "/v2/apps")


async def _invoke(node: Mapping[str, Any], clients: trio.Nursery) -> None:
    post = partial(_ask, method="POST")
    clients.start_soon(post, node, "/invoke/hang")
    clients.start_soon(partial(post, **{"Fn-Invoke-Type": "detached"}), node, "/invoke/hang")
    await post(node, "/invoke/echo")
    await _look(node, clients)


async def _place(node: Mapping[str, Any], clients: trio.Nursery) -> None:
    async def call(image: str) -> None:
        async with (
            open_static_pool([node["grpc"]], RunnerAccess(grace=0)) as pool,
            open_lb_agent(pool, ConsistentHashPlacer(), grace=0) as lb,
        ):
            with suppress(HostlerError):  # as above
                await lb.submit(lb.get_call(from_model(call_model(image, fn_id=image))))

    clients.start_soon(call, "hang")
    await call("echo")
    await _look(node, clients)


NODES: Mapping[str, Use] = {
    "serve": Use([open_serve], partial(_run, _serve, _invoke)),
    "serve with a database": Use(
        [open_serve], partial(_run, partial(_serve, functions=None), _look)
    ),
    "api": Use([open_api], partial(_run, _api, _look)),
    "lb": Use([open_lb], partial(_run, _lb, _invoke), _a_runner),
    "runner": Use([open_runner], partial(_run, _runner, _place)),
}
