"""Runners and pools that a test scripts, on virtual time, and a writer that records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from hostler.abc import (
    Body,
    CallRequest,
    LoadListener,
    NotPlaced,
    Outcome,
    Placed,
    ResponseWriter,
    Runner,
    RunnerCall,
    RunnerPool,
)
from hostler.bodies import BytesBody
from hostler.calls import PendingCall
from hostler.errors import ServerBusy
from hostler.metrics import LBMetrics
from hostler.models import Call, CallType
from hostler.pool import CallNeed
from hostler.pool.dynamic import LoadBroadcast
from hostler.pool.health import HealthChange
from hostler.pool.waiting_room import CallQueue, WaitingRoom
from hostler.protocol import UNOBSERVED, AttemptObserver, Headers, RunnerStatus

Script = Callable[["FakeRunner", RunnerCall, AttemptObserver], Awaitable[Outcome]]


class RecordingWriter(ResponseWriter):
    def __init__(self) -> None:
        self.heads: list[tuple[int, Headers]] = []
        self.data = b""

    async def start(self, status: int, headers: Headers) -> None:
        await trio.lowlevel.checkpoint()
        self.heads.append((status, headers))

    async def write(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.data += bytes(data)


def make_call(
    call_id: str = "call1",
    *,
    fn_id: str = "fn1",
    kind: CallType = "sync",
    memory: int = 128,
    timeout: int = 30,
    body: Body | None = None,
    writer: ResponseWriter | None = None,
) -> PendingCall:
    return PendingCall(
        model=Call(
            id=call_id,
            fn_id=fn_id,
            image="image",
            type=kind,
            memory=memory,
            timeout=timeout,
            idle_timeout=30,
        ),
        body=body or BytesBody(),
        writer=writer or RecordingWriter(),
        request=CallRequest(method="POST", url="/", headers={}),
    )


def fresh_metrics() -> LBMetrics:
    return LBMetrics(CollectorRegistry())


class FakeRunner(Runner):
    """``slots`` calls at a time, each for ``seconds``; a full one says so after ``latency``.

    ``script`` replaces all of that.
    """

    def __init__(
        self,
        address: str = "fake:1",
        *,
        slots: int = 1,
        seconds: float = 1.0,
        latency: float = 0.001,
        script: Script | None = None,
    ) -> None:
        self._address = address
        self.slots = slots
        self.seconds = seconds
        self.latency = latency
        self.script = script
        self.attempts: Counter[str] = Counter()
        self.active = 0
        self.most_active = 0
        self.order: list[str] = []
        """Ids of the calls in the order in which they got a slot."""
        self.closed = 0

    @property
    def address(self) -> str:
        return self._address

    async def try_exec(self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED) -> Outcome:
        self.attempts[call.model.id] += 1
        if self.script is not None:
            return await self.script(self, call, observer)
        await trio.lowlevel.checkpoint()
        observer.committed()
        call.runner_address = self._address
        await trio.sleep(self.latency / 2)
        if self.active >= self.slots:
            await trio.sleep(self.latency / 2)
            return NotPlaced(ServerBusy())
        return await self.run(call)

    async def run(self, call: RunnerCall) -> Outcome:
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        self.order.append(call.model.id)
        try:
            await trio.sleep(self.seconds)
        finally:
            self.active -= 1
        return Placed()

    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        await trio.lowlevel.checkpoint()
        return RunnerStatus(active=self.active)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed += 1


class FakePool(RunnerPool):
    """Answers with ``answers`` in turn, then with the last of them for ever."""

    def __init__(self, *answers: Sequence[Runner] | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def runners(self, call: RunnerCall) -> Sequence[Runner]:
        await trio.lowlevel.checkpoint()
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def full(address: str = "full:1") -> FakeRunner:
    return FakeRunner(address, slots=0)


def make_runners(count: int = 4, slots: int = 1) -> list[FakeRunner]:
    return [FakeRunner(f"r{number}:1", slots=slots, seconds=0) for number in range(count)]


@contextmanager
def queue_of(waiting_room: WaitingRoom, key: Hashable) -> Iterator[CallQueue]:
    """The queue of calls that need ``key``, in use by one of them."""
    queue = waiting_room.use(CallNeed(key, memory=0, idle_seconds=30))
    try:
        yield queue
    finally:
        waiting_room.leave(queue)


class HealthChanges(list[HealthChange]):
    """Keeps the changed judgements that it hears of."""

    def note_health(self, change: HealthChange) -> None:
        self.append(change)


class TellingPool(FakePool):
    """A pool that hears its runners; a test speaks for them."""

    def __init__(self, runners: list[Runner]) -> None:
        super().__init__(runners)
        self.news = LoadBroadcast(self)

    def add_load_listener(self, listener: LoadListener) -> None:
        self.news.add(listener)
