"""Bodies, writers, slots, containers and drivers that do what a test says."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import attrs
import trio

from hostler.abc import Body, CallRequest, ContainerTask, Cookie, Driver
from hostler.agent.resources import Resources, ResourceToken
from hostler.agent.slots import Launch, SlotQueue, SlotWaiter
from hostler.bodies import BytesBody
from hostler.calls import DiscardWriter, PendingCall
from hostler.drivers.sim import SimDriver
from hostler.errors import APIError
from hostler.models import Call

from .nodes import Recorder

BIG = bytes(range(256)) * 4096  # 1 MiB


class Pieces(trio.abc.ReceiveStream):
    """A body in pieces; then its end, an exception, or silence."""

    def __init__(self, pieces: list[bytes], end: Exception | None, *, silent: bool) -> None:
        self._pieces = list(pieces)
        self._end = end
        self._silent = silent

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._pieces:
            return self._pieces.pop(0)
        if self._end is not None:
            raise self._end
        if self._silent:
            await trio.sleep_forever()
        return b""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class StreamBody(Body):
    def __init__(self, *pieces: bytes, end: Exception | None = None, silent: bool = False) -> None:
        self._arguments = (list(pieces), end, silent)

    def open(self) -> trio.abc.ReceiveStream:
        pieces, end, silent = self._arguments
        return Pieces(pieces, end, silent=silent)


class Wrapping(Driver):
    """A driver of a service provider around the sim driver."""

    def __init__(self, inner: SimDriver) -> None:
        self.inner = inner
        self.record: list[str] = []
        self.fail = ""

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        async def before(model: Call, extensions: Mapping[str, str]) -> None:
            self.record.append(f"before {model.id} {extensions.get('x')}")
            if self.fail == "before":
                raise APIError(499, "before failed")

        async def after(model: Call, extensions: Mapping[str, str]) -> None:
            self.record.append(f"after {model.id}")
            if self.fail == "after":
                raise APIError(499, "after failed")

        async def close() -> None:
            self.record.append("close")

        task.before_call, task.after_call, task.close = before, after, close
        return await self.inner.create_cookie(task)

    def slot_key_extension(self, extensions: Mapping[str, str]) -> str:
        return extensions.get("shared", "")


class StuckWriter(Recorder):
    """Takes the head and the first piece, and then nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck = trio.Event()
        self.go_on = trio.Event()

    async def write(self, data: bytes | memoryview) -> None:
        self.stuck.set()
        await self.go_on.wait()
        await super().write(data)


@attrs.define(eq=False)
class Idle:
    token: ResourceToken
    key: Hashable = "other"
    evicted: bool = False

    @property
    def size(self) -> Resources:
        return self.token.size

    def evict(self) -> None:
        self.evicted = True
        self.token.leave()


@attrs.define(eq=False)
class IdleOnes:
    """The candidates of eviction, in the order in which they were added."""

    all: list[Idle] = attrs.Factory(list)

    def idle(self) -> list[Idle]:
        return [one for one in self.all if not one.evicted]

    def unprotected(self) -> list[Idle]:
        now = trio.current_time()
        return [one for one in self.idle() if one.token.protected_until <= now]


@attrs.define(eq=False)
class FakeSlot:
    number: int
    taken: int = 0
    reconsidered: int = 0

    def take(self, now: float) -> None:
        self.taken += 1

    def give_back(self, *, reusable: bool) -> None:
        self.taken -= 1

    def reconsider(self) -> None:
        self.reconsidered += 1


class FakeOwner:
    """Of slot queues: notes the launches that they ask for, and has room for all."""

    max_wait = math.inf

    def __init__(self) -> None:
        self.launches: list[Launch[FakeSlot]] = []
        self.time = math.nan
        """Not a number = that of Trio."""

    def now(self) -> float:
        return trio.current_time() if math.isnan(self.time) else self.time

    def launch(self, launch: Launch[FakeSlot], call: PendingCall) -> None:
        self.launches.append(launch)

    def has_room(self, call: PendingCall) -> bool:
        return True

    def waits_for_room(self, call: PendingCall) -> bool:
        return True

    def may_be_next(self, queue: SlotQueue[FakeSlot], waiter: SlotWaiter[FakeSlot]) -> bool:
        return False

    def is_contended(self) -> bool:
        return False


def pending() -> PendingCall:
    request = CallRequest(method="GET", url="/", headers={})
    return PendingCall(model=Call(), body=BytesBody(), writer=DiscardWriter(), request=request)
