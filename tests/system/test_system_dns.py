"""A fleet that a load balancer finds by DNS: records change under load, and a runner ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from tests.cli._process import NodeProcess, ends
from tests.pool.dns_server import Server, open_dns_server

from .load import Load
from .nodes import LIMIT, Runner, errors_of, lines_of, open_lb, open_runner
from .places import free_address

CLIENTS = 12
ENV = {"FN_MAX_TOTAL_MEMORY_BYTES": str(4 * 2**20)}
"""Room for four functions: no two runners are enough for the clients, whose calls take so long that
all are under way at once, also on a slow machine; so all runners are used."""
NAMES = ("A", "AAAA", "SRV")
"""Of the runners, for the records that tell of them."""


@attrs.define(eq=False)
class Fleet:
    """Three runners, and the records that say which of them are there: A and AAAA records of one
    name tell of the first two, SRV records of the third, and of the first once more."""

    server: Server
    lb: NodeProcess
    runners: dict[str, Runner]

    async def offer(self, *names: str) -> None:
        """Only these runners are there; until the load balancer has heard of it."""
        publish(self.server, names, self.runners)
        wanted = {self.runners[name].address for name in names}
        with trio.fail_after(LIMIT):
            while self._known() != wanted:  # noqa: ASYNC110  (of a log of another)
                await trio.sleep(0.02)

    def _known(self) -> set[str]:
        known: set[str] = set()
        for line in lines_of(self.lb, "runners changed"):
            # One that only changes its name, as A does between its records, leaves and joins.
            known = (known - set(line["left"])) | set(line["joined"])
        return known


def publish(server: Server, names: tuple[str, ...], runners: dict[str, Runner]) -> None:
    """Say so by records. (A name without any keeps the last ones, so each has one left.)"""
    server.set("r.test", "A", ["127.0.0.2"] if "A" in names else [], ttl=0)
    server.set("r.test", "AAAA", ["::1"] if "AAAA" in names else [], ttl=0)
    services = []
    for name in {"A", "SRV"} & set(names):
        host, _, port = runners[name].address.rpartition(":")
        server.set(f"{name}.test", "A", [host], ttl=0)
        services.append(f"10 0 {port} {name}.test.")
    server.set("_fn._tcp.r.test", "SRV", services, ttl=0)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Fleet]:
    port = free_address().rpartition(":")[2]
    binds = dict(zip(NAMES, (f"127.0.0.2:{port}", f"[::1]:{port}", "127.0.0.3:0"), strict=True))
    async with open_dns_server() as server, AsyncExitStack() as stack:
        runners = {
            name: await stack.enter_async_context(open_runner(folder, bind=bind, env=ENV))
            for name, bind in binds.items()
        }
        publish(server, NAMES, runners)
        targets = [f"dns://r.test:{port}", "srv://_fn._tcp.r.test"]
        env = {
            "FN_DNS_SERVER": server.address,
            "FN_DNS_MIN_INTERVAL": "50ms",
            "FN_DNS_MAX_INTERVAL": "100ms",
        }
        functions = {"fnt": {"memory": 1}}
        lb = await stack.enter_async_context(open_lb(folder, targets, functions=functions, env=env))
        yield Fleet(server, lb, runners)


async def test_no_call_fails_while_records_change_and_a_runner_ends(folder: Path) -> None:
    async with opened(folder) as fleet:
        load = Load(fleet.lb, "sleep=200")
        with trio.fail_after(2 * LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.run_clients, CLIENTS)
                await load.until_answers(2 * CLIENTS)
                for gone in NAMES:
                    await fleet.offer(*(name for name in NAMES if name != gone))
                    await load.until_answers(CLIENTS)
                    await fleet.offer(*NAMES)
                    await load.until_answers(2 * CLIENTS)
                await fleet.offer("AAAA", "SRV")
                await fleet.runners["A"].drain()
                await load.until_answers(CLIENTS)
                load.stop.set()
        assert load.failed() == []
        assert await ends(fleet.lb) == 0
        assert errors_of(fleet.lb) == []
        used = {line["runner"] for line in lines_of(fleet.lb, "call finished")}
        assert used == {runner.address for runner in fleet.runners.values()}
        for name in ("AAAA", "SRV"):
            await fleet.runners[name].drain()
