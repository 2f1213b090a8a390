"""A runner's end of a shared stream, and its reused tasks.

Tasks and cancel scopes serve one call after the other: to begin and end them for each call costs
more than all else that the wire does for a small call.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog
import trio
from h2.errors import ErrorCodes

from ..._concurrency.alarm import SharedTimer
from ...errors import ProtocolError
from ...protocol import (
    ClientFrame,
    Data,
    EngagementEnded,
    GRPCStatus,
    RunnerFrame,
    ServerEngagement,
    TryCall,
)
from ..codec import messages as codec
from ..codec.fast import decode_client
from ..codec.messages import data_parts
from ..connection import WireStream
from ..http2 import END_EARNS, SMALL, Flooded, ServerH2
from ..serving import (
    DEADLINE_PASSED,
    OK_STATUS,
    SHUTTING_DOWN,
    ServerContext,
    awaited_after,
    decode,
    outcome_of,
)
from ..status import RESPONSE_HEADERS, PeerFinished, StreamBroken, StreamEnd, too_large
from .envelope import OK_END, CallEnd, Envelope
from .stream import CALL_WINDOW, MAX_FRAME, MuxCall, MuxStream

log = structlog.get_logger(__name__)

LATE_SECONDS = 1.0
"""How long calls are refused one by one that a client has sent before it knew that the server ends.
It closes the connection before, once it has heard of the ends of all its calls."""


async def serve_shared(serving: ServerContext, stream: WireStream, peer: str, client: str) -> None:
    """Serve ``EngageMany`` until the client half-closes it and its calls have ended.

    Trio-flavoured. Raises `GRPCStatus` if the client breaks the protocol. The calls are children
    of this task: cancelling it cancels them, and their ends go out before this one's. If that is
    because the server ends, the end of the stream waits for the client: it would be taken for that
    of calls which are still on their way, and which another runner may have.
    """
    shared = _ServerStream(serving, stream, peer, client)
    try:
        async with trio.open_nursery() as timing:
            timing.start_soon(shared.deadlines.watch)
            async with trio.open_nursery() as nursery:
                workers = TaskPool(nursery)
                shared.open(workers)
                try:
                    await shared.half_closed.wait()
                finally:
                    shared.refusing = True  # the nursery may close any time
                workers.close()
            timing.cancel_scope.cancel()
    finally:
        if serving.stopping and not shared.over:
            # Shielded: it is what is left to do after the cancellation, and bounded.
            with trio.move_on_after(LATE_SECONDS, shield=True):
                await shared.half_closed.wait()
        shared.close()
    if shared.failure is not None:
        raise GRPCStatus(shared.failure.status, shared.failure.text)


class _ServerStream(MuxStream):
    client_side = False
    in_turn = 16
    """A millisecond's work or two, if each begins a call."""

    def __init__(self, serving: ServerContext, stream: WireStream, peer: str, client: str) -> None:
        super().__init__(stream, peer, max_unread=serving.shared_calls * CALL_WINDOW)
        self.half_closed = trio.Event()
        """By the client; or the stream is lost."""
        self.refusing = False
        """Nobody serves calls that come from now on."""
        self.failure: StreamEnd | None = None
        self.deadlines = SharedTimer(self.calls.values)
        self.client = client
        self._connection = connection = stream.connection
        assert isinstance(connection.h2, ServerH2)
        self._h2 = connection.h2
        self.serving = serving
        self._workers: TaskPool | None = None

    def open(self, workers: TaskPool) -> None:
        """From now on calls are served; those that came earlier are, too."""
        self._workers = workers
        self.stream.start_response(RESPONSE_HEADERS)
        self.on_input()

    def close(self) -> None:
        """Hand over what the calls had to say last."""
        while self.waits_turn:  # calls that have come must hear that they were not looked at
            self.read_on()
        if not self.over:
            self.flush_all()
            self.detach()

    def _deal_out(self, envelope: Envelope) -> None:
        if not envelope.frames and not envelope.reset:
            self._h2.note_useless()  # (credit, of which there is little for each answer)
        super()._deal_out(envelope)

    def note_late(self, envelope: Envelope) -> None:
        frames = envelope.frames
        if envelope.reset or (frames and sum(map(len, frames)) < SMALL):
            self._h2.note_useless()

    def _unknown(self, envelope: Envelope) -> None:
        if envelope.call <= self.last_number or envelope.reset:
            self.note_late(envelope)
            return
        self.last_number = envelope.call
        deadline = math.inf
        if envelope.timeout_ms:
            deadline = trio.current_time() + envelope.timeout_ms / 1000
        call = MuxCall(
            self, number=envelope.call, request_id=envelope.request_id, deadline=deadline
        )
        limit = self.serving.shared_calls
        if len(self.calls) >= 2 * limit:
            raise self.too_much(f"more than {limit} calls at once, and their refusals")
        self.calls[call.number] = call
        call.opened_at = trio.current_time()
        if self.refusing or self.serving.stopping or len(self.calls) > limit:
            call.reset(ErrorCodes.REFUSED_STREAM)
            call.leave()
            if len(self.calls) > limit:  # a client may know better
                self._connection.resets.spend()
            return
        call.deliver(envelope)
        self.deadlines.add(deadline)
        assert self._workers is not None
        self._workers.start_soon(partial(self._serve, call))

    def _ended(self) -> None:
        self.half_closed.set()
        for call in self.calls.values():
            call.end_received(CallEnd())

    def _check_response(self) -> None:
        """What a client sends is no response."""

    def fail(self, broken: StreamEnd) -> None:
        self.failure = self.failure or broken
        super().fail(broken)

    def _failed(self) -> None:
        self.half_closed.set()
        if self._workers is not None:
            self._workers.cancel()

    async def _serve(self, call: MuxCall, scope: trio.CancelScope) -> None:
        """One call, as `serve_stream` does it for a stream. Cancelled by ``scope``."""
        if call.broken:  # before its turn came
            self._note_reset(call)
            call.leave()
            return
        call.on_broken = scope.cancel
        if call.expired:
            scope.cancel()
        engagement = _MuxEngagement(self, call)
        status: tuple[int, str] | None = None
        try:
            status = await outcome_of(self.serving.service.engage(engagement), self.peer)
            if not call.covered:
                with contextlib.suppress(StreamBroken, PeerFinished):
                    await call.flush()
        except BaseException:  # a cancellation
            if call.expired and not call.broken:
                status = DEADLINE_PASSED
            raise
        finally:
            call.on_broken = None
            if call.broken:
                self._note_reset(call)
            elif status is None and not call.taken:
                call.reset(ErrorCodes.REFUSED_STREAM)
            else:
                call.finish(OK_END if status == OK_STATUS else CallEnd(*(status or SHUTTING_DOWN)))
                self._connection.note_answered()
                self._h2.earned += END_EARNS
            call.leave()

    def _note_reset(self, call: MuxCall) -> None:
        if self._connection.is_closing():
            return
        try:
            self._connection.note_reset(call.opened_at, begun=True)
        except Flooded as flood:
            self._connection.cut(str(flood))


class _MuxEngagement(ServerEngagement):
    named = True
    """Nobody else's load balancers share streams."""

    _awaited: type[ClientFrame] | None = TryCall

    def __init__(self, shared: _ServerStream, call: MuxCall) -> None:
        self._shared = shared
        self._call = call
        self.request_id = call.request_id
        self.peer = shared.peer
        self.client = shared.client
        self.deadline = call.deadline

    async def receive(self) -> ClientFrame | None:
        call, shared = self._call, self._shared
        try:
            if call.unread or self._awaited is None:
                message = await call.receive()
            else:
                message = await shared.serving.receive_soon(
                    call.receive, shared.stream.connection, self._awaited
                )
        except StreamBroken as error:
            raise EngagementEnded(str(error)) from error
        if message is None:
            return None
        frame = decode_client(message) or decode(codec.decode_client, message, self.peer)
        if frame is None:
            raise ProtocolError("the message holds neither try nor data")
        if self._awaited is not None:
            self._awaited = awaited_after(frame)
        return frame

    async def send(self, frame: RunnerFrame) -> None:
        await self.send_all((frame,))

    async def send_all(self, frames: Sequence[RunnerFrame], *, last: bool = False) -> None:
        parts: list[bytes] = []
        for frame in frames:
            if isinstance(frame, Data):
                parts += data_parts(frame)
            else:
                parts.append(codec.encode_runner(frame))
        _check_sizes(parts)
        if last:
            self._call.put(parts, flush=False)
            return
        try:
            await self._call.send(parts)
        except (StreamBroken, PeerFinished) as error:
            raise EngagementEnded(str(error)) from error


def _check_sizes(parts: list[bytes]) -> None:
    """What the peer would refuse on a stream of the call's own must not end all calls here."""
    for part in parts:
        if len(part) > MAX_FRAME:
            raise GRPCStatus(*too_large(len(part)))


MAX_IDLE = 64
"""Tasks that are kept for what comes next, some 3 KiB each."""

Job = Callable[[trio.CancelScope], Awaitable[None]]
"""Gets the scope that it runs in, to be cancelled by whoever ends it, but not any more once it has
returned: the next one may run there."""


class TaskPool:
    """Runs jobs in ``nursery`` as its own ``start_soon`` does, but in tasks that are done with
    others. Each has a copy of the context of whoever starts it, as a task of its own would have.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._idle: list[_Worker] = []
        self._closed = False

    def start_soon(self, job: Job) -> None:
        """Have ``job`` run. Synchronous. What it raises ends the nursery."""
        if self._idle:
            self._idle.pop().wake(job)
        else:
            self._nursery.start_soon(_Worker(self._idle, job).run, self)

    def close(self) -> None:
        """Let tasks end as soon as they have nothing to do, so that the nursery can. Jobs may still
        be started."""
        self._closed = True
        while self._idle:
            self._idle.pop().wake(None)

    def cancel(self) -> None:
        """Cancel all, and the nursery."""
        self._nursery.cancel_scope.cancel()

    def keeps_another(self) -> bool:
        """Whether a task with nothing to do is to wait for the next job."""
        return not self._closed and len(self._idle) < MAX_IDLE


class _Worker:
    def __init__(self, idle: list[_Worker], job: Job) -> None:
        self._idle = idle
        self._job: Job | None = job
        self._task: trio.lowlevel.Task

    async def run(self, workers: TaskPool) -> None:
        self._task = trio.lowlevel.current_task()
        while self._job is not None or workers.keeps_another():
            with trio.CancelScope() as scope:
                while not scope.cancel_called:
                    if self._job is None and not await self._next(workers):
                        return
                    await self._take()(scope)

    def _take(self) -> Job:
        assert self._job is not None
        job, self._job = self._job, None  # what is done must not be kept
        return job

    async def _next(self, workers: TaskPool) -> bool:
        """Wait for a job; whether there is one."""
        if workers.keeps_another():
            self._idle.append(self)
            await trio.lowlevel.wait_task_rescheduled(self._stop)
        return self._job is not None

    def wake(self, job: Job | None) -> None:
        self._job = job
        self._task.context = contextvars.copy_context()
        trio.lowlevel.reschedule(self._task)

    def _stop(self, _: object) -> trio.lowlevel.Abort:
        self._idle.remove(self)
        return trio.lowlevel.Abort.SUCCEEDED
