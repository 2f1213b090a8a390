"""The LB's metrics, under Fn's names: what each ending of a call counts, and where they are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import attrs
import pytest
import trio
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from trio.testing import MockClock

from hostler.abc import CallListener, NotPlaced, Outcome, Placed, Runner, RunnerCall
from hostler.calls import PendingCall
from hostler.errors import (
    APIError,
    FunctionError,
    RunnerClosed,
    ServerBusy,
    ServiceReservationFailure,
    public_error,
)
from hostler.lb import open_lb_agent
from hostler.metrics import LBMetrics, default_metrics
from hostler.pool import NaivePlacer
from hostler.protocol import AttemptObserver
from tests.pool.fakes import FakePool, FakeRunner, full, make_call

from .bench import Bench, failing, open_bench

PLACER = [
    "rp_error",
    "rp_empty",
    "client_cancelled",
    "client_timeout",
    "timeout",
    "turned_away",
    "placed_error",
    "placed_abort",
    "placed_ok",
    "retry_busy",
    "retry_error",
]
"""Without ``fn_lb_placer_`` before and ``_count`` after them."""
OUTCOMES = ["completed", "canceled", "timeouts", "errors", "server_busy"]


def counted(bench: Bench) -> dict[str, float]:
    """All that is not 0, latencies and attempts as the number of their observations."""
    names = {f"lb_placer_{name}_count": name for name in PLACER}
    names |= {name: name for name in ("calls", *OUTCOMES, "queued", "running")}
    names |= {
        "lb_placer_latency_count": "placer_latency",
        "lb_placer_attempt_count_count": "placements",
        "lb_placer_attempt_count_sum": "attempts",
        "lb_runner_sched_latency_count": "sched_latency",
        "lb_runner_exec_latency_count": "exec_latency",
    }
    found = {told: bench.sample(f"fn_{name}") for name, told in names.items()}
    for status in OUTCOMES:
        latency = bench.sample("fn_lb_call_latency_count", call_status=status)
        found[f"call_latency {status}"] = latency
    assert None not in found.values(), found
    return {name: value for name, value in found.items() if value}


def ran(
    outcome: Outcome, *, seconds: float = 1, scheduler_ns: int = 0, execution_ns: int = 0
) -> FakeRunner:
    """A runner that takes a call and reports ``outcome`` and durations."""

    async def run(runner: FakeRunner, call: RunnerCall, observer: AttemptObserver) -> Outcome:
        observer.committed()
        await trio.sleep(seconds)
        call.timings.scheduler_ns = scheduler_ns
        call.timings.execution_ns = execution_ns
        return outcome

    return FakeRunner(script=run)


class Refusing(CallListener):
    async def before_call(self, call: PendingCall) -> None:
        raise APIError(429, "quota")


@attrs.frozen(kw_only=True)
class Case:
    """One call, which has ``patience`` or is left by its client ``leaves`` seconds after its
    start, and all that it changes."""

    pool: list[list[Runner] | Exception] = attrs.field(factory=lambda: [[FakeRunner()]])
    """What the pool answers, query after query."""
    listeners: tuple[CallListener, ...] = ()
    patience: float = 100
    leaves: float = 100
    counts: Mapping[str, float]


CASES = {
    "it succeeds": Case(
        pool=[[ran(Placed(), scheduler_ns=5, execution_ns=7)]],
        counts={
            "completed": 1,
            "placed_ok": 1,
            "attempts": 1,
            "sched_latency": 1,
            "exec_latency": 1,
        },
    ),
    "a runner that tells no durations": Case(
        pool=[[ran(Placed())]], counts={"completed": 1, "placed_ok": 1, "attempts": 1}
    ),
    "durations that can't be": Case(
        pool=[[ran(Placed(), scheduler_ns=-5, execution_ns=-7)]],
        counts={"completed": 1, "placed_ok": 1, "attempts": 1},
    ),
    "the function fails": Case(
        pool=[[ran(Placed(FunctionError(502, "function failed")), execution_ns=7)]],
        counts={"errors": 1, "placed_error": 1, "attempts": 1, "exec_latency": 1},
    ),
    "the next runner takes it": Case(
        pool=[[ran(NotPlaced(RunnerClosed()), seconds=0)], [ran(Placed())]],
        counts={"completed": 1, "placed_ok": 1, "attempts": 2, "retry_error": 1},
    ),
    "no runner has room in time": Case(
        pool=[[full()]],
        counts={"server_busy": 1, "timeout": 1, "attempts": 7, "retry_busy": 7},
    ),
    "its own time is over before": Case(
        pool=[[full()]],
        patience=0.03,
        counts={"server_busy": 1, "client_timeout": 1, "attempts": 3, "retry_busy": 3},
    ),
    "its own time is over on the runner": Case(
        patience=0.5,
        counts={"timeouts": 1, "placed_abort": 1, "client_timeout": 1, "attempts": 1},
    ),
    "the runner says that its time is over": Case(
        pool=[[ran(Placed(ServiceReservationFailure()))]],
        counts={"timeouts": 1, "placed_abort": 1, "client_timeout": 1, "attempts": 1},
    ),
    "its client leaves while it waits": Case(
        pool=[[full()]],
        leaves=0.05,
        counts={"canceled": 1, "client_cancelled": 1, "attempts": 3, "retry_busy": 3},
    ),
    "its client leaves while it runs": Case(
        leaves=0.5,
        counts={"canceled": 1, "placed_abort": 1, "client_cancelled": 1, "attempts": 1},
    ),
    "there are no runners": Case(pool=[[]], counts={"server_busy": 1, "timeout": 1, "rp_empty": 7}),
    "the pool fails": Case(
        pool=[APIError(500, "pool")],
        counts={"errors": 1, "timeout": 1, "rp_error": 1, "rp_empty": 7},
    ),
    "the pool fails for good": Case(
        pool=[FunctionError(502, "no such image")],
        counts={"errors": 1, "rp_error": 1, "rp_empty": 1},
    ),
    "a listener refuses it": Case(listeners=(Refusing(),), counts={"errors": 1, "placements": 0}),
}


@pytest.mark.parametrize("name", CASES)
async def test_what_a_call_counts(autojump_clock: MockClock, name: str) -> None:
    case = CASES[name]
    pool = FakePool(*case.pool)
    async with open_bench(
        FakeRunner(), pool=pool, placer_seconds=1.0, listeners=case.listeners
    ) as bench:
        call = make_call()
        call.deadline = trio.current_time() + case.patience
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_leaves, nursery, case.leaves)
            with suppress(APIError):
                await bench.agent.submit(call)
            nursery.cancel_scope.cancel()
        (status,) = (name for name in OUTCOMES if name in case.counts)
        placed = case.counts.get("placements", 1)
        every = {"calls": 1, f"call_latency {status}": 1}
        every |= {"placements": 1, "placer_latency": 1} if placed else {}
        assert counted(bench) == {**every, **{k: v for k, v in case.counts.items() if v}}


async def _leaves(client: trio.Nursery, seconds: float) -> None:
    await trio.sleep(seconds)
    client.cancel_scope.cancel()


async def test_calls_under_way_and_those_that_come_too_late(autojump_clock: MockClock) -> None:
    """Who comes to an agent that is closed is counted, and has no latency."""
    async with open_bench(FakeRunner(seconds=9)) as bench:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.agent.submit, make_call())
            await trio.sleep(1)
            assert counted(bench) == {"calls": 1, "running": 1}
            bench.agent.close_admission()
            with pytest.raises(ServerBusy):
                await bench.agent.submit(make_call())
            assert counted(bench) == {"calls": 2, "running": 1, "server_busy": 1}
        ended = counted(bench)
        assert (ended["completed"], ended["server_busy"]) == (1, 1)
        assert "call_latency server_busy" not in ended
        assert "running" not in ended


async def test_a_call_is_queued_while_it_is_prepared(autojump_clock: MockClock) -> None:
    class Slow(CallListener):
        async def before_call(self, call: PendingCall) -> None:
            await trio.sleep(1)
            seen.append(counted(bench))

    seen: list[dict[str, float]] = []
    async with open_bench(FakeRunner(), listeners=(Slow(),)) as bench:
        await bench.agent.submit(make_call())
    assert seen == [{"calls": 1, "queued": 1}]


async def test_the_time_to_a_place_leaves_out_the_run(autojump_clock: MockClock) -> None:
    """Until the last attempt of a call that was placed begins, else until the end."""
    refused = ran(NotPlaced(RunnerClosed()))
    async with open_bench(refused, pool=FakePool([refused], [ran(Placed())])) as bench:
        await bench.agent.submit(make_call())
        assert bench.sample("fn_lb_placer_latency_sum") == pytest.approx(1000, abs=20)
    async with open_bench(full(), placer_seconds=3) as bench:
        with pytest.raises(ServerBusy):
            await bench.agent.submit(make_call())
        assert bench.sample("fn_lb_placer_latency_sum") == pytest.approx(3000)


def test_buckets_are_fns() -> None:
    text = generate_latest(_registered()).decode()
    attempts = [0, 2, 3, 4, 8, 16, 32, 64, 128, 256]
    milliseconds = [1, 10, 50, 100, 250, 500, 1000, 10_000, 60_000, 120_000]
    for name, bounds in {
        "lb_placer_attempt_count": attempts,
        "lb_placer_latency": milliseconds,
        "lb_runner_sched_latency": milliseconds,
        "lb_runner_exec_latency": milliseconds,
    }.items():
        found = [
            float(line.split('"')[1])
            for line in text.splitlines()
            if line.startswith(f'fn_{name}_bucket{{le="') and "+Inf" not in line
        ]
        assert found == bounds, name


def _registered() -> CollectorRegistry:
    registry = CollectorRegistry()
    LBMetrics(registry)
    return registry


async def test_weakness_02_8_a_stock_agent_and_placer_have_their_metrics() -> None:
    before = default_metrics().calls.value
    placer = NaivePlacer()
    async with open_lb_agent(FakePool([FakeRunner(seconds=0)]), placer) as agent:
        await agent.submit(make_call())
    assert default_metrics().calls.value == before + 1
    ours, stock = (
        {metric.name for metric in registry.collect()} for registry in (_registered(), REGISTRY)
    )
    assert ours <= stock


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
