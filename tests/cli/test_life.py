"""Signals to a node, on virtual time."""

from __future__ import annotations

import gc
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from hostler._concurrency.drain import DrainBudget
from hostler.cli.process import IMPATIENT_AFTER, _live
from hostler.nodes import RunningNode, ServeSettings
from hostler.nodes.lifetime import Node, NodeLifetime

DRAIN = 60.0


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """A node that is ready settles the collector of its process, which is that of the tests."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.parametrize(
    ("second_after", "number", "seconds", "code"),
    [
        (None, signal.SIGTERM, DRAIN, 0),
        (0.002, signal.SIGTERM, DRAIN, 0),
        (IMPATIENT_AFTER - 0.01, signal.SIGINT, DRAIN, 0),
        (IMPATIENT_AFTER + 0.01, signal.SIGTERM, IMPATIENT_AFTER + 0.01, 143),
        (DRAIN / 2, signal.SIGINT, DRAIN / 2, 130),
    ],
)
async def test_only_a_later_signal_is_impatience(
    autojump_clock: trio.testing.MockClock,
    second_after: float | None,
    number: signal.Signals,
    seconds: float,
    code: int,
) -> None:
    @attrs.frozen(kw_only=True)
    class SlowNode(Node):
        """It is sent signals, and takes long to drain."""

        @asynccontextmanager
        async def open(self, life: NodeLifetime) -> AsyncIterator[RunningNode]:
            signal.raise_signal(signal.SIGTERM)
            yield RunningNode(kind="slow")
            if second_after is not None:
                await trio.sleep(second_after)
                signal.raise_signal(number)
                await trio.sleep(DRAIN - second_after)
            else:
                await trio.sleep(DRAIN)

    settings = ServeSettings(env={}, grace=DrainBudget(0))
    began = trio.current_time()
    assert await _live(SlowNode(settings=settings), None, None) == code
    assert trio.current_time() - began == pytest.approx(seconds)
