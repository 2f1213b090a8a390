"""Batches of ``EngageMany`` by hand against betterproto's, and what hostile bytes can do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.wire.codec import runner_pb as pb
from hostler.wire.codec.fast import sized
from hostler.wire.codec.messages import CodecError
from hostler.wire.mux.envelope import MAX_TEXT, CallEnd, Envelope, decode_batch

from ..services import encoded

pytestmark = pytest.mark.fast

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
uint32 = st.integers(0, 2**32 - 1)
envelopes = st.builds(
    Envelope,
    call=st.integers(1, 2**64 - 1),
    frames=st.lists(st.binary(max_size=300), max_size=4),
    request_id=texts,
    credit=uint32,
    end=st.none() | st.builds(CallEnd, uint32, texts),
    reset=uint32,
    timeout_ms=uint32,
)
batches = st.lists(envelopes, max_size=5)


def _message(envelope: Envelope) -> pb.Envelope:
    message = pb.Envelope(
        call=envelope.call,
        frames=list(envelope.frames),
        request_id=envelope.request_id,
        credit=envelope.credit,
        reset=envelope.reset,
        timeout_ms=envelope.timeout_ms,
    )
    if envelope.end is not None:
        message.end = pb.CallEnd(status=envelope.end.status, text=envelope.end.text)
    return message


@given(batches)
def test_a_batch_is_encoded_as_betterproto_reads_it(batch: list[Envelope]) -> None:
    read = pb.Envelopes().parse(b"".join(map(encoded, batch)))
    assert [one.to_dict() for one in read.envelopes] == [_message(one).to_dict() for one in batch]


@given(batches)
def test_what_betterproto_writes_is_understood(batch: list[Envelope]) -> None:
    # (It leaves out the empty message that an end with status OK is.)
    written = bytes(pb.Envelopes(envelopes=[_message(one) for one in batch]))
    for mine, one in zip(decode_batch(written), batch, strict=True):
        assert (mine.call, list(mine.frames)) == (one.call, list(one.frames))
        assert (mine.request_id, mine.timeout_ms) == (one.request_id, one.timeout_ms)
        assert (mine.credit, mine.reset) == (one.credit, one.reset)
        assert (mine.end or CallEnd()) == (one.end or CallEnd())


@pytest.mark.parametrize("unknown", [b"\x4d" + b"\xff" * 4, b"\x49" + b"\xff" * 8])
def test_an_unknown_number_of_fixed_size_is_skipped_at_the_end_too(unknown: bytes) -> None:
    written = b"\x08\x01" + unknown
    (one,) = decode_batch(b"\x0a%c%b" % (len(written), written))
    assert one == Envelope(call=1, frames=[])


def test_a_request_id_that_is_no_unicode_does_not_break_the_batch() -> None:
    (one,) = decode_batch(encoded(Envelope(call=1, request_id="a\udc80")))
    assert one.request_id == "a?"


@given(batches)
def test_batches_round_trip(batch: list[Envelope]) -> None:
    assert decode_batch(b"".join(map(encoded, batch))) == batch


@given(batches, st.data())
def test_a_cut_batch_is_never_taken_for_a_whole_one(
    batch: list[Envelope], data: st.DataObject
) -> None:
    whole = b"".join(map(encoded, batch))
    cut = whole[: data.draw(st.integers(0, max(0, len(whole) - 1)))]
    try:
        read = decode_batch(cut)
    except CodecError:
        return
    assert read == batch[: len(read)]


@given(st.binary(max_size=200) | batches.map(lambda b: b"".join(map(encoded, b))), st.data())
def test_any_bytes_are_read_or_refused(start: bytes, data: st.DataObject) -> None:
    mangled = bytearray(start)
    for _ in range(data.draw(st.integers(0, 4)) if mangled else 0):
        mangled[data.draw(st.integers(0, len(mangled) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = decode_batch(bytes(mangled))
    except CodecError:
        return
    assert all(0 < one.call < 2**64 and one.credit < 2**32 and one.reset < 2**32 for one in read)


def test_fields_of_the_future_are_skipped() -> None:
    newer = b"\x08\x07" + b"\x40\x01" + b"\x4a\x02hi" + b"\x55abcd" + b"\x59abcdefgh" + b"\x30\x08"
    batch = b"\x0a%c%b" % (len(newer), newer) + b"\x10\x01"
    assert decode_batch(batch) == [Envelope(call=7, frames=[], reset=8)]


@pytest.mark.parametrize(
    "inner",
    [
        b"",  # no call
        b"\x08\x00",
        b"\x08" + b"\xff" * 9 + b"\x7f",  # over 64 bits
        b"\x08\x01\x20" + b"\xff" * 5 + b"\x01",  # credit over 32
        b"\x08\x01\x12\x05abc",  # a frame that is cut off
        b"\x08\x01\x0b",  # a group
        b"\x08\x01\x1a\x01\xff",  # no UTF-8
        b"\x08\x01\x02\x00",  # field 0
    ],
)
def test_envelopes_that_make_no_sense_are_refused(inner: bytes) -> None:
    with pytest.raises(CodecError, match="cannot decode envelopes"):
        decode_batch(b"\x0a%c%b" % (len(inner), inner))


@pytest.mark.parametrize("status", [-1, 2**32])
def test_a_status_that_is_none_is_unknown(status: int) -> None:
    assert decode_batch(encoded(Envelope(1, end=CallEnd(status, "a\udc80")))) == [
        Envelope(1, frames=[], end=CallEnd(2, "a?"))
    ]


def test_a_status_text_is_bounded() -> None:
    (read,) = decode_batch(encoded(Envelope(1, end=CallEnd(13, "x" * 100_000))))
    assert read.end == CallEnd(13, "x" * MAX_TEXT)


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\x02\x08\x01" * 20_000,
        b"\x0a" + sized(2 + 80_000) + b"\x08\x01" + b"\x12\x00" * 40_000,
        b"\x0a" + sized(2 + 80_000) + b"\x08\x01" + b"\x20\x01" * 40_000,
        b"\x0a" + sized(6 + 80_000) + b"\x08\x01\x2a" + sized(80_000) + b"\x08\x01" * 40_000,
        b"\x78\x00" * 40_000,
    ],
    ids=["envelopes", "frames", "credit", "end", "unknown"],
)
def test_a_batch_of_more_fields_than_a_good_one_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError, match="fields"):
        decode_batch(data)
