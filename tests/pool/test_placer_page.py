"""What docs/how-to/placer.md says of placers and pools of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hostler.abc import LoadListener, Outcome, Placed, Runner, RunnerCall
from hostler.pool import WarmPlacer
from tests.docs.blocks import blocks_of

from .fakes import FakePool, FakeRunner, make_call

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "placer.md"


def made(file: str, name: str) -> Any:
    """What the page's ``file`` calls ``name``."""
    (block,) = [b for b in blocks_of(PAGE) if (b.mark, b.value) == ("file", file)]
    names: dict[str, Any] = {}
    exec(block.content, names)
    return names[name]


async def test_a_pool_around_another_sees_the_outcomes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    seen: list[tuple[str, Outcome]] = []
    inner = JudgingPool([FakeRunner("a:1", seconds=1)])
    pool = made("counted.py", "CountedPool")(
        inner, lambda runner, outcome: seen.append((runner.address, outcome))
    )
    placer = WarmPlacer()
    await placer.place_call(pool, make_call())
    assert seen == [("a:1", Placed())]
    ((outcome, seconds),) = inner.told
    assert outcome == Placed()
    assert seconds == pytest.approx(1.0005)
    assert inner.listeners == [placer]
    assert list(await pool.runners(make_call())) == inner.members
    await pool.aclose()
    assert inner.closed


class JudgingPool(FakePool):
    """Keeps what it is told."""

    def __init__(self, runners: list[Runner]) -> None:
        super().__init__(runners)
        self.members = runners
        self.told: list[tuple[Outcome, float]] = []
        self.listeners: list[LoadListener] = []
        self.closed = False

    def add_load_listener(self, listener: LoadListener) -> None:
        self.listeners.append(listener)

    def note_outcome(
        self, runner: Runner, call: RunnerCall, outcome: Outcome, seconds: float
    ) -> None:
        self.told.append((outcome, seconds))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed = True


def test_a_placer_without_waits() -> None:
    hurried = made("hurried.py", "HurriedPlacer")()
    assert isinstance(hurried, WarmPlacer)
    need: Any = None
    assert hurried.waits(make_call(), need, 0.0) is False
    assert hurried.eviction_grace(need) == 0
