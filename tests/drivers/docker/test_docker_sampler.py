"""Who is asked for statistics, and when (reference 03 §10)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from hostler._concurrency.signal import IdleGate
from hostler.abc import ContainerTask
from hostler.config import AgentConfig
from hostler.drivers.docker import DockerMetrics, open_docker_driver
from hostler.drivers.docker.engine import EngineOperation
from hostler.drivers.docker.stats import LAUNCHES_FIRST, RATE, Sampler

from ...conftest import Logs
from .conftest import Bench
from .fake_engine import FakeEngine, error, nothing, value
from .http_server import Answer, Request, json_answer
from .statistics import answer, read, until


class FakeContainers:
    """A fake engine on which any number of containers run."""

    def __init__(self, engine: FakeEngine) -> None:
        self.names: list[str] = []
        engine.on("GET /images/img/json", value({"Id": "sha256:1", "Size": 1, "Config": {}}))
        engine.on("GET /containers/json", self._list)
        engine.on("POST /containers/create", self._create)
        engine.on("POST /containers/[^/]+/(start|pause|unpause)", nothing)
        engine.on("DELETE /containers/.*", nothing)

    async def _create(self, request: Request) -> Answer:
        self.names.append(request.query["name"])
        return json_answer({"Id": request.query["name"]}, 201)

    async def _list(self, request: Request) -> Answer:
        return json_answer([{"Id": name, "State": "running"} for name in self.names])


async def test_sampler_leaves_out_the_frozen_and_the_ended(
    fake_engine: FakeEngine, fake_environ: dict[str, str], logs: Logs
) -> None:
    FakeContainers(fake_engine)
    registry = CollectorRegistry()
    samples: dict[str, list[Any]] = {"a": [], "b": []}
    stats = answer(2, user=1, kernel=1, total=2, system=9)
    fake_engine.on("GET /containers/[ab]/stats", value(stats))
    async with open_docker_driver(
        AgentConfig(), environ=fake_environ, metrics=DockerMetrics(registry)
    ) as driver:
        cookies = {}
        for name, kept in samples.items():
            task = ContainerTask(id=name, image="img", on_sample=kept.append)
            cookie = cookies[name] = await driver.create_cookie(task)
            await cookie.validate_image()
            await cookie.create_container()
            await cookie.run()
        await until(lambda: all(samples.values()))
        assert samples["a"][0]["mem_usage"] == 3_000_000
        await cookies["b"].freeze()
        frozen = len(samples["b"])
        rounds = len(samples["a"])
        await until(lambda: len(samples["a"]) >= rounds + 2)
        assert len(samples["b"]) <= frozen + 1  # one may have been under way
        await cookies["b"].unfreeze()
        await until(lambda: len(samples["b"]) > frozen + 1)
        for cookie in cookies.values():
            await cookie.aclose()
        asked = fake_engine.count("GET /containers/./stats")
        assert read(registry, "fn_docker_stats_mem_usage_count") == sum(
            len(kept) for kept in samples.values()
        )
        assert asked >= len(samples["a"]) + len(samples["b"])


async def test_launches_come_before_statistics(autojump_clock: object) -> None:
    """A round waits for them, but not for ever."""
    stats = answer(1, user=1, kernel=1, total=2, system=9)

    class Quick:
        api_version = "1.41"

        async def call(self, operation: EngineOperation, request: object) -> Any:
            await trio.lowlevel.checkpoint()
            return stats

    launches = IdleGate()
    engine: Any = Quick()
    sampler = Sampler(engine, launches, lambda sample: None)
    begun = trio.current_time()
    sampled: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        with launches.disturbed():
            sampler.add("a", lambda sample: sampled.append(trio.current_time() - begun))
            await trio.sleep(0.5)
            assert sampled == []
        await trio.sleep(1)
        assert sampled == pytest.approx([0.5, 1.0])
        with launches.disturbed():
            await trio.sleep(14)
        nursery.cancel_scope.cancel()
    assert sampled[2:] == pytest.approx([2 + LAUNCHES_FIRST, 2 + 2 * LAUNCHES_FIRST])


async def test_trouble_with_statistics_is_told_once(
    fake_engine: FakeEngine, fake_environ: dict[str, str], logs: Logs
) -> None:
    """And neither it nor a failing receiver ends the sampling."""
    FakeContainers(fake_engine)
    fake_engine.on("GET /containers/ctr/stats", error(500, "no cgroup"))
    calls = []

    def broken(sample: object) -> None:
        calls.append(sample)
        raise ZeroDivisionError

    async with open_docker_driver(
        AgentConfig(), environ=fake_environ, metrics=DockerMetrics(CollectorRegistry())
    ) as driver:
        task = ContainerTask(id="ctr", image="img", on_sample=broken)
        cookie = await driver.create_cookie(task)
        await cookie.validate_image()
        await cookie.create_container()
        await cookie.run()
        await fake_engine.wait_for("GET /containers/ctr/stats", 2)
        fake_engine.on(
            "GET /containers/ctr/stats", value(answer(1, user=1, kernel=1, total=2, system=9))
        )
        await until(lambda: len(calls) == 1)
        seen = fake_engine.count("GET /containers/ctr/stats")
        await fake_engine.wait_for("GET /containers/ctr/stats", seen + 2)
        await cookie.aclose()
    assert len(logs.with_event("no statistics")) == 1
    assert len(calls) == 1
    logs.expect_error("on_sample failed")


async def test_many_containers_are_sampled_at_a_bounded_rate(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    FakeContainers(fake_engine)
    async with open_docker_driver(
        AgentConfig(), environ=fake_environ, metrics=DockerMetrics(CollectorRegistry())
    ) as driver:
        cookies = []
        for number in range(30):
            cookie = await driver.create_cookie(ContainerTask(id=f"c{number}", image="img"))
            await cookie.validate_image()
            await cookie.create_container()
            await cookie.run()
            cookies.append(cookie)
        before = fake_engine.count("GET /containers/c[0-9]+/stats")
        began = trio.current_time()
        await fake_engine.wait_for("GET /containers/c[0-9]+/stats", before + 30)
        assert trio.current_time() - began > 28 / RATE
        for cookie in cookies:
            await cookie.aclose()


@pytest.mark.docker
async def test_a_real_container_is_measured(bench: Bench) -> None:
    samples: list[Any] = []
    task = bench.task(memory=64 * 2**20, on_sample=samples.append)
    cookie = await bench.driver.create_cookie(task)
    try:
        await cookie.validate_image()
        await cookie.create_container()
        await cookie.run()
        await until(lambda: len(samples) >= 2)
    finally:
        await cookie.aclose()
    assert samples[0]["mem_limit"] == 64 * 2**20
    assert 0 < samples[0]["mem_usage"] < 64 * 2**20
    assert all(sample["cpu_total"] <= 100 for sample in samples)
