"""All messages by betterproto, and the choice of the fast codec where one exists.

betterproto encodes and decodes with its compiled codec; its pure-Python codec is several times
slower. Frames of ``Engage``, the hot path, go to `hostler.wire.codec.fast` first, and come here if
they have an unusual shape. The tests compare both ways.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import betterproto
import betterproto.lib.google.protobuf as google
import msgspec

from ...errors import HostlerError
from ...protocol import (
    BODY_PIECE,
    ClientFrame,
    Commit,
    Data,
    Finished,
    LoadHint,
    LogAck,
    LogContainer,
    LogLine,
    LogMessage,
    LogReady,
    LogRequest,
    LogStart,
    Reserved,
    ResultStart,
    RunnerFrame,
    RunnerStatus,
    TryCall,
)
from ..buffers import LARGE, PREFIX, Buffer
from . import fast
from . import runner_pb as pb
from .fast import DATA_ARM, around_data, decode_data, encode_data, inside, read_varint

WATCH_LOAD = "/RunnerLoad/Watch"

EMPTY = b""
"""The encoding of every message without fields that are set."""

_Message = TypeVar("_Message", bound=betterproto.Message)


class CodecError(HostlerError):
    """The bytes are not a message of the expected type."""


def _parse(kind: type[_Message], data: Buffer) -> _Message:
    try:
        return kind().parse(bytes(data))
    except Exception as error:  # (the compiled codec raises bare RuntimeErrors)
        text = f"cannot decode a {kind.__name__} of {len(data)} bytes: {error}"
        raise CodecError(text) from error


# --- Engage --------------------------------------------------------------------------------


def encode_client(frame: ClientFrame) -> bytes:
    """A ``ClientMsg``."""
    if isinstance(frame, Data):
        return encode_data(frame)
    if isinstance(frame, Commit):
        return fast.encode_commit(frame)
    return fast.encode_try(frame)


def decode_client(data: Buffer) -> ClientFrame | None:
    """A ``ClientMsg``; ``None`` if its arm is missing or unknown. Raises `CodecError`."""
    if type(data) is memoryview:
        with suppress(ValueError, IndexError):  # (also: it is empty)
            if data[0] == DATA_ARM:
                return decode_data(data)
        data = bytes(data)
    return fast.decode_client(data) or _parse_client(data)


def _parse_client(data: bytes) -> ClientFrame | None:
    kind, value = _arm(_parse(pb.ClientMsg, data), "body")
    if kind in ("try_", "reserve"):
        reserve = kind == "reserve"
        return TryCall(
            value.models_call_json,
            value.slot_hash_id,
            value.extensions,
            reserve,
            value.wait_ms,
            value.spare_warm,
            value.launch,
            value.surplus,
        )
    if kind == "data":
        return Data(value.data, value.eof)
    return Commit(value.with_data) if kind == "commit" else None


def encode_runner(frame: RunnerFrame) -> bytes:
    """A ``RunnerMsg``."""
    if isinstance(frame, Finished):
        return fast.encode_finished(frame) or _build_finished(frame)
    if isinstance(frame, ResultStart):
        return fast.encode_start(frame) or _build_start(frame)
    return encode_data(frame) if isinstance(frame, Data) else fast.encode_reserved()


def _build_start(frame: ResultStart) -> bytes:
    headers = [pb.HttpHeader(key=key, value=value) for key, value in frame.headers]
    http = pb.HttpRespMeta(status_code=frame.status, headers=headers)
    return bytes(pb.RunnerMsg(result_start=pb.CallResultStart(http=http)))


_NAMES = {
    "error_text": "error_str",
    "scheduler_ns": "scheduler_duration",
    "execution_ns": "execution_duration",
    "image_pull_wait_ns": "image_pull_wait_duration",
    "ctr_prep_ns": "ctr_prep_duration",
    "ctr_create_ns": "ctr_create_duration",
    "init_start_ns": "init_start_time",
}
"""Names of fields in the proto file, where they are not the names that the code uses."""


def _fields_of(kind: type[msgspec.Struct], *but: str) -> list[tuple[str, str]]:
    """The fields of ``kind``: their names in the code, and in the proto file."""
    return [(name, _NAMES.get(name, name)) for name in kind.__struct_fields__ if name not in but]


_FINISHED_FIELDS = _fields_of(Finished, "load")
_LOAD_FIELDS = _fields_of(LoadHint, "warm", "slot_extensions")
_STATUS_FIELDS = _fields_of(RunnerStatus)


def _build_finished(frame: Finished) -> bytes:
    fields = {there: getattr(frame, here) for here, there in _FINISHED_FIELDS}
    load = None if frame.load is None else _build_load(frame.load)
    return bytes(pb.RunnerMsg(finished=pb.CallFinished(**fields, load=load)))


def _build_load(hint: LoadHint) -> pb.LoadHint:
    fields = {there: getattr(hint, here) for here, there in _LOAD_FIELDS}
    warm = [pb.WarmSlot(slot=slot, count=count) for slot, count in hint.warm.items()]
    return pb.LoadHint(**fields, warm=warm, slot_extensions=list(hint.slot_extensions))


def encode_load(hint: LoadHint) -> bytes:
    """A ``LoadHint`` that comes alone."""
    part = fast.encode_load(hint)
    if part is None:
        return bytes(_build_load(hint))
    return part[inside(part, len(fast.LOAD), len(part)) :]


def decode_load(data: Buffer) -> LoadHint:
    """The reverse. Raises `CodecError`."""
    data = bytes(data)
    with suppress(ValueError, IndexError):
        return fast.decode_load(data, 0, len(data))
    return _load(_parse(pb.LoadHint, data))


def decode_runner(data: Buffer) -> RunnerFrame | None:
    """A ``RunnerMsg``; ``None`` if its arm is missing or unknown. Raises `CodecError`."""
    if type(data) is memoryview:
        with suppress(ValueError, IndexError):  # (also: it is empty)
            if data[0] == DATA_ARM:
                return decode_data(data)
        data = bytes(data)
    return fast.decode_runner(data) or _parse_runner(data)


def _parse_runner(data: bytes) -> RunnerFrame | None:
    kind, value = _arm(_parse(pb.RunnerMsg, data), "body")
    if kind == "result_start":
        meta, http = _arm(value, "meta")
        if meta != "http":
            return None
        return ResultStart(http.status_code, tuple((h.key, h.value) for h in http.headers))
    if kind == "data":
        return Data(value.data, value.eof)
    if kind == "finished":
        return _finished(value)
    return Reserved() if kind == "reserved" else None


def _finished(value: pb.CallFinished) -> Finished:
    fields = {here: getattr(value, there) for here, there in _FINISHED_FIELDS}
    return Finished(**fields, load=None if value.load is None else _load(value.load))


def _load(value: pb.LoadHint) -> LoadHint:
    fields = {here: getattr(value, there) for here, there in _LOAD_FIELDS}
    warm = {each.slot: each.count for each in value.warm}
    return LoadHint(**fields, warm=warm, slot_extensions=tuple(value.slot_extensions))


def _arm(message: betterproto.Message, group: str) -> tuple[str, Any]:
    # Reading an arm that is not set raises AttributeError, hence this way.
    return betterproto.which_one_of(message, group)


# --- Status, Status2, ConfigureRunner ------------------------------------------------------


def encode_status(status: RunnerStatus) -> bytes:
    """A ``RunnerStatus``."""
    fields = {there: getattr(status, here) for here, there in _STATUS_FIELDS}
    return bytes(pb.RunnerStatus(**fields))


def decode_status(data: Buffer) -> RunnerStatus:
    """A ``RunnerStatus``. Raises `CodecError`."""
    message = _parse(pb.RunnerStatus, data)
    return RunnerStatus(**{here: getattr(message, there) for here, there in _STATUS_FIELDS})


def encode_struct(payload: str) -> bytes:
    """A ``google.protobuf.Struct`` of a JSON object as text. Raises ValueError if it is none."""
    return bytes(json_to_struct(payload))


def decode_struct(data: Buffer) -> str:
    """The JSON text of a ``google.protobuf.Struct``. Raises `CodecError`."""
    try:
        check_struct_depth(bytes(data))
    except ValueError as error:
        raise CodecError(f"cannot decode a Struct: {error}") from None
    return struct_to_json(_parse(google.Struct, data))


def encode_config(config: Mapping[str, str]) -> bytes:
    """A ``ConfigMsg``."""
    return bytes(pb.ConfigMsg(config=dict(config)))


def decode_config(data: Buffer) -> dict[str, str]:
    """A ``ConfigMsg``. Raises `CodecError`."""
    return _parse(pb.ConfigMsg, data).config


def decode_empty(data: Buffer) -> None:
    """``google.protobuf.Empty`` or ``ConfigStatus``. Raises `CodecError`."""
    _parse(google.Empty, data)


# --- grpc.health.v1 ------------------------------------------------------------------------
# https://github.com/grpc/grpc/blob/master/doc/health-checking.md

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


@dataclass(eq=False, repr=False)
class HealthCheckRequest(betterproto.Message):
    """A question about one service; the empty name is the server as a whole."""

    service: str = betterproto.string_field(1)


@dataclass(eq=False, repr=False)
class HealthCheckResponse(betterproto.Message):
    """The answer."""

    status: int = betterproto.int32_field(1)  # an enumeration there; the encoding is the same


def decode_health_request(data: Buffer) -> str:
    """The name of the service that is asked for. Raises `CodecError`."""
    return _parse(HealthCheckRequest, data).service


def encode_health(status: int) -> bytes:
    """A ``HealthCheckResponse``."""
    return bytes(HealthCheckResponse(status))


def decode_serving(data: Buffer) -> bool | None:
    """Whether a ``HealthCheckResponse`` says SERVING; ``None`` if the server does not know the
    service. Raises `CodecError`."""
    status = _parse(HealthCheckResponse, data).status
    return None if status == SERVICE_UNKNOWN else status == SERVING


# --- StreamLogs ----------------------------------------------------------------------------


def encode_log_message(message: LogMessage) -> bytes:
    """A ``LogRequestMsg``."""
    if isinstance(message, LogStart):
        start = pb.LogRequestMsgStart(config=dict(message.config))
        return bytes(pb.LogRequestMsg(start=start))
    if isinstance(message, LogAck):
        return bytes(pb.LogRequestMsg(ack=pb.LogRequestMsgAck()))
    return bytes(pb.LogRequestMsg(ready=pb.LogRequestMsgReady()))


def decode_log_message(data: Buffer) -> LogMessage | None:
    """A ``LogRequestMsg``; ``None`` if its arm is missing or unknown. Raises `CodecError`."""
    kind, value = _arm(_parse(pb.LogRequestMsg, data), "body")
    if kind == "start":
        return LogStart(value.config)
    if kind == "ack":
        return LogAck()
    return LogReady() if kind == "ready" else None


def encode_log_batch(batch: Sequence[LogContainer]) -> bytes:
    """A ``LogResponseMsg``."""
    return bytes(pb.LogResponseMsg(data=[_encode_container(container) for container in batch]))


def _encode_container(container: LogContainer) -> pb.LogResponseMsgContainer:
    source = pb.LogResponseMsgContainerRequestLineSource
    return pb.LogResponseMsgContainer(
        application_id=container.app_id,
        function_id=container.fn_id,
        container_id=container.container_id,
        data=[
            pb.LogResponseMsgContainerRequest(
                request_id=request.request_id,
                data=[
                    pb.LogResponseMsgContainerRequestLine(
                        timestamp=line.timestamp_ms,
                        source=source(int(line.stderr)),
                        data=line.data,
                    )
                    for line in request.lines
                ],
            )
            for request in container.requests
        ],
    )


def decode_log_batch(data: Buffer) -> list[LogContainer]:
    """A ``LogResponseMsg``. Raises `CodecError`."""
    return [_decode_container(container) for container in _parse(pb.LogResponseMsg, data).data]


def _decode_container(message: pb.LogResponseMsgContainer) -> LogContainer:
    stderr = pb.LogResponseMsgContainerRequestLineSource.STDERR
    requests = [
        LogRequest(
            request.request_id,
            [LogLine(line.timestamp, line.data, line.source == stderr) for line in request.data],
        )
        for request in message.data
    ]
    return LogContainer(message.application_id, message.function_id, message.container_id, requests)


def with_prefix(message: bytes) -> bytes:
    """``message`` with gRPC's length prefix, as streams take it."""
    return PREFIX.pack(0, len(message)) + message


def data_parts(frame: Data) -> Iterable[bytes]:
    """``frame`` as messages of at most ``BODY_PIECE`` bytes of data, ``eof`` on the last."""
    if len(frame.data) <= BODY_PIECE:
        return (encode_data(frame),)
    return map(b"".join, _pieces(frame))


def data_messages(frame: Data) -> Iterator[tuple[Buffer, ...]]:
    """As `data_parts`, with prefixes: the parts of each message. Large data are not copied."""
    if len(frame.data) < LARGE:
        yield (with_prefix(encode_data(frame)),)
        return
    for head, piece, tail in _pieces(frame):
        prefix = PREFIX.pack(0, len(head) + len(piece) + len(tail))
        yield (prefix + head, piece, tail) if tail else (prefix + head, piece)


def runner_messages(frame: RunnerFrame) -> Iterable[tuple[Buffer, ...]]:
    """Any frame of a runner as messages with prefixes: the parts of each."""
    if isinstance(frame, Data):
        return data_messages(frame)
    return ((with_prefix(encode_runner(frame)),),)


def _pieces(frame: Data) -> Iterator[tuple[bytes, memoryview, bytes]]:
    data, size = memoryview(frame.data), len(frame.data)
    for start in range(0, size, BODY_PIECE):
        piece = data[start : start + BODY_PIECE]
        head, tail = around_data(len(piece), frame.eof and start + BODY_PIECE >= size)
        yield head, piece, tail


# --- google.protobuf.Struct and JSON text, by the protobuf JSON mapping --------------------
# (betterproto's own mapping turns a Struct into its wire shape: {"fields": ...}.)

_WHOLE = 2**53
"""A Struct holds every number as a double. Below this bound every whole double is exact, and is
written without a fraction."""


def json_to_struct(text: str) -> google.Struct:
    """Raises ValueError if ``text`` is not a JSON object."""
    try:
        return _struct(msgspec.json.decode(text, type=dict[str, Any]))
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the payload is not a JSON object: {error}") from error


def _struct(value: dict[str, Any]) -> google.Struct:
    return google.Struct(fields={key: _value(item) for key, item in value.items()})


def _value(item: Any) -> google.Value:
    if item is None:
        return google.Value(null_value=google.NullValue(0))
    if isinstance(item, bool):
        return google.Value(bool_value=item)
    if isinstance(item, (int, float)):
        return google.Value(number_value=float(item))
    if isinstance(item, str):
        return google.Value(string_value=item)
    if isinstance(item, list):
        return google.Value(list_value=google.ListValue(values=[_value(i) for i in item]))
    return google.Value(struct_value=_struct(item))


def struct_to_json(struct: google.Struct) -> str:
    """Compact JSON. NaN and infinities, which JSON lacks, become ``null``."""
    return msgspec.json.encode(_plain_struct(struct)).decode()


def _plain_struct(struct: google.Struct) -> dict[str, Any]:
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: google.Value) -> Any:
    kind: str
    item: Any
    kind, item = betterproto.which_one_of(value, "kind")
    if kind == "number_value":
        whole = math.isfinite(item) and item.is_integer() and abs(item) < _WHOLE
        return int(item) if whole else item
    if kind == "list_value":
        return [_plain(i) for i in item.values]
    if kind == "struct_value":
        return _plain_struct(item)
    return item if kind in ("bool_value", "string_value") else None


_MAX_STRUCT_DEPTH = 400
"""Nested messages; one level of JSON takes up to three. Google's decoders stop at 100."""

# (message, field) -> message in that field, for the four messages that make up a Struct
_STRUCT_FIELDS = {
    ("struct", 1): "entry",
    ("entry", 2): "value",
    ("value", 5): "struct",
    ("value", 6): "list",
    ("list", 1): "value",
}

_FIXED_SIZES = {1: 8, 5: 4}


def check_struct_depth(data: bytes) -> None:
    """Refuse what would overflow the C stack of the compiled codec, which recurses unchecked.

    Raises ValueError.
    """
    try:
        _walk(data)
    except IndexError:
        raise ValueError("it ends within a field") from None


def _walk(data: bytes) -> None:
    stack = [("struct", len(data))]
    at = 0
    while stack:
        kind, end = stack[-1]
        if at >= end:
            stack.pop()
            continue
        key, at = read_varint(data, at)
        child = _STRUCT_FIELDS.get((kind, key >> 3)) if key & 7 == 2 else None
        if key & 7 == 0:
            _, at = read_varint(data, at)
        elif key & 7 == 2:
            size, at = read_varint(data, at)
            if child:
                stack.append((child, at + size))
            else:
                at += size
        elif key & 7 in _FIXED_SIZES:
            at += _FIXED_SIZES[key & 7]
        else:
            raise ValueError(f"wire type {key & 7}")
        if len(stack) > _MAX_STRUCT_DEPTH:
            raise ValueError("it is nested too deeply")
