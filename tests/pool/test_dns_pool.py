"""Pools over names, against a DNS server on loopback whose records change."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dns.rcode
import pytest
import trio
from prometheus_client import CollectorRegistry

from hostler import wire
from hostler.config import PoolConfig
from hostler.errors import ConfigError
from hostler.pool import DynamicPool, NaivePlacer, PoolMetrics, RunnerAccess, open_dns_pool
from hostler.pool.dns import Resolver
from hostler.pool.targets import FixedTarget, LookupFailed, NameTarget, ServiceTarget, parse_targets
from tests.conftest import Logs
from tests.support.ports import free_port
from tests.wire.leaks import open_sockets, settle, trio_tasks

from .bench import OneAtATime
from .dns_server import Server, open_dns_server
from .fakes import RecordingWriter, fresh_metrics, make_call
from .fleet import Fleet

LIMIT = 60
"""Seconds after which whatever a test waits for has failed, on a machine that is very busy."""


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    with trio.fail_after(LIMIT):
        async with open_dns_server() as made:
            yield made


def config_of(server: Server, **options: Any) -> PoolConfig:
    fast = {"dns_min_interval": 0.02, "dns_max_interval": 0.05, "dns_timeout": 30.0}
    return PoolConfig(dns_server=server.address, **{**fast, **options})


@asynccontextmanager
async def opened(
    server: Server, *targets: str, fleet: Fleet | None = None, **options: Any
) -> AsyncIterator[DynamicPool]:
    metrics = options.pop("metrics", None) or PoolMetrics(CollectorRegistry())
    tasks, sockets = trio_tasks(), open_sockets()
    async with open_dns_pool(
        targets,
        config=config_of(server, **options),
        access=RunnerAccess(factory=fleet or Fleet()),
        metrics=metrics,
        rng=random.Random(1),
    ) as pool:
        yield pool
    await settle(trio_tasks, tasks)
    await settle(open_sockets, sockets)


async def until(pool: DynamicPool, *addresses: str) -> None:
    while pool.addresses != addresses:  # noqa: ASYNC110  (a real server, a deadline around)
        await trio.sleep(0.005)


def test_targets() -> None:
    texts = ["a:1", "dns://b.test:2", "srv://_fn._tcp.c.test", "dns://10.0.0.1:3", "dns://[::1]:4"]
    assert parse_targets(texts) == (
        FixedTarget("a:1"),
        NameTarget("b.test", 2),
        ServiceTarget("_fn._tcp.c.test"),
        FixedTarget("10.0.0.1:3"),
        FixedTarget("[::1]:4"),
    )
    assert [str(target) for target in parse_targets(texts)[1:3]] == texts[1:3]


@pytest.mark.parametrize("text", ["", "a", "dns://a", "srv://a:1", "http://a:1", "dns://:1"])
def test_bad_targets(text: str) -> None:
    with pytest.raises(ConfigError, match="takes host:port, dns://name:port or srv://name"):
        parse_targets([text])


@pytest.mark.parametrize("text", ["dns.test", "1.2.3.4:x", "1.2.3.4:0", "1.2.3.4:65536", "[::1"])
def test_bad_servers(text: str) -> None:
    with pytest.raises(ConfigError, match=r"FN_DNS_SERVER=.*takes an IP address"):
        PoolConfig(dns_server=text)


async def test_addresses_alone_need_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Resolver, "__init__", None)  # (no resolver can be made)
    async with open_dns_pool(
        ["fixed:1"], access=RunnerAccess(factory=Fleet()), metrics=PoolMetrics(CollectorRegistry())
    ) as pool:
        assert pool.addresses == ("fixed:1",)


async def test_addresses_of_both_families(server: Server) -> None:
    server.set("r.test", "A", ["10.0.0.2", "10.0.0.1"])
    server.set("r.test", "AAAA", ["fd00::1"])
    fleet = Fleet()
    async with opened(server, "dns://r.test:9190", "fixed:1", fleet=fleet) as pool:
        assert pool.addresses == ("10.0.0.1:9190", "10.0.0.2:9190", "[fd00::1]:9190", "fixed:1")
        # The name is what a certificate has, not the address.
        assert dict(fleet.made)["10.0.0.1:9190"] == "r.test"
        assert dict(fleet.made)["fixed:1"] == ""


async def test_services(server: Server) -> None:
    server.set(
        "_fn._tcp.r.test",
        "SRV",
        ["10 5 9191 a.test.", "10 0 9192 b.test.", "20 5 9193 spare.test."],
    )
    server.set("a.test", "A", ["10.0.0.1", "10.0.0.2"])
    server.set("b.test", "A", ["10.0.0.1"])
    fleet = Fleet()
    async with opened(server, "srv://_fn._tcp.r.test", fleet=fleet) as pool:
        assert pool.addresses == ("10.0.0.1:9191", "10.0.0.1:9192", "10.0.0.2:9191")
        assert dict(fleet.made)["10.0.0.1:9192"] == "b.test"


async def test_records_that_change(server: Server, logs: Logs) -> None:
    server.set("r.test", "A", ["10.0.0.1", "10.0.0.2"])
    metrics = PoolMetrics(CollectorRegistry())
    async with opened(server, "dns://r.test:1", metrics=metrics) as pool:
        stays = (await pool.runners(make_call()))[1]
        server.set("r.test", "A", ["10.0.0.3", "10.0.0.2"])
        await until(pool, "10.0.0.2:1", "10.0.0.3:1")
        assert (await pool.runners(make_call()))[0] is stays
    changes = logs.with_event("runners changed")
    assert (changes[1]["joined"], changes[1]["left"]) == (["10.0.0.3:1"], ["10.0.0.1:1"])
    assert len(changes) == 2 or changes[2]["runners"] == 0
    assert metrics.lookups.value >= 2
    assert metrics.lookup_failures.value == 0


@pytest.mark.parametrize(
    "trouble",
    ["servfail", "refused", "nxdomain", "empty", pytest.param("silent", marks=pytest.mark.slow)],
)
async def test_the_last_good_answer_is_kept(server: Server, logs: Logs, trouble: str) -> None:
    limit = 1.0 if trouble == "silent" else 30.0
    server.set("r.test", "A", ["10.0.0.1"])
    async with opened(server, "dns://r.test:1", dns_timeout=limit) as pool:
        if trouble == "empty":
            server.set("r.test", "A", [])
        elif trouble == "nxdomain":
            server.records.clear()
        server.silent = trouble == "silent"
        if trouble in ("servfail", "refused"):
            server.rcode = dns.rcode.from_text(trouble)
        await server.until_asked(12)
        assert pool.addresses == ("10.0.0.1:1",)
        server.silent, server.rcode = False, dns.rcode.NOERROR
        server.set("r.test", "A", ["10.0.0.2"])
        await until(pool, "10.0.0.2:1")
    told = logs.with_event("runners can't be looked up")
    assert len(told) == 1
    assert told[0]["target"] == "dns://r.test:1"
    assert len(logs.with_event("runners can be looked up again")) == 1


async def test_a_name_that_is_not_there_yet(server: Server) -> None:
    async with opened(server, "dns://r.test:1") as pool:
        assert pool.addresses == ()
        server.set("r.test", "A", ["10.0.0.1"])
        await until(pool, "10.0.0.1:1")


async def test_one_family_that_fails_does_not_make_runners_leave(server: Server) -> None:
    """The AAAA records can't be had for a moment: their runners are still there."""
    server.set("r.test", "A", ["10.0.0.1"])
    server.set("r.test", "AAAA", ["fd00::1"])
    async with opened(server, "dns://r.test:1") as pool:
        server.failing.add("AAAA")
        await server.until_asked(12)
        assert pool.addresses == ("10.0.0.1:1", "[fd00::1]:1")


async def test_long_answers_come_over_tcp(server: Server) -> None:
    server.truncates = True
    many = [f"10.0.{number}.1" for number in range(200)]
    server.set("r.test", "A", many)
    async with opened(server, "dns://r.test:1") as pool:
        assert len(pool.addresses) == 200
    assert ("r.test", "A", "tcp") in server.asked


@pytest.mark.parametrize(("ttl", "expected"), [(0, 1.0), (5, 5.0), (3600, 30.0)])
async def test_the_ttl_has_limits(server: Server, ttl: int, expected: float) -> None:
    server.set("r.test", "A", ["10.0.0.1"], ttl=ttl)
    found = await Resolver(config_of(server)).find(NameTarget("r.test", 1))
    config = PoolConfig()
    held = min(max(found.ttl, config.dns_min_interval), config.dns_max_interval)
    assert (found.ttl, held) == (ttl, expected)


async def test_the_least_ttl_counts(server: Server) -> None:
    server.set("s.test", "SRV", ["1 1 1 a.test."], ttl=60)
    server.set("a.test", "A", ["10.0.0.1"], ttl=20)
    server.set("a.test", "AAAA", ["fd00::1"], ttl=40)
    assert (await Resolver(config_of(server)).find(ServiceTarget("s.test"))).ttl == 20


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (NameTarget("gone.test", 1), "gone.test does not exist"),
        (NameTarget("empty.test", 1), "empty.test has no addresses"),
        (ServiceTarget("empty.test"), "empty.test has no SRV records"),
        (ServiceTarget("off.test"), "off.test is not available, say its SRV records"),
        (ServiceTarget("half.test"), "gone.test does not exist"),
        (NameTarget("a..b", 1), "a..b can't be looked up: A DNS label is empty."),
    ],
)
async def test_failures_say_what_is_wrong(
    server: Server, target: NameTarget | ServiceTarget, text: str
) -> None:
    server.set("empty.test", "TXT", ["x"])
    server.set("off.test", "SRV", ["0 0 0 ."])
    server.set("half.test", "SRV", ["0 0 1 gone.test.", "0 0 1 there.test."])
    server.set("there.test", "A", ["10.0.0.1"])
    with pytest.raises(LookupFailed) as caught:
        await Resolver(config_of(server)).find(target)
    assert str(caught.value) == text


async def test_a_runner_that_is_lost_is_looked_for_at_once(server: Server) -> None:
    """It may have moved. The TTL would let it stay for an hour."""
    server.set("r.test", "A", ["10.0.0.1", "10.0.0.2"], ttl=3600)
    fleet = Fleet(tells=True)
    async with opened(server, "dns://r.test:1", fleet=fleet, dns_max_interval=3600.0) as pool:
        server.set("r.test", "A", ["10.0.0.3", "10.0.0.2"], ttl=3600)
        fleet.hosts["10.0.0.1:1"].change(up=False)
        await until(pool, "10.0.0.2:1", "10.0.0.3:1")


async def test_cancelled_while_the_first_answer_is_awaited(server: Server) -> None:
    server.silent = True
    tasks, sockets = trio_tasks(), open_sockets()
    async with trio.open_nursery() as nursery:

        async def open_it() -> None:
            async with open_dns_pool(
                ["dns://r.test:1"],
                config=config_of(server, dns_timeout=60.0),
                access=RunnerAccess(factory=Fleet()),
                metrics=PoolMetrics(CollectorRegistry()),
            ):
                raise AssertionError("opened without an answer")

        nursery.start_soon(open_it)
        await server.until_asked()
        nursery.cancel_scope.cancel()
    assert (trio_tasks(), open_sockets()) == (tasks, sockets)


async def test_no_call_fails_while_the_records_change_under_load(server: Server) -> None:
    """Runners over the real wire, on loopback addresses that come and go."""
    rng = random.Random(3)
    hosts = [f"127.0.0.{number}" for number in range(2, 6)]
    port = free_port()
    services = [OneAtATime(20) for _ in hosts]
    async with wire.open_loop() as loop, trio.open_nursery() as nursery:
        for service, host in zip(services, hosts, strict=True):
            await nursery.start(serve, service, f"{host}:{port}", loop)
        server.set("r.test", "A", hosts, ttl=0)
        async with open_dns_pool(
            [f"dns://r.test:{port}"],
            config=config_of(server, connect_timeout=60),
            access=RunnerAccess(loop=loop),
            metrics=PoolMetrics(CollectorRegistry()),
        ) as pool:
            placer = NaivePlacer(metrics=fresh_metrics(), rng=rng)
            calls = [make_call(f"c{number}") for number in range(400)]
            async with trio.open_nursery() as load:
                for number, call in enumerate(calls):
                    load.start_soon(placer.place_call, pool, call)
                    await trio.sleep(0.003)
                    if number % 25 == 0:
                        chosen = rng.sample(hosts, rng.randint(1, 4))
                        server.set("r.test", "A", chosen, ttl=0)
        nursery.cancel_scope.cancel()
    for call in calls:
        assert isinstance(call.writer, RecordingWriter)
        assert [status for status, _ in call.writer.heads] == [200]
    used = {call.runner_address for call in calls}
    assert used == {f"{host}:{port}" for host in hosts}


async def serve(
    service: OneAtATime,
    bind: str,
    loop: wire.Loop,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with wire.open_server(service, bind, loop=loop):
        task_status.started()
        await trio.sleep_forever()
