"""What lets a placer find its way among many runners and lines, against the plain way to do it."""

from __future__ import annotations

import math
import random

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from hostler.abc import NotPlaced, Placed, Runner
from hostler.config import PlacerConfig
from hostler.errors import ServerBusy
from hostler.pool import CallNeed, LoadTracker, StaticPool, WarmPlacer
from hostler.pool.load_tracker import FreeMemoryIndex
from hostler.pool.placer import PROBES
from hostler.pool.runner_set import MAX_SETS, NEAR, RunnerSet, RunnerSets
from hostler.pool.waiting_room import CallQueue, QueuedCall, RetryBackoff
from hostler.protocol import LoadHint

from .fakes import FakeRunner, TellingPool, fresh_metrics, make_call
from .placers import Steady, make_room, ranking

FN = CallNeed("fn", memory=100, idle_seconds=30)
MIB = 2**20
sizes = st.one_of(st.integers(-5, 40), st.integers(0, 2**40))


def runners_of(count: int) -> tuple[Runner, ...]:
    return tuple(FakeRunner(f"r{number}:1") for number in range(count))


@given(
    steps=st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | sizes), max_size=40),
    asked=st.integers(1, 2**40) | st.integers(1, 50),
    count=st.integers(1, 8),
)
def test_the_index_finds_those_with_enough(
    steps: list[tuple[str, int | None]], asked: int, count: int
) -> None:
    index, known = FreeMemoryIndex(), dict[str, int]()
    for address, memory in steps:
        if memory is None:
            index.drop(address)
            known.pop(address, None)
        else:
            index.put(address, memory)
            known[address] = memory
    enough = {address for address, memory in known.items() if memory >= asked}
    found = index.some(asked, count, random.Random(1))
    assert len(found) == len(set(found)) <= count
    assert all(known[address] * 1.25 >= asked for address in found)  # about as much at least
    if len(found) < count:
        assert enough <= set(found)  # then these are all
    if enough:
        assert index.may_have(asked)
    if index.may_have(asked):
        assert max(known.values()) * 1.25 >= asked


def test_the_index_prefers_the_tightest_and_spreads_over_equals() -> None:
    index, rng = FreeMemoryIndex(), random.Random(1)
    for number in range(100):
        index.put(f"tight{number}", 130)
        index.put(f"wide{number}", 1000)
    firsts = {index.some(120, 1, rng)[0] for _ in range(200)}
    assert all(name.startswith("tight") for name in firsts)
    assert len(firsts) > 50
    assert index.some(500, 1, rng)[0].startswith("wide")


@given(
    steps=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 10**6)), max_size=60)
)
def test_the_full_lines_are_in_order_of_their_heads(steps: list[tuple[int, bool, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trio.current_time", lambda: 0.0)
        _check_order(steps)


def _check_order(steps: list[tuple[int, bool, int]]) -> None:
    room = make_room(0.01, 0.5)
    full_queues = room.full_queues
    lines = [CallQueue(room, RetryBackoff(0.01, 0.5, Steady())) for _ in range(4)]
    standing: dict[CallQueue, list[QueuedCall]] = {line: [] for line in lines}
    for line in lines:
        line.full = True
    tickets = set[int]()
    for which, comes, number in steps:
        line = lines[which]
        if comes and number not in tickets:
            tickets.add(number)
            waiter = QueuedCall(line, number, 0.0, math.inf)
            line.join(waiter)
            line.full = True
            full_queues.note(line)
            standing[line].append(waiter)
        elif standing[line]:
            line.leave(standing[line].pop(number % len(standing[line])))
        heads = {
            line: min(w.ticket for w in waiters) for line, waiters in standing.items() if waiters
        }
        assert list(full_queues) == sorted(heads, key=heads.__getitem__)
        assert room.waiting == sum(map(len, standing.values()))
        assert all((line in full_queues) == (line in heads) for line in lines)
        assert (full_queues.head is None) == (not heads)


@given(key=st.text(max_size=5), count=st.integers(0, 60))
def test_a_fleet_knows_each_functions_order(key: str, count: int) -> None:
    runners = runners_of(count)
    fleet = RunnerSet(runners)
    order = [runners[index] for index in ranking(key, [one.address for one in runners])]
    assert list(fleet.near(key)) == order[:NEAR]
    for _ in range(2):  # found out, and remembered
        assert list(fleet.preferred(key)) == order
    assert all(fleet.find(one.address) is one for one in runners)


def test_runners_with_the_same_address_are_all_in_the_order() -> None:
    one, other = FakeRunner("same:1"), FakeRunner("same:1")
    fleet = RunnerSet((one, other))
    assert list(fleet.preferred("fn")) == [one, other]
    assert fleet.find("same:1") is one


def test_lists_that_come_again_are_recognised() -> None:
    runners = runners_of(3)
    runner_sets = RunnerSets()
    assert runner_sets.of(runners) is runner_sets.of(list(runners))
    some = runner_sets.of(runners[:2])
    assert runner_sets.of(runners[:2]) is some is not runner_sets.of(runners)
    for number in range(MAX_SETS):
        runner_sets.of(runners_of(number))
    assert len(runner_sets._sets) == MAX_SETS


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["begin", "end", "nack", "tell", "silent", "wait"]),
            st.sampled_from("abc"),
            st.integers(0, 4),
        ),
        max_size=60,
    )
)
def test_the_books_sums_are_those_of_its_runners(steps: list[tuple[str, str, int]]) -> None:
    book, now, under_way = LoadTracker(), 0.0, dict.fromkeys("abc", 0)
    for step, address, number in steps:
        load = LoadHint(active=number, free_memory=50 * number, free_cpus=8)
        if step == "begin":
            book.begin(address, FN, now)
            under_way[address] += 1
        elif step in ("end", "nack") and under_way[address]:
            under_way[address] -= 1
            outcome = Placed(load=load) if step == "end" else NotPlaced(ServerBusy(), load=load)
            book.end(address, FN, outcome, now)
        elif step == "tell":
            book.note(address, load, now)
        elif step == "silent":
            book.note(address, None, now)
        else:
            now += 4 * number
        known = book._runners
        assert book.total(now) == sum(runner.calls(now) for runner in known.values())
        telling = {name for name, one in known.items() if one.reports_all}
        assert book.all_report(telling)
        assert not book.all_report(telling | {"other"})
        if book.all_full(FN, now):
            assert all(book.is_full(name, FN, now) for name in telling)
        spare = set(book.spare(FN, 9, random.Random(1)))
        assert {
            name
            for name, one in known.items()
            if one.hint is not None and book.has_room(name, FN, now) and one.left() >= FN.memory
        } <= spare


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runners of which it was asked whether they are full."""
    asked: list[str] = []
    is_full = LoadTracker.is_full

    def counted(
        self: LoadTracker, address: str, need: CallNeed, now: float, *, spare_warm: bool = False
    ) -> bool:
        asked.append(address)
        return is_full(self, address, need, now, spare_warm=spare_warm)

    monkeypatch.setattr(LoadTracker, "is_full", counted)
    return asked


def hint(free: int) -> LoadHint:
    return LoadHint(active=4, free_memory=free * MIB, free_cpus=1000, complete=True)


async def test_the_only_runner_with_room_is_found_without_a_look_at_all(asked: list[str]) -> None:
    runners = tuple(FakeRunner(f"r{number}:1", seconds=0) for number in range(300))
    placer = WarmPlacer(PlacerConfig(), metrics=fresh_metrics(), rng=random.Random(1))
    for runner in runners:
        placer.loads.note(runner.address, hint(512 if runner is runners[123] else 0), 0)
    call = make_call(memory=256)
    await placer.place_call(StaticPool(runners), call)
    assert (call.runner_address, call.attempts, asked) == ("r123:1", 1, ["r123:1"])


async def test_where_all_are_full_none_is_asked_for(
    autojump_clock: MockClock, asked: list[str]
) -> None:
    fakes = [FakeRunner(f"r{number}:1", slots=0, seconds=0) for number in range(300)]
    runners: list[Runner] = [*fakes]
    placer = WarmPlacer(PlacerConfig(), metrics=fresh_metrics(), rng=random.Random(1))
    pool, call = TellingPool(runners), make_call(memory=256)
    pool.add_load_listener(placer)
    for runner in runners:
        pool.news.tell(runner, hint(0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(placer.place_call, pool, call)
        await trio.sleep(
            0.1
        )  # but two are tried, as with other load balancers it has to wait there
        assert (placer.statistics().waiting, call.attempts, asked) == (1, PROBES, [])
        fakes[7].slots = 1
        pool.news.tell(runners[7], hint(512))
    assert (call.runner_address, call.attempts) == ("r7:1", PROBES + 1)


async def test_a_runner_that_says_nothing_is_tried_beside_full_ones() -> None:
    runners = tuple(FakeRunner(f"r{number}:1", seconds=0) for number in range(30))
    placer = WarmPlacer(PlacerConfig(), metrics=fresh_metrics(), rng=random.Random(1))
    for runner in runners[1:]:
        placer.loads.note(runner.address, hint(0), 0)
    call = make_call(memory=256)
    await placer.place_call(StaticPool(runners), call)
    assert (call.runner_address, call.attempts) == ("r0:1", 1)
