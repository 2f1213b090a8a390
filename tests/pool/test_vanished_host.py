"""A host that vanishes without a word: its own network namespace, whose cable is pulled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import trio
from prometheus_client import CollectorRegistry

from hostler import wire
from hostler.config import PoolConfig
from hostler.pool import PoolMetrics, RunnerAccess, open_dynamic_pool
from hostler.pool.static import keepalive_of
from hostler.protocol import Data, EngagementFailed
from tests.conftest import Logs
from tests.wire.services import TRY, Service

from .fakes import make_call

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"
    ),
]

ROOT = Path(__file__).parents[2]
VANISHED = 3.0
SOON = 40.0
"""Seconds that are less than any limit but `VANISHED`, also on a machine that is busy."""
SERVER = """
import structlog, sys, trio
from hostler import wire
from tests.wire.services import Service

async def hang(engagement):
    while await engagement.receive():
        pass

async def main():
    async with wire.open_loop() as loop:
        async with wire.open_server(Service(hang), sys.argv[1], loop=loop) as server:
            print(server.address, flush=True)
            await trio.sleep_forever()

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
trio.run(main)
"""


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True, timeout=20)


@attrs.frozen
class Cable:
    """Between this namespace and that of the host."""

    namespace: str
    here: str
    there: str
    host: str

    def pull(self) -> None:
        """From now on all packets are lost, in silence."""
        ip("netns", "exec", self.namespace, "ip", "link", "set", self.there, "down")

    def plug(self) -> None:
        ip("netns", "exec", self.namespace, "ip", "link", "set", self.there, "up")


@pytest.fixture
def cable() -> Iterator[Cable]:
    number = os.getpid() % 60_000
    name = f"hv{number}"
    net = f"10.{200 + number % 50}.{number // 256}"
    made = Cable(name, f"{name}a", f"{name}b", f"{net}.2")
    ip("netns", "add", name)
    try:
        ip("link", "add", made.here, "type", "veth", "peer", "name", made.there, "netns", name)
        ip("addr", "add", f"{net}.1/24", "dev", made.here)
        ip("link", "set", made.here, "up")
        ip("-n", name, "addr", "add", f"{net}.2/24", "dev", made.there)
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "set", made.there, "up")
        yield made
    finally:
        ip("link", "del", made.here)
        ip("netns", "del", name)


@contextmanager
def runner(cable: Cable) -> Iterator[str]:
    """A runner on the other host; its address. It takes calls and never answers."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", cable.namespace, sys.executable, "-c", SERVER, f"{cable.host}:0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        with process.stdout:
            yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("busy", [False, True])
async def test_a_call_on_a_vanished_host_fails_in_time(cable: Cable, busy: bool) -> None:
    """Also with data on its way, for which the kernel would try for a quarter of an hour."""
    with runner(cable) as address, trio.fail_after(60):
        async with wire.open_loop() as loop:
            keepalive = wire.Keepalive(vanished=VANISHED)
            client = wire.GrpcRunnerClient(
                address, wire.ConnectOptions(keepalive=keepalive, connect_timeout=60), loop=loop
            )
            async with client.engage(TRY) as engagement:
                await engagement.send(Data(b"x"))
                await client.status()  # all is acknowledged
                cable.pull()
                began = trio.current_time()
                if busy:
                    await engagement.send(Data(b"x" * 1000))
                with pytest.raises(EngagementFailed, match=r"timed out|unreachable|no route"):
                    await engagement.receive()
                took = trio.current_time() - began
            await client.aclose()
    assert 1.0 < took < SOON


async def test_a_pool_notices_without_any_call_and_finds_it_again(cable: Cable, logs: Logs) -> None:
    config = PoolConfig(vanished_timeout=VANISHED)
    assert keepalive_of(config).vanished == VANISHED
    with runner(cable) as address, trio.fail_after(60):
        async with wire.open_loop() as loop:  # noqa: SIM117  (the others need it)
            async with (
                wire.open_server(Service(), "127.0.0.1:0", loop=loop) as other,
                open_dynamic_pool(
                    [address, other.address],
                    config=config,
                    access=RunnerAccess(loop=loop),
                    metrics=PoolMetrics(CollectorRegistry()),
                ) as pool,
            ):
                for runner_ in await pool.runners(make_call()):
                    await runner_.status()
                cable.pull()
                began = trio.current_time()
                while not pool.statistics().ejected:  # noqa: ASYNC110  (a real network)
                    await trio.sleep(0.02)
                assert 1.0 < trio.current_time() - began < SOON
                assert [r.address for r in await pool.runners(make_call())] == [other.address]
                cable.plug()
                while pool.statistics().ejected:  # noqa: ASYNC110  (a real network)
                    await trio.sleep(0.02)
    assert logs.with_event("runner is in use again")[0]["runner"] == address
