"""An agent on the sim driver, calls for it, and what its callers see."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from hostler import options
from hostler.abc import Body, CallListener, CallOverrider, Driver, ResponseWriter
from hostler.agent import Agent, Resources, open_agent
from hostler.bodies import BytesBody
from hostler.calls import CallOption, PendingCall
from hostler.config import AgentConfig
from hostler.drivers.sim import SimExit, SimRequest, SimResponse, open_sim_driver
from hostler.metrics import AgentMetrics
from hostler.models import Call
from hostler.protocol import Headers

MIB = 2**20
NACK: dict[str, Any] = {"enable_nb_resource_tracker": True}


class Recorder(ResponseWriter):
    """Keeps a response."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = ()
        self.body = b""

    async def start(self, status: int, headers: Headers) -> None:
        assert not self.status
        self.status, self.headers = status, headers

    async def write(self, data: bytes | memoryview) -> None:
        assert self.status
        self.body += bytes(data)


def call_model(image: str = "echo", **fields: Any) -> Call:
    values: dict[str, Any] = {
        "id": f"call-{image}",
        "image": image,
        "app_id": "app",
        "fn_id": f"fn-{image}",
        "type": "sync",
        "timeout": 30,
        "idle_timeout": 30,
        "memory": 128,
        "method": "POST",
        "url": "http://localhost/",
    }
    return Call(**(values | fields))


@attrs.define
class Node:
    """An agent and its surroundings."""

    agent: Agent
    iofs: Path

    def call(
        self,
        image: str = "echo",
        body: Body | None = None,
        *more: CallOption,
        writer: ResponseWriter | None = None,
        **fields: Any,
    ) -> PendingCall:
        return self.agent.get_call(
            options.from_model(call_model(image, **fields), body),
            options.with_writer(writer or Recorder()),
            *more,
        )

    async def run(self, image: str = "echo", body: Body | None = None, **fields: Any) -> Recorder:
        """Submit a call and return its response."""
        recorder = Recorder()
        await self.agent.submit(self.call(image, body, writer=recorder, **fields))
        return recorder

    def check_at_rest(self) -> None:
        """Nothing of any call or container is left."""
        assert self.agent.statistics().at_rest, self.agent.statistics()
        assert os.listdir(self.iofs) == []


@asynccontextmanager
async def open_node(
    driver: Driver,
    iofs: Path,
    *,
    memory: int = 1024,
    overrider: CallOverrider | None = None,
    keep_logs: bool = False,
    debug_logs: bool = False,
    metrics: AgentMetrics | None = None,
    **config: Any,
) -> AsyncIterator[Node]:
    """An agent with ``memory`` MB; at its end everything must be gone."""
    settings = AgentConfig(iofs_path=str(iofs), **config)
    async with open_agent(
        driver,
        config=settings,
        call_overrider=overrider,
        keep_logs=keep_logs,
        debug_logs=debug_logs,
        metrics=metrics,
        total=Resources(memory * MIB, 4000),
    ) as agent:
        node = Node(agent, iofs)
        yield node
    node.check_at_rest()


async def until(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    """Let the others run until ``condition()`` holds; fail after ``seconds`` (virtual ones)."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  (any state may be asked for)
            await trio.sleep(0.01)


def kill(pid: int) -> None:
    """Kill a process and wait for its end. Blocks, so that nobody here hears of it before."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)


class Recording(CallListener):
    def __init__(self, record: list[str], name: str = "") -> None:
        self.record, self.name = record, name

    async def before_call(self, call: PendingCall) -> None:
        self.record.append(f"before{self.name} {call.model.status}")

    async def after_call(self, call: PendingCall) -> None:
        self.record.append(f"after{self.name} {call.model.status} {call.model.error}")
        await trio.sleep(1)  # has to be possible for a cancelled call, too


class Noting(CallListener):
    """Hears of each call's submission and of its end, and waits for nothing."""

    def __init__(self, record: list[str], name: str = "") -> None:
        self.record, self.name = record, name

    def note_submit(self, call: PendingCall) -> None:
        self.record.append(f"{self.name} {call.model.id}")

    def note_end(self, call: PendingCall, error: BaseException | None, *, began: bool) -> None:
        self.record.append(f"{self.name} {call.model.id} {error} {began}")


async def _sleeper(request: SimRequest) -> SimResponse:
    """Answer after as many seconds as the body says; at "exit" end."""
    body = await request.read()
    if body == b"exit":
        await trio.sleep(1)
        raise SimExit(1)
    await trio.sleep(float(body))
    return SimResponse(body=body)


@asynccontextmanager
async def open_full_node(iofs: Path, *, containers: int = 1) -> AsyncIterator[Node]:
    """A node in NACK mode with room for so many containers."""
    async with (
        open_sim_driver({"sleeper": _sleeper, "other": _sleeper}) as driver,
        open_node(driver, iofs, memory=128 * containers, enable_nb_resource_tracker=True) as node,
    ):
        yield node


async def run_all(node: Node, count: int, image: str, body: bytes) -> list[Exception | None]:
    """Run ``count`` calls at the same time; their outcomes."""
    outcomes: list[Exception | None] = []

    async def one() -> None:
        try:
            assert (await node.run(image, BytesBody(body))).body == body
        except Exception as error:
            outcomes.append(error)
        else:
            outcomes.append(None)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return outcomes
