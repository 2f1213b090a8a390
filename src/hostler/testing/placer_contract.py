"""The contract of `hostler.abc.Placer`, as checks that every placer has to pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from tempfile import TemporaryDirectory

import trio
import trio.testing

from ..abc import Placed, Placer, Runner
from ..agent import Resources, open_agent
from ..calls import PendingCall
from ..config import AgentConfig, PlacerConfig
from ..drivers.sim import SimRequest, SimResponse, open_sim_driver
from ..errors import APIError, FunctionError, FunctionFailed, ServerBusy
from ..pool import GrpcRunner
from ..runner import open_runner_service
from .contracts import Check, check_each, require
from .fakes import NACK, UNREACHABLE, FakeAttempt, FakePool, FakeRunner, fake_call
from .memory import MemoryRunnerClient

MakePlacer = Callable[[PlacerConfig], Placer]

_TIME = 5.0
"""Seconds that the placers get for placing."""
_ROUNDING = 1e-6
"""Seconds by which two times of a clock may differ because they are rounded."""
_CONFIG = PlacerConfig(placer_timeout=_TIME, detached_placer_timeout=_TIME / 5)


async def _fails(
    placer: Placer,
    pool: FakePool,
    wanted: Exception | type[Exception],
    *,
    call: PendingCall | None = None,
    seconds: float | None = None,
) -> None:
    """Place a call that can't be placed: it has to end with ``wanted``, which is an error or the
    class of one, and after ``seconds`` if they are given."""
    start = trio.current_time()
    try:
        await placer.place_call(pool, call or fake_call())
    except Exception as error:  # noqa: BLE001  (looked at here)
        as_wanted = isinstance(error, wanted) if isinstance(wanted, type) else error is wanted
        require(as_wanted, f"raised {error!r} instead of {wanted!r}")
    else:
        require(False, f"place_call has returned instead of raising {wanted!r}")
    took = trio.current_time() - start
    in_time = seconds is None or seconds - _ROUNDING <= took <= seconds * 1.1
    require(in_time, f"the search took {took} s instead of {seconds} s")


async def places(make: MakePlacer) -> None:
    """One runner with room takes the call, once."""
    runner = FakeRunner()
    call = fake_call()
    await make(_CONFIG).place_call(FakePool([runner]), call)
    require(len(runner.attempts) == 1, f"{runner} was not tried exactly once")
    require(call.runner_address == runner.address, "the call does not know its runner")


async def outcome_is_final(make: MakePlacer) -> None:
    """The error of a placed call is raised as it is, and nobody else gets the call."""
    trouble = FunctionFailed()
    runners = [FakeRunner(otherwise=FakeAttempt(outcome=Placed(trouble))) for _ in range(3)]
    await _fails(make(_CONFIG), FakePool(runners), trouble)
    require(sum(len(r.attempts) for r in runners) == 1, "a placed call was tried again")


async def next_runner(make: MakePlacer) -> None:
    """Runners that are full or can't be reached are passed over at once."""
    good = FakeRunner("good")
    others: list[Runner] = [FakeRunner(otherwise=NACK), FakeRunner(otherwise=UNREACHABLE)]
    start = trio.current_time()
    await make(_CONFIG).place_call(FakePool([*others, good]), fake_call())
    require(len(good.attempts) == 1, "the good runner did not get the call")
    require(trio.current_time() - start < 0.1, "passing over bad runners took long")


async def tells_outcomes(make: MakePlacer) -> None:
    """The pool hears the outcome of each attempt, once."""
    runners = [FakeRunner("full", otherwise=NACK), FakeRunner("good")]
    pool = FakePool(runners)
    await make(_CONFIG).place_call(pool, fake_call())
    tried = [(runner, len(runner.attempts)) for runner in runners]
    heard = [(runner, sum(one is runner for one, _ in pool.outcomes)) for runner in runners]
    require(heard == tried, f"the pool heard of {pool.outcomes}, and not of each attempt")
    placed = [isinstance(outcome, Placed) for _, outcome in pool.outcomes]
    require(placed.count(True) == 1, "the pool did not hear that the call was placed")


async def empty_pool(make: MakePlacer) -> None:
    """Nobody there: the pool is asked again until the placer's time is over, then 503."""
    pool = FakePool()
    await _fails(make(_CONFIG), pool, ServerBusy, seconds=_TIME)
    require(pool.queries > 1, "the pool was not asked again")


async def useless_pool(make: MakePlacer) -> None:
    """A 502 of the function's author ends the search at once."""
    trouble = FunctionError(502, "no such runner group")
    pool = FakePool(trouble=trouble)
    await _fails(make(_CONFIG), pool, trouble)
    require(pool.queries == 1, f"the pool was asked {pool.queries} times")


async def failing_pool(make: MakePlacer) -> None:
    """Any other error of the pool is retried, and raised when the time is over."""
    trouble = APIError(500, "pool is sick")
    pool = FakePool(trouble=trouble)
    await _fails(make(_CONFIG), pool, trouble, seconds=_TIME)
    require(pool.queries > 1, "the pool was not asked again")


async def pool_that_recovers(make: MakePlacer) -> None:
    """An error of the pool that passes is no error of the call."""
    runner = FakeRunner()
    pool = FakePool([runner], script=[APIError(500, "for now"), []])
    await make(_CONFIG).place_call(pool, fake_call())
    require(len(runner.attempts) == 1, "the runner did not get the call")


async def sweeps_then_useless(make: MakePlacer) -> None:
    """Two full sweeps, then a pool that says 502: three queries, each runner tried twice."""
    runners = [FakeRunner(str(n), otherwise=NACK) for n in range(2)]
    trouble = FunctionError(502, "gone")
    pool = FakePool(script=[runners, runners], trouble=trouble)
    await _fails(make(_CONFIG), pool, trouble)
    require(pool.queries == 3, f"the pool was asked {pool.queries} times")
    counts = [len(runner.attempts) for runner in runners]
    require(counts == [2, 2], f"the runners were tried {counts} times")


async def only_nacks(make: MakePlacer) -> None:
    """503 after the placer's time, with fair and not excessive attempts."""
    runners = [FakeRunner(str(n), otherwise=NACK) for n in range(2)]
    await _fails(make(_CONFIG), FakePool(runners), ServerBusy, seconds=_TIME)
    one, two = (len(runner.attempts) for runner in runners)
    require(min(one, two) > 1, f"the runners were tried {one} and {two} times only")
    require(abs(one - two) <= 1, f"the runners were not tried evenly: {one}, {two}")


async def detached_time(make: MakePlacer) -> None:
    """Detached calls have a time of their own."""
    seconds, call = _CONFIG.detached_placer_timeout, fake_call(type="detached")
    await _fails(make(_CONFIG), FakePool(), ServerBusy, call=call, seconds=seconds)


async def long_call(make: MakePlacer) -> None:
    """The placer's time bounds the search, not a call that a runner has taken."""
    runner = FakeRunner(otherwise=FakeAttempt(run_time=_TIME * 10))
    await make(_CONFIG).place_call(FakePool([runner]), fake_call())
    require(runner.cancelled == 0, "a running call was cancelled")


async def stuck_attempt(make: MakePlacer) -> None:
    """A runner that neither takes nor refuses the call loses it to the next."""
    stuck = FakeRunner("stuck", otherwise=FakeAttempt(connect_time=10_000))
    good = FakeRunner("good")
    placer = make(_CONFIG)
    async with trio.open_nursery() as nursery:
        for number in range(8):  # wherever a placer starts
            call = fake_call(fn_id=f"fn{number}")
            nursery.start_soon(placer.place_call, FakePool([stuck, good]), call)
    require(len(good.attempts) == 8, "a call is missing")


async def client_cancels(make: MakePlacer) -> None:
    """Cancelling ends the search, and a running attempt, with a cancellation."""
    busy = FakeRunner(otherwise=NACK)
    slow = FakeRunner(otherwise=FakeAttempt(run_time=1000))
    for runner in (busy, slow):
        with trio.move_on_after(_TIME / 2) as scope:
            await make(_CONFIG).place_call(FakePool([runner]), fake_call())
        require(scope.cancelled_caught, "the cancellation was turned into something else")
    require((slow.cancelled, slow.running) == (1, 0), "the running attempt was not cancelled")
    count = len(busy.attempts)
    await trio.sleep(_TIME)
    require(len(busy.attempts) == count, "the search goes on without its caller")


async def closing(make: MakePlacer) -> None:
    """``close`` refuses those who search at once and leaves the running ones alone."""
    placer = make(_CONFIG)
    slow = FakeRunner(otherwise=FakeAttempt(run_time=100))
    full = FakePool([FakeRunner(otherwise=NACK)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(placer.place_call, FakePool([slow]), fake_call())
        async with trio.open_nursery() as searches:
            for _ in range(3):
                searches.start_soon(_fails, placer, full, ServerBusy)
            await trio.sleep(0.5)
            closed_at = trio.current_time()
            placer.close()
        require(trio.current_time() == closed_at, "refusing the calls that search took time")
    require(slow.cancelled == 0, "a running call was cancelled")


async def waiting_calls(make: MakePlacer) -> None:
    """More calls than room: all get their turn, and nothing runs over the capacity."""
    placer = make(PlacerConfig(placer_timeout=60))
    runners = [FakeRunner(str(n), capacity=2, otherwise=FakeAttempt(run_time=1)) for n in range(2)]
    pool = FakePool(runners)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(placer.place_call, pool, fake_call())
    took = trio.current_time() - start
    require(took < 20, f"40 calls of 1 s in 4 places took {took} s")


async def reservations(make: MakePlacer) -> None:
    """Runners that take reservations, some slowly: each call is committed once, and no slot is
    left held. (A placer need not reserve.)"""
    placer = make(PlacerConfig(placer_timeout=60, hedge_percent=100))
    quick = FakeAttempt(reserve_time=0.1, run_time=1)
    slow = FakeAttempt(reserve_time=3, run_time=1)
    script = [slow if number % 4 == 3 else quick for number in range(100)]
    runners = [FakeRunner(str(n), script=script, capacity=9, reserves=True) for n in range(3)]
    pool = FakePool(runners)
    calls = [fake_call() for _ in range(60)]
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(placer.place_call, pool, call)
            await trio.sleep(0.1)
    commits = sorted(commit for runner in runners for commit in runner.commits)
    require(commits == sorted(call.model.id for call in calls), f"the commits were {commits}")
    require(not any(runner.held for runner in runners), "a slot is still held")


@asynccontextmanager
async def _open_runner(run: float, start: float) -> AsyncIterator[Runner]:
    """A real runner with room for 64 simulated containers that start in ``start`` seconds and run
    each call for ``run``."""

    async def work(request: SimRequest) -> SimResponse:
        await trio.sleep(run)
        return SimResponse()

    with TemporaryDirectory() as folder:
        config = AgentConfig(iofs_path=folder, enable_nb_resource_tracker=True)
        room = Resources(64 * 128 * 2**20, 64_000)
        async with open_sim_driver() as driver:
            driver.add_image("work", work, create_time=start)
            async with (
                open_agent(driver, config=config, total=room) as agent,
                open_runner_service(agent) as service,
            ):
                runner = GrpcRunner(MemoryRunnerClient(service))
                try:
                    yield runner
                finally:
                    await runner.aclose()


class _Clients:
    """Clients of one function, each of which calls again as soon as it has its answer."""

    def __init__(self, make: MakePlacer, runner: Runner, run: float) -> None:
        self._placer = make(PlacerConfig(placer_timeout=60))
        self._pool = FakePool([runner])
        self._run = run
        self._ended = 0

    async def call(self) -> None:
        call = fake_call(image="work", memory=128, timeout=30, idle_timeout=30)
        await self._placer.place_call(self._pool, call)
        self._ended += 1

    async def call_on(self) -> None:
        while True:
            await self.call()

    async def keep_up(self, count: int, seconds: float) -> None:
        """Require that ``count`` clients have nearly a container each after ``seconds``."""
        await trio.sleep(seconds)
        ended = self._ended
        await trio.sleep(0.5)
        rate, ideal = 2 * (self._ended - ended), count / self._run
        text = f"{count} clients get {rate} of {ideal:.0f} calls/s after {seconds} s"
        require(rate >= 0.9 * ideal, text)


async def growth_after_single_calls(make: MakePlacer) -> None:
    """A function that was called singly gets the containers that its next clients need."""
    run = 0.03
    async with _open_runner(run, start=0.4) as runner, trio.open_nursery() as nursery:
        clients = _Clients(make, runner, run)
        for _ in range(5):
            await clients.call()
        for _ in range(4):
            nursery.start_soon(clients.call_on)
        await clients.keep_up(4, seconds=2.5)
        nursery.cancel_scope.cancel()


async def growth_by_steps(make: MakePlacer) -> None:
    """More clients get more containers, however many there are already."""
    run = 0.05
    async with _open_runner(run, start=0.5) as runner, trio.open_nursery() as nursery:
        clients = _Clients(make, runner, run)
        for number in range(1, 17):
            nursery.start_soon(clients.call_on)
            if number in (1, 8, 16):
                await clients.keep_up(number, seconds=4)
        nursery.cancel_scope.cancel()


PLACER_CHECKS: tuple[Check[MakePlacer], ...] = (
    places,
    outcome_is_final,
    next_runner,
    tells_outcomes,
    empty_pool,
    useless_pool,
    failing_pool,
    pool_that_recovers,
    sweeps_then_useless,
    only_nacks,
    detached_time,
    long_call,
    stuck_attempt,
    client_cancels,
    closing,
    waiting_calls,
    reservations,
    growth_after_single_calls,
    growth_by_steps,
)
"""Each takes a function that makes a placer of a `PlacerConfig`."""


async def check_placer(make_placer: MakePlacer) -> None:
    """Check a placer against the whole contract. Run it on an autojump clock: on a real one it
    takes minutes.

    Raises an ``ExceptionGroup`` of `ContractBroken` and whatever else was raised.
    """
    await check_each(PLACER_CHECKS, lambda: nullcontext(make_placer))
