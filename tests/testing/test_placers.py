"""Every placer passes the same suite, and the suite finds placers that are wrong."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from hostler.abc import Placed, Placer, RunnerCall, RunnerPool
from hostler.config import PlacerConfig
from hostler.errors import ServerBusy
from hostler.pool import PLACERS, SweepPlacer
from hostler.testing import (
    PLACER_CHECKS,
    FakeAttempt,
    FakePool,
    FakeRunner,
    MakePlacer,
    check_placer,
    fake_call,
)

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "placement.md"


def _zone_placer() -> type[SweepPlacer]:
    """The placer of one's own that the documentation shows, from the page itself."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "placement_page"}
    exec(compile(block, str(PAGE), "exec"), names)
    placer: type[SweepPlacer] = names["ZonePlacer"]
    return placer


_PLACERS: dict[str, MakePlacer] = {**PLACERS, "of-the-docs": _zone_placer()}


@pytest.mark.parametrize("make_placer", _PLACERS.values(), ids=_PLACERS)
@pytest.mark.parametrize("check", PLACER_CHECKS, ids=lambda check: check.__name__)
async def test_placer(
    autojump_clock: MockClock,
    check: Callable[[MakePlacer], Awaitable[None]],
    make_placer: MakePlacer,
) -> None:
    await check(make_placer)


@pytest.mark.parametrize(
    ("annotations", "first"), [({}, "a-1:1"), ({"zone": msgspec.Raw(b'"b-"')}, "b-1:1")]
)
async def test_placer_of_the_docs_reads_the_zone(
    autojump_clock: MockClock, annotations: dict[str, msgspec.Raw], first: str
) -> None:
    runners = [FakeRunner("a-1:1"), FakeRunner("b-1:1")]
    call = fake_call()
    call.model.annotations.update(annotations)
    await _zone_placer()(PlacerConfig()).place_call(FakePool(runners), call)
    assert [runner.address for runner in runners if runner.attempts] == [first]


_TIMED = {"empty_pool", "failing_pool", "only_nacks", "detached_time"}


@pytest.mark.parametrize(
    "check",
    [check for check in PLACER_CHECKS if check.__name__ in _TIMED],
    ids=lambda check: check.__name__,
)
def test_a_clock_that_rounds_fails_no_placer(
    check: Callable[[MakePlacer], Awaitable[None]],
) -> None:
    """Sums of small times are rounded most often, so each run has a new clock near zero."""
    for number in range(1, 201):
        clock = MockClock(autojump_threshold=0)
        clock.jump(number / 70)
        trio.run(check, PLACERS["naive"], clock=clock)


class HastyPlacer(Placer):
    """Asks once, tries each runner once, and bounds the whole call by the placer's time."""

    def __init__(self, config: PlacerConfig) -> None:
        self._config = config

    async def place_call(self, pool: RunnerPool, call: RunnerCall) -> None:
        with trio.move_on_after(self._config.placer_timeout):
            for runner in await pool.runners(call):
                outcome = await runner.try_exec(call)
                if isinstance(outcome, Placed):
                    if outcome.error is not None:
                        raise outcome.error
                    return
        raise ServerBusy


async def test_suite_finds_what_is_wrong(autojump_clock: MockClock) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await check_placer(HastyPlacer)
    wrong = {note.removeprefix("in ") for e in caught.value.exceptions for note in e.__notes__}
    right = {"places", "outcome_is_final", "next_runner", "useless_pool"}
    right |= {"growth_after_single_calls", "growth_by_steps"}
    assert wrong == {check.__name__ for check in PLACER_CHECKS} - right


async def test_fake_runner_closes_when_idle_or_cancelled(autojump_clock: MockClock) -> None:
    runner = FakeRunner(otherwise=FakeAttempt(run_time=10))
    pool = FakePool([runner])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.try_exec, fake_call())
        await trio.testing.wait_all_tasks_blocked()
        await pool.aclose()
    assert trio.current_time() == 10
    assert runner.closed
    runner = FakeRunner(otherwise=FakeAttempt(run_time=10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.try_exec, fake_call())
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await runner.aclose()
    assert trio.current_time() == 11
    assert runner.running == 0
