"""The last lines of a node of several processes, on virtual time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from hostler.tail import AggregateTail, LogTail, tail_app
from hostler.tail.aggregate import AGAIN_SECONDS, ANSWER_SECONDS, LAST_ANSWER_SECONDS, WAIT_SECONDS
from hostler.tail.app import LAST_SECONDS, MAX_READERS
from hostler.tail.ring import MAX_BATCH_LINES

from .client import Client, output

LIMIT = 100_000


class Process:
    """Another process of the node, which may be away, or hang."""

    def __init__(self, clock: Iterator[int], limit: int) -> None:
        self._clock = clock
        self.questions = 0
        self.limit = limit
        self.answers = math.inf
        """Then it hangs."""
        self.seconds = 0.0
        """For an answer."""
        self.meanwhile: list[str] = []
        """Is printed during each question."""
        self.start()

    def start(self) -> None:
        self.tail = LogTail(self.limit, wall=lambda: float(next(self._clock)))
        self.share: AggregateTail | None = AggregateTail(self.tail)

    def stop(self) -> None:
        self.share = None

    def prints(self, *lines: str, fn: str = "fn") -> None:
        for line in lines:
            self.tail.collect(output(f"{line}\n".encode(), fn=fn))

    async def ask(self, question: bytes) -> bytes:
        self.questions += 1
        await trio.lowlevel.checkpoint()
        if self.share is None:
            raise ConnectionRefusedError
        if self.questions > self.answers:
            await trio.sleep_forever()
        await trio.sleep(self.seconds)
        answer = await self.share.answer(question)
        self.prints(*self.meanwhile)
        if self.share is None:
            raise ConnectionResetError
        return answer


class Node:
    def __init__(self, others: int = 2, limit: int = LIMIT) -> None:
        clock = iter(range(1_000_000))
        self.own, *self.others = (Process(clock, limit) for _ in range(1 + others))
        self.closing = trio.Event()
        joint = AggregateTail(self.own.tail, [other.ask for other in self.others])
        self.app = tail_app(joint, self.closing)


async def rest_of(client: Client) -> list[str]:
    """What comes until the end of the answer, or until it was broken off."""
    found: list[str] = []
    while not client.over.is_set():
        with trio.move_on_after(2 * ANSWER_SECONDS):
            found += await client.piece()
        await trio.testing.wait_all_tasks_blocked()
    return found


async def read_all(node: Node, query: str = "") -> list[str]:
    async with trio.open_nursery() as nursery:
        client = Client(nursery, node.app, query)
        await client.begin()
        return await rest_of(client)


async def test_lines_of_all_come_in_the_order_of_time() -> None:
    node = Node()
    one, two = node.others
    one.prints("a")
    node.own.prints("b", "c")
    two.prints("d")
    one.prints("e")
    two.prints("other", fn="other")
    node.own.prints("f")
    assert await read_all(node, "fn_id=fn") == list("abcdef")
    assert await read_all(node, "fn_id=fn&lines=3") == list("def")
    assert await read_all(node, "fn_id=other") == ["other"]
    assert await read_all(node, "lines=0") == []


async def test_many_lines_come_in_pieces() -> None:
    node = Node()
    expected = [f"{number}" for number in range(1400)]
    for number in expected:
        [node.own, *node.others][int(number) % 3].prints(number)
    assert await read_all(node) == expected


def print_in_turn(node: Node, count: int) -> list[str]:
    """Many lines, in runs of which some are longer than a page."""
    lines, processes = [f"{number}" for number in range(count)], [node.own, *node.others]
    for number, line in enumerate(lines):
        processes[(number // 1300 + number // 37) % len(processes)].prints(line)
    return lines


@pytest.mark.parametrize("wanted", [None, 1, 1500, 7000, 9000])
async def test_pages_of_several_processes_are_merged(wanted: int | None) -> None:
    node = Node(limit=20 * LIMIT)
    lines = print_in_turn(node, 8000)
    query = "" if wanted is None else f"lines={wanted}"
    assert await read_all(node, query) == lines[-wanted if wanted else 0 :]


async def test_lines_that_go_on_the_way_take_no_others_with_them() -> None:
    """As many lines are shown as there are still."""
    old = [f"o{number:04}" for number in range(6000)]
    new = [f"n{number:04}" for number in range(3000)]
    node = Node(1, limit=20 * LIMIT)
    (other,) = node.others
    other.prints(*old)
    other.tail._limit = other.tail.size  # that is all it has room for
    node.own.prints(*new)
    meanwhile = [3 * MAX_BATCH_LINES * ["x" * len(old[0])]]

    async def ask(question: bytes) -> bytes:
        answer = await other.ask(question)
        other.prints(*(meanwhile.pop() if meanwhile else []))
        return answer

    node.app = tail_app(AggregateTail(node.own.tail, [ask]), node.closing)
    assert await read_all(node, "lines=5000") == ["lost 1000", *old[4000:], *new]


async def test_a_reader_that_takes_nothing_has_a_page_of_each() -> None:
    node = Node(1, limit=20 * LIMIT)
    (other,) = node.others
    lines = print_in_turn(node, 10 * MAX_BATCH_LINES)
    async with trio.open_nursery() as nursery:
        client = Client(nursery, node.app)
        await client.begin()
        await trio.testing.wait_all_tasks_blocked()
        assert other.questions == 1
        found = await rest_of(client)
        assert found == lines
        assert other.questions > 4


async def test_one_that_hangs_on_the_way_takes_no_lines_of_others_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node(1, limit=20 * LIMIT)
    (other,) = node.others
    other.prints(*(f"other {number}" for number in range(2 * MAX_BATCH_LINES)))
    node.own.prints(*(f"own {number}" for number in range(10)))
    other.answers = 1
    found = await read_all(node, "lines=1500")
    assert found[:-10] == [f"other {number}" for number in range(510, 500 + MAX_BATCH_LINES)]
    assert found[-10:] == [f"own {number}" for number in range(10)]
    assert trio.current_time() == pytest.approx(ANSWER_SECONDS)


async def test_one_that_is_started_again_on_the_way_is_read_to_its_new_end() -> None:
    node = Node(1, limit=20 * LIMIT)
    (other,) = node.others
    others, own = ([f"{name} {number}" for number in range(3000)] for name in ("other", "own"))
    other.prints(*others)
    node.own.prints(*own)
    async with trio.open_nursery() as nursery:
        client = Client(nursery, node.app, "lines=5500")
        await client.begin()
        await trio.testing.wait_all_tasks_blocked()
        assert other.questions == 1
        other.start()
        other.prints("new")
        other.answers = 10
        found = await rest_of(client)
    assert found == [*others[500:MAX_BATCH_LINES], *own, "new"]
    assert other.questions == 2


async def test_lost_lines_of_all_are_counted() -> None:
    node = Node(1)
    (other,) = node.others
    async with trio.open_nursery() as nursery:
        client = Client(nursery, node.app, "follow=1")
        await client.begin()
        await trio.testing.wait_all_tasks_blocked()
        # Nothing is read while more comes than is kept.
        for number in range(2000):
            other.prints(f"{number:04}")
        found: list[str] = []
        while "1999" not in found:
            found += await client.piece()
        (lost,) = [line for line in found if line.startswith("lost")]
        lines = [line for line in found if not line.startswith("lost")]
        assert int(lost.split()[1]) + len(lines) == 2000
        client.leave()
        await client.over.wait()


async def test_a_follower_gets_what_any_of_them_prints_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node()
    node.others[0].prints("before")
    async with trio.open_nursery() as nursery:
        client = Client(nursery, node.app, "follow=1&lines=1")
        await client.begin()
        assert await client.piece() == ["before"]
        for process, line in zip([*node.others, node.own], "xyz", strict=True):
            began = trio.current_time()
            process.prints("not asked for", fn="other")
            process.prints(line)
            while not (found := await client.piece()):
                pass
            # (All functions are asked for; two batches may be one.)
            while found[-1] != line:
                found += await client.piece()
            assert found == ["not asked for", line]
            assert trio.current_time() == began
        client.leave()
        await client.over.wait()


async def test_silence_costs_beats_and_few_questions(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node(1)
    async with trio.open_nursery() as nursery:
        client = Client(nursery, node.app, "follow=1")
        await client.begin()
        for beat in range(1, 5):
            for _ in range(2):  # one for each process
                assert await client.piece() == []
            assert trio.current_time() == pytest.approx(beat * WAIT_SECONDS)
        assert node.others[0].questions <= 6
        client.leave()
        await client.over.wait()


async def test_who_does_not_answer_is_left_out(autojump_clock: trio.testing.MockClock) -> None:
    node = Node()
    gone, hanging = node.others
    for process in (node.own, gone, hanging):
        process.prints("line")
    gone.stop()
    hanging.answers = 0
    assert await read_all(node) == ["line"]
    assert trio.current_time() == pytest.approx(ANSWER_SECONDS)


async def test_many_lines_may_take_longer_than_an_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node(1)
    (other,) = node.others
    other.seconds = 0.9 * ANSWER_SECONDS
    other.limit = 1_000_000
    other.start()
    expected = [f"{number}" for number in range(3 * MAX_BATCH_LINES)]
    other.prints(*expected)
    assert await read_all(node) == expected
    assert trio.current_time() == pytest.approx(3 * other.seconds)


async def test_who_prints_faster_than_it_answers_is_read_to_the_end_as_it_was() -> None:
    node = Node(1)
    (other,) = node.others
    other.limit = 1_000_000
    other.start()
    expected = [f"{number}" for number in range(MAX_BATCH_LINES + 1)]
    other.prints(*expected)
    other.meanwhile = ["more"] * MAX_BATCH_LINES
    assert (await read_all(node))[: len(expected)] == expected
    assert other.questions == 2


async def test_one_that_was_started_again_is_followed_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node(1)
    (other,) = node.others
    other.prints("a", "b")
    async with trio.open_nursery() as nursery:
        client = Client(nursery, node.app, "follow=1")
        await client.begin()
        assert await client.piece() == ["a", "b"]
        await trio.testing.wait_all_tasks_blocked()
        other.stop()
        other.tail.wake()
        await trio.sleep(2.5 * AGAIN_SECONDS)
        other.start()
        other.prints("first", "second")
        found: list[str] = []
        while len(found) < 2:
            found += await client.piece()
        assert found == ["first", "second"]
        other.prints("third")
        assert await client.piece() == ["third"]
        client.leave()
        await client.over.wait()


async def test_a_node_that_stops_tells_the_last_lines(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node(1)
    async with trio.open_nursery() as nursery:
        client = Client(nursery, node.app, "follow=1")
        await client.begin()
        await trio.testing.wait_all_tasks_blocked()
        node.closing.set()
        node.own.prints("last")
        found = await rest_of(client)
        assert found == ["last"]


@pytest.mark.parametrize("query", ["follow=1", ""])
async def test_a_process_that_hangs_takes_no_last_lines_with_it(
    autojump_clock: trio.testing.MockClock, query: str
) -> None:
    node = Node(2)
    hanging, other = node.others
    node.own.prints("first")
    other.prints("second")
    hanging.answers = 0
    async with trio.open_nursery() as nursery:
        client = Client(nursery, node.app, query)
        await client.begin()
        await trio.testing.wait_all_tasks_blocked()
        node.closing.set()
        found = await rest_of(client)
        assert found == ["first", "second"]
        assert trio.current_time() == pytest.approx(LAST_ANSWER_SECONDS)


async def test_one_that_hangs_later_takes_no_last_lines_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node(2)
    hanging, other = node.others
    async with trio.open_nursery() as nursery:
        client = Client(nursery, node.app, "follow=1")
        await client.begin()
        await trio.testing.wait_all_tasks_blocked()
        hanging.answers = 0
        node.own.prints("first")
        other.prints("second")
        node.closing.set()
        found = await rest_of(client)
        assert sorted(found) == ["first", "second"]
        assert trio.current_time() == pytest.approx(LAST_ANSWER_SECONDS)


async def test_a_reader_that_stands_still_does_not_keep_it_from_that(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node(1)
    async with trio.open_nursery() as nursery:
        client = Client(nursery, node.app, "follow=1")
        await client.begin()
        node.others[0].prints("unread")
        await trio.testing.wait_all_tasks_blocked()
        node.closing.set()
        await client.over.wait()
        assert trio.current_time() == pytest.approx(LAST_SECONDS)


async def test_refusals_are_those_of_one_process() -> None:
    node = Node(1)
    async with trio.open_nursery() as nursery:
        assert await Client(nursery, node.app, "lines=x").status() == 400
        assert await Client(nursery, node.app, method="POST").status() == 405
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        for _ in range(MAX_READERS):
            await Client(nursery, node.app, "follow=1").begin()
        assert await Client(nursery, node.app).status() == 503
        nursery.cancel_scope.cancel()
