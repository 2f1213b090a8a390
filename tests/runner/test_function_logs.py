"""The built-in log streamer: lines of calls, bounded, at least once, over a whole runner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from hostler._container_task import End
from hostler._output_lines import LINGER, MAX_LINE
from hostler.agent import Output
from hostler.agent_metrics import AgentMetrics
from hostler.drivers.sim import SimContainer, SimRequest, SimResponse, open_sim_driver
from hostler.engagement import EngagementFailed, LogChannel, LogCollector
from hostler.frames import LogAck, LogContainer, LogMessage, LogReady, LogStart
from hostler.runner import FunctionLogs, Hooks
from hostler.runner._logs import LINE_OVERHEAD, MAX_BATCH_LINES
from tests.conftest import Logs

from .runners import open_sim_runner


def make_logs(limit: int = 1_000_000) -> FunctionLogs:
    return FunctionLogs(limit=limit, metrics=AgentMetrics(CollectorRegistry()))


def output(
    data: bytes,
    *,
    call: str = "call",
    container: str = "ctr",
    stderr: bool = False,
    running: bool = True,
    ends: End = "",
) -> Output:
    return Output(container, "app", "fn", call, data, stderr, running=running, ends=ends)


class Collector(LogChannel):
    """A channel whose collector is the test."""

    def __init__(self, logs: FunctionLogs, nursery: trio.Nursery) -> None:
        self._send, self._receive = trio.open_memory_channel[LogMessage](10)
        self._out, self.batches = trio.open_memory_channel[Sequence[LogContainer]](0)
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        nursery.start_soon(self._run, logs)

    async def _run(self, logs: FunctionLogs) -> None:
        with self.scope:
            await logs.stream(self)
        self.ended.set()

    async def ask(self, message: LogMessage) -> Sequence[LogContainer]:
        self.say(message)
        return await self.batches.receive()

    def say(self, message: LogMessage) -> None:
        self._send.send_nowait(message)

    def half_close(self) -> None:
        self._send.close()

    async def receive(self) -> LogMessage | None:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return None

    async def send(self, batch: Sequence[LogContainer]) -> None:
        await self._out.send(batch)


def texts(batch: Sequence[LogContainer]) -> list[bytes]:
    return [
        line.data for container in batch for request in container.requests for line in request.lines
    ]


async def everything(logs: FunctionLogs) -> list[bytes]:
    """All lines that wait, taken by one collector."""
    found: list[bytes] = []
    async with trio.open_nursery() as nursery:
        collector = Collector(logs, nursery)
        collector.say(LogStart())
        while logs.statistics().queued:
            found += texts(await collector.ask(LogAck()))
        collector.say(LogAck())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return found


class TestLines:
    async def test_chunks_become_lines(self) -> None:
        logs = make_logs()
        for chunk in (b"o", b"ne\ntwo\n\nth", b"ree"):
            logs.collect(output(chunk))
        assert logs.statistics().partial == 1
        logs.collect(output(b"", ends="container"))
        assert logs.statistics().partial == 0
        assert await everything(logs) == [b"one", b"two", b"", b"three"]

    async def test_streams_containers_and_calls_are_not_mixed(self) -> None:
        logs = make_logs()
        logs.collect(output(b"out-"))
        logs.collect(output(b"err-", stderr=True))
        logs.collect(output(b"other\n", container="ctr2"))
        logs.collect(output(b"put\n"))
        logs.collect(output(b"or\n", stderr=True))
        logs.collect(output(b"no newline"))
        logs.collect(output(b"next call\n", call="call2"))
        assert await everything(logs) == [
            b"other",
            b"out-put",
            b"err-or",
            b"no newline",
            b"next call",
        ]

    async def test_long_lines_are_cut(self) -> None:
        logs = make_logs()
        logs.collect(output(b"x" * (3 * MAX_LINE + 1)))
        logs.collect(output(b"y\n"))
        pieces = await everything(logs)
        assert [len(piece) for piece in pieces] == [MAX_LINE] * 3 + [2]

    @given(
        text=st.lists(st.sampled_from([b"a", b"bc", b"\n", b"z" * 50]), max_size=40),
        cuts=st.lists(st.integers(0, 200), max_size=10),
    )
    def test_chunking_does_not_matter(self, text: list[bytes], cuts: list[int]) -> None:
        whole = b"".join(text)

        async def main() -> None:
            logs = make_logs()
            for chunk in _chunks(whole, cuts):
                logs.collect(output(chunk))
            logs.collect(output(b"", ends="container"))
            expected = whole.split(b"\n")
            assert await everything(logs) == (expected if expected[-1] else expected[:-1])

        trio.run(main)


def _chunks(whole: bytes, cuts: list[int]) -> Iterator[bytes]:
    begin = 0
    for cut in sorted(cuts):
        if begin < cut < len(whole):
            yield whole[begin:cut]
            begin = cut
    if whole[begin:]:
        yield whole[begin:]


class TestEndOfCall:
    """A line without an end is delivered when its call has ended, not when the next one begins."""

    async def _delivered(self, logs: FunctionLogs) -> tuple[list[bytes], float]:
        async with trio.open_nursery() as nursery:
            collector = Collector(logs, nursery)
            collector.say(LogStart())
            batch = texts(await collector.ask(LogReady()))
            at = trio.current_time()
            nursery.cancel_scope.cancel()
        return batch, at

    async def test_the_rest_of_a_line(self, autojump_clock: object) -> None:
        logs = make_logs()
        begun = trio.current_time()
        logs.collect(output(b"no newline"))
        logs.collect(output(b"", running=False, ends="call"))
        assert await self._delivered(logs) == ([b"no newline"], begun + LINGER)

    async def test_a_collector_that_waits_already_learns_of_it(
        self, autojump_clock: object, nursery: trio.Nursery
    ) -> None:
        logs = make_logs()
        collector = Collector(logs, nursery)
        collector.say(LogStart())
        collector.say(LogReady())
        logs.collect(output(b"no newline"))
        with trio.move_on_after(100):
            await collector.batches.receive()
            raise AssertionError("the call goes on: the line may too")
        logs.collect(output(b"", running=False, ends="call"))
        assert texts(await collector.batches.receive()) == [b"no newline"]

    async def test_output_that_arrives_after_the_response_is_one_line(
        self, autojump_clock: object, nursery: trio.Nursery
    ) -> None:
        logs = make_logs()
        logs.collect(output(b"", running=False, ends="call"))
        logs.collect(output(b"la", running=False))
        logs.collect(output(b"te", running=False))
        assert (await self._delivered(logs))[0] == [b"late"]

    async def test_a_busy_queue_does_not_hold_it_up(self, autojump_clock: object) -> None:
        logs = make_logs()
        logs.collect(output(b"no newline"))
        logs.collect(output(b"", running=False, ends="call"))
        await trio.sleep(2 * LINGER)
        logs.collect(output(b"of another\n", container="ctr2"))
        assert (await self._delivered(logs))[0] == [b"of another", b"no newline"]

    async def test_a_line_may_end_before_its_time(self, autojump_clock: object) -> None:
        logs = make_logs()
        logs.collect(output(b"one", running=False))
        logs.collect(output(b" line\n", running=False))
        assert await self._delivered(logs) == ([b"one line"], trio.current_time())
        assert logs.statistics().partial == 0


class TestBounds:
    async def test_the_oldest_lines_are_dropped_and_counted(self, logs: Logs) -> None:
        kept = make_logs(limit=3 * (LINE_OVERHEAD + 1))
        for number in range(10):
            kept.collect(output(b"%d\n" % number))
        counts = kept.statistics()
        assert (counts.queued, counts.dropped) == (3, 7)
        assert counts.queued_bytes <= 3 * (LINE_OVERHEAD + 1)
        assert len(logs.with_event("log lines are dropped")) == 1
        assert await everything(kept) == [b"7", b"8", b"9"]

    async def test_batches_are_bounded(self, nursery: trio.Nursery) -> None:
        logs = make_logs(limit=10_000_000)
        logs.collect(output(b"x\n" * (MAX_BATCH_LINES + 1)))
        collector = Collector(logs, nursery)
        collector.say(LogStart())
        assert len(texts(await collector.ask(LogReady()))) == MAX_BATCH_LINES
        logs.collect(output((b"y" * MAX_LINE + b"\n") * 100))
        batch = texts(await collector.ask(LogAck()))
        assert batch[0] == b"x"
        assert sum(map(len, batch)) <= 256 * 1024


class TestDialogue:
    async def test_scenario_07_start_then_ack_brings_container_request_and_line(
        self, nursery: trio.Nursery
    ) -> None:
        logs = make_logs()
        collector = Collector(logs, nursery)
        collector.say(LogStart({"a": "b"}))
        logs.collect(output(b"one\n"))
        logs.collect(output(b"two\n", stderr=True))
        (container,) = await collector.ask(LogAck())
        assert (container.app_id, container.fn_id, container.container_id) == ("app", "fn", "ctr")
        (request,) = container.requests
        assert request.request_id == "call"
        assert [(line.data, line.stderr) for line in request.lines] == [
            (b"one", False),
            (b"two", True),
        ]
        assert request.lines[0].timestamp_ms > 1_600_000_000_000

    async def test_a_batch_waits_for_the_first_line(self, nursery: trio.Nursery) -> None:
        logs = make_logs()
        collector = Collector(logs, nursery)
        collector.say(LogStart())
        collector.say(LogReady())
        await trio.testing.wait_all_tasks_blocked()
        logs.collect(output(b"late\n"))
        assert texts(await collector.batches.receive()) == [b"late"]

    async def test_ready_without_ack_repeats_the_batch(self, nursery: trio.Nursery) -> None:
        logs = make_logs()
        collector = Collector(logs, nursery)
        collector.say(LogStart())
        logs.collect(output(b"one\n"))
        assert texts(await collector.ask(LogReady())) == [b"one"]
        logs.collect(output(b"two\n"))
        assert texts(await collector.ask(LogReady())) == [b"one"]
        assert texts(await collector.ask(LogAck())) == [b"two"]

    async def test_what_was_not_confirmed_goes_to_the_next_collector(
        self, nursery: trio.Nursery
    ) -> None:
        logs = make_logs()
        logs.collect(output(b"one\ntwo\n"))
        for end in ("half-close", "reset"):
            collector = Collector(logs, nursery)
            collector.say(LogStart())
            assert texts(await collector.ask(LogAck())) == [b"one", b"two"]
            assert logs.statistics().unconfirmed == 2
            if end == "reset":
                collector.scope.cancel()
            else:
                collector.half_close()
            await collector.ended.wait()
            assert (logs.statistics().streams, logs.statistics().unconfirmed) == (0, 0)
        assert await everything(logs) == [b"one", b"two"]

    async def test_two_collectors_share_the_lines(self, nursery: trio.Nursery) -> None:
        logs = make_logs()
        first, second = Collector(logs, nursery), Collector(logs, nursery)
        for collector in (first, second):
            collector.say(LogStart())
            collector.say(LogReady())
        await trio.testing.wait_all_tasks_blocked()
        logs.collect(output(b"one\n"))
        await trio.testing.wait_all_tasks_blocked()
        logs.collect(output(b"two\n"))
        found = [*texts(await first.batches.receive()), *texts(await second.batches.receive())]
        assert sorted(found) == [b"one", b"two"]

    async def test_finish_waits_until_all_is_taken(self, nursery: trio.Nursery) -> None:
        logs = make_logs()
        collector, idle = Collector(logs, nursery), Collector(logs, nursery)
        for stream in (collector, idle):
            stream.say(LogStart())
        logs.collect(output(b"begun"))
        await trio.testing.wait_all_tasks_blocked()
        finished = trio.Event()

        async def finish() -> None:
            await logs.finish()
            finished.set()

        nursery.start_soon(finish)
        await trio.testing.wait_all_tasks_blocked()
        assert not finished.is_set()
        assert texts(await collector.ask(LogReady())) == [b"begun"]
        await idle.ended.wait()
        assert not finished.is_set()
        collector.say(LogAck())
        await finished.wait()


TALK = LogStart(), LogReady()


async def _print(request: SimRequest) -> SimResponse:
    request.container.output(b"got " + await request.read() + b"\n", stderr=True)
    return SimResponse()


async def _hello(container: SimContainer) -> None:
    container.output(b"hello\n")


async def _collect(collector: LogCollector, *messages: LogMessage) -> Sequence[LogContainer]:
    for message in messages:
        await collector.send(message)
    batch = await collector.receive()
    assert batch is not None
    return batch


class TestRunner:
    async def test_lines_of_calls_reach_a_collector(
        self, autojump_clock: object, tmp_path: Path
    ) -> None:
        logs = make_logs()
        async with (
            open_sim_driver() as driver,
            open_sim_runner(driver, tmp_path, logs=logs) as runner,
        ):
            driver.add_image("talker", _print, start_hook=_hello)
            await runner.call("talker", b"1", id="call-1")
            await runner.call("talker", b"2", id="call-2")
            async with runner.client.stream_logs() as collector:
                (container,) = await _collect(collector, *TALK)
            assert (container.app_id, container.fn_id) == ("app", "fn-talker")
            assert [
                (request.request_id, [line.data for line in request.lines])
                for request in container.requests
            ] == [("", [b"hello"]), ("call-1", [b"got 1"]), ("call-2", [b"got 2"])]

    async def test_a_line_without_an_end_does_not_wait_for_the_next_call(
        self, autojump_clock: object, tmp_path: Path
    ) -> None:
        logs = make_logs()

        async def mutter(request: SimRequest) -> SimResponse:
            request.container.output(b"no newline")
            return SimResponse()

        async with (
            open_sim_driver({"mutterer": mutter}) as driver,
            open_sim_runner(driver, tmp_path, logs=logs) as runner,
        ):
            await runner.call("mutterer", id="call-1")
            async with runner.client.stream_logs() as collector:
                with trio.fail_after(1):
                    (container,) = await _collect(collector, *TALK)
        (request,) = container.requests
        assert (request.request_id, request.lines[0].data) == ("call-1", b"no newline")

    async def test_the_hook_replaces_the_built_in_streamer(
        self, autojump_clock: object, tmp_path: Path
    ) -> None:
        async def own(channel: LogChannel) -> None:
            assert await channel.receive() == LogStart()
            await channel.send([LogContainer("own", "f", "c", [])])

        async with (
            open_sim_driver() as driver,
            open_sim_runner(
                driver, tmp_path, logs=make_logs(), hooks=Hooks(stream_logs=own)
            ) as runner,
            runner.client.stream_logs() as collector,
        ):
            (container,) = await _collect(collector, LogStart())
            assert container.app_id == "own"

    @pytest.mark.parametrize(
        ("messages", "expected"),
        [
            ([LogReady()], "expected LogRequestMsg_Start"),
            ([LogStart(), LogStart()], "expected LogRequestMsg_Ack or LogRequestMsg_Ready"),
        ],
    )
    async def test_a_broken_dialogue_ends_with_unknown(
        self,
        autojump_clock: object,
        tmp_path: Path,
        messages: list[LogMessage],
        expected: str,
    ) -> None:
        async with (
            open_sim_driver() as driver,
            open_sim_runner(driver, tmp_path, logs=make_logs()) as runner,
            runner.client.stream_logs() as collector,
        ):
            with pytest.raises(EngagementFailed, match=f"Protocol failure: {expected}") as caught:
                await _collect(collector, *messages)
            assert caught.value.status == 2
