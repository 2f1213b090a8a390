"""The built-in log streamer: lines of calls, bounded, at least once, over a whole runner."""

from __future__ import annotations

from collections.abc import Iterator

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from hostler._output_lines import LINGER, MAX_LINE
from hostler.protocol import LogAck, LogReady, LogStart
from hostler.runner import FunctionLogs
from hostler.runner.logs import LINE_OVERHEAD, MAX_BATCH_LINES
from tests.conftest import Logs

from .collectors import Collector, everything, make_logs, output, texts


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
