"""What a placer knows of its runners, and the orders that follow from it."""

from __future__ import annotations

import gc
import itertools
import math
import random
import weakref
from collections import Counter
from fractions import Fraction

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from hostler.abc import NotPlaced, Outcome, Placed
from hostler.config import PlacerConfig
from hostler.errors import FunctionFailed, ServerBusy
from hostler.pool import (
    BoundedPlacer,
    CallNeed,
    LeastLoadedPlacer,
    LoadTracker,
    SweepPlacer,
    WarmPlacer,
    need_of,
)
from hostler.pool.load_tracker import (
    CROSSING_SECONDS,
    FULL_SECONDS,
    HINT_SECONDS,
    MAX_NEEDS,
    IdleIndex,
)
from hostler.pool.orders import load_limit, within
from hostler.pool.runner import outcome_of
from hostler.protocol import MAX_WARM_KEYS, Finished, LoadHint

from .fakes import FakePool, FakeRunner, fresh_metrics, make_call

FN = CallNeed("fn", memory=100, idle_seconds=30)
OTHER = CallNeed("other", memory=100, idle_seconds=30)
BIG = CallNeed("big", memory=1000, idle_seconds=30)
BUSY = NotPlaced(ServerBusy())


def ended(
    book: LoadTracker, outcome: Outcome | None, *, need: CallNeed = FN, now: float = 0
) -> None:
    """A call goes to ``a`` and ends."""
    book.begin("a", need, now)
    book.end("a", need, outcome, now)


def test_own_calls_count_while_they_are_there() -> None:
    book = LoadTracker()
    book.begin("a", FN, 0)
    book.begin("a", OTHER, 0)
    assert (book.load("a", FN, 0), book.load("b", FN, 0)) == (2, 0)
    book.end("a", FN, Placed(), 1)
    book.end("a", OTHER, None, 1)
    assert book.load("a", FN, 1) == 0
    assert book.total(1) == 0


def test_a_foreign_runner_is_warm_where_a_call_ended_well() -> None:
    book = LoadTracker()
    ended(book, Placed(FunctionFailed()))
    assert not book.warm(FN, 0, 9)
    ended(book, Placed())
    assert book.warm(FN, 0, 9) == ["a"]
    assert not book.warm(OTHER, 0, 9)
    book.begin("a", FN, 1)  # it takes the container
    assert not book.warm(FN, 1, 9)
    book.end("a", FN, Placed(), 2)
    assert book.warm(FN, 31.9, 9) == ["a"]
    assert not book.warm(FN, 32, 9)  # it has idled out


def test_a_nack_tells_that_nothing_is_warm_and_that_it_is_full_for_a_while() -> None:
    book = LoadTracker()
    ended(book, Placed())
    ended(book, BUSY)
    assert not book.warm(FN, 0, 9)
    assert book.load("a", FN, 0) == math.inf
    assert book.load("a", FN, FULL_SECONDS) == 0
    ended(book, NotPlaced(ServerBusy(), retry_after=0.25), now=5)
    assert book.load("a", FN, 5.2) == math.inf
    assert book.load("a", FN, 5.25) == 0


def test_a_nack_of_a_big_call_says_nothing_of_a_small_one() -> None:
    book = LoadTracker()
    ended(book, BUSY, need=BIG)
    assert book.load("a", BIG, 0) == math.inf
    assert book.load("a", FN, 0) == 0
    ended(book, BUSY, need=FN)
    ended(book, BUSY, need=BIG)
    assert book.load("a", FN, 0) == math.inf


def test_an_ended_call_makes_room() -> None:
    book = LoadTracker()
    book.begin("a", FN, 0)
    ended(book, BUSY)
    book.end("a", FN, Placed(), 0.1)
    assert book.load("a", FN, 0.1) == 0


def test_hints_are_believed_for_a_while() -> None:
    book = LoadTracker()
    book.begin("a", FN, 0)
    hint = LoadHint(active=5, free_memory=150, slot=b"k", warm={b"k": 2})
    ended(book, Placed(load=hint))
    assert book.load("a", FN, 0) == 5  # ours is one of them
    assert book.warm(FN, 0, 9) == ["a"]
    assert book.has_room("a", FN, 0)
    assert not book.has_room("a", BIG, 0)
    book.begin("a", OTHER, 1)  # starts a container, of which the hint knows nothing
    assert not book.has_room("a", FN, 1)
    later = HINT_SECONDS + 0.1
    assert book.load("a", FN, later) == 2
    assert book.has_room("a", BIG, later)


def test_a_complete_hint_replaces_what_was_known_of_that_runner_only() -> None:
    book = LoadTracker()
    for need, slot in ((FN, b"1"), (OTHER, b"2")):
        hint = LoadHint(slot=slot, warm={slot: 1})
        ended(book, Placed(load=hint), need=need)
    book.begin("b", FN, 0)
    book.end("b", FN, Placed(), 0)
    hint = LoadHint(slot=b"3", warm={b"2": 4, b"unknown": 1}, complete=True)
    book.begin("a", BIG, 0)
    book.end("a", BIG, NotPlaced(ServerBusy(), load=hint), CROSSING_SECONDS)
    assert book.warm(FN, 0, 9) == ["b"]
    assert book.warm(OTHER, 0, 9) == ["a"]
    assert not book.warm(BIG, 0, 9)


def test_a_hint_that_is_full_says_nothing_about_others() -> None:
    book = LoadTracker()
    for need, slot in ((FN, b"1"), (OTHER, b"2")):
        ended(book, Placed(load=LoadHint(slot=slot, warm={slot: 1})), need=need)
    others = {b"x%d" % number: 1 for number in range(MAX_WARM_KEYS - 1)}
    book.note("a", LoadHint(warm={b"1": 3, **others}, complete=True), 0)
    assert (book.warm(FN, 0, 9), book.warm(OTHER, 0, 9)) == (["a"], ["a"])
    assert (book._warm.count("a", FN, 0), book._warm.count("a", OTHER, 0)) == (3, 1)
    book.note("a", LoadHint(warm={b"1": 3}, complete=True), CROSSING_SECONDS)
    assert (book.warm(FN, 0, 9), book.warm(OTHER, 0, 9)) == (["a"], [])


def test_a_list_of_all_containers_may_be_older_than_the_ends_of_other_calls() -> None:
    """Calls that end together are told of in any order."""
    book = LoadTracker()
    ended(book, Placed(load=LoadHint(slot=b"1", warm={b"1": 1})))
    book.note("a", LoadHint(warm={b"2": 1}, complete=True), CROSSING_SECONDS / 2)
    assert book.warm(FN, 0, 9) == ["a"]
    book.note("a", LoadHint(warm={b"2": 1}, complete=True), CROSSING_SECONDS)
    assert book.warm(FN, 0, 9) == []


def test_a_finished_frame_brings_the_hint_and_a_nack_its_advice() -> None:
    hint = LoadHint(active=2, retry_after_ms=250)
    finished = Finished(success=False, error_code=503, load=hint)
    outcome = outcome_of(finished, answered=False)
    assert isinstance(outcome, NotPlaced)
    assert (outcome.load, outcome.retry_after) == (hint, 0.25)
    finished = Finished(success=True, load=hint)
    outcome = outcome_of(finished, answered=True)
    assert outcome == Placed()
    assert outcome.load is hint


def test_what_is_remembered_is_bounded() -> None:
    index = IdleIndex()
    for number in range(MAX_NEEDS + 100):
        need = CallNeed(number, memory=1, idle_seconds=1e9)
        index.learn(b"%d" % number, need)
        index.set("a", need, 1, 0)
        index.set("b", need, 1, 0)
    assert len(index) == 2 * MAX_NEEDS
    assert len(index._digests) == MAX_NEEDS
    index.clear("a")
    index.clear("b")
    assert len(index) == 0
    assert not index._needs


def test_needs_without_a_container_make_no_other_be_forgotten() -> None:
    index = IdleIndex()
    index.set("a", FN, 1, 0)
    for number in range(MAX_NEEDS + 100):
        need = CallNeed(number, memory=1, idle_seconds=30)
        index.set("a", need, 1, 0)
        assert index.take("a", need, 0)
    assert index.count("a", FN, 0) == 1
    assert len(index) == 1
    assert len(index._needs) == MAX_NEEDS


def test_what_a_runner_has_warm_is_kept_once() -> None:
    class Map(dict[bytes, int]):
        """That can be referred to weakly."""

    book, warm = LoadTracker(), Map({b"x": 3})
    book._warm.learn(b"x", FN)
    kept = weakref.ref(warm)
    book.note("a", LoadHint(free_memory=5, warm=warm, complete=True), 0)
    del warm
    gc.collect()
    assert kept() is None
    assert book.warm(FN, 0, 9) == ["a"]
    assert book.room("a", spare_warm=False) == 5


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["set", "take", "replace", "clear"]),
            st.sampled_from("ab"),
            st.integers(0, 2),
            st.integers(0, 3),
            st.floats(0, 20),
        ),
        max_size=50,
    )
)
def test_both_sides_of_the_index_agree(steps: list[tuple[str, str, int, int, float]]) -> None:
    needs = [CallNeed(number, memory=1, idle_seconds=10) for number in range(3)]
    index, now = IdleIndex(), 0.0
    for need in needs[:2]:
        index.learn(b"%d" % need.memory, need)
    for step, address, number, count, pause in steps:
        now += pause
        if step == "set":
            index.set(address, needs[number], count, now)
            assert index.count(address, needs[number], now) == count
        elif step == "take":
            before = index.count(address, needs[number], now)
            assert index.take(address, needs[number], now) == (before > 0)
            assert index.count(address, needs[number], now) == max(0, before - 1)
        elif step == "replace":
            now += CROSSING_SECONDS
            index.replace(address, {b"1": count}, now)
            assert index.count(address, needs[0], now) == 0
        else:
            index.clear(address)
        pairs = {(key, name) for key, names in index._needs.items() for name in names}
        assert pairs == {(key, name) for name, keys in index._runners.items() for key in keys}


@pytest.mark.parametrize(
    ("total", "count", "epsilon", "limit"),
    [(0, 1, 0.25, 2), (0, 10, 0.25, 1), (9, 10, 0.0, 1), (10, 10, 0.0, 2), (99, 10, 0.25, 13)],
)
def test_load_limit(total: int, count: int, epsilon: float, limit: int) -> None:
    assert load_limit(total, count, epsilon) == limit


@given(
    loads=st.lists(st.integers(0, 20), min_size=1, max_size=20),
    percent=st.integers(0, 200),
)
def test_there_is_always_one_under_the_limit(loads: list[int], percent: int) -> None:
    assert min(loads) < load_limit(sum(loads), len(loads), float(Fraction(percent, 100)))


@given(items=st.lists(st.integers(), max_size=20), bit=st.integers(0, 5))
def test_within_keeps_each_once(items: list[int], bit: int) -> None:
    found = list(within(items, lambda item: bool(item >> bit & 1)))
    assert Counter(found) == Counter(items)
    fits = [bool(item >> bit & 1) for item in found]
    assert fits == sorted(fits, reverse=True)


@given(loads=st.lists(st.integers(0, 5), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_the_less_loaded_of_two_comes_first_and_each_once(loads: list[int], seed: int) -> None:
    placer = LeastLoadedPlacer(metrics=fresh_metrics(), rng=random.Random(seed))
    runners, call = make_runners(len(loads)), make_call()

    async def order() -> list[int]:
        for runner, load in zip(runners, loads, strict=True):
            for _ in range(load):
                placer.loads.begin(runner.address, need_of(call), trio.current_time())
        return [int(runner.address[2:]) - 1 for runner in placer.order(call, runners)]

    found = trio.run(order)
    assert sorted(found) == list(range(len(loads)))
    if len(found) > 1:
        assert loads[found[0]] <= loads[found[1]]


def placer_of(kind: type[SweepPlacer], percent: int = 25) -> SweepPlacer:
    config = PlacerConfig(load_spill_percent=percent)
    return kind(config, metrics=fresh_metrics(), rng=random.Random(5))


async def spread(placer: SweepPlacer, runners: list[FakeRunner], functions: int) -> list[int]:
    """Place 60 calls at once; how many each runner got."""
    pool = FakePool(runners)
    async with trio.open_nursery() as nursery:
        for number in range(60):
            call = make_call(f"c{number}", fn_id=f"fn{number % functions}")
            nursery.start_soon(placer.place_call, pool, call)
            await trio.sleep(0.001)
    return [len(runner.order) for runner in runners]


def make_runners(count: int = 6) -> list[FakeRunner]:
    return [FakeRunner(f"r:{number}", slots=1000, seconds=10) for number in range(1, count + 1)]


async def test_bounded_spreads_the_calls_of_one_function(autojump_clock: MockClock) -> None:
    runners = make_runners()
    counts = await spread(placer_of(BoundedPlacer), runners, functions=1)
    assert max(counts) <= load_limit(59, 6, 0.25)
    assert all(sum(runner.attempts.values()) == len(runner.order) for runner in runners)


async def test_bounded_keeps_functions_apart(autojump_clock: MockClock) -> None:
    counts = await spread(placer_of(BoundedPlacer, 10_000), make_runners(), functions=1)
    assert sorted(counts) == [0, 0, 0, 0, 0, 60]


async def test_least_loaded_is_more_even_than_chance(autojump_clock: MockClock) -> None:
    counts = await spread(placer_of(LeastLoadedPlacer), make_runners(), functions=20)
    assert max(counts) - min(counts) <= 4  # by chance alone it is about 8


async def test_warm_goes_back_where_the_container_is(autojump_clock: MockClock) -> None:
    """Whatever else the placer knows of loads."""
    runners = make_runners()
    placer, pool = placer_of(WarmPlacer), FakePool(runners)
    calls = [make_call(f"c{number}", fn_id="fn") for number in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(placer.place_call, pool, calls[0])
    first = calls[0].runner_address
    async with trio.open_nursery() as nursery:
        for number in range(20):  # of others, to make that one busy
            other = make_call(f"o{number}", fn_id=f"other{number}")
            nursery.start_soon(placer.place_call, FakePool(_only(runners, first)), other)
        await trio.sleep(1)
        nursery.start_soon(placer.place_call, pool, calls[1])
        await trio.sleep(1)
        nursery.start_soon(placer.place_call, pool, calls[2])
    assert calls[1].runner_address == first
    assert calls[2].runner_address != first  # there was one container


def _only(runners: list[FakeRunner], address: str) -> list[FakeRunner]:
    return [runner for runner in runners if runner.address == address]


@pytest.mark.parametrize("kind", [BoundedPlacer, WarmPlacer, LeastLoadedPlacer])
async def test_a_runner_that_refused_is_not_tried_first_for_a_while(
    autojump_clock: MockClock, kind: type[SweepPlacer]
) -> None:
    runners = [FakeRunner("full:1", slots=0), FakeRunner("free:1", slots=1000)]
    placer, pool = placer_of(kind), FakePool(runners)
    for number, pause in itertools.product(range(20), (0.0, 0.02)):
        await trio.sleep(pause)
        await placer.place_call(pool, make_call(f"{number}", fn_id=f"fn{number % 3}"))
    # Calls take a second: what was learned of a NACK is just out of date then.
    assert len(runners[0].attempts) <= 40
    runners[1].seconds = 0.001
    before = sum(runners[0].attempts.values())
    for number in range(50):
        await placer.place_call(pool, make_call(f"{number}", fn_id="fn1"))
    assert sum(runners[0].attempts.values()) - before <= 1
