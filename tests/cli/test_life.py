"""Signals to a node, on virtual time."""

from __future__ import annotations

import signal

import pytest
import trio
import trio.testing

from hostler.cli.process import IMPATIENT_AFTER, _live
from hostler.nodes.lifetime import NodeLifetime

DRAIN = 60.0


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
    async def node(life: NodeLifetime) -> None:
        signal.raise_signal(signal.SIGTERM)
        await life.shutdown.wait()
        if second_after is not None:
            await trio.sleep(second_after)
            signal.raise_signal(number)
            await trio.sleep(DRAIN - second_after)
        else:
            await trio.sleep(DRAIN)

    began = trio.current_time()
    assert await _live(node, None, None) == code
    assert trio.current_time() - began == pytest.approx(seconds)
