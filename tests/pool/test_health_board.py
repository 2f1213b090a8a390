"""The judgements on runners: tables, and a state machine that random histories drive."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hostler.config import PoolConfig
from hostler.pool.health import FIRST_SHARE, MIN_SAMPLES, HealthChange, HealthTracker

from .fakes import HealthChanges

CONFIG = PoolConfig(eject_failures=3, eject_faults=5, eject_interval=10, slow_start=4)


def board(*names: str, config: PoolConfig = CONFIG) -> tuple[HealthTracker, HealthChanges]:
    changes = HealthChanges()
    made = HealthTracker(config, changes)
    for name in names:
        made.join(name)
    return made, changes


def test_failures_in_a_row_eject_and_an_answer_brings_back() -> None:
    health, changes = board("a", "b")
    for now in (1, 2, 3):
        assert health.share("a", now) == 1
        health.failed("a", now, "refused")
    assert health.share("a", 3) == 0
    assert health.share("a", 1e9) == 0  # until it is reached
    health.reached("a", 100)
    assert health.share("a", 100) == pytest.approx(FIRST_SHARE)
    assert health.share("a", 102) == pytest.approx((1 + FIRST_SHARE) / 2)
    assert health.share("a", 104) == 1
    assert health.all_sound
    assert changes == [
        HealthChange("a", "ejected", "refused", "unreachable"),
        HealthChange("a", "back", "it answers"),
    ]


def test_a_slow_start_ends_on_time_however_times_are_rounded() -> None:
    health, _ = board("a")
    for step in range(1, 200):
        back = 0.1 * step
        health.says("a", back, serving=False)
        health.says("a", back, serving=True)
        assert health.share("a", back + CONFIG.slow_start) == 1


def test_a_failure_now_and_then_is_nothing() -> None:
    health, changes = board("a", "b")
    for now in range(30):
        health.failed("a", now, "refused")
        health.failed("a", now, "refused")
        health.reached("a", now)
    assert not changes


def test_faults_eject_for_a_time_that_grows() -> None:
    health, _ = board("a", "b")
    now = 0.0
    for seconds in (10, 20, 30, 40, 50, 60, 60):
        for _ in range(5):
            health.faulted("a", now, "code 0")
        health.reached("a", now)
        assert health.share("a", now + seconds - 0.01) == 0
        now += seconds
        assert health.share("a", now) == pytest.approx(FIRST_SHARE)
    now += 61  # long ago
    for _ in range(5):
        health.faulted("a", now, "code 0")
    assert health.share("a", now + 10) == pytest.approx(FIRST_SHARE)


@pytest.mark.parametrize(
    ("count", "share", "limit"),
    [(1, 1.0, 0), (2, 0.0, 0), (2, 0.1, 1), (2, 1.0, 1), (4, 0.5, 2), (5, 0.5, 2), (10, 1.0, 9)],
)
def test_the_share_that_may_be_ejected(count: int, share: float, limit: int) -> None:
    names = [str(number) for number in range(count)]
    health, _ = board(*names, config=PoolConfig(eject_failures=1, eject_share=share))
    for name in names:
        health.failed(name, 0, "refused")
    assert health.limit == health.ejected == limit


def test_leaving_runners_bring_others_back() -> None:
    health, changes = board("a", "b", "c", "d", config=PoolConfig(eject_failures=1))
    health.failed("a", 1, "refused")
    health.failed("b", 2, "refused")
    health.leave("c")
    assert (health.share("a", 3), health.share("b", 3)) == (1, 0)
    assert changes[-1] == HealthChange("a", "back", "too few others are left")


def test_its_own_word_needs_no_room_and_no_proof() -> None:
    health, changes = board("a")
    health.says("a", 1, serving=True)
    assert not changes
    health.says("a", 2, serving=False)
    health.says("a", 3, serving=False)
    assert (health.share("a", 3), health.refuses("a"), health.ejected) == (0, True, 0)
    health.says("a", 4, serving=True)
    assert health.share("a", 4) == pytest.approx(FIRST_SHARE)
    assert [change.kind for change in changes] == ["refuses", "back"]


def test_a_word_holds_as_long_as_it_can_be_renewed() -> None:
    health, changes = board("a")
    health.says("a", 1, serving=False)
    health.fell_silent("a", 2)
    health.fell_silent("a", 3)
    assert health.share("a", 2) == pytest.approx(FIRST_SHARE)
    assert changes[1:] == [HealthChange("a", "back", "it tells no more")]


def test_one_that_refuses_and_is_ejected_needs_both_to_end() -> None:
    health, _ = board("a", "b", config=PoolConfig(eject_faults=1, eject_interval=10))
    health.faulted("a", 0, "x")
    health.says("a", 1, serving=False)
    assert health.share("a", 11) == 0
    health.says("a", 12, serving=True)
    assert health.share("a", 12) == pytest.approx(FIRST_SHARE)


def feed(health: HealthTracker, name: str, now: float, overhead: float, count: int) -> None:
    for _ in range(count):
        health.succeeded(name, now, overhead)


def test_one_far_slower_than_the_others_is_ejected() -> None:
    health, changes = board("a", "b", "c")
    for name in "bc":
        feed(health, name, 0, 0.05, MIN_SAMPLES)
    feed(health, "a", 1, 1.2, MIN_SAMPLES)
    assert changes == [HealthChange("a", "ejected", "1.2 s where others take less", "slow")]
    assert health.share("a", 10.9) == 0
    assert health.share("a", 11) == pytest.approx(FIRST_SHARE)


@pytest.mark.parametrize(
    ("own", "others", "count", "names"),
    [
        (1.2, 0.05, MIN_SAMPLES - 1, "abc"),  # too few samples
        (1.2, 0.05, MIN_SAMPLES, "ab"),  # who is the odd one?
        (0.9, 0.05, MIN_SAMPLES, "abc"),  # under the floor
        (1.2, 0.2, MIN_SAMPLES, "abc"),  # all are slow
    ],
)
def test_slow_is_relative(own: float, others: float, count: int, names: str) -> None:
    health, changes = board(*names)
    for name in names[1:]:
        feed(health, name, 0, others, MIN_SAMPLES)
    feed(health, "a", 1, own, count)
    assert not changes


def test_a_few_slow_calls_are_no_slow_runner() -> None:
    """Cold starts."""
    health, changes = board("a", "b", "c")
    for name in "bc":
        feed(health, name, 0, 0.05, MIN_SAMPLES)
    for number in range(60):
        feed(health, "a", 1 + number, 5.0 if number % 3 == 0 else 0.05, 4)
        feed(health, "b", 1 + number, 0.05, 4)
        feed(health, "c", 1 + number, 0.05, 4)
    assert not changes


def test_strangers_are_nobodys_business() -> None:
    health, changes = board("a", "b")
    health.leave("a")
    health.failed("a", 0, "x")
    health.faulted("a", 0, "x")
    health.succeeded("a", 0, 1)
    health.says("a", 0, serving=False)
    health.leave("a")
    assert (changes, health.share("a", 0), health.cause("a")) == ([], 1, None)


NAMES = st.sampled_from("abcdef")


class Histories(RuleBasedStateMachine):
    """Whatever happens: the limit holds, NACKs are harmless, and everybody comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.members: set[str] = set()
        self.away: dict[str, HealthChange] = {}
        self.lost: set[str] = set()
        """Unreachable runners that were not ejected for that."""
        self.health = HealthTracker(CONFIG, self)

    def note_health(self, change: HealthChange) -> None:
        assert change.key in self.members
        if change.kind == "unreachable":
            assert change.key not in self.lost
            self.lost.add(str(change.key))
        elif change.kind == "reachable":
            self.lost.remove(str(change.key))
        elif change.kind != "back":
            self.away[str(change.key)] = change
        else:
            assert self.away.pop(str(change.key), None), "back without having been away"

    @rule(name=NAMES)
    def join(self, name: str) -> None:
        if name not in self.members:
            self.members.add(name)
            self.health.join(name)
            assert self.health.share(name, self.now) == 1

    @rule(name=NAMES)
    def leave(self, name: str) -> None:
        self.members.discard(name)
        self.away.pop(name, None)
        self.lost.discard(name)
        self.health.leave(name)

    @rule(name=NAMES, count=st.integers(1, 6))
    def fail(self, name: str, count: int) -> None:
        for _ in range(count):
            self.health.failed(name, self.now, "refused")

    @rule(name=NAMES, count=st.integers(1, 8))
    def fault(self, name: str, count: int) -> None:
        for _ in range(count):
            self.health.faulted(name, self.now, "code 0")

    @rule(name=NAMES, overhead=st.sampled_from([0.001, 0.02, 3.0]), count=st.integers(1, 40))
    def succeed(self, name: str, overhead: float, count: int) -> None:
        feed(self.health, name, self.now, overhead, count)

    @rule(name=NAMES, serving=st.booleans())
    def say(self, name: str, serving: bool) -> None:
        self.health.says(name, self.now, serving=serving)
        assert self.health.refuses(name) is (name in self.members and not serving)

    @rule(name=NAMES)
    def fall_silent(self, name: str) -> None:
        self.health.fell_silent(name, self.now)
        assert not self.health.refuses(name)

    @rule(name=NAMES, count=st.integers(1, 50))
    def nack(self, name: str, count: int) -> None:
        """A refusal for lack of room never makes a share smaller."""
        before = self.health.share(name, self.now)
        for _ in range(count):
            self.health.reached(name, self.now)
        assert self.health.share(name, self.now) >= before
        assert self.health.cause(name) != "unreachable"
        assert not self.health.is_unreachable(name)

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 20.0]))
    def wait(self, seconds: float) -> None:
        before = {name: self.health.share(name, self.now) for name in self.members}
        self.now += seconds
        for name, share in before.items():
            assert self.health.share(name, self.now) >= share, "time makes nobody worse"

    @precondition(lambda self: self.members)
    @rule()
    def everybody_comes_back(self) -> None:
        for name in self.members:
            self.health.says(name, self.now, serving=True)
        self.now += 60  # the longest ejection
        for name in self.members:
            assert self.health.share(name, self.now) > 0
        self.now += CONFIG.slow_start
        assert all(self.health.share(name, self.now) == 1 for name in self.members)
        assert self.health.all_sound

    @invariant()
    def never_too_many(self) -> None:
        assert self.health.ejected <= self.health.limit
        assert not self.members or self.health.limit < len(self.members)

    @invariant()
    def all_are_unreachable_or_one_is_reached(self) -> None:
        reached = [name for name in self.members if not self.health.is_unreachable(name)]
        assert self.lost.isdisjoint(reached)
        since = self.health.none_reached_since
        assert (since <= self.now) == (bool(self.members) and not reached)

    @invariant()
    def shares_follow_the_changes(self) -> None:
        for name in self.members:
            share = self.health.share(name, self.now)
            assert 0 <= share <= 1
            assert (share == 0) == (name in self.away)


Histories.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestHistories = Histories.TestCase
