"""Frames to bytes and back; the hand-made ways against betterproto's."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import betterproto
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.protocol import (
    BODY_PIECE,
    ClientFrame,
    Commit,
    Data,
    Finished,
    LoadHint,
    LogAck,
    LogContainer,
    LogLine,
    LogReady,
    LogRequest,
    LogStart,
    Reserved,
    ResultStart,
    RunnerFrame,
    RunnerStatus,
    TryCall,
)
from hostler.wire.codec import fast
from hostler.wire.codec import fast as by_hand
from hostler.wire.codec import fast as load_codec
from hostler.wire.codec import messages as codec
from hostler.wire.codec import runner_pb as pb
from hostler.wire.codec.fast import LOAD, decode_load, encode_load, read_varint, varint
from hostler.wire.codec.messages import data_messages

pytestmark = pytest.mark.fast

ROOT = Path(__file__).resolve().parents[3]

texts = st.text(st.characters(exclude_categories=["Cs"]))
int64 = st.integers(-(2**63), 2**63 - 1)
datas = st.builds(Data, st.binary(max_size=300), st.booleans())
tries = st.builds(
    TryCall,
    texts,
    texts,
    st.dictionaries(texts, texts),
    st.booleans(),
    st.just(0) | st.integers(0, 2**32 - 1),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
starts = st.builds(ResultStart, st.integers(-(2**31), 2**31 - 1), st.lists(st.tuples(texts, texts)))
slots = st.sampled_from([bytes(8), b'"\x08' * 4, b"*\x0c\n\x08abcd"]) | st.binary(max_size=8)
any_hints = st.builds(
    LoadHint,
    active=st.integers(0, 2**32 - 1),
    free_memory=st.integers(0, 2**64 - 1),
    reclaimable_memory=st.integers(0, 2**64 - 1),
    retry_after_ms=st.integers(0, 2**32 - 1),
    slot=slots,
    warm=st.dictionaries(
        slots | st.binary(min_size=8, max_size=9),
        st.integers(0, 130) | st.integers(0, 2**32 - 1),
        max_size=5,
    ),
    complete=st.booleans(),
    reserves=st.booleans(),
    free_cpus=st.none() | st.integers(0, 2**32 - 1),
    reclaimable_cpus=st.integers(0, 2**32 - 1),
    slots=st.integers(0, 2**32 - 1),
    refused=st.integers(0, 2**32 - 1),
    protected_memory=st.integers(0, 2**64 - 1),
    protected_cpus=st.integers(0, 2**32 - 1),
    share=st.integers(0, 2**32 - 1),
    leave=st.booleans(),
    idle_cpus=st.none() | st.integers(0, 2**32 - 1),
    starting=st.integers(0, 3) | st.integers(0, 2**32 - 1),
    slot_extensions=st.lists(texts, max_size=3).map(tuple),
)
hints = (
    any_hints
    | st.builds(
        LoadHint,
        active=st.integers(0, 130),
        slot=slots,
        warm=slots.map(lambda slot: {slot: 1}),
    )
    | slots.map(lambda slot: LoadHint(slot=slot, warm={slot: 3}, free_memory=34))
)
finishes = st.builds(
    Finished,
    success=st.booleans(),
    details=texts,
    error_code=st.integers(-(2**31), 2**31 - 1),
    error_text=texts,
    error_user=st.booleans(),
    created_at=texts,
    started_at=texts,
    completed_at=texts,
    image=texts,
    scheduler_ns=int64,
    execution_ns=int64,
    init_start_ns=int64,
    load=st.none() | hints,
)
lines = st.sampled_from(["", "é", "x" * 23, "x" * 127, "x" * 128]) | st.text(max_size=30)
dates = st.sampled_from(["2026-11-26T14:41:19.123Z", "2026-11-26T14:41:19.12Zé", "now"])
hot_ends = st.builds(
    Finished,
    success=st.just(True),
    details=lines,
    created_at=dates,
    started_at=dates,
    completed_at=dates,
    image=lines,
    scheduler_ns=st.integers(0, 2**62),
    execution_ns=st.integers(1, 2**62),
    init_start_ns=st.sampled_from([0, 0, 1]),
    load=st.none() | hints,
)


def test_compiled_codec_is_active() -> None:
    # betterproto-rust-codec replaces the method when it is imported.
    assert betterproto.Message.__bytes__.__name__ == "__bytes_patch"


def test_generated_module_is_in_step_with_the_proto(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.py"
    subprocess.run([sys.executable, ROOT / "scripts" / "generate", fresh], check=True, timeout=60)
    assert fresh.read_text() == Path(str(pb.__file__)).read_text()


@given(datas | st.builds(Data, st.sampled_from([b"x" * n for n in (127, 128, 16383, 16384)])))
def test_data_is_encoded_as_betterproto_does(frame: Data) -> None:
    message = pb.DataFrame(data=frame.data, eof=frame.eof)
    assert codec.encode_client(frame) == bytes(pb.ClientMsg(data=message))
    assert codec.encode_runner(frame) == bytes(pb.RunnerMsg(data=message))


@given(tries)
def test_a_try_is_encoded_as_betterproto_does(frame: TryCall) -> None:
    message = pb.TryCall(
        models_call_json=frame.models_call_json,
        slot_hash_id=frame.slot_hash_id,
        extensions=dict(frame.extensions),
        wait_ms=frame.wait_ms,
        spare_warm=frame.spare_warm,
        launch=frame.launch,
        surplus=frame.surplus,
    )
    whole = pb.ClientMsg(reserve=message) if frame.reserve else pb.ClientMsg(try_=message)
    encoded = codec.encode_client(frame)
    assert len(encoded) == len(bytes(whole))
    assert codec._parse_client(encoded) == frame  # (entries of a map have no order)
    assert by_hand.decode_client(encoded) == frame
    if len(frame.extensions) < 2:
        assert encoded == bytes(whole)


def test_commit_and_reserved_are_encoded_as_betterproto_does() -> None:
    for frame in (Commit(), Commit(with_data=True)):
        commit = bytes(pb.ClientMsg(commit=pb.CallCommit(with_data=frame.with_data)))
        assert codec.encode_client(frame) == commit
        assert by_hand.decode_client(commit) == codec._parse_client(commit) == frame
    reserved = bytes(pb.RunnerMsg(reserved=pb.CallReserved()))
    assert codec.encode_runner(Reserved()) == reserved
    assert by_hand.decode_runner(reserved) == codec._parse_runner(reserved) == Reserved()


@dataclass(eq=False, repr=False)
class OldClientMsg(betterproto.Message):
    """What an LB says, as a runner knows it that has not heard of reservations."""

    try_: pb.TryCall = betterproto.message_field(1, group="body")  # noqa: RUF009
    data: pb.DataFrame = betterproto.message_field(2, group="body")  # noqa: RUF009


@given(tries)
def test_a_peer_that_knows_no_reservations_can_not_take_one_for_a_try(frame: TryCall) -> None:
    arm, _ = betterproto.which_one_of(OldClientMsg().parse(codec.encode_client(frame)), "body")
    assert arm == ("" if frame.reserve else "try_")


@given(starts)
def test_a_start_is_encoded_as_betterproto_does(frame: ResultStart) -> None:
    by_betterproto = codec._build_start(frame)
    assert codec.encode_runner(frame) == by_betterproto
    assert (by_hand.encode_start(frame) is None) == (frame.status < 0)
    frame = ResultStart(frame.status, tuple(frame.headers))
    assert codec.decode_runner(by_betterproto) == frame
    if frame.status >= 0:
        assert by_hand.decode_runner(by_betterproto) == frame


@given(finishes | hot_ends)
def test_an_end_is_encoded_as_betterproto_does(frame: Finished) -> None:
    by_betterproto = codec._build_finished(frame)
    assert codec.encode_runner(frame) == by_betterproto
    numbers = (frame.error_code, frame.scheduler_ns, frame.execution_ns, frame.init_start_ns)
    usual = min(numbers) >= 0
    assert (by_hand.encode_finished(frame) is not None) == usual
    assert by_hand.decode_runner(by_betterproto) == (frame if usual else None)


@dataclass(eq=False, repr=False)
class OldFinished(betterproto.Message):
    """The end of a call as a peer knows it that has not heard of hints."""

    success: bool = betterproto.bool_field(1)
    details: str = betterproto.string_field(2)


@given(hints)
def test_a_peer_that_knows_no_hints_skips_them(hint: LoadHint) -> None:
    encoded = codec.encode_runner(Finished(success=True, details="id", load=hint))
    size, at = read_varint(encoded, 1)
    assert at + size == len(encoded)
    old = OldFinished().parse(encoded[at:])
    assert (old.success, old.details) == (True, "id")


@given(hints)
def test_hints_are_read_by_hand(hint: LoadHint) -> None:
    encoded = encode_load(hint)
    assert encoded is not None
    _, at = read_varint(encoded, len(LOAD))
    assert decode_load(encoded, at, len(encoded)) == hint


@given(hints)
def test_hints_that_come_alone_are_read_and_written_as_betterproto_does(hint: LoadHint) -> None:
    told = codec._build_load(hint)
    assert pb.LoadHint().parse(codec.encode_load(hint)) == told
    assert codec.decode_load(codec.encode_load(hint)) == hint
    assert codec.decode_load(bytes(told)) == hint
    assert codec.decode_load(bytes(told) + b"\xf8\x07\x01") == hint  # with what nobody knows
    with pytest.raises(codec.CodecError):
        codec.decode_load(bytes(told) + b"\x2a\x0c\x0a")


def test_what_functions_have_in_common_is_remembered_once() -> None:
    load_codec._known_hint.cache_clear()
    fast._known_rest.cache_clear()
    for number in range(1000):
        slot = number.to_bytes(4, "big") * 2
        hint = LoadHint(active=number % 8, free_memory=2**30, slot=slot, warm={slot: 1})
        date = "2026-11-26T14:41:19.123Z"
        frame = Finished(
            *(True, "id", 0, "", False, date, date, date, 0, 1 + number, "image", 0, 0, 0, 0, hint)
        )
        assert codec.decode_runner(codec.encode_runner(frame)) == frame
    assert load_codec._known_hint.cache_info().misses == 8
    assert fast._known_rest.cache_info().misses == 8


def test_a_digest_of_zeros_is_told_apart_from_that_of_the_call() -> None:
    hint = LoadHint(slot=b"abcdefgh", warm={bytes(8): 2})
    date = "2026-11-26T14:41:19.123Z"
    frame = Finished(*(True, "id", 0, "", False, date, date, date, 0, 1, "image", 0, 0, 0, 0, hint))
    assert codec.decode_runner(codec.encode_runner(frame)) == frame


def test_numbers_out_of_range_are_left_to_betterproto() -> None:
    for wrong in (
        LoadHint(active=-1),
        LoadHint(free_memory=2**64),
        LoadHint(free_cpus=-1),
        LoadHint(reclaimable_cpus=2**32),
        LoadHint(slots=2**32),
        LoadHint(refused=2**32),
        LoadHint(protected_memory=2**64),
        LoadHint(protected_cpus=2**32),
        LoadHint(share=2**32),
        LoadHint(warm={b"": -1}),
    ):
        assert by_hand.encode_finished(Finished(success=True, load=wrong)) is None


@pytest.mark.parametrize("number", [-1, -(2**31), 2**31 - 1, 503])
def test_codes_keep_their_sign(number: int) -> None:
    frame = Finished(success=False, error_code=number)
    assert codec.decode_runner(codec.encode_runner(frame)) == frame
    assert codec.decode_runner(codec.encode_runner(ResultStart(number))) == ResultStart(number)


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def _message(numbers: st.SearchStrategy[int], values: st.SearchStrategy[Any]) -> Any:
    """Fields in any order, repeated, of a wrong type, and unknown ones."""
    return st.lists(st.builds(_field, numbers, values), max_size=8).map(b"".join)


scalars = st.integers(0, 3) | st.integers(0, 2**64 - 1) | texts.map(str.encode) | st.binary()
texts_only = texts.map(str.encode) | st.binary(max_size=4)
pairs = _message(st.integers(1, 3), texts_only)
https = _message(st.integers(1, 3), pairs | st.integers(0, 600) | scalars)
result_starts = _message(st.sampled_from([100, 100, 99]), https | scalars)
call_ends = _message(st.integers(1, 16), scalars)
try_calls = _message(st.integers(1, 4) | st.just(101), pairs | texts_only | scalars)
commits = _message(st.integers(1, 2), st.integers(0, 2) | scalars)
client_msgs = _message(st.sampled_from([1, 2, 3, 101, 102]), try_calls | scalars)
runner_msgs = _message(st.sampled_from([1, 2, 3, 4, 101]), result_starts | call_ends | scalars)
one_try = st.builds(_field, st.sampled_from([1, 101]), try_calls)
one_start = https.map(lambda value: _field(1, _field(100, value)))
one_end = call_ends.map(lambda value: _field(3, value))


def _found(decode: Any, data: bytes) -> object:
    try:
        return decode(data)
    except codec.CodecError:
        return "undecodable"


@settings(max_examples=400)
@given(
    client_msgs
    | one_try
    | commits.map(lambda value: _field(102, value))
    | st.binary(max_size=24)
    | st.binary(max_size=9).map(b"\x12".__add__)
)
def test_client_messages_by_hand_agree_with_betterproto_or_give_up(data: bytes) -> None:
    frame = by_hand.decode_client(data)
    if frame is not None:
        assert frame == _found(codec._parse_client, data)


@settings(max_examples=400)
@given(runner_msgs | one_start | one_end | st.binary(max_size=24))
def test_runner_messages_by_hand_agree_with_betterproto_or_give_up(data: bytes) -> None:
    frame = by_hand.decode_runner(data)
    if frame is not None:
        assert frame == _found(codec._parse_runner, data)


@given(st.data())
def test_a_cut_message_is_never_taken_for_a_whole_one(data: st.DataObject) -> None:
    frame = data.draw(datas | starts | finishes)
    whole = codec.encode_runner(frame)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    assert by_hand.decode_runner(cut) is None


@given(datas | tries | st.builds(Commit, st.booleans()))
def test_client_frames_round_trip(frame: ClientFrame) -> None:
    assert codec.decode_client(codec.encode_client(frame)) == frame


@given(datas | starts | finishes | st.just(Reserved()))
def test_runner_frames_round_trip(frame: RunnerFrame) -> None:
    found = codec.decode_runner(codec.encode_runner(frame))
    if isinstance(frame, ResultStart):
        assert isinstance(found, ResultStart)
        assert (found.status, list(found.headers)) == (frame.status, list(frame.headers))
    else:
        assert found == frame


@given(st.binary(max_size=64))
def test_any_bytes_decode_or_raise_codec_errors(data: bytes) -> None:
    for decode in (
        codec.decode_client,
        codec.decode_runner,
        codec.decode_status,
        codec.decode_struct,
        codec.decode_config,
        codec.decode_log_message,
        codec.decode_log_batch,
        codec.decode_empty,
    ):
        try:
            decode(data)
        except codec.CodecError as error:
            assert "cannot decode a" in str(error)  # noqa: PT017  (most bytes decode)


def test_unknown_arms_are_none() -> None:
    unknown = b"\x7a\x02hi"  # field 15
    assert codec.decode_client(unknown) is None
    assert codec.decode_runner(unknown) is None
    assert codec.decode_log_message(unknown) is None
    assert codec.decode_client(b"") is None
    assert codec.decode_client(memoryview(b"")) is codec.decode_runner(memoryview(b"")) is None
    no_http = bytes(pb.RunnerMsg(result_start=pb.CallResultStart()))
    assert codec.decode_runner(no_http) is None


@given(st.integers(0, 3 * BODY_PIECE), st.booleans())
def test_data_is_cut_into_frames(size: int, eof: bool) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    frames: list[Data] = []
    for parts in data_messages(Data(data, eof=eof)):
        message = b"".join(parts)
        assert int.from_bytes(message[:5], "big") == len(message) - 5
        frame = codec.decode_client(message[5:])
        assert isinstance(frame, Data)
        frames.append(frame)
    assert b"".join(frame.data for frame in frames) == data
    assert all(len(frame.data) <= BODY_PIECE for frame in frames)
    assert [frame.eof for frame in frames] == [False] * (len(frames) - 1) + [eof]


def test_runner_status_round_trips() -> None:
    status = RunnerStatus(
        active=3,
        failed=True,
        id="i",
        details="d",
        error_code=500,
        error_text="e",
        created_at="c",
        started_at="s",
        completed_at="o",
        cached=True,
        requests_received=2**63,
        requests_handled=4,
        kdumps_on_disk=5,
        scheduler_ns=6,
        execution_ns=7,
        is_network_disabled=True,
        custom_status={"k": "v"},
        image_pull_wait_ns=8,
        ctr_prep_ns=9,
        ctr_create_ns=10,
        init_start_ns=11,
        reservations=True,
    )
    assert codec.decode_status(codec.encode_status(status)) == status
    assert codec.decode_status(b"") == RunnerStatus()


def test_log_messages_round_trip() -> None:
    for message in (LogStart({"a": "b"}), LogStart(), LogAck(), LogReady()):
        assert codec.decode_log_message(codec.encode_log_message(message)) == message
    batch = [
        LogContainer(
            "app", "fn", "ctr", [LogRequest("r", [LogLine(1, b"o"), LogLine(2, b"e", stderr=True)])]
        )
    ]
    assert codec.decode_log_batch(codec.encode_log_batch(batch)) == batch
    assert codec.decode_config(codec.encode_config({"a": "b"})) == {"a": "b"}
