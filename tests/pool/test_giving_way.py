"""An LB leaves places to others whose calls a runner has refused."""

from __future__ import annotations

import trio
import trio.testing
from trio.testing import MockClock

from hostler.abc import NotPlaced, Placed, Runner
from hostler.errors import ServerBusy
from hostler.frames import LoadHint
from hostler.pool import LoadBook, Need
from hostler.pool._ahead import Ahead
from hostler.pool._ladder import Ladder
from hostler.pool._loads import CERTAIN_SECONDS, HOLD_SECONDS, WANTED_SECONDS, WAY_SECONDS
from hostler.pool._room import Room
from hostler.pool._waiter import Turn, Waiter

from .fakes import FakeRunner

FN = Need("fn", memory=100, idle_seconds=30)


def hint(active: int, refused: int) -> LoadHint:
    return LoadHint(active=active, refused=refused, free_cpus=8, free_memory=1000)


def book_of(own: int, *, tells: bool = True) -> LoadBook:
    """Of an LB with ``own`` calls at the runner ``a``, which has refused five calls of others."""
    book = LoadBook()
    for _ in range(own):
        book.begin("a", FN, 0)
    book.note("a", hint(own, 5), 0)
    if not tells:
        book.note("a", None, 0)
    return book


def end_one(book: LoadBook, now: float, others: int, refused: int) -> bool:
    """A call ends and another begins; whether the place was left to others in between. What is told
    of refusals was told a moment earlier as well, so it is certain."""
    own = book._runners["a"].in_flight - 1
    book.note("a", hint(own + 1 + others, refused), now - CERTAIN_SECONDS)
    book.end("a", FN, Placed(load=hint(own + others, refused)), now)
    gives_way = book.gives_way("a", 0, now)
    book.begin("a", FN, now)
    return gives_way


def test_nobody_gives_way_before_others_are_refused() -> None:
    book = book_of(4)
    assert not end_one(book, 1, others=0, refused=5)
    assert end_one(book, 2, others=0, refused=6)
    assert not book.gives_way("b", 0, 2)


def test_own_refusals_are_not_those_of_others() -> None:
    book = book_of(4)
    for number in range(6, 10):
        book.begin("a", FN, 1)
        book.end("a", FN, NotPlaced(ServerBusy(), load=hint(4, number)), 1)
        assert not end_one(book, 1, others=0, refused=number)
    assert end_one(book, 2, others=0, refused=10)


def test_a_refusal_counts_for_a_while() -> None:
    book = book_of(4)
    assert not end_one(book, 1, others=0, refused=5)
    book.note("a", hint(4, 6), 1.5)
    book.note("a", hint(4, 6), 2)
    assert not book.gives_way("a", 0, 2 + WANTED_SECONDS)
    assert end_one(book, 2 + WANTED_SECONDS / 2, others=0, refused=6)


def test_own_refusals_that_are_under_way_are_not_those_of_others() -> None:
    book = book_of(4)
    for step in range(20):
        now, number = step / 10, 6 + step
        book.begin("a", FN, now)
        book.note("a", hint(4, number), now)  # it has overtaken the refusal
        assert not book.gives_way("a", 0, now)
        book.end("a", FN, NotPlaced(ServerBusy(), load=hint(4, number)), now)
        book.note("a", hint(4, number - 1), now)  # which has overtaken this
        assert not book.gives_way("a", 0, now)


def test_only_to_those_who_would_hear_of_it() -> None:
    book = book_of(4, tells=False)
    for now in (1, 2):
        book.end("a", FN, Placed(load=hint(4, 9)), now)
        assert not book.gives_way("a", 0, now)
        book.note("a", hint(3, 9), now)
        book.note("a", None, now)


def test_a_runner_that_starts_again_counts_from_0() -> None:
    book = book_of(4)
    book.note("a", None, 1)
    book.note("a", hint(4, 0), 2)
    assert not end_one(book, 3, others=0, refused=0)
    assert end_one(book, 4, others=0, refused=1)


def test_who_has_more_gives_way_more_often() -> None:
    def count(own: int, others: int) -> int:
        book = book_of(own)
        steps = range(1, 41)  # a step is half the time between two decisions
        return sum(end_one(book, at * WAY_SECONDS / 2, others, 5 + at) for at in steps)

    assert [count(4, 0), count(3, 1), count(2, 2), count(1, 3)] == [20, 15, 10, 5]


def test_what_was_left_to_others_is_not_taken_back_at_once() -> None:
    book = book_of(4)
    assert end_one(book, 1, others=0, refused=6)
    assert book.is_held("a", 1)
    assert book.is_full("a", FN, 1)
    assert not book.has_room("a", FN, 1)
    assert not book.is_held("a", 1 + HOLD_SECONDS)
    assert not book.is_full("a", FN, 1 + HOLD_SECONDS)
    assert book.has_room("a", FN, 1 + HOLD_SECONDS)


def test_who_waits_there_to_be_the_next() -> None:
    ahead = Ahead()
    for _ in range(5):
        ahead.begin("a")
    assert ahead.behind("a") == 0  # nobody may wait there
    ahead.learn("a", 2)
    assert ahead.behind("a") == 3
    for _ in range(4):
        ahead.end("a")
    assert ahead.behind("a") == 0


def test_those_who_wait_at_the_runner_would_take_the_place_and_are_not_followed() -> None:
    book = book_of(4)
    book.note("a", hint(4, 6), 0.5)
    book.note("a", hint(4, 6), 1)
    ways = [book.gives_way("a", 2 - step, 1.0 + step / 10) for step in range(3)]
    assert ways == [True] * 3
    assert not book.gives_way("a", 0, 1.3)
    assert book.is_held("a", 1.2 + HOLD_SECONDS / 2)  # from the last of them on


async def test_a_place_that_is_given_up_is_offered_to_nobody(autojump_clock: MockClock) -> None:
    runner, turns = FakeRunner("a:1"), list[Turn | None]()
    given: list[tuple[str, int]] = []

    def gives_way(runner: Runner, behind: int) -> bool:
        given.append((runner.address, behind))
        return len(given) == 1

    async def wait(number: int) -> None:
        turns.append(await Waiter(line, number, 0.0, 1e9).wait())

    room = Room(lambda: Ladder(1e6, 1e6, lambda: 1.0), gives_way=gives_way)
    with room.line("fn") as line:
        line.ahead.learn(runner.address, 2)
        for _ in range(3):
            line.ahead.begin(runner.address)
        async with trio.open_nursery() as nursery:
            room.freed(runner, line)
            assert given == []  # nobody waits: it is there for all
            for number in range(9):
                nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
            room.freed(runner, line)
            await trio.testing.wait_all_tasks_blocked()
            assert (given, turns) == ([("a:1", 1)], [])
            room.freed(runner, line)
            await trio.testing.wait_all_tasks_blocked()
            assert turns
            assert all(turn is not None and turn.runner is runner for turn in turns)
            nursery.cancel_scope.cancel()
