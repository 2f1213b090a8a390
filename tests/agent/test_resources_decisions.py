"""The pure decisions: launches, victims, freezing."""

from __future__ import annotations

import math
from collections.abc import Hashable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.agent.container import IdlePlan, plan_idle
from hostler.agent.resources import Resources, choose_victims


@attrs.frozen
class Idle:
    name: str
    key: Hashable
    size: Resources


def idle(*sizes: int, key: str = "other") -> list[Idle]:
    return [Idle(f"c{i}", key, Resources(size)) for i, size in enumerate(sizes)]


def names(victims: object) -> list[str]:
    assert isinstance(victims, list | tuple)
    return [victim.name for victim in victims]


def test_scenario_06_evictor_spares_its_own_slot_key() -> None:
    assert not choose_victims(idle(5, 5, key="mine"), Resources(1), spare="mine")


def test_scenario_06_evictor_needs_nothing_evicts_nothing() -> None:
    assert not choose_victims(idle(5, 5), Resources(), spare="mine")


def test_scenario_06_evictor_cannot_be_met_evicts_nothing() -> None:
    assert not choose_victims(idle(5, 5), Resources(11), spare="mine")


def test_scenario_06_evictor_need_of_one_fires_the_oldest() -> None:
    assert names(choose_victims(idle(5, 5, 5), Resources(5), spare="mine")) == ["c0"]


def test_scenario_06_evictor_two_oldest_of_the_others() -> None:
    tokens = [Idle("own", "mine", Resources(5)), *idle(5, 5, 5)]
    assert names(choose_victims(tokens, Resources(10), spare="mine")) == ["c0", "c1"]


def test_weakness_03_5_containers_that_do_not_help_are_left_alone() -> None:
    tokens = [Idle("cpu", "k", Resources(0, 1000)), Idle("memory", "k", Resources(10, 0))]
    assert names(choose_victims(tokens, Resources(10), spare="mine")) == ["memory"]


def test_what_a_bigger_one_made_unnecessary_is_let_off() -> None:
    assert names(choose_victims(idle(1, 2, 10), Resources(10), spare="mine")) == ["c2"]


amounts = st.builds(Resources, st.integers(0, 20), st.integers(0, 20))


@given(st.lists(amounts, max_size=8), amounts)
def test_victims_suffice_and_none_is_superfluous(
    sizes: list[Resources], missing: Resources
) -> None:
    tokens = [Idle(f"c{i}", "k", size) for i, size in enumerate(sizes)]
    victims = choose_victims(tokens, missing, spare="mine")
    total = sum((token.size for token in tokens), Resources())
    if not missing or not missing.fits(total):
        assert not victims
        return
    freed = sum((victim.size for victim in victims), Resources())
    assert missing.fits(freed)
    for victim in victims:
        assert not missing.fits(freed - victim.size)


@given(amounts, amounts)
def test_beyond_is_exactly_what_is_missing(size: Resources, room: Resources) -> None:
    missing = size.beyond(room)
    assert size.fits(room + missing)
    assert bool(missing) is not size.fits(room)


def test_weakness_03_4_missing_memory_is_exact_to_the_byte() -> None:
    mib = 2**20
    room = Resources(300 * mib + mib // 2 - 200 * mib)
    assert Resources(101 * mib).beyond(room) == Resources(mib // 2)


@pytest.mark.parametrize(
    ("now", "frozen", "kept", "plan"),
    [
        (10.0, False, False, IdlePlan("rest", 10.05)),
        (10.05, False, False, IdlePlan("freeze", 40.0)),
        (10.05, True, False, IdlePlan("rest", 40.0)),
        (40.0, True, False, IdlePlan("retire")),
        (40.0, False, False, IdlePlan("retire")),
        (40.0, False, True, IdlePlan("rest")),
        (10.05, True, True, IdlePlan("thaw")),
    ],
)
def test_plan_of_an_idle_container(now: float, frozen: bool, kept: bool, plan: IdlePlan) -> None:
    made = plan_idle(now, frozen=frozen, kept=kept, freeze_at=10.05, retire_at=40.0)
    assert made.step == plan.step
    assert made.at == pytest.approx(plan.at)


def test_a_container_that_never_freezes_rests_until_it_retires() -> None:
    plan = plan_idle(0.0, frozen=False, kept=False, freeze_at=math.inf, retire_at=30.0)
    assert plan == IdlePlan("rest", 30.0)
