"""What the placers do with a call, on virtual time. The first part are Fn's own scenarios
(reference of its placer tests), then what is better here."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from hostler.abc import NotPlaced, Outcome, Placed, Runner, RunnerCall
from hostler.bodies import BodyConsumed, BytesBody, ReplayBody
from hostler.errors import APIError, FunctionError, ServerBusy, ServiceReservationFailure
from hostler.pool import ConsistentHashPlacer, SweepPlacer, attempts
from hostler.protocol import AttemptObserver, NotSent
from tests.conftest import Logs

from .fakes import FakePool, FakeRunner, full, make_call
from .placers import KINDS, is_idle, make, ranking


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[SweepPlacer]:
    found: type[SweepPlacer] = request.param
    return found


async def test_a_final_pool_error_ends_the_call_after_one_query(
    autojump_clock: MockClock, kind: type[SweepPlacer]
) -> None:
    placer, pool = make(kind), FakePool(FunctionError(502, "no subnet"))
    with pytest.raises(FunctionError, match="no subnet"):
        await placer.place_call(pool, make_call())
    assert pool.asked == 1
    assert trio.current_time() == pytest.approx(0, abs=1e-9)
    assert placer._metrics.placer_pool_error.value == 1
    assert is_idle(placer)


async def test_an_empty_list_is_asked_again_until_the_time_is_over(
    autojump_clock: MockClock, kind: type[SweepPlacer]
) -> None:
    placer, pool = make(kind, timeout=0.5), FakePool([])
    with trio.fail_after(2), pytest.raises(ServerBusy):
        await placer.place_call(pool, make_call())
    assert trio.current_time() == pytest.approx(0.5)
    assert 1 < pool.asked < 10
    assert placer._metrics.placer_pool_empty.value == pool.asked
    assert placer._metrics.placer_timeout.value == 1


async def test_weakness_02_9_a_pool_error_is_told_on_change_and_returned_at_the_end(
    autojump_clock: MockClock, kind: type[SweepPlacer], logs: Logs
) -> None:
    placer, pool = make(kind, timeout=0.5), FakePool(APIError(500, "database down"))
    with pytest.raises(APIError, match="database down") as caught:
        await placer.place_call(pool, make_call())
    assert caught.value.code == 500
    assert pool.asked > 1
    assert len(logs.with_event("runner pool fails")) == 1
    assert placer._metrics.placer_pool_error.value == 1


async def test_a_pool_that_works_again_is_told_once(autojump_clock: MockClock, logs: Logs) -> None:
    placer = make()
    await placer.place_call(FakePool(OSError("x"), OSError("x"), [FakeRunner()]), make_call())
    assert len(logs.with_event("runner pool fails")) == 1
    assert len(logs.with_event("runner pool works again")) == 1


async def test_the_pool_may_give_up_after_two_sweeps(
    autojump_clock: MockClock, kind: type[SweepPlacer]
) -> None:
    runners = [full("a:1"), full("b:1")]
    pool = FakePool(runners, runners, FunctionError(502, "misconfigured"))
    with pytest.raises(FunctionError, match="misconfigured"):
        await make(kind).place_call(pool, make_call())
    assert pool.asked == 3
    assert [runner.attempts.total() for runner in runners] == [2, 2]


async def test_full_runners_are_tried_evenly_until_the_time_is_over(
    autojump_clock: MockClock, kind: type[SweepPlacer]
) -> None:
    runners = [full("a:1"), full("b:1")]
    placer, call = make(kind, timeout=0.5), make_call()
    with pytest.raises(ServerBusy) as caught:
        await placer.place_call(FakePool(runners), call)
    assert caught.value.message == "Timed out - server too busy"
    first, second = (runner.attempts.total() for runner in runners)
    assert first > 1
    assert second > 1
    assert abs(first - second) <= 1
    assert call.attempts == first + second
    assert placer._metrics.placer_retry_busy.value == call.attempts
    assert trio.current_time() == pytest.approx(0.5, abs=0.01)


async def test_a_runner_with_room_takes_the_call(
    autojump_clock: MockClock, kind: type[SweepPlacer]
) -> None:
    placer, runner, call = make(kind), FakeRunner(), make_call()
    await placer.place_call(FakePool([runner]), call)
    assert (call.attempts, call.runner_address) == (1, "fake:1")
    assert placer._metrics.placer_placed_ok.value == 1
    assert is_idle(placer)


async def test_a_request_that_is_already_over_is_cancelled(
    autojump_clock: MockClock, kind: type[SweepPlacer]
) -> None:
    placer, runner = make(kind), FakeRunner()
    with trio.move_on_after(0) as scope:
        await placer.place_call(FakePool([runner]), make_call())
    assert scope.cancelled_caught
    assert runner.order == []
    assert placer._metrics.placer_client_timeout.value == 1


async def test_a_detached_call_has_a_time_of_its_own(
    autojump_clock: MockClock, kind: type[SweepPlacer]
) -> None:
    placer = make(kind, detached=0.3)
    with pytest.raises(ServerBusy):
        await placer.place_call(FakePool([full()]), make_call(kind="detached"))
    assert trio.current_time() == pytest.approx(0.3, abs=0.01)


async def test_the_outcome_of_the_call_is_raised(
    autojump_clock: MockClock, kind: type[SweepPlacer]
) -> None:
    async def fail(runner: FakeRunner, call: RunnerCall, commit: object) -> Outcome:
        return Placed(FunctionError(502, "function failed"))

    placer = make(kind)
    with pytest.raises(FunctionError, match="function failed"):
        await placer.place_call(FakePool([FakeRunner(script=fail)]), make_call())
    assert placer._metrics.placer_placed_error.value == 1


async def test_the_placers_time_does_not_end_a_call_that_a_runner_has(
    autojump_clock: MockClock,
    kind: type[SweepPlacer],
) -> None:
    placer, runner = make(kind, timeout=0.5, attempt=0.2), FakeRunner(seconds=100)
    await placer.place_call(FakePool([runner]), make_call())
    assert trio.current_time() == pytest.approx(100, abs=0.1)


async def test_a_runner_that_does_not_take_the_call_is_left_in_time(
    autojump_clock: MockClock, logs: Logs
) -> None:
    async def hang(runner: FakeRunner, call: RunnerCall, commit: object) -> Outcome:
        await trio.sleep_forever()
        raise AssertionError

    stuck, good = FakeRunner("stuck:1", script=hang), FakeRunner("good:1", seconds=0)
    placer = make(attempt=2.0)
    await placer.place_call(FakePool([stuck], [good]), make_call())
    assert trio.current_time() == pytest.approx(2.0, abs=0.05)
    assert placer._metrics.placer_retry_error.value == 1
    (entry,) = logs.with_event("runner can't be reached")
    assert entry["runner"] == "stuck:1"


async def test_a_dead_runner_is_told_once_however_many_calls_meet_it(
    autojump_clock: MockClock, logs: Logs
) -> None:
    async def refuse(runner: FakeRunner, call: RunnerCall, commit: object) -> Outcome:
        return NotPlaced(NotSent("connection refused"))

    dead, good = FakeRunner("dead:1", script=refuse), FakeRunner("good:1", slots=99)
    placer, pool = make(), FakePool([dead, good])
    for number in range(20):
        await placer.place_call(pool, make_call(f"c{number}"))
    assert len(logs.with_event("runner can't be reached")) == 1
    dead.script = None
    dead.slots = 99
    for number in range(20):
        await placer.place_call(pool, make_call(f"d{number}"))
    assert len(logs.with_event("runner is back")) == 1


async def test_runners_that_are_lost_and_never_come_back_are_forgotten(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pod of a cluster has an address of its own, of which there is no end."""

    async def refuse(runner: FakeRunner, call: RunnerCall, commit: object) -> Outcome:
        return NotPlaced(NotSent("connection refused"))

    monkeypatch.setattr(attempts, "MAX_TROUBLED", 10)
    placer, good = make(), FakeRunner("good:1", slots=99)
    for number in range(50):
        pool = FakePool([FakeRunner(f"dead:{number}", script=refuse), good])
        for again in range(4):  # the order is random
            await placer.place_call(pool, make_call(f"c{number}-{again}"))
    assert len(placer._tracker._troubled) <= 10


async def test_a_commit_in_the_moment_of_the_timeout_is_not_tried_again(
    autojump_clock: MockClock,
) -> None:
    async def late(runner: FakeRunner, call: RunnerCall, observer: AttemptObserver) -> Outcome:
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
        assert isinstance(observer, AttemptObserver)
        observer.committed()
        await trio.sleep_forever()
        raise AssertionError

    runner = FakeRunner(script=late)
    with pytest.raises(ServiceReservationFailure):
        await make(attempt=2.0).place_call(FakePool([runner]), make_call())
    assert runner.attempts.total() == 1


@pytest.mark.parametrize("committed", [True, False])
async def test_a_cancellation_in_a_runners_nursery_is_counted_as_one(
    autojump_clock: MockClock, committed: bool
) -> None:
    async def hang(runner: FakeRunner, call: RunnerCall, observer: AttemptObserver) -> Outcome:
        if committed:
            observer.committed()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
        raise AssertionError

    placer = make()
    with trio.CancelScope() as scope:
        await placer.place_call(FakePool([FakeRunner(script=hang)]), make_call())
    metrics = placer._metrics
    assert metrics.placer_placed_abort.value == int(committed)
    assert metrics.placer_client_cancelled.value == 1
    assert is_idle(placer)


async def test_a_body_that_is_gone_ends_the_search_at_once(
    autojump_clock: MockClock, logs: Logs
) -> None:
    async def read_some_and_refuse(runner: FakeRunner, call: RunnerCall, commit: object) -> Outcome:
        async with call.body.open() as stream:
            await stream.receive_some()
        return NotPlaced(ServerBusy())

    body = ReplayBody(BytesBody(b"x" * 100).open(), limit=10)
    runners = [FakeRunner("a:1", script=read_some_and_refuse) for _ in "ab"]
    call = make_call(body=body)
    with pytest.raises(ServerBusy):
        await make().place_call(FakePool(runners), call)
    assert call.attempts == 1
    assert trio.current_time() < 0.001
    assert logs.with_event("its body is gone")
    with pytest.raises(BodyConsumed):
        body.open()


async def test_a_naive_sweep_starts_anywhere_and_visits_each_runner_once(
    autojump_clock: MockClock,
) -> None:
    record: list[str] = []

    async def note(runner: FakeRunner, call: RunnerCall, commit: object) -> Outcome:
        record.append(runner.address)
        return NotPlaced(ServerBusy())

    runners = [FakeRunner(f"r:{number}", script=note) for number in range(1, 6)]
    starts = set()
    placer = make(timeout=0.005)
    for number in range(60):
        record.clear()
        with pytest.raises(ServerBusy):
            await placer.place_call(FakePool(runners), make_call(f"c{number}"))
        assert sorted(record[:5]) == [runner.address for runner in runners]
        starts.add(record[0])
    assert len(starts) == 5


async def test_weakness_02_1_each_of_two_runners_is_some_functions_first(
    autojump_clock: MockClock,
) -> None:
    runners = [FakeRunner("a:1", seconds=0), FakeRunner("b:1", seconds=0)]
    placer, pool = make(ConsistentHashPlacer), FakePool(runners)
    for number in range(200):
        call = make_call(f"c{number}", fn_id=f"fn{number}")
        await placer.place_call(pool, call)
        index = ranking(call.model.fn_id, ("a:1", "b:1"))[0]
        assert call.runner_address == runners[index].address
    for runner in runners:
        assert 60 < runner.attempts.total() < 140


async def test_a_consistent_hash_sweep_follows_the_functions_own_order(
    autojump_clock: MockClock,
) -> None:
    record: list[str] = []

    async def note(runner: FakeRunner, call: RunnerCall, commit: object) -> Outcome:
        record.append(runner.address)
        return NotPlaced(ServerBusy())

    runners: list[Runner] = [FakeRunner(f"r:{number}", script=note) for number in range(1, 8)]
    with pytest.raises(ServerBusy):
        await make(ConsistentHashPlacer, timeout=0.005).place_call(
            FakePool(runners), make_call(fn_id="some-fn")
        )
    addresses = [runner.address for runner in runners]
    assert record == [addresses[index] for index in ranking("some-fn", tuple(addresses))]
