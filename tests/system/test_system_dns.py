"""A fleet that a load balancer finds by DNS: records change under load, runners come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from tests.cli._process import NodeProcess
from tests.pool.dns_server import Server, open_dns_server

from .load import Load
from .nodes import LIMIT, Runner, ends, errors_of, lines_of, open_lb, open_runner
from .places import free_address

HOSTS = ("127.0.0.2", "127.0.0.3", "[::1]", "127.0.0.4")
"""Of the runners; the last one joins later."""
CLIENTS = 12
ENV = {"FN_MAX_TOTAL_MEMORY_BYTES": str(4 * 2**20)}
"""Room for four functions: two runners are not enough for the clients, so all are used."""


@attrs.define(eq=False)
class Fleet:
    """Runners, and the records that say which of them are there."""

    server: Server
    kind: str
    lb: NodeProcess
    runners: list[Runner]

    async def offer(self, *numbers: int) -> None:
        """Only these runners are there; until the load balancer has heard of it."""
        publish(self.server, self.kind, [self.runners[number] for number in numbers])
        wanted = [self.runners[number].address for number in numbers]
        while self._known() != set(wanted):  # noqa: ASYNC110  (of a log of another)
            await trio.sleep(0.02)

    def _known(self) -> set[str]:
        known: set[str] = set()
        for line in lines_of(self.lb, "runners changed"):
            known = (known | set(line["joined"])) - set(line["left"])
        return known


def publish(server: Server, kind: str, runners: list[Runner]) -> None:
    """Say by records that ``runners`` are there."""
    hosts = [runner.address.rpartition(":") for runner in runners]
    if kind == "dns":
        server.set("r.test", "A", [host for host, _, _ in hosts if "[" not in host], ttl=0)
        server.set("r.test", "AAAA", [host.strip("[]") for host, _, _ in hosts if "[" in host])
        return
    texts = []
    for number, (host, _, port) in enumerate(hosts):
        family = "AAAA" if "[" in host else "A"
        server.set(f"{number}.r.test", family, [host.strip("[]")], ttl=0)
        server.set(f"{number}.r.test", "A" if family == "AAAA" else "AAAA", [])
        texts.append(f"10 0 {port} {number}.r.test.")
    server.set("_fn._tcp.r.test", "SRV", texts, ttl=0)


@asynccontextmanager
async def opened(folder: Path, kind: str) -> AsyncIterator[Fleet]:
    """With A and AAAA records runners share a port; SRV records tell each its own."""
    port = free_address().rpartition(":")[2] if kind == "dns" else "0"
    target = f"dns://r.test:{port}" if kind == "dns" else "srv://_fn._tcp.r.test"
    async with open_dns_server() as server, AsyncExitStack() as stack:
        runners = [
            await stack.enter_async_context(open_runner(folder, bind=f"{host}:{port}", env=ENV))
            for host in HOSTS
        ]
        publish(server, kind, runners[:3])
        env = {
            "FN_DNS_SERVER": server.address,
            "FN_DNS_MIN_INTERVAL": "0.05",
            "FN_DNS_MAX_INTERVAL": "0.1",
        }
        lb = await stack.enter_async_context(
            open_lb(folder, [target], functions={"fnt": {"memory": 1}}, env=env)
        )
        yield Fleet(server, kind, lb, runners)


@pytest.mark.parametrize("kind", ["dns", "srv"])
async def test_no_call_fails_while_records_change_and_runners_end(folder: Path, kind: str) -> None:
    async with opened(folder, kind) as fleet:
        load = Load(fleet.lb, "sleep=20")
        with trio.fail_after(2 * LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.run_clients, CLIENTS)
                await load.until_answers(2 * CLIENTS)
                for number in (0, 1, 2):
                    await fleet.offer(*{0, 1, 2} - {number})
                    await load.until_answers(CLIENTS)
                    await fleet.offer(0, 1, 2)
                    await load.until_answers(CLIENTS)
                await fleet.offer(1, 2)
                await fleet.runners[0].drain()
                await fleet.offer(1, 2, 3)
                await load.until_answers(2 * CLIENTS)
                load.stop.set()
        assert load.failed() == []
        assert await ends(fleet.lb) == 0
        assert errors_of(fleet.lb) == []
        used = {line["runner"] for line in lines_of(fleet.lb, "call finished")}
        assert used == {runner.address for runner in fleet.runners}
        for runner in fleet.runners[1:]:
            await runner.drain()
