"""Programs that open what hostler offers, work with it and leave it, for tests that cut them off.

`USES` is the table of all public openers; a test fails if one is not in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from hostler import wire
from hostler._asgi.types import Receive, Scope, Send
from hostler.abc import ContainerTask, Driver, RunnerPool
from hostler.agent import Agent, Resources, open_agent
from hostler.api import api_app
from hostler.api_client import open_api_client, open_request
from hostler.config import AgentConfig, NodeConfig, StoreConfig
from hostler.datastore import AppFilter
from hostler.drivers.docker import open_docker_driver
from hostler.drivers.process import open_process_driver
from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.errors import HostlerError
from hostler.front import HttpServer, open_listeners, serve_http
from hostler.functions import CachedFunctions, open_cached_functions
from hostler.lb import LBAgent, open_lb_agent
from hostler.nodes.workers import Place, RunnerPart, open_peers
from hostler.nodes.workers.docker import open_worker_driver
from hostler.nodes.workers.runners import open_ports
from hostler.options import from_model, with_writer
from hostler.pool import (
    ConsistentHashPlacer,
    RunnerAccess,
    open_dns_pool,
    open_dynamic_pool,
    open_static_pool,
)
from hostler.protocol import Data
from hostler.runner import open_pure_runner, open_runner_service
from hostler.store import open_datastore
from hostler.testing import MemoryRunnerClient
from hostler.tracing import open_tracer
from hostler.wire import open_loop, open_server
from tests.agent.functions import hang
from tests.agent.nodes import MIB, Recorder, call_model
from tests.drivers.docker.fake_engine import nothing, open_fake_engine, value
from tests.drivers.docker.http_server import Answer, Request, json_answer
from tests.functions.build import fnt_path
from tests.runner.runners import try_call
from tests.tracing.collector import open_collector, read_zipkin
from tests.wire.leaks import asyncio_tasks


@attrs.frozen
class Around:
    """What is there before a program, and stays."""

    folder: Path
    """For all that the program makes; empty."""
    at: str = ""
    """Where a server of the test is."""
    left: Callable[[], object] = lambda: None
    """What there is of the program outside of this process, and in an event loop."""


@asynccontextmanager
async def _just_a_folder(folder: Path) -> AsyncIterator[Around]:
    yield Around(folder)


@attrs.frozen
class Use:
    """A program that uses the openers ``of``."""

    of: Sequence[Callable[..., Any]]
    run: Callable[[Around], Awaitable[None]]
    around: Callable[[Path], AbstractAsyncContextManager[Around]] = _just_a_folder


# --- functions, and calls of them -------------------------------------------------------------


async def _echo(request: SimRequest) -> SimResponse:
    return SimResponse(body=await request.read())


_sim_driver = partial(open_sim_driver, {"echo": _echo, "hang": hang})


def _agent_on(driver: Driver, around: Around) -> AbstractAsyncContextManager[Agent]:
    config = AgentConfig(iofs_path=str(around.folder), enable_nb_resource_tracker=True)
    total = Resources(1024 * MIB, 4000)
    return open_agent(driver, config=config, total=total, keep_logs=True, grace=0)


async def _call(agent: Agent | LBAgent, image: str, number: int = 0, **fields: Any) -> None:
    """Each ``number`` is another function."""
    model = call_model(image, id=f"call{number}", fn_id=f"fn{number}", **fields)
    with suppress(HostlerError):  # of a node that closes
        await agent.submit(agent.get_call(from_model(model), with_writer(Recorder())))


# --- agents and drivers -----------------------------------------------------------------------


async def _sim_agent(around: Around) -> None:
    async with (
        _sim_driver() as driver,
        _agent_on(driver, around) as agent,
        trio.open_nursery() as nursery,
    ):
        for number in (1, 2):
            nursery.start_soon(_call, agent, "hang", number)
        await _call(agent, "echo")
        nursery.cancel_scope.cancel()


async def _process_agent(around: Around) -> None:
    image = str(fnt_path())
    async with (
        open_process_driver() as driver,
        _agent_on(driver, around) as agent,
        trio.open_nursery() as nursery,
    ):
        busy = partial(_call, headers={"Fnt-Do": ["sleep=600000"]})
        nursery.start_soon(busy, agent, image, 1)
        await _call(agent, image)
        nursery.cancel_scope.cancel()


async def _docker_driver(around: Around) -> None:
    async with open_docker_driver(AgentConfig(), environ={"DOCKER_HOST": around.at}) as driver:
        await _run_container(driver)


async def _worker_driver(around: Around) -> None:
    """Of a runner that is the only worker of its node."""
    part = RunnerPart(number=0, count=1, bind="127.0.0.1:0", memory=MIB, cpus=1, family="test")
    async with (
        open_peers(_place(around, 0, 1, part)) as peers,
        open_worker_driver(AgentConfig(), {"DOCKER_HOST": around.at}, peers) as driver,
    ):
        await _run_container(driver)


async def _run_container(driver: Driver) -> None:
    """And leave it to the driver."""
    cookie = await driver.create_cookie(ContainerTask(id="ctr", image="img"))
    assert not await cookie.validate_image()
    await cookie.create_container()
    await cookie.run()


@asynccontextmanager
async def _fake_engine(folder: Path) -> AsyncIterator[Around]:
    """It has one image, and knows its containers."""
    there: set[str] = set()

    async def create(request: Request) -> Answer:
        there.add(request.query["name"])
        return json_answer({"Id": "id"}, 201)

    async def remove(request: Request) -> Answer:
        there.discard("ctr")
        return Answer(204)

    async with open_fake_engine(folder.parent) as (engine, environ):
        engine.on("GET /images/img/json", value({"Id": "sha256:1", "Config": {}}))
        engine.on("POST /containers/create", create)
        engine.on("POST /containers/ctr/start", nothing)
        engine.on("DELETE /containers/ctr", remove)
        yield Around(folder, environ["DOCKER_HOST"], lambda: [engine.under_way, *there])


# --- fleets -----------------------------------------------------------------------------------


async def _loop(around: Around) -> None:
    async with open_loop() as loop:
        await wire.loop.run_asyncio(loop, partial(loop.run_in_executor, None, int))


Pool = Callable[..., AbstractAsyncContextManager[RunnerPool]]


async def _fleet(open_pool: Pool, around: Around) -> None:
    """An LB over one runner: calls run, wait, and are detached."""
    async with (
        _sim_driver() as driver,
        _agent_on(driver, around) as agent,
        open_pure_runner(agent, "127.0.0.1:0", grace=0) as runner,
        open_pool([runner.address], access=RunnerAccess(grace=0)) as pool,
        open_lb_agent(pool, ConsistentHashPlacer(), grace=0) as lb,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_call, lb, "hang", 1)
        nursery.start_soon(partial(_call, type="detached"), lb, "hang", 2)
        await _call(lb, "echo")
        nursery.start_soon(partial(_call, memory=1024), lb, "hang", 3)
        await _call(lb, "echo")
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _a_loop(folder: Path) -> AsyncIterator[Around]:
    async with open_loop() as loop:
        yield Around(folder, left=lambda: asyncio_tasks(loop))


async def _service(around: Around) -> None:
    async with (
        _sim_driver() as driver,
        _agent_on(driver, around) as agent,
        open_runner_service(agent) as service,
        MemoryRunnerClient(service).engage(try_call("hang", type="detached")) as engagement,
    ):
        await engagement.send(Data(b"", eof=True))
        await engagement.receive()


# --- HTTP, stores, and the rest ---------------------------------------------------------------


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits, or streams, for ever."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
    if scope["path"] == "/wait":
        await trio.sleep_forever()
    await send({"type": "http.response.body", "body": b""})


async def _get(server: str, path: str) -> None:
    with suppress(HostlerError):  # of a server that closes
        async with open_request("GET", f"http://{server}{path}") as answer:
            async for _ in answer.body:
                pass


async def _http(around: Around) -> None:
    shutdown = trio.Event()
    async with open_listeners("127.0.0.1:0") as listeners, trio.open_nursery() as nursery:
        serve = partial(serve_http, _app, listeners, shutdown=shutdown, grace=0)
        server: HttpServer = await nursery.start(serve)
        for path in ("/wait", "/stream"):
            nursery.start_soon(_get, server.addresses[0], path)
        await _get(server.addresses[0], "/")
        shutdown.set()


async def _store(around: Around) -> None:
    # The database stays, which is what it is for.
    url = f"sqlite3://{around.folder.parent}/test.db"
    async with open_datastore(StoreConfig(db_url=url)) as store, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(store.apps.list, AppFilter())
        await store.apps.list(AppFilter())


@asynccontextmanager
async def _an_api(folder: Path) -> AsyncIterator[Around]:
    config = StoreConfig(db_url="sqlite3://:memory:")
    async with open_datastore(config) as store, trio.open_nursery() as nursery:
        server: HttpServer = await nursery.start(serve_http, api_app(store), "127.0.0.1:0")
        yield Around(folder, f"http://{server.addresses[0]}", server.statistics)
        nursery.cancel_scope.cancel()


async def _find(functions: CachedFunctions) -> None:
    with suppress(HostlerError):  # there is none
        await functions.find("nothing")


async def _api_client(around: Around) -> None:
    async with (
        open_api_client(around.at) as client,
        open_cached_functions(client) as functions,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_find, functions)
        await _find(functions)
        await client.apps.list(AppFilter())


async def _tracer(around: Around) -> None:
    async with open_tracer(NodeConfig(zipkin_url=around.at), "test") as tracer:
        assert tracer is not None
        span = tracer.start("something")
        await trio.lowlevel.checkpoint()
        span.end()


@asynccontextmanager
async def _a_collector(folder: Path) -> AsyncIterator[Around]:
    async with open_collector(read_zipkin) as collector:
        yield Around(folder, collector.url)


async def _workers(around: Around) -> None:
    async def answer(question: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return question

    first, second = (_place(around, number, 2) for number in range(2))
    async with open_peers(first) as asker, open_peers(second) as asked:
        asked.answer("topic", answer)
        assert await asker.ask("topic", b"?") == {1: b"?"}


async def _ports(around: Around) -> None:
    async with open_ports("127.0.0.1:0", 2) as binds:
        await trio.lowlevel.checkpoint()
        assert len(set(binds)) == 2


def _place(around: Around, number: int, count: int, part: RunnerPart | None = None) -> Place:
    folder = str(around.folder)
    return Place(
        number=number, count=count, listeners=(), ready=0, orders=0, folder=folder, part=part
    )


_FLEET = (open_pure_runner, open_lb_agent, open_server)
USES: Mapping[str, Use] = {
    "loop": Use([open_loop], _loop),
    "agent, sim": Use([open_agent, open_sim_driver], _sim_agent),
    "agent, processes": Use([open_process_driver], _process_agent),
    "docker driver": Use([open_docker_driver], _docker_driver, _fake_engine),
    "docker driver of a worker": Use([open_worker_driver], _worker_driver, _fake_engine),
    "fleet": Use([open_static_pool, *_FLEET], partial(_fleet, open_static_pool)),
    "fleet, dynamic": Use([open_dynamic_pool], partial(_fleet, open_dynamic_pool), _a_loop),
    "fleet, dns": Use([open_dns_pool], partial(_fleet, open_dns_pool), _a_loop),
    "runner service": Use([open_runner_service], _service),
    "http": Use([serve_http, open_listeners, open_request], _http),
    "store": Use([open_datastore], _store),
    "api client": Use([open_api_client, open_cached_functions], _api_client, _an_api),
    "tracer": Use([open_tracer], _tracer, _a_collector),
    "workers": Use([open_peers], _workers),
    "ports of workers": Use([open_ports], _ports),
}
