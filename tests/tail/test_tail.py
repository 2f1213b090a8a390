"""The last lines of a node: bounded, for any number of readers, on virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from hostler._output_lines import LINGER
from hostler.tail import AggregateTail, LogTail, Where, tail_app
from hostler.tail.aggregate import WAIT_SECONDS
from hostler.tail.app import LAST_SECONDS, MAX_READERS
from hostler.tail.ring import LINE_OVERHEAD

from .client import Client, output


def lines_of(tail: LogTail, where: Where | None = None) -> list[bytes]:
    found, cursor = [], tail.begin
    while cursor < tail.end:
        batch = tail.read(cursor, where or Where())
        found += [line.data for line in batch.lines]
        cursor = batch.cursor
    return found


async def test_the_oldest_lines_go_when_there_is_no_room() -> None:
    tail = LogTail(3 * (LINE_OVERHEAD + 1))
    tail.collect(output(b"a\nb\nc\nd\n"))
    assert lines_of(tail) == [b"b", b"c", b"d"]
    assert (tail.begin, tail.end, tail.size) == (1, 4, 3 * (LINE_OVERHEAD + 1))
    batch = tail.read(0, Where())
    assert (batch.lost, batch.cursor) == (1, 4)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 300)), max_size=60),
    st.integers(0, 20),
)
def test_lines_and_losses_add_up_for_every_reader(made: list[tuple[str, int]], wanted: int) -> None:
    async def run() -> None:
        tail = LogTail(4000)
        cursor = seen = lost = 0
        for number, (fn, size) in enumerate(made):
            tail.collect(output(b"x" * size + b"\n", fn=fn))
            assert tail.size <= 4000
            if number % 7 == 0:
                batch = tail.read(cursor, Where())
                cursor, seen, lost = batch.cursor, seen + len(batch.lines), lost + batch.lost
        batch = tail.read(cursor, Where())
        assert seen + lost + len(batch.lines) + batch.lost == len(made)
        only = [fn for fn, _ in made[tail.begin :] if fn == "a"]
        cursor, count = tail.last(wanted, Where(fn_id="a"))
        found = tail.read(cursor, Where(fn_id="a"))
        assert len(found.lines) == count == min(wanted, len(only))

    trio.run(run)


async def test_a_follower_gets_lines_as_they_come_and_rests_after_their_call(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tail, closing = LogTail(10_000), trio.Event()
    app = tail_app(AggregateTail(tail), closing)
    tail.collect(output(b"before\nother\n"))
    async with trio.open_nursery() as nursery:
        client = Client(nursery, app, "fn_id=fn&lines=1&follow=true")
        await client.begin()
        assert await client.piece() == ["other"]
        tail.collect(output(b"not mine\n", fn="other"))
        tail.collect(output(b"now\nrest"))
        assert await client.piece() == ["now"]
        began = trio.current_time()
        tail.collect(output(b"", ends="call"))
        assert await client.piece() == ["rest"]
        assert trio.current_time() == pytest.approx(began + LINGER)
        tail.collect(output(b"busy\n", fn="other"))
        assert await client.piece() == []
        assert trio.current_time() == pytest.approx(began + LINGER + WAIT_SECONDS)
        client.leave()
        await client.over.wait()
        assert len(nursery.child_tasks) == 0


async def test_a_slow_reader_loses_lines_is_told_and_holds_up_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tail, closing = LogTail(3 * (LINE_OVERHEAD + 1)), trio.Event()
    app = tail_app(AggregateTail(tail), closing)
    async with trio.open_nursery() as nursery:
        slow, quick = Client(nursery, app, "follow=1"), Client(nursery, app, "follow=1")
        await slow.begin()
        await quick.begin()
        for text in "abcdef":
            tail.collect(output(f"{text}\n".encode()))
            await trio.testing.wait_all_tasks_blocked()  # the slow one stands at its first line
            assert await quick.piece() == [text]
        assert await slow.piece() == ["a"]
        assert await slow.piece() == ["lost 2", "d", "e", "f"]
        closing.set()
        for client in (slow, quick):
            assert (await client.messages.receive()).get("more_body") is None
            await client.over.wait()
        assert len(nursery.child_tasks) == 0


async def test_a_drain_gives_last_lines_and_does_not_wait_for_who_stands_still(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tail, closing = LogTail(10_000), trio.Event()
    app = tail_app(AggregateTail(tail), closing)
    async with trio.open_nursery() as nursery:
        still, reading = Client(nursery, app, "follow=1"), Client(nursery, app, "follow=1")
        await still.begin()
        await reading.begin()
        tail.collect(output(b"last\n"))
        closing.set()
        assert await reading.piece() == ["last"]
        assert await reading.piece() == []
        await reading.over.wait()
        began = trio.current_time()
        await still.over.wait()
        assert trio.current_time() - began <= LAST_SECONDS
        late = Client(nursery, app)
        assert await late.status() == 503
        await late.messages.receive()
        await late.over.wait()
        assert len(nursery.child_tasks) == 0


@pytest.mark.parametrize(
    ("query", "scope", "status"),
    [
        ("fn=x", {}, 400),
        ("lines=-1", {}, 400),
        ("follow=maybe", {}, 400),
        ("fn_id=a&fn_id=b", {}, 400),
        ("", {"path": "/logs/x"}, 404),
        ("", {"method": "POST"}, 405),
        ("", {"method": "HEAD"}, 200),
    ],
)
async def test_what_is_asked_wrongly_is_refused(
    query: str, scope: dict[str, str], status: int
) -> None:
    app = tail_app(AggregateTail(LogTail(1000)), trio.Event())
    async with trio.open_nursery() as nursery:
        client = Client(nursery, app, query, **scope)
        assert await client.status() == status
        await client.messages.receive()
        await client.over.wait()


async def test_readers_are_counted_and_one_too_many_is_told_to_come_back() -> None:
    app = tail_app(AggregateTail(LogTail(1000)), trio.Event())
    async with trio.open_nursery() as nursery:
        clients = [Client(nursery, app, "follow=1") for _ in range(MAX_READERS)]
        for client in clients:
            await client.begin()
        refused = Client(nursery, app)
        assert await refused.status() == 503
        await refused.messages.receive()
        for client in clients:
            client.leave()
            await client.over.wait()
        again = Client(nursery, app)
        await again.begin()
        await again.messages.receive()
        await again.over.wait()
