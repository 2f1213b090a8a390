"""What containers use: the formulas, the sampler, the metrics (reference 03 §10, 04 §3.6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import docker
import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hostler.config import AgentConfig
from hostler.drivers.docker import DockerMetrics, EngineError, open_docker_driver
from hostler.drivers.docker.engine import EngineOperation, open_engine
from hostler.drivers.docker.metrics import fnv1_64
from hostler.drivers.docker.stats import Sample, make_sample

from .conftest import Bench, containers
from .fake_engine import FakeEngine, error, value
from .http_server import BREAK, Answer, Request
from .statistics import answer, read, until

SECOND = 10**9


@pytest.mark.parametrize("version", [1, 2])
def test_one_cpu_and_a_half(version: int) -> None:
    """Weakness 04/3: cgroup v2 has no list of usages by CPU."""
    before = answer(version, user=5 * SECOND, kernel=SECOND, total=6 * SECOND, system=100 * SECOND)
    now = answer(
        version,
        user=6 * SECOND,
        kernel=SECOND + SECOND // 2,
        total=7 * SECOND + SECOND // 2,
        system=104 * SECOND,
    )
    assert make_sample(now, before) == Sample(
        net_rx=111,
        net_tx=9,
        disk_read=4608,
        disk_write=1024,
        mem_usage=3_000_000,
        mem_limit=134_217_728,
        cpu_user=100,
        cpu_kernel=50,
        cpu_total=150,
    )


def test_old_engine_tells_only_the_list() -> None:
    before = answer(1, user=0, kernel=0, total=0, system=0)
    now = answer(1, user=SECOND, kernel=0, total=SECOND, system=4 * SECOND)
    del now["cpu_stats"]["online_cpus"]
    assert make_sample(now, before).cpu_total == 100


@pytest.mark.parametrize("system", [0, -1])
def test_no_time_has_passed(system: int) -> None:
    before = answer(2, user=0, kernel=0, total=0, system=1)
    now = answer(2, user=9, kernel=9, total=9, system=1 + system)
    assert make_sample(now, before).cpu_total == 0


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"networks": None, "blkio_stats": {"io_service_bytes_recursive": None}},
        {"memory_stats": {}, "cpu_stats": {"cpu_usage": {}}},
    ],
)
def test_missing_parts_are_zero(odd: dict[str, Any]) -> None:
    assert make_sample(odd, odd) == Sample()
    assert make_sample(odd, None) == Sample()


# --- the metrics -----------------------------------------------------------------------------


@pytest.mark.docker
async def test_metrics_of_a_real_engine(
    docker_host: str, engine: docker.APIClient, fnt: str, tag: str, open_folder: Path
) -> None:
    registry = CollectorRegistry()
    settings = AgentConfig(
        container_label_tag=tag, docker_networks=("none",), experimental_prefork_pool_size=0
    )
    async with open_docker_driver(
        settings,
        environ={"DOCKER_HOST": docker_host},
        instance_id="me",
        metrics=DockerMetrics(registry),
    ) as driver:
        bench = Bench(driver, engine, tag, fnt, open_folder)
        ended = await bench.run_to_end(bench.task("exit=3"))
        assert ended.exit_code == 3
        cookie = await driver.create_cookie(bench.task("hang"))
        await cookie.validate_image()
        await cookie.create_container()
        with pytest.raises(EngineError, match="not running"):
            await cookie.freeze()
        await cookie.run()
        assert read(registry, "fn_docker_networks", network="none") == 1
        await cookie.aclose()
        await until(
            lambda: (
                read(registry, "fn_docker_events", event_action="die", event_type="container") >= 2
            )
        )
        assert read(registry, "fn_docker_instance_id") == fnv1_64("me")

    def exits(status: str) -> float:
        labels = {"api_name": "docker_wait_container", "exit_status": status}
        return read(registry, "fn_docker_exits", **labels)

    def calls(name: str, status: str) -> float:
        labels = {"api_name": f"docker_{name}", "api_status": status}
        return read(registry, "fn_docker_api_latency_count", **labels)

    assert (exits("exit_3"), exits("ctx_canceled"), exits("exit_137")) == (1, 1, -1)
    assert calls("create_container", "ok") == 2
    assert calls("remove_container", "ok") == 2
    assert calls("pause_container", "409") == 1
    assert read(registry, "fn_docker_networks", network="none") == -1
    assert containers(engine, tag) == []


async def test_how_calls_ended(fake_engine: FakeEngine, fake_environ: dict[str, str]) -> None:
    """ok, the engine's status, timeout, cancelled, and an engine that went away."""

    async def break_off(request: Request) -> Answer:
        return BREAK

    seen: list[str] = []
    engine = await open_engine(
        fake_environ, observe=lambda name, status, seconds: seen.append(f"{name} {status}")
    )

    async def call(operation: EngineOperation = EngineOperation.INSPECT_IMAGE) -> None:
        await engine.call(operation, lambda client: client.inspect_image("img"))  # type: ignore[no-untyped-call]

    fake_engine.on("GET /images/img/json", value({}))
    await call()
    for handler in (error(404, "no"), break_off):
        fake_engine.on("GET /images/img/json", handler)
        with pytest.raises(EngineError):
            await call()
    fake_engine.on("GET /images/img/json", fake_engine.hang)
    with trio.move_on_after(0.1):
        await call(EngineOperation.LIST)
    engine._limits[EngineOperation.INSPECT_IMAGE] = 0.1  # not before: the others may take longer
    with pytest.raises(EngineError):
        await call()
    fake_engine.release()
    await engine.aclose()
    assert seen == [
        "docker_inspect_image ok",
        "docker_inspect_image 404",
        "docker_inspect_image error",
        "docker_list_containers canceled",
        "docker_inspect_image timeout",
    ]


async def test_events_are_counted_once(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    """A renewed subscription repeats some. What comes after a colon is not a label."""
    registry = CollectorRegistry()
    async with open_docker_driver(
        AgentConfig(), environ=fake_environ, metrics=DockerMetrics(registry)
    ):

        def count(action: str) -> float:
            return read(registry, "fn_docker_events", event_action=action, event_type="container")

        def event(action: str, at_ns: int) -> dict[str, Any]:
            return {"Type": "container", "Action": action, "timeNano": at_ns}

        await fake_engine.wait_for_subscription()
        fake_engine.emit(event("exec_create: /bin/sh -c secret", 5))
        fake_engine.emit(event("start", 5))
        fake_engine.emit(event("start", 4))
        await until(lambda: count("start") == 2)
        fake_engine.end_subscriptions()
        await fake_engine.wait_for_subscription()
        fake_engine.emit(event("start", 5))
        fake_engine.emit(event("start", 6))
        fake_engine.emit(event("stop", 7))
        await until(lambda: count("stop") == 1)
        assert count("start") == 3
        assert count("exec_create") == 1


def test_everything_has_fns_name() -> None:
    registry = CollectorRegistry()
    metrics = DockerMetrics(registry)
    metrics.sampled(Sample(mem_usage=2**27, cpu_total=35))
    metrics.call_ended("docker_pull_image", "ok", 0.5)
    metrics.call_retried("docker_pull_image", "busy")
    metrics.container_exited("exit_0")
    metrics.event("die", "container")
    metrics.prefork_missed()
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    names = {family.name for family in families}
    sampled = [f"stats_{name}" for name in Sample().as_metrics()]
    assert len(sampled) == 9
    for name in (*sampled, "api_latency", "api_retries", "exits", "events", "instance_id"):
        assert f"fn_docker_{name}" in names
    assert read(registry, "fn_docker_stats_mem_usage_bucket", le="1.34217728e+08") == 1
    assert read(registry, "fn_docker_stats_cpu_total_bucket", le="30.0") == 0
    assert read(registry, "fn_docker_stats_cpu_total_bucket", le="40.0") == 1
    pulled = {"api_name": "docker_pull_image", "api_status": "ok"}
    assert read(registry, "fn_docker_api_latency_sum", **pulled) == 500
    assert read(registry, "fn_docker_prefork_misses") == 1
    with pytest.raises(ValueError, match="uplicated"):
        DockerMetrics(registry)


@pytest.mark.parametrize(("text", "value"), [("", 0xCBF29CE484222325), ("a", 0xAF63BD4C8601B7BE)])
def test_fnv(text: str, value: int) -> None:
    """The published vectors of FNV-1, 64 bits."""
    assert fnv1_64(text) == value
