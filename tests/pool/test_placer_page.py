"""What docs/how-to/placer.md says of placers and runners of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
import trio.testing

from hostler.abc import NotPlaced, Outcome, Placed
from hostler.errors import ServerBusy
from hostler.pool import GrpcRunner, NaivePlacer, WarmPlacer
from tests.docs.blocks import blocks_of
from tests.wire.services import Gate, Service, call, open_pair

from .bench import OK, answer
from .fakes import FakePool, FakeRunner, make_call

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "placer.md"


def made(file: str, name: str) -> Any:
    """What the page's ``file`` calls ``name``."""
    (block,) = [b for b in blocks_of(PAGE) if (b.mark, b.value) == ("file", file)]
    names: dict[str, Any] = {}
    exec(block.content, names)
    return names[name]


async def test_a_runner_around_another_sees_what_is_tried_and_reserved(
    autojump_clock: trio.testing.MockClock,
) -> None:
    seen: list[Outcome] = []
    inner = FakeRunner(seconds=1, slots=1)
    runner = made("counted.py", "CountedRunner")(inner, seen.append)
    await NaivePlacer().place_call(FakePool([runner]), make_call())
    inner.slots = 0
    await runner.try_reserve(make_call())
    first, second = seen
    assert first == Placed()
    assert isinstance(second, NotPlaced)
    assert isinstance(second.reason, ServerBusy)
    assert (runner.address, runner.reserves) == (inner.address, inner.reserves)
    assert (await runner.status()).active == 0
    assert [serving async for serving in runner.watch_health()] == []
    assert [hint async for hint in runner.watch_load()] == []
    await runner.aclose()
    assert inner.closed == 1


async def test_it_sees_the_end_of_what_was_begun_once() -> None:
    seen: list[Outcome] = []
    ended: list[Outcome] = []
    async with open_pair(Service(answer(OK))) as pair:
        await call(pair.client)  # makes the connection
        runner = made("counted.py", "CountedRunner")(GrpcRunner(pair.client), seen.append)
        begun = runner.begin_exec(make_call(), on_end=ended.append)
        assert (begun is not None, seen, ended) == (True, [], [])
        assert await begun() == Placed()
        assert seen == ended == [Placed()]


async def test_what_was_begun_and_is_cancelled_has_no_end_to_be_told() -> None:
    ended: list[Outcome] = []
    async with open_pair(Service(Gate())) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(call, pair.client)
        await pair.service.busy.wait()
        runner = made("counted.py", "CountedRunner")(GrpcRunner(pair.client), ended.append)
        with trio.CancelScope() as scope:
            begun = runner.begin_exec(make_call())
            scope.cancel()
            await begun()
        assert scope.cancelled_caught
        assert ended == []
        nursery.cancel_scope.cancel()


def test_a_placer_without_waits() -> None:
    hurried = made("hurried.py", "HurriedPlacer")()
    assert isinstance(hurried, WarmPlacer)
    need: Any = None
    assert hurried.waits(make_call(), need, 0.0) is False
    assert hurried.forbearance(need) == 0
