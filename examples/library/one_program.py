"""A load balancer and a runner in one Trio program.

The simulated driver runs Python functions as if they were images, so the program needs nothing
else. To run real images, open `open_docker_driver(config)` in its place. The rest stays as it is.

    python examples/library/one_program.py
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import structlog
import trio

from hostler import (
    AgentConfig,
    App,
    Call,
    ConsistentHashPlacer,
    Fn,
    open_agent,
    open_lb_agent,
    open_loop,
    open_pure_runner,
    open_sim_driver,
    open_static_pool,
)
from hostler.abc import CallRequest, ResponseWriter
from hostler.bodies import BytesBody
from hostler.drivers.sim import SimRequest, SimResponse
from hostler.options import from_http_fn_request, with_writer

APP = App(id="app-1", name="demo")
FN = Fn(id="fn-1", name="hello", app_id=APP.id, image="hello", timeout=5)


async def hello(request: SimRequest) -> SimResponse:
    """The function."""
    return SimResponse(body=b"Hello " + await request.read())


def add_tier(request: CallRequest, call: Call, extensions: Mapping[str, str]) -> Mapping[str, str]:
    """A call overrider: every call gets an extension, which travels to the runner's driver."""
    return {**extensions, "tier": "gold"}


class Collect(ResponseWriter):
    """Keeps the response in memory. A service would send it to its client."""

    def __init__(self) -> None:
        self.body = b""

    async def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        await trio.lowlevel.checkpoint()

    async def write(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.body += data


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    config = AgentConfig(enable_nb_resource_tracker=True)  # refuse, so that the LB tries elsewhere
    async with (
        open_loop(),  # outermost: the wire's asyncio loop, shared by both ends
        open_sim_driver({"hello": hello}) as driver,
        open_agent(driver, config=config) as agent,
        open_pure_runner(agent, "127.0.0.1:0") as runner,
        open_static_pool([runner.address]) as pool,
        open_lb_agent(pool, ConsistentHashPlacer(), call_overrider=add_tier) as lb,
    ):
        for name in ("Ada", "Grace"):
            request = CallRequest(
                method="POST", url="http://lb/", headers={}, body=BytesBody(name.encode())
            )
            writer = Collect()
            call = lb.get_call(from_http_fn_request(APP, FN, request), with_writer(writer))
            with trio.fail_after(5):  # the request's scope: ending it ends the call everywhere
                await lb.submit(call)
            kind = "cold" if call.timings.init_start_ns else "hot"
            print(f"{writer.body.decode()} ({kind}, runner {call.runner_address})")


if __name__ == "__main__":
    trio.run(main)
