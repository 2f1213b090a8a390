"""The end of a call on a hot container, which is written in one go."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.protocol import Finished, LoadHint
from hostler.wire.codec import fast as by_hand
from hostler.wire.codec import messages as codec
from hostler.wire.codec.fast import hot_fields, read_hot_end, read_varint, varint

pytestmark = pytest.mark.fast

DATE = "2025-09-26T12:57:15.123Z"
HOT = Finished(
    success=True,
    details="01HOT",
    created_at=DATE,
    started_at=DATE,
    completed_at=DATE,
    execution_ns=1_234_567,
    image="image:1",
)


@pytest.mark.parametrize(
    ("changes", "hot"),
    [
        ({}, True),
        ({"scheduler_ns": 2**62, "load": LoadHint(active=3)}, True),
        ({"image": "x" * 300}, True),
        ({"started_at": DATE[:-1]}, False),
        ({"started_at": DATE[:-1] + "é"}, False),
        ({"started_at": DATE[:-1], "completed_at": DATE + "Z"}, False),
        ({"completed_at": ""}, False),
        ({"execution_ns": 0}, False),
        ({"scheduler_ns": -1}, False),
        ({"init_start_ns": 1}, False),
        ({"success": False}, False),
        ({"error_text": "no"}, False),
    ],
)
def test_the_end_of_a_hot_call_is_encoded_as_betterproto_does(
    changes: dict[str, Any], hot: bool
) -> None:
    frame = msgspec.structs.replace(HOT, **changes)
    assert (hot_fields(frame) is not None) == hot
    written = codec.encode_runner(frame)
    assert written == codec._build_finished(frame)
    if frame.scheduler_ns >= 0:
        assert (read_hot_end(written) == frame) == hot
        assert by_hand.decode_runner(written) == frame


@given(st.data())
def test_bytes_that_are_nearly_the_end_of_a_hot_call_are_read_as_betterproto_does_or_left_to_it(
    data: st.DataObject,
) -> None:
    changed = bytearray(codec.encode_runner(msgspec.structs.replace(HOT, load=LoadHint(slots=1))))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    changed = changed[: data.draw(st.just(len(changed)) | st.integers(1, len(changed)))]
    frame = by_hand.decode_runner(bytes(changed))
    assert frame is None or frame == codec._parse_runner(bytes(changed))


@pytest.mark.parametrize("end", [b"Z\x01ah\x01", b"Z\x01a", b"", b"H", b"Z\x02a", b"\xaa\x06\x00"])
def test_what_is_behind_the_dates_may_be_anything(end: bytes) -> None:
    dates = f"*\x18{DATE}2\x18{DATE}:\x18{DATE}".encode()
    for numbers in (b"", b"@\x01", b"H\x05", b"H" + b"\xff" * 9 + b"\x01"):
        fields = b"\x08\x01\x12\x01a" + dates + numbers + end
        message = b"\x1a" + varint(len(fields)) + fields
        frame = by_hand.decode_runner(message)
        assert frame is None or frame == codec._parse_runner(message)


@given(st.integers(0, 2**64 - 1) | st.integers(0, 63).map(lambda bits: 2**bits))
def test_numbers_of_any_size_are_read_as_they_were_written(number: int) -> None:
    written = b"-" + varint(number) + b"\xff"
    assert read_varint(written, 1) == (number, len(written) - 1)


def test_a_number_of_more_than_64_bits_is_none() -> None:
    with pytest.raises(IndexError):
        read_varint(b"\xff" * 10 + b"\x01", 0)
