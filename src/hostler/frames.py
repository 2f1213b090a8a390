"""What travels in an engagement, as plain values: no generated message leaves ``wire/``.

Field meanings are those of ``proto/runner.proto``. Durations are nanoseconds, 0 = not known.
Dates are the text that the peer sent (RFC 3339); clocks of two machines are unrelated, so only
durations may be computed with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

Headers = Sequence[tuple[str, str]]
"""HTTP headers in order, names repeated for repeated values."""

MAX_DATA_CHUNK = 10 * 1024
"""Bytes of body that Fn puts into one data frame (``MaxDataChunk``). Receivers take any size."""


class TryCall(msgspec.Struct, frozen=True, gc=False):
    """The first frame of an engagement: the call, its slot key (hex or "") and extensions."""

    models_call_json: str
    slot_hash_id: str = ""
    extensions: Mapping[str, str] = {}


class Data(msgspec.Struct, frozen=True, gc=False):
    """A piece of a body. ``eof`` is only meaningful from LB to runner."""

    data: bytes
    eof: bool = False


class ResultStart(msgspec.Struct, frozen=True, gc=False):
    """The response head. For a detached call: 202 and no headers, the acknowledgement."""

    status: int
    headers: Headers = ()


class Finished(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The outcome of the call on the runner, its last frame."""

    success: bool
    details: str = ""
    error_code: int = 0
    error_text: str = ""
    error_user: bool = False
    created_at: str = ""
    started_at: str = ""
    completed_at: str = ""
    scheduler_ns: int = 0
    execution_ns: int = 0
    image: str = ""
    image_pull_wait_ns: int = 0
    ctr_prep_ns: int = 0
    ctr_create_ns: int = 0
    init_start_ns: int = 0


ClientFrame = TryCall | Data
RunnerFrame = ResultStart | Data | Finished


class RunnerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``Status`` and ``Status2``; see the proto file for the fields."""

    active: int = 0
    failed: bool = False
    id: str = ""
    details: str = ""
    error_code: int = 0
    error_text: str = ""
    created_at: str = ""
    started_at: str = ""
    completed_at: str = ""
    cached: bool = False
    requests_received: int = 0
    requests_handled: int = 0
    kdumps_on_disk: int = 0
    scheduler_ns: int = 0
    execution_ns: int = 0
    is_network_disabled: bool = False
    custom_status: Mapping[str, str] = {}
    image_pull_wait_ns: int = 0
    ctr_prep_ns: int = 0
    ctr_create_ns: int = 0
    init_start_ns: int = 0


class LogLine(msgspec.Struct, frozen=True):
    """One line of a function's output; ``timestamp_ms`` is UTC Unix milliseconds."""

    timestamp_ms: int
    data: bytes
    stderr: bool = False


class LogRequest(msgspec.Struct, frozen=True):
    """The lines of one request."""

    request_id: str
    lines: Sequence[LogLine]


class LogContainer(msgspec.Struct, frozen=True):
    """The requests of one container in a log batch."""

    app_id: str
    fn_id: str
    container_id: str
    requests: Sequence[LogRequest]


class LogStart(msgspec.Struct, frozen=True):
    """The first message of a log collector."""

    config: Mapping[str, str] = {}


class LogAck(msgspec.Struct, frozen=True):
    """The collector has stored the previous batch."""


class LogReady(msgspec.Struct, frozen=True):
    """The collector can take a batch."""


LogMessage = LogStart | LogAck | LogReady
