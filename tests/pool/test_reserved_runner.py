"""One reservation at one runner, over memory, with a service that plays what a test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from hostler.abc import NotPlaced, Outcome, Placed
from hostler.bodies import BytesBody
from hostler.errors import APIError, ProtocolError, ReservationAbandoned, RunnerClosed, ServerBusy
from hostler.protocol import (
    Commit,
    Data,
    EngagementFailed,
    Finished,
    GRPCStatus,
    LoadHint,
    Reserved,
    ResultStart,
    RunnerStatus,
    ServerEngagement,
    TryCall,
)
from tests.support.observers import RecordingObserver

from .bench import OK, Bench
from .fakes import RecordingWriter, make_call

BUSY = Finished(success=False, error_code=503, load=LoadHint(retry_after_ms=70, reserves=True))


class ReservingBench(Bench):
    def __init__(self, play: Callable[[ServerEngagement], Awaitable[None]]) -> None:
        super().__init__(play)
        self.writer = RecordingWriter()
        self.call = make_call(body=BytesBody(b"body"), writer=self.writer)
        self.observer = RecordingObserver()
        self.events = self.observer.events

    async def try_reserve(self) -> Outcome:
        return await self.runner.try_reserve(self.call, self.observer)


async def reserved(engagement: ServerEngagement) -> None:
    """Takes the reservation, waits for the commit, answers with the body."""
    frame = await engagement.receive()
    assert isinstance(frame, TryCall)
    assert frame.reserve
    await engagement.send(Reserved())
    assert await engagement.receive() == Commit(with_data=True)
    data = await engagement.receive()
    assert isinstance(data, Data)
    assert data.eof
    await engagement.send_all([ResultStart(200), Data(data.data), OK], last=True)


async def test_reserve_claim_commit_answer() -> None:
    bench = ReservingBench(reserved)
    assert await bench.try_reserve() == Placed()
    assert bench.events == ["asked", "claim", "commit"]
    assert (bench.writer.heads, bench.writer.data) == ([(200, ())], b"body")
    assert bench.call.runner_address == "runner:1"
    assert bench.is_idle()


async def test_a_slot_that_is_not_claimed_is_given_back() -> None:
    cancelled = []

    async def play(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(Reserved())
        try:
            await engagement.receive()
        except trio.Cancelled:
            cancelled.append(True)
            raise

    bench = ReservingBench(play)
    bench.observer.claims = False
    outcome = await bench.try_reserve()
    assert isinstance(outcome, NotPlaced)
    assert isinstance(outcome.reason, ReservationAbandoned)
    assert bench.events == ["asked", "claim"]
    assert cancelled == [True]
    assert bench.is_idle()


def status(number: int) -> Exception:
    return GRPCStatus(number, "so it is")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (BUSY, ServerBusy),
        (status(503), ServerBusy),
        (status(14), EngagementFailed),
        (status(1), EngagementFailed),
        (None, ProtocolError),
        (OK, ProtocolError),
        (ResultStart(200), ProtocolError),
    ],
)
async def test_what_is_not_committed_may_go_elsewhere(
    answer: Finished | ResultStart | Exception | None, reason: type[Exception]
) -> None:
    async def play(engagement: ServerEngagement) -> None:
        await engagement.receive()
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            await engagement.send(answer)

    bench = ReservingBench(play)
    outcome = await bench.try_reserve()
    assert isinstance(outcome, NotPlaced)
    assert isinstance(outcome.reason, reason)
    assert bench.events == ["asked"]
    assert outcome.retry_after == (0.07 if answer is BUSY else None)
    assert bench.runner.reserves == (answer is BUSY)
    assert bench.is_idle()


async def test_a_slot_that_can_not_be_made_is_the_calls_error() -> None:
    async def play(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(Finished(success=False, error_code=502, error_text="no image"))

    bench = ReservingBench(play)
    outcome = await bench.try_reserve()
    assert isinstance(outcome, Placed)
    assert isinstance(outcome.error, APIError)
    assert (outcome.error.code, bench.events) == (502, ["asked"])


async def test_a_refusal_that_crosses_the_commit_lets_the_call_go_elsewhere() -> None:
    async def play(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send_all([Reserved(), BUSY], last=True)

    bench = ReservingBench(play)
    outcome = await bench.try_reserve()
    assert isinstance(outcome, NotPlaced)
    assert isinstance(outcome.reason, ServerBusy)
    assert bench.is_idle()


async def test_after_the_commit_a_lost_runner_is_final() -> None:
    async def play(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(Reserved())
        await engagement.receive()
        raise GRPCStatus(14, "gone")

    bench = ReservingBench(play)
    outcome = await bench.try_reserve()
    assert isinstance(outcome, Placed)
    assert isinstance(outcome.error, EngagementFailed)
    assert bench.events == ["asked", "claim", "commit"]


async def test_a_runner_that_knows_no_reservations_gets_the_whole_call() -> None:
    """As after it was replaced by another program: nothing has run, and it is not asked again."""
    tries: list[TryCall] = []

    async def play(engagement: ServerEngagement) -> None:
        frame = await engagement.receive()
        assert isinstance(frame, TryCall)
        tries.append(frame)
        if frame.reserve:
            raise GRPCStatus(2, "Protocol failure: expected ClientMsg_Try")
        await engagement.receive()
        await engagement.send_all([ResultStart(200), OK], last=True)

    bench = ReservingBench(play)
    assert await bench.try_reserve() == Placed()
    assert bench.events == ["asked", "claim", "commit"]
    assert [frame.reserve for frame in tries] == [True, False]
    assert not bench.runner.reserves


async def test_a_runner_tells_in_its_answers_and_its_status_whether_it_reserves() -> None:
    says = LoadHint(reserves=True)

    async def play(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.receive()
        await engagement.send(Finished(success=True, load=says))

    bench = ReservingBench(play)
    assert not bench.runner.reserves
    await bench.try_exec()
    assert bench.runner.reserves
    await bench.runner.status()  # of a service that does not mention it
    assert not bench.runner.reserves
    bench.service.answer = RunnerStatus(reservations=True)
    await bench.runner.status()
    assert bench.runner.reserves


async def test_an_unreachable_runner() -> None:
    bench = ReservingBench(reserved)
    bench.client.unreachable = ConnectionRefusedError("refused")
    outcome = await bench.try_reserve()
    assert isinstance(outcome, NotPlaced)
    assert bench.events == []


@pytest.mark.parametrize("committed", [False, True])
async def test_closing_the_runner_ends_a_reservation(
    autojump_clock: MockClock, committed: bool
) -> None:
    async def play(engagement: ServerEngagement) -> None:
        await engagement.receive()
        if committed:
            await engagement.send(Reserved())
        await trio.sleep_forever()

    bench = ReservingBench(play)
    outcomes: list[Outcome] = []

    async def reserve() -> None:
        outcomes.append(await bench.try_reserve())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reserve)
        await trio.sleep(1)
        with trio.move_on_after(1):
            await bench.runner.aclose()
    (outcome,) = outcomes
    closed = outcome.error if isinstance(outcome, Placed) else outcome.reason
    assert isinstance(closed, RunnerClosed)
    assert isinstance(outcome, Placed) == committed
    assert bench.is_idle()


@pytest.mark.parametrize("step", range(12))
async def test_cancelled_at_any_await_it_leaves_nothing(
    autojump_clock: MockClock, step: int
) -> None:
    """Each frame of the runner comes a second after the one before; so does what it waits for."""
    runs: list[str] = []

    async def play(engagement: ServerEngagement) -> None:
        await trio.sleep(1)
        await engagement.receive()
        await trio.sleep(1)
        await engagement.send(Reserved())
        await engagement.receive()
        runs.append("run")
        await trio.sleep(1)
        await engagement.receive()
        await engagement.send(ResultStart(200))
        await trio.sleep(1)
        await engagement.send(OK)

    bench = ReservingBench(play)
    with trio.move_on_after(step / 2) as scope:
        await bench.try_reserve()
    assert scope.cancelled_caught == (step / 2 <= 4)
    assert bench.is_idle()
    assert len(runs) == bench.events.count("commit") <= 1
    # Not committed before the second second, in which the runner reserves.
    assert ("commit" in bench.events) == (step / 2 > 2)
