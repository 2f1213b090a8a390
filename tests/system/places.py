"""Nodes that are restarted at their addresses, and clients that balance over load balancers."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import attrs
import h11
import trio

from tests.cli._process import END_SECONDS, NodeProcess
from tests.support.ports import free_port

from .http import Exchange, posting
from .nodes import Runner


def free_address() -> str:
    """``host:port`` for a node that is to come back there."""
    return f"127.0.0.1:{free_port()}"


Opener = Callable[[], AbstractAsyncContextManager[NodeProcess | Runner]]


@attrs.define(eq=False)
class Place:
    """An address where one process runs after the other."""

    address: str
    open: Opener
    lives: list[NodeProcess | Runner] = attrs.Factory(list)
    """All that ever ran here; the last one is the present one."""

    @property
    def node(self) -> NodeProcess:
        last = self.lives[-1]
        return last.node if isinstance(last, Runner) else last

    def nodes(self) -> list[NodeProcess]:
        return [life.node if isinstance(life, Runner) else life for life in self.lives]

    async def occupy(self, *, task_status: trio.TaskStatus[None]) -> None:
        """One process to its end; started when it is ready."""
        async with self.open() as life:
            self.lives.append(life)
            task_status.started()
            await self.node.process.wait()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.node.process.send_signal(number)
        with trio.fail_after(END_SECONDS):
            code = await self.node.process.wait()
        assert code == (0 if number is signal.SIGTERM else -number), self.node.log[-4000:].decode()


SYNC, STREAM, DETACHED = "sync", "stream", "detached"
KINDS = (SYNC, SYNC, SYNC, STREAM, DETACHED)
LINES = b"line 1\nline 2\nline 3\n"


@attrs.frozen
class Failure:
    """A call that did not end well, by this machine's clock."""

    at: float
    kind: str
    what: str


@attrs.define(eq=False)
class Clients:
    """``count`` clients, each calling again as soon as it is answered, kind after kind.

    They do what a balancer before load balancers does: in turn, and on to the next if one can't be
    connected to or goes before it has the request. A request that was sent is never sent again.
    """

    addresses: list[str]
    count: int
    sleep: int = 50
    stop: trio.Event = attrs.Factory(trio.Event)
    done: Counter[str] = attrs.Factory(Counter)
    failures: list[Failure] = attrs.Factory(list)
    accepted: list[str] = attrs.Factory(list)
    """Ids of detached calls that were acknowledged."""
    passed_over: int = 0
    """Load balancers that were not there."""
    _next: int = 0

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self.count):
                nursery.start_soon(self._client, number)

    async def _client(self, number: int) -> None:
        while not self.stop.is_set():
            kind = KINDS[number % len(KINDS)]
            number += 1
            try:
                await self._call(kind)
            except (
                AssertionError,
                OSError,
                h11.RemoteProtocolError,
                trio.BrokenResourceError,
            ) as e:
                self.failures.append(Failure(time.time(), kind, repr(e)))
            else:
                self.done[kind] += 1

    async def _call(self, kind: str) -> None:
        do = "lines=3,every=20" if kind == STREAM else f"sleep={self.sleep}"
        headers = {"Fn_Invoke_Type": "detached"} if kind == DETACHED else {}
        first = self._next = self._next + 1
        for turn in range(2 * len(self.addresses)):
            address = self.addresses[(first + turn) % len(self.addresses)]
            sent = False
            try:
                async with posting(address, "/invoke/fnt", b"x", Fnt_Do=do, **headers) as exchange:
                    sent = True
                    await self._check(kind, exchange)
                return
            except (OSError, trio.BrokenResourceError):
                if sent:
                    raise
                self.passed_over += 1
        raise AssertionError("no load balancer is there")

    async def _check(self, kind: str, exchange: Exchange) -> None:
        reply = await exchange.reply()
        if kind == DETACHED:
            assert (reply.status, reply.body) == (202, b""), reply
            self.accepted.append(reply.headers["fn-call-id"])
        else:
            assert (reply.status, reply.body) == (200, LINES if kind == STREAM else b"x"), reply

    async def until_done(self, more: int) -> None:
        least = self.done.total() + more
        while self.done.total() < least:  # noqa: ASYNC110  (the condition is a number)
            await trio.sleep(0.02)
