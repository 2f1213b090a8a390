"""The predictive policy, on a clock of its own."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.config import AgentConfig
from hostler.contrib.predictive_keep_alive import (
    FUNCTIONS,
    GHOSTS,
    LEVELS,
    LONGEST,
    PredictiveKeepAlive,
    _step,
)
from hostler.errors import ConfigError
from hostler.keep_alive import FixedKeepAlive, make_keep_alive
from hostler.testing import FakeContainer

MIB = 2**20


@attrs.define
class Function:
    """A function that is called one call at a time, and its container."""

    policy: PredictiveKeepAlive
    key: Hashable = "f"
    memory: int = 128 * MIB
    container: FakeContainer | None = None
    cold: int = 0
    ahead: int = 0

    def look(self, now: float) -> None:
        """What an agent does as time passes; ``now`` must not be far away."""
        held = self.container
        if held is not None and self.policy.keep_until(held, now) <= now:
            self.container = None
            self.policy.left(held, now, early=False)
        for key in self.policy.starts(now):
            assert key == self.key
            assert self.container is None
            self.ahead += 1
            self._idle(FakeContainer(key=self.key, memory=self.memory, ahead=True), now)

    def _idle(self, container: FakeContainer, now: float) -> None:
        container.idle_since = now
        self.container = container
        self.policy.became_idle(container, now)

    def call(self, now: float) -> None:
        """A call that is over at once."""
        held = self.container
        if held is None:
            self.cold += 1
            self.policy.missed(self.key, now)
            held = FakeContainer(key=self.key, memory=self.memory)
        else:
            self.policy.taken(held, now)
        held.ahead = False
        self._idle(held, now)

    def call_at(self, *times: float, step: float = 1.0) -> None:
        """Calls at ``times``, and looks in between."""
        now = 0.0 if self.container is None else self.container.idle_since
        for at in times:
            while now + step < at:
                now += step
                self.look(now)
            now = at
            self.call(at)


def generous() -> PredictiveKeepAlive:
    """With memory to wait for a call of which it is only known when it comes within a fifth."""
    return PredictiveKeepAlive(AgentConfig(keep_alive_percent=400))


def test_without_a_past_the_idle_timeout_counts() -> None:
    function = Function(PredictiveKeepAlive())
    function.call(100.0)
    assert function.container is not None
    assert function.policy.keep_until(function.container, 100.0) == 130


def test_a_regular_function_gets_its_container_just_before_its_calls() -> None:
    function = Function(generous())
    function.call_at(*[300.0 * number for number in range(1, 41)])
    assert function.cold <= 4
    assert function.ahead >= 36


def test_a_busy_function_keeps_its_container() -> None:
    rng = random.Random(1)
    function = Function(PredictiveKeepAlive())
    times, now = [], 0.0
    for _ in range(300):
        now += rng.expovariate(1 / 5)
        times.append(now)
    function.call_at(*times)
    assert function.cold <= 3
    assert function.ahead == 0


def test_a_container_that_came_ahead_in_vain_goes_and_is_not_started_again() -> None:
    function = Function(generous())
    function.call_at(*[300.0 * number for number in range(1, 21)])
    before = function.ahead
    for second in range(6000, 20000):
        function.look(float(second))
    assert function.ahead == before + 1
    assert function.container is None
    assert function.policy.next_start() == math.inf


def test_the_big_and_the_seldom_are_evicted_first() -> None:
    policy = PredictiveKeepAlive()
    often, seldom = Function(policy, "often"), Function(policy, "seldom")
    big = Function(policy, "big", 1024 * MIB)
    often.call_at(*[float(number) for number in range(50)], step=100)
    big.call_at(*[float(number) for number in range(50)], step=100)
    seldom.call_at(*[20.0 * number for number in range(4)], step=100)
    seldom_rank, big_rank, often_rank = (
        policy.rank(one.container, one.container.idle_since + 0.1)
        for one in (seldom, big, often)
        if one.container is not None
    )
    assert often_rank == pytest.approx(8 * big_rank)
    assert often_rank > 4 * seldom_rank
    assert often.container is not None
    assert policy.rank(often.container, 61.0) < seldom_rank  # it was to come long ago


def test_an_ended_gap_is_noted_also_when_the_container_was_evicted() -> None:
    policy = PredictiveKeepAlive()
    function = Function(policy)
    for number in range(4):
        function.call(1000.0 * number)
        container, function.container = function.container, None
        assert container is not None
        policy.left(container, 1000.0 * number + 1, early=True)
    assert policy._functions["f"].gaps[1].total == 3
    assert function.cold == 4


def test_the_third_container_has_a_rhythm_of_its_own() -> None:
    policy = PredictiveKeepAlive()
    first = FakeContainer(level=1)
    third = FakeContainer(level=3)
    for minute in range(60):
        third.idle_since = 60.0 * minute
        policy.became_idle(third, third.idle_since)
        for second in range(59):
            first.idle_since = 60.0 * minute + second
            policy.became_idle(first, first.idle_since)
            policy.taken(first, first.idle_since + 1)
        policy.taken(third, 60.0 * (minute + 1))
    gaps = policy._functions["f"].gaps
    assert gaps[1].worth(0.0) > 20 * gaps[3].worth(0.0)
    assert gaps[3].total == 60


@given(st.lists(st.integers(1, 10**6)))
def test_levels_are_bounded(levels: list[int]) -> None:
    steps = [_step(level) for level in sorted(levels)]
    assert steps == sorted(steps)
    assert all(1 <= step <= LEVELS for step in steps)
    assert [_step(level) for level in range(1, 17)] == list(range(1, 17))


def test_what_is_known_is_bounded() -> None:
    policy = PredictiveKeepAlive()
    now = 0.0
    for number in range(FUNCTIONS + 500):
        container = FakeContainer(key=number)
        now += 1
        container.idle_since = now
        policy.became_idle(container, now)
        policy.left(container, now, early=True)
    assert len(policy._functions) == FUNCTIONS
    for _ in range(3 * GHOSTS):
        now += 1
        container = FakeContainer(idle_since=now)
        policy.became_idle(container, now)
        policy.left(container, now, early=True)
    assert len(policy._functions["f"].ghosts) == GHOSTS
    container = FakeContainer(idle_since=now + 2 * LONGEST)
    policy.became_idle(container, now + 2 * LONGEST)
    policy.left(container, now + 2 * LONGEST, early=True)
    assert len(policy._functions["f"].ghosts) == 1
    assert not policy._ahead


def test_plans_that_came_to_nothing_are_dropped() -> None:
    policy = PredictiveKeepAlive()
    function = Function(policy)
    function.call_at(*[300.0 * number for number in range(1, 21)])
    assert function.container is not None
    now = 6000.0
    for _ in range(4 * FUNCTIONS):
        now += 60
        function.look(now)
        function.call(now)
    assert len(policy._planned) <= FUNCTIONS + 2 * (policy._due + 1)


def test_policies_have_names() -> None:
    assert isinstance(make_keep_alive(AgentConfig()), FixedKeepAlive)
    config = AgentConfig(keep_alive="predictive", keep_alive_percent=50)
    made = make_keep_alive(config)
    assert isinstance(made, PredictiveKeepAlive)
    assert repr(made).startswith("<PredictiveKeepAlive functions=0 planned=0 <MemoryPrice 0 ")
    with pytest.raises(ConfigError, match="FN_KEEP_ALIVE='lru': takes fixed, predictive or module"):
        make_keep_alive(AgentConfig(keep_alive="lru"))
