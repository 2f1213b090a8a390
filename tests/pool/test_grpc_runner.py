"""One runner over the engagement seam: what commits a call, what a NACK is, who gets the blame."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from hostler._call_document import decode_call
from hostler.abc import Body, NotPlaced, Outcome, Placed
from hostler.bodies import BytesBody, ReplayBody
from hostler.errors import (
    APIError,
    FunctionError,
    ProtocolError,
    RequestTooBig,
    RunnerClosed,
    ServerBusy,
    code_of,
    public_error,
)
from hostler.pool import MissingEOF, RunnerFault
from hostler.protocol import (
    BODY_PIECE,
    Data,
    EngagementFailed,
    Finished,
    GRPCStatus,
    NotSent,
    ResultStart,
    ServerEngagement,
    TryCall,
)
from tests.conftest import Logs

from .bench import OK, Bench, answer, read_all
from .fakes import RecordingWriter


async def error_after(*frames: ResultStart | Data | Finished) -> Exception | None:
    bench = Bench(answer(*frames))
    outcome = await bench.try_exec()
    assert isinstance(outcome, Placed)
    assert bench.is_idle()
    return outcome.error


async def test_a_call_that_succeeds() -> None:
    bench = Bench(answer(ResultStart(200, [("A", "1")]), Data(b"ab"), Data(b""), Data(b"c"), OK))
    assert await bench.try_exec() == Placed()
    writer = bench.call.writer
    assert isinstance(writer, RecordingWriter)
    assert writer.heads == [(200, [("A", "1")])]
    assert writer.data == b"abc"
    assert bench.commits == 1
    assert bench.call.runner_address == "runner:1"
    assert bench.call.timings.scheduler_ns == 7
    assert bench.call.user_execution_ns == 5_000_000
    assert bench.call.model.execution_duration_ns == 5_000_000
    assert bench.is_idle()


@pytest.mark.parametrize("size", [0, 1, BODY_PIECE, BODY_PIECE + 1, 5 * BODY_PIECE])
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_body_arrives_whole_and_ends_once(size: int, streamed: bool) -> None:
    sent = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
    got: list[tuple[TryCall, bytes]] = []

    async def play(engagement: ServerEngagement) -> None:
        got.append(await read_all(engagement))
        await engagement.send(ResultStart(200))
        await engagement.send(OK)

    bench = Bench(play)
    body: Body = BytesBody(sent)
    bench.call.body = ReplayBody(body.open()) if streamed else body
    bench.call.slot_hash_id = b"\x01\xab"
    bench.call.extensions = {"k": "v"}
    bench.call.queue_seconds = 0.25
    assert await bench.try_exec() == Placed()
    ((try_call, arrived),) = got
    assert arrived == sent
    assert (try_call.slot_hash_id, try_call.extensions) == ("01ab", {"k": "v"})
    assert (try_call.wait_ms, try_call.reserve) == (250, False)
    assert decode_call(try_call.models_call_json).id == "call1"


async def test_the_request_id_travels() -> None:
    seen: list[str] = []

    async def play(engagement: ServerEngagement) -> None:
        seen.append(engagement.request_id)
        await answer(OK)(engagement)

    bench = Bench(play)
    bench.call.request_id = "req-7"
    await bench.try_exec()
    assert seen == ["req-7"]


async def test_finished_503_is_a_nack() -> None:
    bench = Bench(answer(Finished(success=False, error_code=503, error_text="full")))
    outcome = await bench.try_exec()
    assert isinstance(outcome, NotPlaced)
    assert isinstance(outcome.reason, ServerBusy)
    assert bench.call.user_execution_ns is None


async def test_stream_status_503_is_a_nack() -> None:
    async def play(engagement: ServerEngagement) -> None:
        raise GRPCStatus(503, "Timed out - server too busy")

    outcome = await Bench(play).try_exec()
    assert isinstance(outcome, NotPlaced)
    assert isinstance(outcome.reason, ServerBusy)


async def test_503_after_the_head_can_not_be_a_nack() -> None:
    error = await error_after(ResultStart(200), Finished(success=False, error_code=503))
    assert isinstance(error, ServerBusy)


async def test_not_sent_may_be_tried_elsewhere() -> None:
    bench = Bench(answer(OK))
    bench.client.unreachable = ConnectionRefusedError("refused")
    outcome = await bench.try_exec()
    assert isinstance(outcome, NotPlaced)
    assert isinstance(outcome.reason, NotSent)
    assert bench.commits == 0


@pytest.mark.parametrize("code", [0, -1, 7, 200, 302, 600, 99999])
async def test_weakness_01_1_a_code_that_is_no_error_becomes_a_500_without_text(code: int) -> None:
    error = await error_after(Finished(success=False, error_code=code, error_text="secret path"))
    assert isinstance(error, RunnerFault)
    assert "secret path" in str(error)  # for the log
    public = public_error(error)
    assert (public.code, public.message) == (500, "internal server error")


async def test_errors_keep_code_text_and_blame() -> None:
    error = await error_after(
        Finished(success=False, error_code=504, error_text="Timed out", error_user=True)
    )
    assert isinstance(error, FunctionError)
    assert (error.code, error.message, error.blame) == (504, "Timed out", "user")
    error = await error_after(Finished(success=False, error_code=400, error_text="bad"))
    assert isinstance(error, APIError)
    assert (error.code, error.message, error.blame) == (400, "bad", "service")


async def test_an_error_without_text_has_one() -> None:
    error = await error_after(Finished(success=False, error_code=502, error_user=True))
    assert str(error) == "Unknown Error From Pure Runner"


async def test_a_frame_after_the_outcome_is_an_error() -> None:
    error = await error_after(ResultStart(200), OK, Data(b"more"))
    assert isinstance(error, MissingEOF)
    assert str(error) == "Purerunner missing EOF response"
    error = await error_after(Finished(success=False, error_code=502), Data(b"more"))
    assert code_of(error or OSError()) == 502


async def test_a_stream_that_breaks_after_the_outcome_changes_nothing() -> None:
    async def play(engagement: ServerEngagement) -> None:
        await answer(ResultStart(200), OK)(engagement)
        raise GRPCStatus(14, "gone")

    assert await Bench(play).try_exec() == Placed()


async def test_a_stream_that_does_not_end_is_left(autojump_clock: MockClock, logs: Logs) -> None:
    async def play(engagement: ServerEngagement) -> None:
        await answer(ResultStart(200), OK)(engagement)
        await trio.sleep_forever()

    bench = Bench(play)
    assert await bench.try_exec() == Placed()
    assert trio.current_time() == pytest.approx(5)
    assert logs.with_event("does not end the stream")
    assert bench.is_idle()


@pytest.mark.parametrize(
    "frames",
    [
        (),
        (ResultStart(200),),
        (Data(b"x"), OK),
        (ResultStart(200), ResultStart(200), OK),
    ],
)
async def test_a_runner_that_breaks_the_protocol_fails_the_call(
    frames: tuple[ResultStart | Data | Finished, ...],
) -> None:
    assert isinstance(await error_after(*frames), ProtocolError)


async def test_a_stream_that_breaks_is_not_tried_again() -> None:
    async def play(engagement: ServerEngagement) -> None:
        await read_all(engagement)
        bench.client.lose_connections("network is down")

    bench = Bench(play)
    outcome = await bench.try_exec()
    assert isinstance(outcome, Placed)
    assert isinstance(outcome.error, EngagementFailed)
    assert public_error(outcome.error).message == "internal server error"


class FailingStream(trio.abc.ReceiveStream):
    def __init__(self, error: Exception) -> None:
        self.error = error
        self.reads = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        self.reads += 1
        if self.reads == 1:
            return b"first"
        raise self.error

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_weakness_01_8_a_failing_body_never_looks_like_its_end() -> None:
    frames: list[object] = []

    async def play(engagement: ServerEngagement) -> None:
        while (frame := await engagement.receive()) is not None:
            frames.append(frame)
        await trio.sleep_forever()

    bench = Bench(play)
    bench.call.body = ReplayBody(FailingStream(RequestTooBig()))
    outcome = await bench.try_exec()
    assert isinstance(outcome, Placed)
    assert isinstance(outcome.error, RequestTooBig)
    assert not any(isinstance(frame, Data) and frame.eof for frame in frames)
    assert bench.is_idle()


async def test_an_answer_before_the_end_of_the_body_stops_the_sender() -> None:
    send, receive = trio.testing.memory_stream_one_way_pair()
    await send.send_all(b"x" * 10)

    async def play(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(ResultStart(200))
        await engagement.send(OK)

    bench = Bench(play)
    bench.call.body = ReplayBody(receive)
    with trio.fail_after(60):
        assert await bench.try_exec() == Placed()
    assert bench.is_idle()


class BrokenWriter(RecordingWriter):
    async def write(self, data: bytes | memoryview) -> None:
        raise trio.BrokenResourceError("client is gone")


async def test_a_failing_writer_ends_the_call_on_the_runner_too() -> None:
    async def play(engagement: ServerEngagement) -> None:
        await read_all(engagement)
        await engagement.send(ResultStart(200))
        while True:
            await engagement.send(Data(b"x"))

    bench = Bench(play)
    bench.call.writer = BrokenWriter()
    outcome = await bench.try_exec()
    assert isinstance(outcome, Placed)
    assert isinstance(outcome.error, trio.BrokenResourceError)
    assert bench.is_idle()


@asynccontextmanager
async def hanging(bench: Bench) -> AsyncIterator[list[Outcome]]:
    """An attempt under way; the list gets its outcome."""
    outcomes: list[Outcome] = []

    async def attempt() -> None:
        outcomes.append(await bench.try_exec())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempt)
        await wait_all_tasks_blocked()
        yield outcomes


async def hang(engagement: ServerEngagement) -> None:
    await read_all(engagement)
    await trio.sleep_forever()


async def test_a_closed_runner_refuses(autojump_clock: MockClock) -> None:
    bench = Bench(answer(OK))
    await bench.runner.aclose()
    await bench.runner.aclose()
    outcome = await bench.try_exec()
    assert isinstance(outcome, NotPlaced)
    assert isinstance(outcome.reason, RunnerClosed)
    assert bench.client.attempts == 0


async def test_close_waits_for_what_runs() -> None:
    go = trio.Event()

    async def play(engagement: ServerEngagement) -> None:
        await go.wait()
        await answer(ResultStart(200), OK)(engagement)

    bench = Bench(play)
    async with hanging(bench) as outcomes, trio.open_nursery() as nursery:
        nursery.start_soon(bench.runner.aclose)
        await wait_all_tasks_blocked()
        assert outcomes == []
        go.set()
    assert outcomes == [Placed()]


async def test_weakness_02_6_close_has_the_callers_deadline(autojump_clock: MockClock) -> None:
    bench = Bench(hang)
    async with hanging(bench) as outcomes:
        with trio.move_on_after(3):
            await bench.runner.aclose()
        assert trio.current_time() == pytest.approx(3)
        assert bench.is_idle()
    (outcome,) = outcomes
    assert isinstance(outcome, Placed)
    assert isinstance(outcome.error, RunnerClosed)
    assert public_error(outcome.error).code == 500


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("rounds", range(0, 36, 2))
async def test_weakness_01_9_cancelled_anywhere_nothing_touches_body_or_writer_after(
    streamed: bool, rounds: int
) -> None:
    async def play(engagement: ServerEngagement) -> None:
        await read_all(engagement)
        await engagement.send(ResultStart(200))
        for _ in range(5):
            await engagement.send(Data(b"x"))
        await engagement.send(OK)

    bench = Bench(play)
    data = b"b" * (3 * BODY_PIECE)
    bench.call.body = ReplayBody(BytesBody(data).open()) if streamed else BytesBody(data)
    writer = bench.call.writer
    assert isinstance(writer, RecordingWriter)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.try_exec)
            for _ in range(rounds):
                await trio.lowlevel.checkpoint()
            scope.cancel()
    seen = (len(writer.heads), writer.data)
    await wait_all_tasks_blocked()
    assert (len(writer.heads), writer.data) == seen
    assert bench.is_idle()
    assert "attempts=0" in repr(bench.runner)


async def test_status_passes_the_payload_on() -> None:
    bench = Bench(answer(OK))
    assert (await bench.runner.status()).details == ""
    assert (await bench.runner.status({"a": [1]})).details == '{"a":[1]}'
