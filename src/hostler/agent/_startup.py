"""From nothing to a container whose function accepts connections."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import structlog
import trio

from hostler._concurrency.directory_watch import DirectoryWatch, DirectoryWatcher
from hostler.abc import Cookie, Driver, KeepAlive, OutputSink, RunningContainer
from hostler.agent.socket_directory import SOCKET_NAME, BadSocket, FunctionSocket, SocketDirectory
from hostler.call import Timings, stopwatch
from hostler.config import AgentConfig
from hostler.errors import (
    ContainerInitFailed,
    ContainerInitTimeout,
    ImagePullTimeout,
    ServerBusy,
)

from ._freezing import Freezer

log = structlog.get_logger(__name__)

_FIRST_RETRY = 0.001
_LAST_RETRY = 0.05
"""Seconds between attempts to connect to a socket that exists but does not listen yet."""


REMOVE_LIMIT = 30.0
"""Seconds that each step of a removal may take; one that takes longer is reported and left."""


class Removals:
    """The time that the removals of one agent have."""

    def __init__(self) -> None:
        self._until = math.inf
        self._steps: set[trio.CancelScope] = set()
        self.left: list[str] = []
        """Containers with steps that were given up at the end of all time."""

    def __repr__(self) -> str:
        return f"<Removals until={self._until:g} steps={len(self._steps)}>"

    @property
    def over(self) -> bool:
        """There is no time any more."""
        return trio.current_time() >= self._until

    def end_at(self, until: float) -> None:
        """All of them, also those under way, have to be over by then."""
        self._until = until
        for step in self._steps:
            step.deadline = min(step.deadline, until)

    @contextmanager
    def step(self) -> Iterator[trio.CancelScope]:
        """The block is a step of one: it is shielded, and has its time."""
        until = min(trio.current_time() + REMOVE_LIMIT, self._until)
        scope = trio.CancelScope(shield=True, deadline=until)
        self._steps.add(scope)
        try:
            with scope:
                yield scope
        finally:
            self._steps.discard(scope)


@attrs.frozen(kw_only=True)
class Kit:
    """What all containers of an agent share."""

    driver: Driver
    config: AgentConfig
    watcher: DirectoryWatcher
    launch_slots: trio.CapacityLimiter
    """Bounds how many containers are created and started at a time."""
    freezer: Freezer
    keep_alive: KeepAlive
    removals: Removals = attrs.Factory(Removals)
    output: OutputSink | None = None
    """Gets what functions print."""
    keep_logs: bool = False
    """Whether each call gets what was printed for it."""
    debug_logs: bool = False
    """Whether the node's log gets it."""


async def pull(kit: Kit, cookie: Cookie, timings: Timings) -> None:
    """Fetch the image. Raises what the driver raises; `ImagePullTimeout`; and `ServerBusy` if
    the image has vanished again at once, so that the call may be tried elsewhere."""
    limit = _seconds(kit.config.hot_pull_timeout_msecs)
    with stopwatch(timings, "image_pull_wait_ns"), trio.move_on_after(limit) as scope:
        await cookie.pull_image()
    if scope.cancelled_caught:
        raise ImagePullTimeout
    if await cookie.validate_image():
        raise ServerBusy


class NotNeeded(Exception):
    """When the turn of a launch has come, nobody needs its container any more."""


async def create_and_run(
    kit: Kit, cookie: Cookie, timings: Timings, needed: Callable[[], bool]
) -> RunningContainer:
    """Create and start the container, when it is its turn. Raises what the driver raises, and
    `NotNeeded` if it is not ``needed`` then."""
    with kit.freezer.launches.disturbed():
        async with kit.launch_slots:
            if not needed():
                raise NotNeeded
            with stopwatch(timings, "ctr_create_ns"):
                await cookie.create_container()
                return await cookie.run()


async def wait_ready(
    kit: Kit, directory: SocketDirectory, watch: DirectoryWatch, timings: Timings
) -> tuple[FunctionSocket, socket.socket]:
    """Wait until the function accepts a connection, and keep that connection for its first call.

    Raises `ContainerInitTimeout`, and `ContainerInitFailed` for a bad socket.
    """
    limit = _seconds(kit.config.hot_start_timeout_msecs)
    with stopwatch(timings, "init_start_ns"), trio.move_on_after(limit):
        while not directory.offered():
            await watch.wait_changed()
        try:
            function_socket = directory.open_socket()
        except BadSocket as error:
            raise ContainerInitFailed.because(str(error)) from error
        try:
            return function_socket, await _connect(function_socket, watch)
        except BaseException:
            function_socket.close()
            raise
    raise ContainerInitTimeout


async def _connect(function_socket: FunctionSocket, watch: DirectoryWatch) -> socket.socket:
    """Connect, however long the function takes until it listens.

    A function that binds ``lsnr.sock`` directly shows it before it listens and before everybody
    may use it. The change of the mode is an event, but nothing tells when a socket begins to
    listen, so here, and only here, one has to try again.
    """
    delay = _FIRST_RETRY
    while True:
        try:
            return function_socket.connect()
        except (ConnectionRefusedError, PermissionError, BlockingIOError):
            with trio.move_on_after(delay):
                await watch.wait_changed()
            delay = min(2 * delay, _LAST_RETRY)
        except OSError as error:
            reason = f"can't connect to {SOCKET_NAME}: {error.strerror}"
            raise ContainerInitFailed.because(reason) from error


def _seconds(msecs: float) -> float:
    return msecs / 1000 if msecs < math.inf else math.inf
