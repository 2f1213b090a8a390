"""The LB's metrics, under Fn's names."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from hostler.errors import (
    public_error,
)
from hostler.lb import open_lb_agent
from hostler.metrics import LBMetrics, default_metrics
from hostler.pool import NaivePlacer
from tests.pool.fakes import FakePool, FakeRunner, make_call

from .bench import failing, open_bench


async def test_weakness_02_8_a_stock_agent_and_placer_have_their_metrics() -> None:
    before = default_metrics().calls.value
    placer = NaivePlacer()
    async with open_lb_agent(FakePool([FakeRunner(seconds=0)]), placer) as agent:
        await agent.submit(make_call())
    assert default_metrics().calls.value == before + 1
    text = generate_latest(REGISTRY).decode()
    for name in NAMES:
        assert f"\n{name} " in text or f"\n{name}_count" in text, name


NAMES = [
    "fn_lb_placer_attempt_count",
    "fn_lb_placer_rp_error_count",
    "fn_lb_placer_rp_empty_count",
    "fn_lb_placer_client_cancelled_count",
    "fn_lb_placer_client_timeout_count",
    "fn_lb_placer_timeout_count",
    "fn_lb_placer_placed_error_count",
    "fn_lb_placer_placed_abort_count",
    "fn_lb_placer_placed_ok_count",
    "fn_lb_placer_retry_busy_count",
    "fn_lb_placer_retry_error_count",
    "fn_lb_placer_latency",
    "fn_lb_runner_sched_latency",
    "fn_lb_runner_exec_latency",
    "fn_lb_call_latency",
    "fn_calls",
    "fn_completed",
    "fn_canceled",
    "fn_timeouts",
    "fn_errors",
    "fn_server_busy",
    "fn_queued",
    "fn_running",
]


async def test_two_sets_of_metrics_do_not_fit_one_registry() -> None:
    registry = CollectorRegistry()
    LBMetrics(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        LBMetrics(registry)


async def test_internal_errors_say_nothing_to_clients() -> None:
    async with open_bench(failing(OSError("secret"))) as bench:
        with pytest.raises(OSError, match="secret") as caught:
            await bench.agent.submit(make_call())
    assert public_error(caught.value).message == "internal server error"
