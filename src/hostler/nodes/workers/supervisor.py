"""Starts workers, restarts them, drains them."""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import msgspec
import structlog
import trio

from ...errors import HostlerError
from ...front import address_of, open_listeners, open_shared_listeners, refuse_clients
from ..extensions import RunningNode
from ..lifetime import AT_ONCE, DRAIN, Node, NodeLifetime
from .peers import VARIABLE, Place, RunnerPart


class WorkerEnded(HostlerError):
    """A worker has ended before it was ready, or badly."""


@attrs.define(eq=False)
class Worker:
    """A process that `open_worker` has started."""

    number: int
    process: trio.Process
    _ready: int
    _orders: int
    _abort_seconds: float

    async def wait_ready(self) -> Told:
        """What it tells then. Raises `WorkerEnded`."""
        told = b""
        async with trio.lowlevel.FdStream(os.dup(self._ready)) as stream:
            while not told.endswith(b"\n"):
                if not (data := await stream.receive_some()):
                    code = await self.process.wait()
                    raise WorkerEnded(f"a worker has ended before it was ready, exit code {code}")
                told += data
        return msgspec.json.decode(told, type=dict[str, Any])

    def order(self, what: bytes) -> None:
        """Pass on `DRAIN` or `AT_ONCE`. One that has ended is past all orders."""
        try:
            os.write(self._orders, what)
        except BrokenPipeError:
            log.debug("worker has gone already", number=self.number)

    async def end(self) -> None:
        """End it at once, and by force if that takes it too long."""
        self.order(AT_ONCE)
        with trio.move_on_after(self._abort_seconds):
            await self.process.wait()
        if self.process.returncode is None:
            log.warning("worker is killed", number=self.number)
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def open_worker(
    number: int, count: int, listeners: tuple[int, ...], folder: str, crew: WorkerGroup
) -> AsyncIterator[Worker]:
    """Start this very command once more, as worker ``number``. Ended with the block, if it still
    runs then: at once, for it is to be told to drain before."""
    ready, tell_ready = os.pipe()
    orders, give_orders = os.pipe()
    place = Place(
        number=number,
        count=count,
        listeners=listeners,
        ready=tell_ready,
        orders=orders,
        folder=folder,
        part=crew.part(number),
    )
    try:
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, *sys.orig_argv[1:]],
                stdin=subprocess.DEVNULL,
                env={**os.environ, VARIABLE: place.text()},
                pass_fds=(*listeners, tell_ready, orders),
                start_new_session=True,  # or a terminal would signal it too
            )
        finally:
            os.close(tell_ready)
            os.close(orders)
        worker = Worker(number, process, ready, give_orders, crew.abort_seconds)
        try:
            yield worker
        finally:
            if process.returncode is None:
                with trio.CancelScope(shield=True):
                    await worker.end()
    finally:
        os.close(ready)
        os.close(give_orders)


Told = Mapping[str, Any]
"""The document with which a worker says that it is ready."""


class WorkerGroup(ABC):
    """One kind of node. Times are seconds."""

    node: str
    """Its name in the ready line."""
    first_alone: bool
    """Whether the others are started once the first is ready, which does what is done once."""
    drain_margin: float
    """Beyond the grace, for workers to close everything."""
    abort_seconds: float
    """For a worker to end that was told to do so at once; then it is killed."""

    @property
    @abstractmethod
    def binds(self) -> Mapping[str, str]:
        """The addresses on which all listen, by the options that name them."""

    @abstractmethod
    def part(self, number: int) -> RunnerPart | None:
        """What a worker that is about to start has of its own."""

    @abstractmethod
    def joined(self, number: int, told: Told) -> None:
        """It is ready, for the first time or again."""

    @abstractmethod
    def announcement(self, addresses: Sequence[str]) -> dict[str, object]:
        """What the node's ready line tells, once all have joined; ``addresses`` are those on which
        all listen."""


@attrs.frozen
class LBWorkers(WorkerGroup):
    """Load balancers on one port."""

    bind: str
    runners: Sequence[str]

    node = "lb"
    first_alone = False
    drain_margin = 20.0
    abort_seconds = 5.0

    @property
    def binds(self) -> Mapping[str, str]:
        return {"--bind": self.bind}

    def part(self, number: int) -> None:
        return None

    def joined(self, number: int, told: Told) -> None:
        pass

    def announcement(self, addresses: Sequence[str]) -> dict[str, object]:
        return {"http": list(addresses), "runners": list(self.runners)}


log = structlog.get_logger(__name__)

FIRST_PAUSE, MAX_PAUSE = 0.5, 30.0
"""Seconds before a worker that has ended is started again; twice as many each time that it ends
before it has been there for `MAX_PAUSE`. Clients that the kernel gives to it on a shared port wait
meanwhile."""


def workers_of(configured: int) -> int:
    """How many processes a node is for which so many are configured."""
    return configured or len(os.sched_getaffinity(0))


@attrs.frozen(kw_only=True, eq=False)
class Supervisor(Node):
    """Runs ``count`` worker processes, and has them drain.

    A worker that ends by itself is started again. Raises `WorkerEnded` if one does not become
    ready at first, or does not end well in the drain.
    """

    count: int
    crew: WorkerGroup
    _workers: dict[int, Worker] = attrs.field(factory=dict[int, Worker], init=False)
    _drained: trio.Event = attrs.field(factory=trio.Event, init=False)
    _codes: set[int] = attrs.field(factory=set[int], init=False)

    @asynccontextmanager
    async def open(self, life: NodeLifetime) -> AsyncIterator[RunningNode]:
        addresses = await self._addresses()
        with (
            tempfile.TemporaryDirectory(prefix="hostler.") as folder,
            open_shared_listeners(addresses, self.count) as sockets,
        ):
            async with trio.open_nursery() as nursery:
                keep = [
                    functools.partial(
                        nursery.start,
                        self._keep,
                        number,
                        tuple(each.fileno() for each in own),
                        folder,
                    )
                    for number, own in enumerate(sockets)
                ]
                if self.crew.first_alone:
                    await keep.pop(0)()
                async with trio.open_nursery() as starting:
                    for start in keep:
                        starting.start_soon(start)
                workers = [worker.process.pid for _, worker in sorted(self._workers.items())]
                told = self.crew.announcement(addresses)
                told = {**told, "workers": workers}
                yield RunningNode(kind=self.crew.node, told=told)
                life.shutdown.set()
                # Or clients would still be given to sockets that nobody looks at any more.
                shared = [each for own in sockets for each in own]
                for each in shared:
                    refuse_clients(each)
                for each in shared:
                    each.close()
                self._drain()
                nursery.cancel_scope.deadline = self.settings.grace.end() + self.crew.drain_margin
        if any(self._codes):
            raise WorkerEnded(f"a worker has ended badly, exit code {max(self._codes)}")
        if nursery.cancel_scope.cancelled_caught:
            raise WorkerEnded("a worker did not end in time")

    async def _addresses(self) -> list[str]:
        """Those on which all listen, as bound. Raises `OSError` if one is taken."""
        addresses: list[str] = []
        for option, bind in self.crew.binds.items():
            try:
                async with open_listeners(bind) as found:
                    addresses += [address_of(listener) for listener in found]
            except OSError as error:
                error.add_note(option)  # for who tells of it
                raise
        return addresses

    def _drain(self) -> None:
        self._drained.set()
        for worker in self._workers.values():
            worker.order(DRAIN)

    async def _keep(
        self,
        number: int,
        listeners: tuple[int, ...],
        folder: str,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Have worker ``number`` there, until the drain and its end."""
        pause, first = FIRST_PAUSE, True
        while not self._drained.is_set():
            began = trio.current_time()
            try:
                code = await self._run(number, listeners, folder, task_status if first else None)
            except (WorkerEnded, OSError) as error:
                if first:
                    raise
                log.debug("worker can't be started", number=number, reason=str(error))
                code = 0 if self._drained.is_set() else 1
            first = False
            if self._drained.is_set():
                self._codes.add(code)
                return
            if trio.current_time() - began > MAX_PAUSE:
                pause = FIRST_PAUSE
            log.error("worker has ended, it is started again", number=number, exit_code=code)
            with trio.move_on_after(pause * random.uniform(0.75, 1.25)):  # noqa: S311
                await self._drained.wait()
            pause = min(2 * pause, MAX_PAUSE)

    async def _run(
        self,
        number: int,
        listeners: tuple[int, ...],
        folder: str,
        task_status: trio.TaskStatus[None] | None,
    ) -> int:
        """One life of a worker; its exit code."""
        async with open_worker(number, self.count, listeners, folder, self.crew) as worker:
            self._workers[number] = worker
            if self._drained.is_set():
                worker.order(DRAIN)
            try:
                self.crew.joined(number, await worker.wait_ready())
                if task_status is not None:
                    task_status.started()
                else:
                    log.info("worker is back", number=number, pid=worker.process.pid)
                return await worker.process.wait()
            finally:
                del self._workers[number]
