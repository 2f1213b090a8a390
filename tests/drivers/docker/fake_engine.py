"""An engine that is broken where a test wants it to be, for what a real one does not do."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from .http_server import BREAK, Answer, Request, json_answer, serve_unix

API = "1.45"


def error(status: int, message: str) -> Callable[[Request], Awaitable[Answer]]:
    """Answers as the engine does when a call fails."""

    async def handler(request: Request) -> Answer:
        return json_answer({"message": message}, status)

    return handler


def value(result: object, status: int = 200) -> Callable[[Request], Awaitable[Answer]]:
    async def handler(request: Request) -> Answer:
        return json_answer(result, status)

    return handler


async def nothing(request: Request) -> Answer:
    return Answer(204)


class FakeEngine:
    """Answers by the first rule that matches ``METHOD /path`` (without the version prefix).

    A path ends with ``?NAME`` if only what has a label of that name is asked for, as by whoever
    looks for what dead runners have left. Rules can be changed at any time. What no rule matches
    is a failure of the test.
    """

    def __init__(self) -> None:
        self.version = "26.1.5"
        self.name = "Engine"
        self.api_version = API
        self.rules: list[tuple[str, Callable[[Request], Awaitable[Answer]]]] = []
        self.seen: list[str] = []
        self.requests: list[Request] = []
        self.under_way = 0
        self._changed = trio.Event()
        self._released = trio.Event()
        self._subscriptions: list[trio.MemorySendChannel[bytes]] = []
        self.on("GET /version", self._version)
        self.on("GET /_ping", value("OK"))
        # With such a runtime there is no pool of network name spaces if none is asked for.
        self.on("GET /info", value({"DefaultRuntime": "fake", "Architecture": "x86_64"}))
        self.on("GET /events", self._events)
        self.on(r"GET /containers/json(\?.*)?", value([]))
        # The tests may run in a container themselves.
        self.on("GET /containers/[0-9a-f]{64}/json", error(404, "No such container"))
        self.on("GET /containers/[^/]+/stats", value({}))

    async def hang(self, request: Request) -> Answer:
        """Never answers, until ``release``."""
        await self._released.wait()
        return BREAK

    def release(self) -> None:
        """Break all connections that hang."""
        self._released.set()

    def on(self, pattern: str, handler: Callable[[Request], Awaitable[Answer]]) -> None:
        """The newest rule wins."""
        self.rules.insert(0, (pattern, handler))

    async def _version(self, request: Request) -> Answer:
        components = [{"Name": self.name, "Version": self.version}]
        facts = {"Version": self.version, "ApiVersion": self.api_version}
        return json_answer({**facts, "Components": components})

    async def _events(self, request: Request) -> Answer:
        """A subscription on which the test sends lines with ``emit``."""
        send, receive = trio.open_memory_channel[bytes](math.inf)
        self._subscriptions.append(send)
        self._notify()
        return Answer(more=receive)

    async def wait_for_subscription(self) -> None:
        """Until somebody follows the events."""
        while not self._subscriptions:
            await self._changed.wait()

    def emit(self, event: object) -> None:
        """Send an event, or any bytes, on all subscriptions."""
        line = event if isinstance(event, bytes) else msgspec.json.encode(event) + b"\n"
        for subscription in self._subscriptions:
            with contextlib.suppress(trio.BrokenResourceError):
                subscription.send_nowait(line)

    def end_subscriptions(self) -> None:
        while self._subscriptions:
            self._subscriptions.pop().close()

    async def handle(self, request: Request) -> Answer:
        line = f"{request.method} {re.sub(r'^/v[0-9.]+', '', request.path)}"
        filters = msgspec.json.decode(request.query.get("filters", "{}"))
        for label in filters.get("label", ()):
            line += f"?{label.partition('=')[0]}"
        self.seen.append(line)
        self.requests.append(request)
        self._notify()
        self.under_way += 1
        try:
            for pattern, handler in self.rules:
                if re.fullmatch(pattern, line):
                    return await handler(request)
        finally:
            self.under_way -= 1
            self._notify()
        raise AssertionError(f"no rule for {line}")

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def count(self, pattern: str) -> int:
        return sum(1 for line in self.seen if re.fullmatch(pattern, line))

    async def wait_for(self, pattern: str, times: int = 1) -> None:
        """Until so many such requests have arrived."""
        while self.count(pattern) < times:
            await self._changed.wait()


@asynccontextmanager
async def open_fake_engine(folder: Path) -> AsyncIterator[tuple[FakeEngine, dict[str, str]]]:
    """An engine, and the environment that leads to it."""
    engine = FakeEngine()
    async with serve_unix(folder / "engine.sock", engine.handle) as host:
        yield engine, {"DOCKER_HOST": host}
