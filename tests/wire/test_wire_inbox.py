"""Chunks become messages, wherever they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.wire.buffers import HELD, LARGE, piece_of, split
from hostler.wire.codec.messages import with_prefix
from hostler.wire.connection import CREDIT, MessageBuffer
from hostler.wire.status import StreamBroken

sizes = st.sampled_from([0, 1, 4, 5, 6, 300, LARGE - 1, LARGE, 3 * LARGE])


@given(
    st.lists(sizes, max_size=6),
    st.lists(st.integers(0, 2 * LARGE), min_size=1, max_size=8),
    st.booleans(),
)
def test_messages_are_what_was_sent(lengths: list[int], cuts: list[int], views: bool) -> None:
    sent = [bytes((number,)) * length for number, length in enumerate(lengths)]
    data = b"".join(map(with_prefix, sent))
    credits: list[int] = []
    inbox = MessageBuffer(credits.append)
    got: list[bytes] = []
    at = turn = 0
    while at < len(data):
        chunk = data[at : at + (cuts[turn % len(cuts)] or turn % 3)]
        inbox.add(memoryview(chunk) if views else chunk, len(chunk))
        at, turn = at + len(chunk), turn + 1
        while (message := inbox.next()) is not None:
            got.append(bytes(message))
        # Sizes tell whether it stands between two messages.
        assert inbox.within == (sum(len(whole) + 5 for whole in got) != at)
    assert got == sent
    assert not inbox.unread
    assert sum(credits) + inbox.unacked_size() == len(data)


def test_credit_is_given_in_large_steps_while_there_is_more() -> None:
    credits: list[int] = []
    inbox = MessageBuffer(credits.append)
    for _ in range(4):
        inbox.add(with_prefix(bytes(CREDIT // 2)), CREDIT // 2 + 5)
    while inbox.next() is not None:
        pass
    assert credits == [CREDIT + 10, CREDIT + 10]


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [(b"\x01\0\0\0\x01x", "compression"), (b"\0\x7f\0\0\0x", "larger than max")],
)
def test_a_prefix_that_is_not_for_us_is_told_before_its_message(prefix: bytes, reason: str) -> None:
    inbox = MessageBuffer(lambda _: None)
    inbox.add(prefix[:3], 3)
    assert inbox.next() is None
    inbox.add(prefix[3:], 3)
    with pytest.raises(StreamBroken, match=reason):
        inbox.next()


@given(st.lists(st.binary(max_size=5), max_size=5), st.integers(0, 30))
def test_parts_are_split_where_it_is_asked(parts: list[bytes], size: int) -> None:
    first, rest = split(parts, size)
    whole = b"".join(parts)
    assert b"".join(first) == whole[:size]
    assert b"".join(rest) == whole[size:]
    assert bool(rest) == bool(whole[size:])


@pytest.mark.parametrize("size", [1, LARGE - 1, LARGE, 4 * LARGE])
@pytest.mark.parametrize("whole", [4 * LARGE, 16 * LARGE])
def test_what_is_not_read_keeps_no_more_than_a_few_times_its_size(size: int, whole: int) -> None:
    data = bytes(range(256)) * (whole // 256)
    piece = piece_of(data, 0, size)
    assert piece == data[:size]
    assert isinstance(piece, memoryview) == (size >= LARGE and HELD * size >= whole)
