"""One simulation: a load, runners, load balancers with a placer each, and what came out."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import attrs
import msgspec
import trio
from trio.testing import MockClock

from hostler._concurrency.nurseries import open_background
from hostler.abc import CallRequest, LoadListener, Runner
from hostler.bodies import BytesBody
from hostler.calls import DiscardWriter, PendingCall
from hostler.config import PlacerConfig, PoolConfig
from hostler.errors import ServerBusy
from hostler.models import Call
from hostler.pool import PLACERS, StaticPool, SweepPlacer
from hostler.pool.dynamic import LoadBroadcast, LoadWatch
from tests.support.simulated_runner import IDLE_SECONDS, SimRunner

from ._oracle import Oracle
from ._workload import Arrival, make_arrivals, make_functions

FUNCTIONS_PER_RUNNER = 20
NEVER = 3600.0
"""Seconds: no call is refused because its line is long, so that all placers serve the same
calls."""
ORACLE = "oracle"
"""Instead of a placer's name: what could be reached, see `Oracle`."""


@attrs.frozen(kw_only=True)
class Plan:
    """``load`` is the part of all memory that the calls need on average; times in seconds.

    Calls that arrive in ``warm_up`` are not counted. ``lbs`` share the calls at random and know
    nothing of each other.
    """

    placer: str
    runners: int
    load: float
    memory: int = 4096
    lbs: int = 2
    warm_up: float = 60.0
    seconds: float = 240.0
    seed: int = 1


class ListeningPool(StaticPool):
    """As a dynamic pool it passes on what its runners tell, but it does not judge them."""

    def __init__(self, runners: Iterable[Runner]) -> None:
        super().__init__(runners)
        self.news = LoadBroadcast(self)

    def add_load_listener(self, listener: LoadListener) -> None:
        self.news.add(listener)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Slowdown = time from arrival to end, over the time in the function."""

    placer: str
    runners: int
    load: float
    seed: int
    calls: int
    refused: int
    slowdown_p50: float
    slowdown_p99: float
    slowdown_p999: float
    waited_p99: float
    """Seconds beside the time in the function: waiting and starting."""
    cold_share: float
    attempts_per_call: float
    attempts_p99: int


@attrs.define
class _Tally:
    slowdowns: list[float] = attrs.Factory(list)
    waits: list[float] = attrs.Factory(list)
    attempts: list[int] = attrs.Factory(list)
    refused: int = 0
    cold: int = 0

    def count(self, arrival: Arrival, end: float) -> None:
        """A call has ended well."""
        took = end - arrival.at
        self.slowdowns.append(took / arrival.seconds)
        self.waits.append(took - arrival.seconds)


def simulate(plan: Plan) -> Result:
    """Run ``plan`` on virtual time. The same plan has the same load; what the placers and Trio's
    scheduler leave to chance is different each time."""
    rng = random.Random(plan.seed)
    functions = make_functions(
        rng, plan.runners * FUNCTIONS_PER_RUNNER, plan.load * plan.runners * plan.memory
    )
    arrivals = make_arrivals(rng, functions, plan.warm_up + plan.seconds)
    tally = _Tally()
    with _without_collector():
        if plan.placer == ORACLE:
            _ask_oracle(plan, arrivals, tally)
        else:
            trio.run(_main, plan, arrivals, tally, rng, clock=MockClock(autojump_threshold=0))
    served = len(tally.slowdowns)
    return Result(
        placer=plan.placer,
        runners=plan.runners,
        load=plan.load,
        seed=plan.seed,
        calls=served,
        refused=tally.refused,
        slowdown_p50=percentile(tally.slowdowns, 0.50),
        slowdown_p99=percentile(tally.slowdowns, 0.99),
        slowdown_p999=percentile(tally.slowdowns, 0.999),
        waited_p99=percentile(tally.waits, 0.99),
        cold_share=tally.cold / max(1, served),
        attempts_per_call=sum(tally.attempts) / max(1, len(tally.attempts)),
        attempts_p99=int(percentile(tally.attempts, 0.99)),
    )


@contextmanager
def _without_collector() -> Iterator[None]:
    """The collector takes a third of the time of a long simulation, and finds next to nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


def _ask_oracle(plan: Plan, arrivals: list[Arrival], tally: _Tally) -> None:
    oracle = Oracle(plan.runners * plan.memory)
    oracle.run(arrivals)
    for served in oracle.served:
        if served.arrival.at >= plan.warm_up:
            tally.count(served.arrival, served.end)
            tally.attempts.append(1)
            tally.cold += served.cold


def percentile(values: list[float] | list[int], share: float) -> float:
    """The smallest value that is not under ``share`` of all; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


async def _main(
    plan: Plan,
    arrivals: list[Arrival],
    tally: _Tally,
    rng: random.Random,
) -> None:
    runners = [SimRunner(f"r{number}:1", plan.memory) for number in range(plan.runners)]
    pool = ListeningPool(runners)
    placers = [PLACERS[plan.placer](PlacerConfig(max_wait=NEVER)) for _ in range(plan.lbs)]
    async with open_background() as watching:
        async with trio.open_nursery() as nursery:
            for runner in runners:
                watch = LoadWatch(runner, pool.news, PoolConfig(), rng)
                watching.start_soon(watch.run)
            counted = False
            for arrival in arrivals:
                await trio.sleep_until(arrival.at)
                if not counted and arrival.at >= plan.warm_up:
                    counted = True
                    tally.cold = -sum(runner.cold for runner in runners)
                lb = rng.randrange(plan.lbs)
                call = make_call(arrival, lb)
                nursery.start_soon(_call, placers[lb], pool, call, arrival, tally, counted)
        watching.cancel_scope.cancel()
    tally.cold += sum(runner.cold for runner in runners)


async def _call(
    placer: SweepPlacer,
    pool: StaticPool,
    call: PendingCall,
    arrival: Arrival,
    tally: _Tally,
    counted: bool,
) -> None:
    try:
        await placer.place_call(pool, call)
    except ServerBusy:
        tally.refused += counted
        return
    if counted:
        tally.count(arrival, trio.current_time())
        tally.attempts.append(call.attempts)


def make_call(arrival: Arrival, lb: int) -> PendingCall:
    """The call of ``arrival``, which load balancer ``lb`` has got."""
    function = arrival.function
    model = Call(
        fn_id=function.name,
        image=function.name,
        memory=function.memory,
        idle_timeout=round(IDLE_SECONDS),
        type="sync",
    )
    return PendingCall(
        model=model,
        body=BytesBody(),
        writer=DiscardWriter(),
        request=CallRequest(method="POST", url="/", headers={}),
        extensions={"seconds": repr(arrival.seconds), "lb": str(lb)},
    )
