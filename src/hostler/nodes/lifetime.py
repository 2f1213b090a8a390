"""Process lifetime of a node: shutdown, readiness, the announcement."""

from __future__ import annotations

import gc
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import msgspec
import structlog
import trio
from prometheus_client import REGISTRY, CollectorRegistry, Metric

from ..metrics import FrontMetrics
from .extensions import Extensions, RunningNode
from .settings import Settings

log = structlog.get_logger(__name__)

DRAIN, AT_ONCE = b"d", b"a"
"""Orders of a supervisor to a worker, over a pipe; when the pipe ends, so has the supervisor, and
the worker drains. A worker's signals only drain it: it may get one of its own beside the order."""


class NodeRegistry(CollectorRegistry):
    """The metrics of one node, followed by those of its process, which may have several nodes."""

    def collect(self) -> Iterator[Metric]:
        yield from super().collect()
        yield from REGISTRY.collect()


@attrs.define(eq=False)
class NodeLifetime:
    """What a node needs to know about its process."""

    ready_fd: int | None = None
    shutdown: trio.Event = attrs.Factory(trio.Event)
    """Set by the first signal: drain."""
    alone: bool = False
    """No other code runs in the process: the tasks and sockets that a drain leaves are its own."""
    registry: CollectorRegistry = attrs.Factory(NodeRegistry)
    """The metrics that the node serves."""
    check: Callable[[], None] = lambda: None
    """Raises an `APIError` while the node, which runs, can't serve calls."""
    _announced: bool = False
    _http: FrontMetrics | None = None

    @property
    def http_metrics(self) -> FrontMetrics:
        """Of all requests to the node, for calls and for its API."""
        if self._http is None:
            self._http = FrontMetrics(self.registry)
        return self._http

    def is_ready(self) -> bool:
        """Raises an `APIError` that says why the node is not ready, if more than a start or a drain
        is the reason."""
        if not self._announced or self.shutdown.is_set():
            return False
        self.check()
        return True

    @asynccontextmanager
    async def announced(self, node: Node) -> AsyncIterator[RunningNode]:
        """``node``, open and announced."""
        async with node.open(self) as running:
            self.announce(running.line)
            yield running

    def announce(self, line: ReadyLine) -> None:
        """The node takes calls: one log line, and one JSON line to the file descriptor."""
        self._announced = True
        log.info("ready", **line)
        if self.ready_fd is not None:
            os.write(self.ready_fd, msgspec.json.encode(line) + b"\n")
            os.close(self.ready_fd)
            self.ready_fd = None


@attrs.frozen(kw_only=True)
class Node(ABC):
    """One kind of node, with its settings."""

    settings: Settings
    extensions: Extensions = attrs.Factory(Extensions)
    """As from `load_extensions`."""

    @abstractmethod
    def open(self, life: NodeLifetime) -> AbstractAsyncContextManager[RunningNode]:
        """Serve while the block lasts, and drain at its end. A block that is left by an exception
        or a cancellation is not drained."""


ReadyLine = Mapping[str, object]
"""See `RunningNode.line`."""


YOUNG = 20_000
"""Objects that may be made before the young ones are looked at. A call leaves few cycles behind,
Python's own number (700) looks after every second call."""


def settle_collector() -> None:
    """Take what exists now, modules and configuration, out of all later collections.

    A full collection of a fresh node takes tens of milliseconds, in which no call goes on, and
    finds nothing. To be called once the node is ready.
    """
    gc.collect()
    gc.freeze()
    _, middle, old = gc.get_threshold()
    gc.set_threshold(YOUNG, middle, old)
