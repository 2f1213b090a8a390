"""When the calls of a function get another container: the rule alone, on closed-loop clients."""

from __future__ import annotations

import attrs
import pytest

from hostler._launch_policy import FIRST, IDLE_SECONDS, MAX_PRICE, WORTH, LaunchPolicy

STEP = 0.001
CPUS = 2
START_CPU = 0.15
"""CPU seconds of a start."""


@attrs.define
class Function:
    """One function, whose calls take ``run`` seconds, a share of ``cpu`` of them a CPU, and
    ``front`` seconds of a load balancer that does one call at a time. A start takes ``start``
    seconds. It has one container that has served a few calls."""

    run: float
    start: float
    cpu: float = 0.0
    front: float = 0.0
    now: float = 100.0
    alive: int = 1
    waiting: int = 0
    clients: int = 0
    launches: int = 0
    done: list[int] = attrs.Factory(list)
    _busy: list[float] = attrs.Factory(list)
    _starting: list[float] = attrs.Factory(list)
    _front_free: float = 0.0
    policy: LaunchPolicy = attrs.Factory(LaunchPolicy)

    def __attrs_post_init__(self) -> None:
        for _ in range(5):
            self.policy.ran(self.run, self.now)
        self.policy.started(self.start)

    def go_on(self, seconds: float, clients: int) -> None:
        """So many clients call in a loop for ``seconds``."""
        change = clients - self.clients
        self.waiting = max(0, self.waiting + change)
        self.clients = clients
        for _ in range(round(seconds / STEP)):
            self._step()

    def rate(self, seconds: float) -> float:
        """Calls a second in the last ``seconds``."""
        count = round(seconds / STEP)
        return sum(self.done[-count:]) / seconds

    def _step(self) -> None:
        self.now += STEP
        demand = len(self._busy) * self.cpu + len(self._starting) * START_CPU / self.start
        slow = max(1.0, demand / CPUS)
        self._front_free = min(self._front_free + STEP, STEP) if self.front else 0.0
        ended, busy = 0, list[float]()
        for rest in self._busy:
            rest -= STEP / slow
            if rest <= 0 and (not self.front or self._front_free > 0):
                self._front_free -= self.front
                ended += 1
                self.policy.ran(self.run * slow, self.now)
            else:
                busy.append(max(rest, 1e-9))
        self._starting = [rest - STEP / slow for rest in self._starting]
        ready = sum(rest <= 0 for rest in self._starting)
        self._starting = [rest for rest in self._starting if rest > 0]
        for _ in range(ready):
            self.policy.started(self.start * slow)
        self.alive += ready
        self.done.append(ended)
        returning = min(ended, self.clients - self.waiting - len(busy))
        self.waiting += max(0, returning)
        go = min(self.waiting, self.alive - len(busy))
        self.waiting -= go
        self._busy = busy + [self.run] * go
        self.policy.set_waiting(self.waiting, self.now)
        while count := self.policy.launches(
            self.now, waiting=self.waiting, alive=self.alive, starting=len(self._starting)
        ):
            self._starting += [self.start] * count
            self.launches += count


@pytest.mark.parametrize(
    ("run", "start", "clients", "seconds"),
    [
        (0.03, 0.4, 4, 2.5),
        (0.01, 0.4, 8, 3),
        (0.1, 0.4, 16, 3),
        (0.3, 0.2, 4, 2),
        (0.1, 0.5, 100, 9),
    ],
)
def test_clients_that_come_after_single_calls_get_their_rate(
    run: float, start: float, clients: int, seconds: float
) -> None:
    function = Function(run, start)
    function.go_on(seconds, clients)
    function.go_on(2, clients)
    assert function.rate(1) >= 0.9 * clients / run
    assert function.alive == clients


def test_a_changing_number_of_clients_is_followed() -> None:
    function = Function(0.05, 0.5)
    for clients, containers in ((1, 1), (8, 8), (1, 8), (16, 16)):
        function.go_on(10, clients)
        assert function.rate(1) == pytest.approx(clients / 0.05, rel=0.1)
        assert function.alive == containers


def test_a_busy_machine_is_found_out_and_tried_again_ever_more_seldom() -> None:
    function = Function(0.05, 0.4, cpu=1.0)
    function.go_on(10, 16)
    first = function.launches
    assert 2 <= first <= FIRST + 4
    assert function.policy.has_failed
    assert function.policy.surplus >= first - 3
    function.go_on(50, 16)
    assert function.launches - first <= 4


def test_what_the_calls_wait_for_may_be_elsewhere() -> None:
    function = Function(0.0002, 0.2, front=0.0004)
    function.go_on(60, 128)
    assert function.rate(1) >= 0.97 / 0.0004 * 0.4  # a step of 1 ms lets two and a half through
    assert function.launches <= 8


def policy_of(run: float = 0.1, start: float = 1.0, now: float = 0.0) -> LaunchPolicy:
    policy = LaunchPolicy()
    policy.ran(run, now)
    policy.started(start)
    return policy


def test_of_what_is_not_known_nothing_is_expected() -> None:
    for policy in (LaunchPolicy(), LaunchPolicy()):
        assert policy.launches(0.0, waiting=5, alive=0, starting=0) == 5
        assert policy.launches(0.0, waiting=5, alive=2, starting=3) == 2
        policy.ran(0.001, 0.0)
        assert policy.launches(0.0, waiting=5, alive=2, starting=0) == 5


def test_long_calls_have_a_container_each_at_once() -> None:
    policy = policy_of(run=5.0, start=0.5)
    policy.set_waiting(8, 0.0)
    assert policy.launches(0.0, waiting=8, alive=1, starting=0) == 8


def test_calls_that_are_served_sooner_have_none() -> None:
    policy = policy_of(run=0.1, start=1.0)
    soon = int(WORTH / 0.1)
    policy.set_waiting(soon, 0.0)
    assert policy.launches(0.0, waiting=soon, alive=1, starting=0) == 0
    policy.set_waiting(soon + 3, 0.0)
    assert policy.launches(0.0, waiting=soon + 3, alive=1, starting=0) == 3


def test_one_that_waits_for_as_long_as_a_start_takes_has_one() -> None:
    policy = policy_of(run=0.1, start=1.0)
    policy.set_waiting(1, 0.0)
    assert policy.launches(0.0, waiting=1, alive=1, starting=0) == 0
    assert policy.check_at == 1.0
    policy.ran(0.1, 0.9)  # so it does not stand still
    assert policy.launches(1.0, waiting=1, alive=1, starting=0) == 1


def test_a_slow_start_is_not_waited_for_for_long() -> None:
    policy = policy_of(run=0.1, start=60.0)
    assert policy.price == MAX_PRICE


def test_rent_is_forgotten_while_nobody_waits_and_not_paid_without_room() -> None:
    policy, now = policy_of(run=0.1, start=1.0), 0.0
    for _ in range(20):  # short waits with long pauses
        policy.set_waiting(1, now)
        assert not policy.launches(now, waiting=1, alive=1, starting=0)
        policy.set_waiting(0, now + 0.1)
        now += IDLE_SECONDS
    policy.set_waiting(1, now, room=False)
    assert not policy.launches(now + 10, waiting=1, alive=1, starting=0)
    assert policy.check_at > now + 100


def test_a_line_that_stands_still_gets_another_whatever_was_found_out() -> None:
    function = Function(0.05, 0.4, cpu=1.0)
    function.go_on(10, 16)
    policy, now = function.policy, function.now
    assert policy.has_failed
    alive = function.alive
    policy.set_waiting(3, now)
    assert not policy.launches(now, waiting=3, alive=alive, starting=0)
    later = policy.check_at
    while later < now + 3 and not policy.launches(later, waiting=3, alive=alive, starting=0):
        later = policy.check_at
    assert later < now + 2


def test_how_long_a_line_takes() -> None:
    policy = policy_of(run=0.1, start=1.0)
    assert policy.wait_for(10, 2, 0.0) == pytest.approx(0.5)
    assert policy.wait_for(10, 0, 0.0) == 0  # nobody knows how many containers there are
    policy.set_waiting(50, 0.0)
    now = 0.0
    for _ in range(40):  # it is served more slowly than it seems
        now += 0.25
        policy.ran(0.1, now)
        policy.set_waiting(50, now)
    assert policy.wait_for(10, 2, now) == pytest.approx(2.5, rel=0.2)
    assert policy.wait_for(10, 2, now + 60) > 10  # it has come to a halt


def test_what_is_due_beyond_those_that_can_have_it_is_for_those_that_come_next() -> None:
    policy = policy_of(run=0.05, start=0.5)
    policy.set_waiting(4, 0.0)
    assert policy.launches(0.2, waiting=4, alive=4, starting=0, able=1) == 1  # 4, as it doubles
    assert policy.launches(0.2, waiting=4, alive=4, starting=1, able=0) == 0
    assert policy.launches(0.21, waiting=4, alive=4, starting=1, able=2) == 2
    assert policy.launches(0.22, waiting=4, alive=4, starting=3, able=1) == 1
    assert policy.launches(0.23, waiting=4, alive=4, starting=4, able=1) == 0


def test_what_one_more_among_many_brings_is_measured_over_many_calls() -> None:
    """Over 0.4 s the calls at both ends of it count for more than the eighth container."""
    policy, now = policy_of(run=0.05, start=0.5), 0.0
    policy.set_waiting(1, now)
    while not policy.launches(now, waiting=1, alive=7, starting=0):
        now += 1 / 140
        policy.ran(0.05, now)
    began = now
    while now < began + 2:
        now += 1 / 140 if now < began + 0.45 else 1 / 160
        policy.ran(0.05, now)
        policy.set_waiting(1, now)
        policy.launches(now, waiting=1, alive=8, starting=0)
        assert not policy.has_failed


def test_launches_that_find_an_idle_container_are_not_tried_again_at_once() -> None:
    function = Function(0.05, 0.4, cpu=1.0)
    function.go_on(2, 16)
    policy, now, launches = function.policy, function.now, 0
    assert policy.has_failed
    for _ in range(1000):
        now += 0.01
        policy.ran(0.05, now)
        policy.set_waiting(8, now)
        launches += policy.launches(now, waiting=8, alive=function.alive, starting=0)
    assert launches <= 3


def test_a_line_that_is_empty_for_moments_is_measured_all_the_same() -> None:
    """Else 2 containers that end 100 calls a second would be taken for 2 000."""
    policy, now, alive = policy_of(run=0.001, start=0.1), 0.0, 2
    for number in range(800):
        now += 0.01 * 2 / alive
        policy.ran(0.001, now)
        waiting = number % 4 and 3
        policy.set_waiting(waiting, now)
        if now > 0.5:
            alive += policy.launches(now, waiting=waiting, alive=alive, starting=0)
    assert alive > 5
    assert not policy.has_failed


@pytest.mark.parametrize("outcome", ["no room", "dropped"])
def test_a_round_that_does_not_come_says_nothing(outcome: str) -> None:
    policy = policy_of(run=0.1, start=1.0)
    policy.set_waiting(10, 0.0)
    count = policy.launches(0.0, waiting=10, alive=1, starting=0)
    assert count
    if outcome == "dropped":
        policy.failed(count)
    now = 20.0
    policy.set_waiting(10, now)
    assert policy.launches(now, waiting=10, alive=1, starting=0) >= 0
    assert not policy.has_failed
