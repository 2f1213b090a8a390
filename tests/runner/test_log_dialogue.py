"""What the built-in log streamer and a collector say to each other, also over a whole runner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from hostler.drivers.sim import SimContainer, SimRequest, SimResponse, open_sim_driver
from hostler.protocol import (
    EngagementFailed,
    LogAck,
    LogChannel,
    LogCollector,
    LogContainer,
    LogMessage,
    LogReady,
    LogStart,
)
from hostler.runner import Hooks

from .collectors import Collector, everything, make_logs, output, texts
from .runners import open_sim_runner


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
