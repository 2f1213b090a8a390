"""Random loads on the placers, and the ladder of a line by itself."""

from __future__ import annotations

import itertools
import random

import attrs
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from hostler.config import PlacerConfig
from hostler.errors import ServerBusy
from hostler.pool import SweepPlacer
from hostler.pool.orders import ring
from hostler.pool.waiting_room import MAX_WIDTH, RetryBackoff

from .fakes import FakePool, FakeRunner, fresh_metrics, make_call
from .placers import KINDS, Steady, is_idle

PLACER_SECONDS = 8.0


@attrs.frozen
class Arrival:
    at: float
    fn: int
    gives_up_after: float


@attrs.frozen
class Load:
    arrivals: list[Arrival]
    slots: list[int]
    seconds: float
    grows_at: float
    closes_at: float


times = st.floats(0, 5).map(lambda value: round(value, 2))
loads = st.builds(
    Load,
    arrivals=st.lists(
        st.builds(
            Arrival,
            at=times,
            fn=st.integers(0, 3),
            gives_up_after=st.one_of(st.just(1000.0), times),
        ),
        max_size=25,
    ),
    slots=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    seconds=st.sampled_from([0.0, 0.02, 0.5, 3.0]),
    grows_at=times,
    closes_at=st.one_of(st.just(1000.0), times),
)


@settings(max_examples=100)
@given(load=loads, kind=st.sampled_from(KINDS))
def test_every_call_has_exactly_one_end_in_time_and_nothing_is_left(
    load: Load, kind: type[SweepPlacer]
) -> None:
    ends: dict[str, str] = {}

    async def submit(placer: SweepPlacer, pool: FakePool, name: str, arrival: Arrival) -> None:
        await trio.sleep(arrival.at)
        end = "cancelled"
        with trio.move_on_after(arrival.gives_up_after):
            try:
                await placer.place_call(pool, make_call(name, fn_id=f"fn{arrival.fn}"))
                end = "ran"
            except ServerBusy:
                end = "busy"
                closed = trio.current_time() >= load.closes_at
                assert closed or trio.current_time() >= arrival.at + PLACER_SECONDS - 1e-6
        ends[name] = end

    async def main() -> None:
        runners = [
            FakeRunner(f"r:{number}", slots=slots, seconds=load.seconds)
            for number, slots in enumerate(load.slots, 1)
        ]
        config = PlacerConfig(placer_timeout=PLACER_SECONDS)
        placer = kind(config, metrics=fresh_metrics(), rng=random.Random(3))
        pool = FakePool(runners)
        async with trio.open_nursery() as nursery:
            for index, arrival in enumerate(load.arrivals):
                nursery.start_soon(submit, placer, pool, f"c{index}", arrival)
            await trio.sleep(load.grows_at)
            runners[0].slots += 2  # by somebody else's doing: nobody tells the placer
            await trio.sleep_until(load.closes_at)
            placer.close()
        assert len(ends) == len(load.arrivals)
        started = [name for runner in runners for name in runner.order]
        assert len(started) == len(set(started))  # nothing ran twice
        assert {name for name, end in ends.items() if end == "ran"} <= set(started)
        assert not any(runner.active for runner in runners)
        assert is_idle(placer)
        if load.closes_at == 1000.0 and load.seconds <= 0.02:
            assert "busy" not in ends.values()  # there was room from ``grows_at`` on

    trio.run(main, clock=MockClock(autojump_threshold=0))


def straight(base: float = 0.01, limit: float = 0.5) -> RetryBackoff:
    return RetryBackoff(base, limit, Steady())


def test_refusals_double_the_pause_up_to_the_limit() -> None:
    backoff, now, pauses = straight(), 0.0, []
    backoff.begin(now)
    for _ in range(9):
        pauses.append(round(backoff.next_at - now, 3))
        now = backoff.next_at
        assert backoff.step(now) == 1
        backoff.refuse(now)
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5]


def test_steps_that_are_not_refused_become_short_and_wide() -> None:
    backoff = straight()
    backoff.begin(0.0)
    for _ in range(9):
        now = backoff.next_at
        backoff.step(now)
        backoff.refuse(now)
    now = backoff.next_at
    widths = [backoff.step(now)]
    for _ in range(6):
        now = backoff.next_at
        widths.append(backoff.step(now))
    assert widths == [1, 2, 4, 8, MAX_WIDTH, MAX_WIDTH, MAX_WIDTH]
    assert round(backoff.next_at - now, 3) == 0.01
    backoff.refuse(now)
    backoff.refuse(now)
    assert round(backoff.next_at - now, 3) == 0.02  # the refusals of one step count once
    assert backoff.step(backoff.next_at) == 1


def test_a_runners_hint_is_the_least_pause() -> None:
    backoff = straight()
    backoff.begin(0.0)
    backoff.step(backoff.next_at)
    backoff.refuse(1.0, hint=15.0)
    assert backoff.next_at == 16.0


def test_old_experience_counts_until_its_next_step() -> None:
    backoff = straight()
    backoff.begin(0.0)
    for _ in range(6):
        now = backoff.next_at
        backoff.step(now)
        backoff.refuse(now)
    due = backoff.next_at
    backoff.begin(due - 0.1)
    assert backoff.next_at == due
    backoff.begin(due + 5)
    assert backoff.next_at == due + 5 + 0.01


@given(
    events=st.lists(st.tuples(st.sampled_from("brsl"), st.floats(0, 2)), max_size=60),
    factor=st.floats(0.75, 1.25),
)
def test_a_ladder_always_has_a_step_ahead_and_never_hurries(
    events: list[tuple[str, float]], factor: float
) -> None:
    backoff = RetryBackoff(0.01, 0.5, Steady(factor))
    now = 0.0
    backoff.begin(now)
    for event, pause in events:
        now += pause
        if event == "b":
            backoff.begin(now)
        elif event == "r":
            backoff.refuse(now)
        elif event == "l":
            backoff.lose(now)
        elif now >= backoff.next_at:
            assert 1 <= backoff.step(now) <= 2 * MAX_WIDTH
            assert backoff.next_at >= now + 0.01 * factor - 1e-9
        assert 0.01 <= backoff.interval <= 0.5
        assert backoff.next_at <= now + 0.5 * factor + 1e-9


@given(count=st.integers(0, 50), first=st.integers(0, 10**9))
def test_a_sweep_visits_each_once_in_ring_order(count: int, first: int) -> None:
    visited = list(ring(range(count), first % max(count, 1)))
    assert sorted(visited) == list(range(count))
    for before, after in itertools.pairwise(visited):
        assert after == (before + 1) % count
    if count:
        assert visited[0] == first % count
