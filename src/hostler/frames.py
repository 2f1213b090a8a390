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

BODY_PIECE = 120 * 1024
"""Bytes of a body that go together from one socket to the next: one read, one data frame, one
write, so that no read leaves a small rest for a frame of its own. With its envelope such a frame is
one HTTP/2 frame between two of hostler's own, and half of a stream's window: while one is read, the
next is on its way. (Fn sends 10 KiB and takes any size up to gRPC's 4 MiB.)"""


class TryCall(msgspec.Struct, frozen=True, gc=False):
    """The first frame of an engagement: the call, its slot key (hex or "") and extensions.

    ``reserve`` asks the runner to hold a slot for the call until a `Commit`, instead of running
    it. Only for runners that say that they can: others end the engagement with an error.
    ``wait_ms``: instead of a NACK for want of room, the call may wait so many milliseconds to be
    the next on a hot container. ``gentle``: it is to be refused rather than to have a hot container
    evicted that is worth keeping (`hostler.agent`, ``_worth``). ``launch``: a container is to be
    started for it unless one is idle, as its load balancer has decided that more are needed.

    The repr leaves out what may hold secrets: the call (its config) and the extensions.
    """

    models_call_json: str
    slot_hash_id: str = ""
    extensions: Mapping[str, str] = {}
    reserve: bool = False
    wait_ms: int = 0
    gentle: bool = False
    launch: bool = False

    def __repr__(self) -> str:
        size = len(self.models_call_json)
        return f"<TryCall {size} characters, extensions={sorted(self.extensions)}>"


class Commit(msgspec.Struct, frozen=True, gc=False):
    """From the LB, after `Reserved`: run the call. Its body follows, the first frame of it at once
    if ``with_data``."""

    with_data: bool = False


class Reserved(msgspec.Struct, frozen=True, gc=False):
    """From the runner, after a `TryCall` with ``reserve``: it holds a slot for the call."""


class Data(msgspec.Struct, frozen=True, gc=False):
    """A piece of a body. ``eof`` is only meaningful from LB to runner."""

    data: bytes
    eof: bool = False


class ResultStart(msgspec.Struct, frozen=True, gc=False):
    """The response head. For a detached call: 202 and no headers, the acknowledgement."""

    status: int
    headers: Headers = ()


MAX_WARM_KEYS = 1024
"""Slot keys that one hint names at most: what bounds its size, at about 14 KiB."""
WARM_KEY_SECONDS = 1 / 640
"""Seconds for each slot key that a hint has named until another one names them all again: what
bounds the CPU time that naming takes at both ends, however many functions are hot."""
SLOT_DIGEST = 8
"""Bytes of a slot key that stand for it in a hint. It is only a hint: a collision costs a cold
start."""


LEAVE_SECONDS = 0.15
"""How long a place is left to other LBs: they hear of it after 50 ms, one after the other
(`hostler.runner._load_feed`)."""


class LoadHint(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How busy a runner is, as it says itself with a NACK or at the end of a call.

    Hostler's own; Fn's runners send none and its LBs ignore it. What it says was true when it
    was sent, so it has to age.
    """

    active: int = 0
    """Calls that run or wait there, this one not among them."""
    free_memory: int = 0
    """Bytes that new containers could have without an eviction."""
    reclaimable_memory: int = 0
    """Bytes beside those that evictions of idle containers would free, or have begun to. Known if
    the hint is ``complete`` or has ``free_cpus``."""
    free_cpus: int | None = None
    """Milli-CPUs, as ``free_memory``; ``None`` = not known."""
    reclaimable_cpus: int = 0
    """Milli-CPUs, as ``reclaimable_memory``."""
    retry_after_ms: int = 0
    """Milliseconds after which a place will probably be free; 0 = not known."""
    slot: bytes = b""
    """Digest of the slot key of the call that this comes with; empty = not known."""
    warm: Mapping[bytes, int] = {}
    """Idle hot containers by digest of their slot key. That of ``slot`` counts as 0 if it is
    missing; others only if the hint is ``complete``."""
    complete: bool = False
    """``warm`` has every slot key with idle containers, or `MAX_WARM_KEYS` of them, which then say
    nothing about others."""
    reserves: bool = False
    """The runner takes reservations (`TryCall.reserve`)."""
    slots: int = 0
    """Hot containers of ``slot``, busy or not, behind each of which one call may wait
    (`TryCall.wait_ms`); 0 = none may."""
    refused: int = 0
    """Calls that the runner has refused since its start, of whatever LB; modulo 2**32. For LBs that
    do not know ``leave``."""
    worthy_memory: int = 0
    """Bytes of ``reclaimable_memory`` that a gentle call does not get (`TryCall.gentle`)."""
    worthy_cpus: int = 0
    """Milli-CPUs of ``reclaimable_cpus``, likewise."""
    share: int = 0
    """Calls of ``slot`` that this LB may have there at once, running or waiting, because other LBs
    want in; 0 = nobody else does."""
    idle_cpus: int | None = None
    """Milli-CPUs of the runner's machine that nothing used lately; ``None`` = it does not say, or
    not with each hint."""
    starting: int = 0
    """Containers of ``slot`` that are on their way."""
    leave: bool = False
    """The place of the call that this comes with is for other LBs, which want in and have fewer
    calls there: this one leaves it for `LEAVE_SECONDS`."""


class Finished(msgspec.Struct, frozen=True, gc=False):
    """The outcome of the call on the runner, its last frame. To be made by keywords, but where each
    call makes one."""

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
    load: LoadHint | None = None


ClientFrame = TryCall | Data | Commit
RunnerFrame = ResultStart | Data | Finished | Reserved


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
    reservations: bool = False
    """The runner takes reservations (`TryCall.reserve`)."""


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
