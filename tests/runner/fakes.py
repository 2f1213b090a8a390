"""An engagement that a test plays by hand, and an inner agent that does what it is told."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable

import trio

from hostler.abc import CallListener, RunnerAgent
from hostler.calls import CallOption, PendingCall, build_call
from hostler.protocol import (
    ClientFrame,
    Data,
    EngagementEnded,
    Finished,
    GRPCStatus,
    ResultStart,
    RunnerFrame,
    ServerEngagement,
    TryCall,
)
from hostler.runner.engagement import AcknowledgeDetached
from hostler.runner.service import PureRunnerService, RunnerOptions
from hostler.runner.status import StatusChecks

LONG_AGO = "2001-01-01T00:00:00.000Z"


class PlayedEngagement(ServerEngagement):
    """Frames in by `play`, frames out in `sent`. ``end`` half-closes."""

    def __init__(self, *frames: ClientFrame, end: bool = False, request_id: str = "") -> None:
        self._send, self._receive = trio.open_memory_channel[ClientFrame](math.inf)
        self.request_id = request_id
        self.peer = "test"
        self.sent: list[RunnerFrame] = []
        self.changed = trio.Event()
        self.breaks_with_ack = False
        """It is lost once an acknowledgement was handed over."""
        for frame in frames:
            self.play(frame)
        if end:
            self._send.close()

    def play(self, frame: ClientFrame) -> None:
        self._send.send_nowait(frame)

    def half_close(self) -> None:
        self._send.close()

    async def receive(self) -> ClientFrame | None:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return None

    async def send(self, frame: RunnerFrame) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(frame)
        self.changed.set()
        self.changed = trio.Event()
        if self.breaks_with_ack and isinstance(frame, ResultStart):
            raise EngagementEnded("the connection was lost")

    async def wait_sent(self, kind: type[RunnerFrame]) -> RunnerFrame:
        while True:
            for frame in self.sent:
                if isinstance(frame, kind):
                    return frame
            await self.changed.wait()

    def finished(self) -> Finished:
        """The last frame, which has to be the outcome, and the only one."""
        outcomes = [frame for frame in self.sent if isinstance(frame, Finished)]
        assert len(outcomes) == 1
        assert self.sent[-1] is outcomes[0]
        return outcomes[0]

    def body(self) -> bytes:
        return b"".join(frame.data for frame in self.sent if isinstance(frame, Data))

    def heads(self) -> list[ResultStart]:
        return [frame for frame in self.sent if isinstance(frame, ResultStart)]


Behaviour = Callable[[PendingCall], Awaitable[None]]


async def echo(call: PendingCall) -> None:
    stream = call.body.open()
    await call.writer.start(200, [("Content-Type", "text/plain")])
    while chunk := await stream.receive_some(7):
        await call.writer.write(bytes(chunk))


class ToldAgent(RunnerAgent):
    """Runs each call with ``behaviour``, after the listeners were told."""

    def __init__(self, behaviour: Behaviour = echo) -> None:
        self.behaviour = behaviour
        self.submitted: list[PendingCall] = []
        self.admission_closed = False
        self.options: list[CallOption] = []
        self._listeners: list[CallListener] = []

    def get_call(self, *options: CallOption) -> PendingCall:
        call = build_call([*options, *self.options])
        self.submitted.append(call)
        return call

    async def submit(self, call: PendingCall) -> None:
        for listener in self._listeners:
            await listener.before_call(call)
        await self.behaviour(call)

    def add_listener(self, listener: CallListener) -> None:
        self._listeners.append(listener)

    def close_admission(self) -> None:
        self.admission_closed = True


def a_try(*, slot: str = "", extensions: dict[str, str] | None = None, **model: object) -> TryCall:
    document = {
        "id": "call-1",
        "image": "hello",
        "type": "sync",
        "url": "http://h/invoke/f",
        "method": "POST",
        "created_at": LONG_AGO,
        "started_at": LONG_AGO,
        "completed_at": LONG_AGO,
        **model,
    }
    return TryCall(json.dumps(document), slot, extensions or {})


async def engage(
    engagement: PlayedEngagement,
    agent: ToldAgent | None = None,
    *,
    detached: bool = True,
    status_image: str = "",
) -> PureRunnerService:
    """Serve one engagement to its end and return the service, for its counts."""
    inner = agent or ToldAgent()
    inner.add_listener(AcknowledgeDetached())
    async with trio.open_nursery() as nursery:
        options = RunnerOptions(detached=detached, checks=StatusChecks(image=status_image))
        service = PureRunnerService(inner, options, nursery)
        broken: GRPCStatus | None = None
        try:
            await service.engage(engagement)
        except GRPCStatus as status:  # would leave the nursery inside a group
            broken = status
    if broken is not None:
        raise broken
    return service
