"""The agent's metrics, under Fn's names, after real work on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hostler import options
from hostler.agent import Agent, Resources, open_agent
from hostler.bodies import BytesBody
from hostler.config import AgentConfig
from hostler.drivers.sim import SimDriver, echo, open_sim_driver
from hostler.errors import ContainerInitTimeout, ServerBusy
from hostler.metrics import (
    MAX_LABEL_SETS,
    STATES,
    AgentMetrics,
    CallCounts,
    LBMetrics,
    default_agent_metrics,
    default_metrics,
)

from .functions import sleeper
from .nodes import MIB, call_model


class Measured:
    """An agent and its metrics."""

    def __init__(self, agent: Agent, registry: CollectorRegistry) -> None:
        self.agent = agent
        self.registry = registry

    async def run(self, image: str = "sleep", body: bytes = b"1", **fields: Any) -> None:
        model = call_model(image, **fields)
        await self.agent.submit(self.agent.get_call(options.from_model(model, BytesBody(body))))

    def value(self, name: str, labels: dict[str, str] | None = None) -> float:
        return self.registry.get_sample_value(f"fn_{name}", labels or {}) or 0


def names(image: str = "sleep") -> dict[str, str]:
    return {"app_id": "app", "fn_id": f"fn-{image}", "image_name": image}


@asynccontextmanager
async def measured(
    driver: SimDriver, iofs: Path, *, memory: int = 1024, **config: Any
) -> AsyncIterator[Measured]:
    registry = CollectorRegistry()
    settings = AgentConfig(iofs_path=str(iofs), **config)
    async with open_agent(
        driver,
        config=settings,
        total=Resources(memory * MIB, 4000),
        metrics=AgentMetrics(registry),
    ) as agent:
        yield Measured(agent, registry)
    for state in STATES:
        family = [f for f in registry.collect() if f.name == f"fn_container_{state}_total"]
        assert [f.samples for f in family] == [[]]
    assert registry.get_sample_value("fn_queued") == registry.get_sample_value("fn_running") == 0


async def test_states_and_how_long_they_were(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver() as driver, measured(driver, tmp_path) as node:
        driver.add_image("sleep", sleeper, create_time=0.2, init_time=0.3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run, "sleep", b"2")
            await trio.sleep(0.1)
            assert node.value("container_start_total", names()) == 1
            assert (node.value("queued"), node.value("running")) == (1, 0)
            assert node.value("container_launches_running") == 1
            await trio.sleep(1)
            assert node.value("container_busy_total", names()) == 1
            assert node.value("container_start_total", names()) == 0
            assert (node.value("queued"), node.value("running")) == (0, 1)
            assert node.value("util_mem_used") == 128 * MIB
            assert node.value("util_mem_avail") == (1024 - 128) * MIB
            assert node.value("util_cpu_avail") == 4000
        assert node.value("container_idle_total", names()) == 1
        for unit in ("seconds", "milliseconds"):  # Fn's name, and the right one
            name = f"container_busy_duration_{unit}"
            assert node.value(f"{name}_sum", names()) == pytest.approx(2000, abs=50)
            assert node.value(f"{name}_count", names()) == 1
            assert node.value(f"{name}_bucket", names() | {"le": "10000.0"}) == 1
            assert node.value(f"{name}_bucket", names() | {"le": "1000.0"}) == 0
        start = node.value("container_start_duration_milliseconds_sum", names())
        assert start == pytest.approx(500, abs=50)
        ready = names() | {"container_uds_state": "initialized"}
        latency = node.value("container_uds_init_latency_sum", ready)
        assert latency == pytest.approx(300, abs=50)


async def test_outcomes(autojump_clock: object, tmp_path: Path) -> None:
    nack = {"enable_nb_resource_tracker": True}
    async with (
        open_sim_driver({"sleep": sleeper}) as driver,
        measured(driver, tmp_path, memory=128, **nack) as node,
    ):
        await node.run()
        with pytest.raises(Exception, match="Timed out"):
            await node.run(body=b"100", timeout=1)
        with trio.move_on_after(1):
            await node.run(body=b"100")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(ServerBusy):
                await node.run(fn_id="other")
        driver.add_image("sleep", sleeper, faults={"create": OSError("engine")})
        with pytest.raises(OSError, match="engine"):
            await node.run(memory=64, fn_id="third")
        assert node.value("calls") == 6
        ended = {
            name: node.value(name)
            for name in ("completed", "timeouts", "canceled", "server_busy", "errors")
        }
        assert ended == {
            "completed": 2,
            "timeouts": 1,
            "canceled": 1,
            "server_busy": 1,
            "errors": 1,
        }
        assert node.value("container_launch_failures") == 1


async def test_freezing_evicting_and_waking_up(autojump_clock: object, tmp_path: Path) -> None:
    async with (
        open_sim_driver({"sleep": sleeper, "echo": echo}) as driver,
        measured(driver, tmp_path, memory=128, freeze_idle_msecs=0.0) as node,
    ):
        await node.run()
        await trio.sleep(1)
        assert node.value("container_paused_total", names()) == 1
        await node.run()
        await trio.sleep(1)
        assert (node.value("container_freezes"), node.value("container_thaws")) == (2, 1)
        assert node.value("slot_wakeup_latency_milliseconds_count") == 1  # the cold one
        await node.run("echo")
        evicted = names() | {"container_state": "paused"}
        assert node.value("container_evictions", evicted) == 1
        assert node.value("container_launches") == 2


async def test_sockets_that_never_come(autojump_clock: object, tmp_path: Path) -> None:
    async with (
        open_sim_driver() as driver,
        measured(driver, tmp_path, hot_start_timeout_msecs=500.0) as node,
    ):
        driver.add_image("sleep", sleeper, listening="never")
        with pytest.raises(ContainerInitTimeout):
            await node.run()
        driver.add_image("sleep", sleeper, exit_on_start=1, init_time=0.1)
        with pytest.raises(Exception, match="failed to initialize"):
            await node.run()
        for outcome in ("timedout", "canceled"):
            labels = names() | {"container_uds_state": outcome}
            assert node.value("container_uds_init_latency_count", labels) == 1


def test_names_are_those_of_the_reference_and_parse() -> None:
    registry = CollectorRegistry()
    metrics = AgentMetrics(registry)
    labels = metrics.labels("a", "f", 'quoted "image"')
    for state, stays in metrics.stays(labels).items():
        stays.inside += 2
        stays.end(0.001)
        metrics.evicted(state, labels)
    metrics.observe_ready("initialized", labels, 5)
    metrics.count_status(cached="true", success="true", network="true")
    text = generate_latest(registry).decode()
    found = {
        sample.name for family in text_string_to_metric_families(text) for sample in family.samples
    }
    expected = {
        *("queued", "running", "calls", "completed", "canceled", "timeouts", "errors"),
        *("server_busy", "util_cpu_used", "util_cpu_avail", "util_mem_used", "util_mem_avail"),
        *(f"container_{state}_total" for state in STATES),
        *(f"container_{state}_duration_seconds_sum" for state in STATES),
        *("container_evictions", "container_uds_init_latency_sum", "status_call"),
    }
    assert {f"fn_{name}" for name in expected} <= found
    assert (
        registry.get_sample_value(
            "fn_container_busy_total", {"app_id": "a", "fn_id": "f", "image_name": 'quoted "image"'}
        )
        == 1
    )


def test_series_are_bounded() -> None:
    metrics = AgentMetrics(CollectorRegistry())
    labels = {metrics.labels("a", f"f{number}", "i") for number in range(MAX_LABEL_SETS + 50)}
    assert len(labels) == MAX_LABEL_SETS + 1
    assert metrics.labels("a", "f0", "i").fn_id == "f0"
    assert metrics.labels("a", "new", "i").fn_id == "other"


def test_both_kinds_of_agent_count_calls_together() -> None:
    registry = CollectorRegistry()
    calls = CallCounts(registry)
    on_lb, on_runner = LBMetrics(registry, calls=calls), AgentMetrics(registry, calls=calls)
    on_lb.calls.inc()
    on_runner.calls.inc()
    assert registry.get_sample_value("fn_calls") == 2
    with pytest.raises(ValueError, match="Duplicated"):
        AgentMetrics(registry, calls=calls)


def test_the_process_has_one_of_each() -> None:
    assert default_agent_metrics() is default_agent_metrics()
    assert default_agent_metrics().calls is default_metrics().calls


async def test_a_closed_agent_is_not_asked_any_more(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver({"sleep": sleeper}) as driver:
        async with measured(driver, tmp_path) as node:
            await node.run()
            assert node.value("util_mem_avail") > 0
        assert node.value("util_mem_avail") == 0
        assert node.value("completed") == 1
