"""A call that can't be sent to anybody, and a head that says less than ours."""

from __future__ import annotations

import datetime as dt

from hostler.abc import Placed
from hostler.protocol import ResultStart

from .bench import OK, Bench, answer
from .fakes import RecordingWriter


async def test_a_model_that_can_not_be_written_is_the_calls_error_and_goes_to_nobody() -> None:
    """Reference 01, section 9, row 2: it would be the same with the next runner."""
    bench = Bench(answer(OK))
    bench.call.model.created_at = dt.datetime(2026, 1, 1)  # without a zone
    outcome = await bench.try_exec()
    assert isinstance(outcome, Placed)
    assert "a date needs a zone" in str(outcome.error)
    assert bench.commits == 0
    assert bench.is_idle()


async def test_a_head_without_a_status_is_200() -> None:
    """Reference 01, section 10: its headers count all the same."""
    headers = (("X-A", "1"), ("X-A", "2"))
    bench = Bench(answer(ResultStart(0, headers), OK))
    assert await bench.try_exec() == Placed()
    assert isinstance(bench.call.writer, RecordingWriter)
    assert bench.call.writer.heads == [(200, headers)]
