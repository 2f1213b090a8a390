"""Streamed bodies that can be sent again, up to a limit."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from hostler.bodies import BodyConsumed, ReplayBody
from hostler.errors import RequestTooBig

from .bench import ChunkStream, read_to_end


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=20), max_size=8),
    attempts=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=5),
    limit=st.integers(0, 100),
)
def test_each_attempt_reads_the_same_bytes_or_is_refused(
    chunks: list[bytes], attempts: list[tuple[int, int]], limit: int
) -> None:
    async def main() -> None:
        source, whole = ChunkStream(*chunks), b"".join(chunks)
        body = ReplayBody(source, limit)
        most = 0
        for reads, size in attempts:
            if not body.replayable:
                break
            stream = body.open()
            got = b""
            for _ in range(reads):
                got += await stream.receive_some(size)
            assert whole.startswith(got)
            most = max(most, len(got))
            await stream.aclose()
        assert body.replayable == (most <= limit)
        if not body.replayable:
            with pytest.raises(BodyConsumed):
                body.open()
            return
        assert await read_to_end(body.open()) == whole
        assert body.replayable == (len(whole) <= limit)
        assert body.data == (whole if len(whole) <= limit else None)

    trio.run(main)


async def test_memory_stays_flat_beyond_the_limit() -> None:
    body = ReplayBody(ChunkStream(*[b"x" * 10] * 100), limit=25)
    stream = body.open()
    for _ in range(3):
        await stream.receive_some()
    assert "read=30 kept=nothing" in repr(body)
    assert len(await read_to_end(stream)) == 970


async def test_a_later_stream_ends_the_earlier() -> None:
    body = ReplayBody(ChunkStream(b"a", b"b"))
    first = body.open()
    assert await first.receive_some() == b"a"
    second = body.open()
    with pytest.raises(trio.ClosedResourceError):
        await first.receive_some()
    assert await read_to_end(second) == b"ab"


async def test_the_source_is_never_read_by_two() -> None:
    send, receive = trio.testing.memory_stream_one_way_pair()
    body = ReplayBody(receive)
    first = body.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.receive_some)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            body.open()
        with pytest.raises(trio.BusyResourceError):
            await first.receive_some()
        await send.send_all(b"x")
    assert await body.open().receive_some() == b"x"


async def test_a_cancelled_read_loses_nothing() -> None:
    send, receive = trio.testing.memory_stream_one_way_pair()
    body = ReplayBody(receive)
    stream = body.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await send.send_all(b"all")
    await send.aclose()
    assert await read_to_end(body.open(), 2) == b"all"


async def test_a_failure_is_raised_from_each_attempt_and_never_an_end() -> None:
    source = ChunkStream(b"start", RequestTooBig())
    body = ReplayBody(source)
    for _ in range(3):
        stream = body.open()
        assert await stream.receive_some() == b"start"
        with pytest.raises(RequestTooBig):
            await stream.receive_some()
    assert source.reads == 2
    assert body.data is None
