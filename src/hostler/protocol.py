"""What passes between a load balancer and a runner, whatever carries it: frames, and the two ends
of an engagement.

Field meanings are those of ``proto/runner.proto``. Durations are nanoseconds, 0 = not known.
Dates are the text that the peer sent (RFC 3339); clocks of two machines are unrelated, so only
durations may be computed with.

The engagement seam: one attempt to run one call, as seen from either end of the wire.

``wire/`` implements it over one gRPC stream per call (``Engage``). Runners and the pure runner
only know these classes, so an engagement may also share a stream with others, or be a pair of
memory channels in a test (`hostler.testing`). All methods are Trio-flavoured.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import msgspec
import trio

from .errors import HostlerError

__all__ = [
    "BODY_PIECE",
    "DEADLINE_STATUS",
    "LEAVE_SECONDS",
    "MAX_DATA_CHUNK",
    "MAX_SLOT_EXTENSIONS",
    "MAX_WARM_KEYS",
    "NACK_STATUS",
    "SLOT_DIGEST",
    "UNAVAILABLE_STATUS",
    "UNIMPLEMENTED_STATUS",
    "UNKNOWN_STATUS",
    "UNOBSERVED",
    "WARM_KEY_SECONDS",
    "AttemptObserver",
    "ClientEngagement",
    "ClientFrame",
    "Commit",
    "Data",
    "EngagementEnded",
    "EngagementFailed",
    "Finished",
    "GRPCStatus",
    "Headers",
    "LoadHint",
    "LogAck",
    "LogChannel",
    "LogCollector",
    "LogContainer",
    "LogLine",
    "LogMessage",
    "LogReady",
    "LogRequest",
    "LogStart",
    "NotSent",
    "Reserved",
    "ResultStart",
    "RunnerClient",
    "RunnerFrame",
    "RunnerService",
    "RunnerStatus",
    "ServerEngagement",
    "TryCall",
]

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

    ``reserve`` asks the runner to hold a slot for the call until a `Commit`, instead of running it.
    Only for runners that say that they can: others end the engagement with an error. ``wait_ms``:
    instead of a NACK for want of room, the call may wait so many milliseconds to be the next on a
    hot container. ``spare_warm``: the runner refuses the call rather than evict a hot container
    that is worth keeping (`hostler.agent`, ``resources``). ``launch``: a container is to be started
    for it unless one is idle, as its load balancer has decided that more are needed. ``surplus``:
    one more of its function's containers on that runner is surplus, as its load balancer has found
    out: the first to be evicted.

    The repr leaves out what may hold secrets: the call (its config) and the extensions.
    """

    models_call_json: str
    slot_hash_id: str = ""
    extensions: Mapping[str, str] = {}
    reserve: bool = False
    wait_ms: int = 0
    spare_warm: bool = False
    launch: bool = False
    surplus: bool = False

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

MAX_SLOT_EXTENSIONS = 32
"""Most names of extensions in one hint."""

SLOT_DIGEST = 8
"""Bytes of a slot key that stand for it in a hint. It is only a hint: a collision costs a cold
start."""


LEAVE_SECONDS = 0.15
"""How long a place is left to other LBs: they hear of it after 50 ms, one after the other
(`hostler.runner.load_feed`)."""


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
    protected_memory: int = 0
    """Bytes of ``reclaimable_memory`` that a call with `TryCall.spare_warm` does not get."""
    protected_cpus: int = 0
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
    slot_extensions: tuple[str, ...] = ()
    """Names of the extensions that the runner's driver has read for slot keys, sorted; only in a
    ``complete`` hint."""


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

NACK_STATUS = 503
"""A gRPC status outside the standard range that means the same as ``finished{503}``."""


UNKNOWN_STATUS = 2
"""The gRPC status with which runners answer a first frame that they do not know."""

UNIMPLEMENTED_STATUS = 12
"""The gRPC status of a method that the server does not know."""

UNAVAILABLE_STATUS = 14
"""The gRPC status of a stream whose connection or server has gone."""


DEADLINE_STATUS = 4
"""The gRPC status of a stream whose deadline, which the client had set, has passed."""


class NotSent(HostlerError):
    """The ``TryCall`` was certainly not handed to the transport: the call may be tried again.

    ``__cause__`` is the trouble (refused, timed out, TLS, closed), the text a summary of it.
    """


class EngagementEnded(HostlerError):
    """The peer has ended the engagement; what was to be sent is of no use any more."""


class EngagementFailed(HostlerError):
    """The stream broke, or ended with a gRPC status other than OK.

    ``status`` is the gRPC status number (503 is possible), ``text`` the peer's message, which
    must not be shown to clients.
    """

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(f"gRPC status {status}: {text}")


class AttemptObserver:
    """Hears how one attempt to run a call goes, from whatever layer knows it first.

    All methods are synchronous and must neither block nor raise. By default they do nothing, and a
    slot that a runner holds is claimed.
    """

    def asked(self) -> None:
        """The runner was asked for a slot: a ``TryCall`` with ``reserve`` was handed to the
        transport."""

    def claim(self) -> bool:
        """The runner holds a slot for the call: true = commit the call to it, false = give it
        back. Asked once at most."""
        return True

    def committed(self) -> None:
        """The call may run from now on: its ``TryCall``, or the `Commit` of its reservation, was
        handed to the transport. Told once at most."""


UNOBSERVED = AttemptObserver()


class ClientEngagement(ABC):
    """The LB's end, open from a sent ``TryCall`` to the end of the stream.

    A ``TryCall`` with ``reserve`` makes it a reservation. The first frame received is then
    `Reserved`, or the `Finished` of a runner that refuses or fails; nothing may be sent before
    `commit`, with which the engagement goes on as any other. Leaving it uncommitted gives the
    slot back, and the call has not run. A peer that does not know reservations ends the stream
    with the status `UNKNOWN_STATUS`, and has not run the call either.
    """

    @abstractmethod
    async def send(self, frame: Data) -> None:
        """Wait for the runner's flow control, then send. Raises `EngagementEnded`."""

    @abstractmethod
    async def commit(self, first: Data | None) -> None:
        """Send `Commit`, and ``first`` with it if there is one: from here the call may run.

        The engagement's observer is told when the `Commit` was handed to the transport. Raises
        `NotSent` if that certainly did not happen. If the runner has ended the stream before,
        neither happens, and ``receive`` tells its outcome. Cancelled before the hand-over, nothing
        is sent.
        """

    @abstractmethod
    async def receive(self) -> RunnerFrame | None:
        """The next frame; ``None`` at the regular end (status OK). Not reading stops the runner
        from writing. Raises `EngagementFailed`, or `NotSent` if the runner proves that it never
        looked at the call (it refused the stream, or went away before it): the call may be tried
        again although it counted as committed. Unknown frames are logged and skipped."""


class RunnerClient(ABC):
    """A client of one runner, made without connecting; connections are opened when needed."""

    @property
    @abstractmethod
    def address(self) -> str:
        """``host:port`` of the runner, by which logs and metrics name it."""

    @abstractmethod
    def engage(
        self,
        try_call: TryCall,
        *,
        first: Data | None = None,
        request_id: str = "",
        deadline: float = math.inf,
        observer: AttemptObserver = UNOBSERVED,
    ) -> AbstractAsyncContextManager[ClientEngagement]:
        """Open an engagement: send ``try_call``, and ``first`` with it if there is one.

        ``deadline`` (`trio.current_time`) is told to the runner, as the time that is left; it
        ends nothing at this end. A runner that is not done by then ends the stream with
        `DEADLINE_STATUS`.

        ``observer`` is told when ``try_call`` was handed to the transport (`AttemptObserver.asked`
        if it has ``reserve``, else `AttemptObserver.committed`), and of a later `Commit`.
        Entering raises `NotSent` if that certainly did not happen. If the runner ends the stream
        with a status before, ``observer`` is not told and ``receive`` raises that status.
        Leaving the block before the end of the stream, or being cancelled, resets the stream: the
        runner cancels the call.
        """

    @abstractmethod
    async def status(self, payload: str | None = None) -> RunnerStatus:
        """``Status``, or ``Status2`` with ``payload``, a JSON object as text.
        Raises `EngagementFailed` or `NotSent`."""

    @abstractmethod
    async def configure(self, config: Mapping[str, str]) -> None:
        """``ConfigureRunner``. Raises `EngagementFailed` or `NotSent`."""

    async def watch_health(self) -> AsyncGenerator[bool, None]:
        """Whether the runner takes calls, now and after each change. Raises `EngagementFailed` or
        `NotSent` once the runner can't be heard any more.

        Ends if the runner has no way to tell. The default ends at once. Close it (with
        `contextlib.aclosing`) if you leave it before its end.
        """
        await trio.lowlevel.checkpoint()
        return
        yield

    async def watch_load(self) -> AsyncGenerator[LoadHint, None]:
        """How busy the runner is, now and after changes. For the rest see `watch_health`."""
        await trio.lowlevel.checkpoint()
        return
        yield

    @abstractmethod
    def stream_logs(self) -> AbstractAsyncContextManager[LogCollector]:
        """``StreamLogs``, from the collector's side."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections at once; running engagements fail. Idempotent."""


class LogCollector(ABC):
    """The collector's end of a log stream."""

    @abstractmethod
    async def send(self, message: LogMessage) -> None:
        """Send `LogStart` first, then a `LogReady` or `LogAck` to ask for each batch. Waits for
        the runner's flow control. Raises `EngagementEnded`."""

    @abstractmethod
    async def receive(self) -> Sequence[LogContainer] | None:
        """The next batch; ``None`` at the regular end. Raises `EngagementFailed`."""


class ServerEngagement(ABC):
    """The runner's end."""

    request_id: str
    """Of the metadata ``fn_request_id``; "" = none."""
    peer: str
    """The LB's address, for logs."""
    client: str = ""
    """Who the LB is, the same on all of its connections: what it says itself, else ``peer``."""
    named: bool = False
    """Whether the LB has named itself: it is one of hostler's, which let refused calls wait in
    order. Others ask again and again."""
    deadline: float = math.inf
    """When the LB gives the call up (`trio.current_time`); the engagement is cancelled then."""

    @abstractmethod
    async def receive(self) -> ClientFrame | None:
        """The next frame; ``None`` when the LB has half-closed. Not reading stops the LB from
        writing. A frame of neither kind is a `ProtocolError`."""

    @abstractmethod
    async def send(self, frame: RunnerFrame) -> None:
        """Wait for the LB's flow control, then send. Data of any size: it is cut to frames."""

    async def send_all(self, frames: Sequence[RunnerFrame], *, last: bool = False) -> None:
        """As `send`, for frames that are there at the same time: they go out in one write.

        ``last`` promises that the service returns at once after it; they may then be kept until
        the end of the RPC goes out with them.
        """
        for frame in frames:
            await self.send(frame)


class LogChannel(ABC):
    """The runner's end of a log stream."""

    @abstractmethod
    async def receive(self) -> LogMessage | None:
        """Wait for the collector's next message; ``None`` when it has half-closed. Raises
        `ProtocolError` for a message of no known kind."""

    @abstractmethod
    async def send(self, batch: Sequence[LogContainer]) -> None:
        """Send one batch, whole; waits for the collector's flow control."""


class GRPCStatus(HostlerError):
    """Raised by a `RunnerService` to end an RPC with this status number and text."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(f"gRPC status {status}: {text}")


class RunnerService(ABC):
    """What a server of the runner protocol serves. Each RPC has a Trio task and a context to
    itself while it runs, and is cancelled when the peer resets the stream or its connection is
    lost.

    Returning ends the RPC with OK, `GRPCStatus` with that status; anything else is logged and
    ends it with UNKNOWN and a text that tells nothing.
    """

    @abstractmethod
    async def engage(self, engagement: ServerEngagement) -> None:
        """Serve one call: receive its `TryCall`, send frames, and a `Finished` as the last one.
        Returns when nothing is left to send."""

    @abstractmethod
    async def status(self, payload: str | None) -> RunnerStatus:
        """``payload`` is ``None`` for ``Status``, the struct as JSON text for ``Status2``."""

    @abstractmethod
    async def configure(self, config: Mapping[str, str]) -> None:
        """Take an operator's settings, names and values as text. The client waits for the
        return."""

    @abstractmethod
    async def stream_logs(self, channel: LogChannel) -> None:
        """Send functions' output to one collector, until the collector half-closes, or there is
        nothing more to come."""

    async def watch_load(self) -> AsyncGenerator[LoadHint, None]:
        """How busy the runner is, now and after changes. The server closes it when the client
        leaves. The default is a service that can't tell."""
        await trio.lowlevel.checkpoint()
        raise GRPCStatus(UNIMPLEMENTED_STATUS, "this runner does not tell its load")
        yield
