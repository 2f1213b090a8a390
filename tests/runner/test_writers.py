"""What an engagement's writer sends when: as little as possible, but nothing late."""

from __future__ import annotations

import pytest

from hostler.protocol import Data, ResultStart
from hostler.runner.engagement import EngagementWriter

from .fakes import PlayedEngagement

UNKNOWN_LENGTH = (("Content-Type", "text/plain"),)
FIVE = (*UNKNOWN_LENGTH, ("Content-Length", "5"))


async def test_the_head_goes_with_the_first_byte() -> None:
    engagement = PlayedEngagement()
    writer = EngagementWriter(engagement)
    await writer.start(200, UNKNOWN_LENGTH)
    await writer.write(b"")
    assert engagement.sent == []
    await writer.write(b"a")
    assert engagement.sent == [ResultStart(200, UNKNOWN_LENGTH), Data(b"a")]
    assert writer.unsent == []
    await writer.write(memoryview(b"b"))
    assert engagement.sent[2:] == [Data(b"b")]


async def test_a_head_without_a_body_goes_with_the_outcome() -> None:
    engagement = PlayedEngagement()
    writer = EngagementWriter(engagement)
    await writer.start(200, UNKNOWN_LENGTH)
    assert writer.unsent == [ResultStart(200, UNKNOWN_LENGTH)]
    assert engagement.sent == []


async def test_the_end_of_an_announced_body_goes_with_the_outcome() -> None:
    engagement = PlayedEngagement()
    writer = EngagementWriter(engagement)
    await writer.start(200, FIVE)
    await writer.write(b"abc")
    assert engagement.sent == [ResultStart(200, FIVE), Data(b"abc")]
    await writer.write(b"de")
    assert len(engagement.sent) == 2
    assert writer.unsent == [Data(b"de")]


async def test_a_whole_announced_body_goes_with_the_outcome() -> None:
    engagement = PlayedEngagement()
    writer = EngagementWriter(engagement)
    await writer.start(200, FIVE)
    await writer.write(b"abcde")
    assert writer.unsent == [ResultStart(200, FIVE), Data(b"abcde")]


def test_what_goes_with_the_outcome_is_taken_without_a_wait() -> None:
    writer = EngagementWriter(PlayedEngagement())
    assert writer.start_now(200, FIVE)
    assert not writer.write_now(b"abc")
    assert writer.write_now(b"")
    assert writer.unsent == [ResultStart(200, FIVE)]
    assert writer.write_now(b"abcde")
    assert writer.unsent == [ResultStart(200, FIVE), Data(b"abcde")]


@pytest.mark.parametrize("text", ["", "x", "-1", "5, 5"])
async def test_a_senseless_length_holds_nothing_back(text: str) -> None:
    engagement = PlayedEngagement()
    writer = EngagementWriter(engagement)
    await writer.start(200, [("Content-Length", text)])
    await writer.write(b"abcde")
    assert engagement.sent[1:] == [Data(b"abcde")]


async def test_only_the_first_head_counts() -> None:
    engagement = PlayedEngagement()
    writer = EngagementWriter(engagement)
    await writer.start(200, UNKNOWN_LENGTH)
    await writer.start(201, FIVE)
    assert writer.unsent == [ResultStart(200, UNKNOWN_LENGTH)]
