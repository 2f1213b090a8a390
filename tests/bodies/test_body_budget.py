"""What bodies take over all calls: memory, files, and that all of it is given back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from hostler.abc import Body, NotPlaced, Placed
from hostler.bodies import (
    BodyConsumed,
    BodyMetrics,
    BytesBody,
    CountedBody,
    ReplayBody,
    keep_whole,
)
from hostler.errors import APIError, RequestTooBig, ServerBusy
from hostler.protocol import Finished, ServerEngagement
from tests.conftest import Logs

from ..pool.bench import OK, Bench, read_all
from .bench import ChunkStream, assert_nothing_left, budget_of, files, read_to_end


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=20), max_size=8),
    attempts=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=4),
    memory=st.integers(0, 100),
    spill=st.integers(0, 60),
    disk=st.integers(0, 100),
    limit=st.integers(0, 160),
)
def test_what_is_kept_replays_the_original_and_is_all_given_back(
    chunks: list[bytes],
    attempts: list[tuple[int, int]],
    memory: int,
    spill: int,
    disk: int,
    limit: int,
) -> None:
    async def main() -> None:
        before, whole = files(), b"".join(chunks)
        budget = budget_of(memory, spill, disk)
        body = ReplayBody(ChunkStream(*chunks), limit, budget)
        for reads, size in attempts:
            if not body.replayable:
                break
            got = b""
            stream = body.open()
            for _ in range(reads):
                got += await stream.receive_some(size)
                assert budget.memory <= memory
                assert budget.disk <= disk
            assert whole.startswith(got)
        if body.replayable:
            assert await read_to_end(body.open(), 7) == whole
        else:
            assert sum(budget.not_kept.values()) == 1
            assert (budget.memory, budget.disk) == (0, 0)
        await body.aclose()
        assert_nothing_left(budget, before)

    trio.run(main)


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=20), max_size=8),
    memory=st.integers(0, 100),
    spill=st.integers(0, 60),
    disk=st.integers(0, 200),
)
def test_a_whole_body_is_the_original_or_refused(
    chunks: list[bytes], memory: int, spill: int, disk: int
) -> None:
    async def main() -> None:
        before, whole = files(), b"".join(chunks)
        budget = budget_of(memory, spill, disk)
        try:
            body = await keep_whole(ReplayBody(ChunkStream(*chunks), 50, budget), budget, 160)
        except ServerBusy:
            assert len(whole) > min(memory, disk)
            assert budget.not_kept["no_room"] == 1
        else:
            assert budget.memory + budget.disk == len(whole)
            for size in (None, 3):
                assert await read_to_end(body.open(), size) == whole
            await body.aclose()
            with pytest.raises(BodyConsumed):
                body.open()
        assert_nothing_left(budget, before)

    trio.run(main)


async def test_a_body_is_read_whole_up_to_a_limit() -> None:
    budget = budget_of()
    assert (await keep_whole(ReplayBody(ChunkStream(b"ab", b"c")), budget, 3)).data == b"abc"
    assert budget.memory == 3
    for body in (ReplayBody(ChunkStream(b"ab", b"cd")), BytesBody(b"abcd")):
        with pytest.raises(RequestTooBig):
            await keep_whole(body, budget, 3)
    assert budget.memory == 3


async def test_a_small_body_moves_from_its_request_to_its_call() -> None:
    budget = budget_of(memory=4)
    asked = CountedBody(b"four", budget)
    kept = await keep_whole(asked, budget, 10)
    assert (budget.memory, kept.data, asked.replayable) == (4, b"four", False)
    await asked.aclose()
    assert budget.memory == 4
    await kept.aclose()
    await kept.aclose()
    assert budget.memory == 0


async def test_one_calls_body_leaves_less_room_to_the_next() -> None:
    budget, before = budget_of(memory=30, spill=20, disk=25), files()
    first, second = (ReplayBody(ChunkStream(b"x" * 20), 100, budget) for _ in range(2))
    await first.open().receive_some()
    await second.open().receive_some()
    assert (budget.memory, budget.disk, files()) == (20, 20, before + 1)
    third = ReplayBody(ChunkStream(b"x" * 20), 100, budget)
    assert await third.open().receive_some() == b"x" * 20
    assert not third.replayable
    for body in (first, second):
        await body.aclose()
    assert_nothing_left(budget, before)


async def test_a_full_budget_refuses_a_detached_call() -> None:
    budget, before = budget_of(memory=10, disk=10), files()
    with pytest.raises(ServerBusy):
        await keep_whole(ReplayBody(ChunkStream(*[b"x" * 6] * 9)), budget, 100)
    assert budget.not_kept["no_room"] == 1
    assert_nothing_left(budget, before)


async def test_cancelled_at_each_await_nothing_is_left_and_nothing_lost() -> None:
    """Each read is cancelled before each of its awaits; the stream goes on where it was."""
    before, budget = files(), budget_of(spill=5)
    whole = b"abcdefghij" * 3
    body = ReplayBody(ChunkStream(*[b"abcdefghij"] * 3), 100, budget)
    for _ in range(2):
        stream, got = body.open(), b""
        while len(got) < len(whole):
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.receive_some(4)
            assert scope.cancelled_caught
            with trio.CancelScope() as scope:
                got += await stream.receive_some(4)
        assert got == whole
    with trio.CancelScope() as scope:
        scope.cancel()
        await body.aclose()
        await trio.lowlevel.checkpoint()
    assert_nothing_left(budget, before)


@pytest.mark.parametrize("after", range(12))
async def test_a_detached_body_that_is_cancelled_while_it_is_kept_leaves_nothing(
    after: int,
) -> None:
    before, budget = files(), budget_of(spill=5)
    with trio.CancelScope() as scope:

        class Cancelling(ChunkStream):
            async def receive_some(self, max_bytes: int | None = None) -> bytes:
                chunk = await super().receive_some(max_bytes)
                if self.reads == after:
                    scope.cancel()  # the next await is that of the file, or of the next read
                return chunk

        body = await keep_whole(ReplayBody(Cancelling(*[b"abc"] * 10)), budget, 100)
        await body.aclose()
    assert scope.cancel_called == (after in range(1, 12))
    assert_nothing_left(budget, before)


@pytest.mark.parametrize("whole", [False, True])
async def test_a_body_in_a_file_goes_to_the_next_runner_after_a_refusal(whole: bool) -> None:
    budget, before = budget_of(10**6, 1000, 10**6), files()
    sent = bytes(range(256)) * 1500
    arrived: list[bytes] = []

    async def play(engagement: ServerEngagement) -> None:
        arrived.append((await read_all(engagement))[1])
        full = len(arrived) == 1
        await engagement.send(Finished(success=False, error_code=503) if full else OK)

    bench = Bench(play)
    body: Body = ReplayBody(BytesBody(sent).open(), len(sent), budget)
    if whole:
        body = await keep_whole(body, budget, len(sent))
    bench.call.body = body
    assert isinstance(await bench.try_exec(), NotPlaced)
    assert (budget.disk, body.data) == (len(sent), None)
    assert await bench.try_exec() == Placed()
    assert arrived == [sent, sent]
    await body.aclose()
    assert_nothing_left(budget, before)


async def test_a_stream_of_a_closed_body_fails_and_does_not_end_early() -> None:
    budget = budget_of()
    asked = ReplayBody(ChunkStream(b"ab", b"cd"), 100, budget)
    assert await asked.open().receive_some() == b"ab"
    whole = await keep_whole(BytesBody(b"ab"), budget, 10)
    for body in (asked, whole):
        stream = body.open()
        await body.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
    assert budget.memory == 0


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[str]:
    """A file system with room for two pages."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(tmp_path)], check=True)
    try:
        yield str(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.fixture
def read_only_disk(tiny_disk: str) -> str:
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    return tiny_disk


@pytest.mark.process
async def test_on_a_full_disk_a_body_is_sent_on_but_not_kept(tiny_disk: str, logs: Logs) -> None:
    before, budget = files(), budget_of(10**6, 100, 10**6, tiny_disk)
    chunks = [bytes([number]) * 3000 for number in range(6)]
    body = ReplayBody(ChunkStream(*chunks), 10**6, budget)
    assert await read_to_end(body.open()) == b"".join(chunks)
    assert (body.replayable, budget.not_kept["disk_error"]) == (False, 1)
    with pytest.raises(ServerBusy):
        await keep_whole(BytesBody(b"x" * 20_000), budget, 10**6)
    assert len(logs.with_event("bodies can't be written to disk")) == 1
    small = await keep_whole(BytesBody(b"x" * 200), budget, 10**6)
    assert logs.with_event("bodies can be written to disk again")
    await small.aclose()
    assert_nothing_left(budget, before)
    assert os.listdir(tiny_disk) == []


@pytest.mark.process
@pytest.mark.parametrize("how", ["read-only", "gone"])
async def test_a_disk_that_waiting_does_not_mend_is_no_reason_to_come_again(
    read_only_disk: str, logs: Logs, how: str
) -> None:
    """It is an internal error, of which the log tells once; small bodies need no file."""
    folder = read_only_disk if how == "read-only" else f"{read_only_disk}/gone"
    before, budget = files(), budget_of(10**6, 100, 10**6, folder)
    for _ in range(2):
        with pytest.raises(APIError) as caught:
            await keep_whole(BytesBody(b"x" * 200), budget, 10**6)
        assert (type(caught.value), caught.value.code) == (APIError, 500)
    body = ReplayBody(ChunkStream(b"x" * 200), 10**6, budget)
    assert await read_to_end(body.open()) == b"x" * 200
    assert budget.not_kept["disk_error"] == 3
    line = logs.expect_error("bodies can't be written to disk")
    assert line["directory"] == folder
    assert ("Read-only" if how == "read-only" else "No such file") in line["error"]
    assert len(logs.with_event("bodies can't be written to disk")) == 0
    await (await keep_whole(BytesBody(b"x" * 50), budget, 10**6)).aclose()
    assert_nothing_left(budget, before)


async def test_metrics_tell_what_is_kept() -> None:
    budget, registry = budget_of(spill=5), CollectorRegistry()
    BodyMetrics(registry, budget)
    held = CountedBody(b"abc", budget)
    large = await keep_whole(BytesBody(b"x" * 8), budget, 10)
    body = ReplayBody(ChunkStream(b"abc"), 2, budget)
    await body.open().receive_some()
    assert registry.get_sample_value("fn_body_memory_bytes") == 3
    assert registry.get_sample_value("fn_body_disk_bytes") == 8
    sample = registry.get_sample_value
    assert sample("fn_body_not_kept_count", {"reason": "too_big"}) == 1
    assert sample("fn_body_not_kept_count", {"reason": "no_room"}) == 0
    await held.aclose()
    await large.aclose()
    assert registry.get_sample_value("fn_body_memory_bytes") == 0
    assert registry.get_sample_value("fn_body_disk_bytes") == 0
