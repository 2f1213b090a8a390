"""A runner that has no room for another call, over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import attrs
import trio
import trio.lowlevel
import trio.testing
from prometheus_client import CollectorRegistry

from hostler import wire
from hostler._call_document import encode_call
from hostler.agent import Agent, Resources, open_agent
from hostler.config import AgentConfig
from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.metrics import AgentMetrics
from hostler.protocol import Data, Finished, TryCall
from hostler.runner import PureRunner, open_pure_runner
from hostler.wire.codec import messages as codec
from tests.agent.nodes import MIB, call_model
from tests.support.http2 import Reply, open_peer

END = codec.encode_client(Data(b"", eof=True))


@attrs.define
class Full:
    """A runner whose room one call has, until ``over``."""

    agent: Agent
    runner: PureRunner
    over: trio.Event
    registry: CollectorRegistry

    def value(self, name: str) -> float:
        return self.registry.get_sample_value(name) or 0


def try_of(image: str = "holds", **model: Any) -> bytes:
    call = call_model(image, **{"fn_id": "another", **model})
    return codec.encode_client(TryCall(encode_call(call)))


def code_of(reply: Reply) -> int:
    """How the call of a reply, which is whole, has ended."""
    assert reply.ended, reply
    last = codec.decode_runner(reply.messages[-1])
    assert isinstance(last, Finished)
    return 200 if last.success else last.error_code


@asynccontextmanager
async def open_full(
    tmp_path: Path, nack: bool | Literal["auto"] = True, *, memory: int = 128, **options: Any
) -> AsyncIterator[Full]:
    begun, over = trio.Event(), trio.Event()

    async def hold(request: SimRequest) -> SimResponse:
        begun.set()
        await over.wait()
        return SimResponse()

    registry = CollectorRegistry()
    config = AgentConfig(iofs_path=str(tmp_path), enable_nb_resource_tracker=nack)
    room = Resources(memory * MIB, 4000)
    with trio.fail_after(60):
        async with (
            wire.open_loop() as loop,
            open_sim_driver({"holds": hold}) as driver,
            open_agent(
                driver, config=config, total=room, metrics=AgentMetrics(registry), **options
            ) as agent,
            open_pure_runner(agent, "127.0.0.1:0", loop=loop) as runner,
            open_peer(runner.address) as peer,
        ):
            held = await peer.request(try_of(), END)
            await begun.wait()  # all descriptors that the call needs are open
            yield Full(agent, runner, over, registry)
            over.set()
            await held.done.wait()
            assert code_of(held) == 200
