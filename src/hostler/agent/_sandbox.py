"""All that belongs to one container outside of the agent's memory, and how it is removed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import structlog
import trio

from hostler._concurrency.directory_watch import DirectoryWatch
from hostler.abc import ContainerTask, Cookie, RunningContainer
from hostler.agent.socket_directory import SocketDirectory, make_socket_directory
from hostler.call import Timings, stopwatch
from hostler.errors import HostlerError

from ._startup import Kit, create_and_run, pull, wait_ready
from .socket_directory import Channel

log = structlog.get_logger(__name__)

FREEZE_LIMIT = 5.0
"""Seconds that freezing or thawing may take (Fn's value)."""


class NoDirectory(HostlerError):
    """The place for sockets (FN_IOFS_PATH) is full, can only be read, or is gone: since the start,
    when it was tried out."""


class Sandbox:
    """A container with its socket directory and its connection. Used by one task."""

    def __init__(self, kit: Kit, task: ContainerTask) -> None:
        self.task = task
        self.channel: Channel | None = None
        self._kit = kit
        self._cookie: Cookie | None = None
        self._directory: SocketDirectory | None = None
        self._watch: DirectoryWatch | None = None
        self._watching = ExitStack()

    async def start(self, timings: Timings, needed: Callable[[], bool]) -> RunningContainer:
        """Do all up to the start of the container. Raises what the steps raise; see
        `create_and_run`."""
        with stopwatch(timings, "ctr_prep_ns"):
            directory = self._directory = self._make_directory()
            self.task.iofs_agent_path = directory.path
            self.task.iofs_docker_path = directory.docker_path
            # Before the start, or a quick function's socket would be missed.
            watch = self._kit.watcher.watch(directory.path)
            self._watch = self._watching.enter_context(watch)
            cookie = self._cookie = await self._kit.driver.create_cookie(self.task)
            to_be_pulled = await cookie.validate_image()
        if to_be_pulled:
            await pull(self._kit, cookie, timings)
        return await create_and_run(self._kit, cookie, timings, needed)

    def _make_directory(self) -> SocketDirectory:
        """Raises `NoDirectory`."""
        config = self._kit.config
        try:
            return make_socket_directory(config)
        except OSError as error:
            where = config.iofs_path or "the system's directory for temporary files"
            raise NoDirectory(f"no socket directory can be made in {where}: {error}") from error

    async def connect(self, timings: Timings) -> Channel:
        """Wait until the started function accepts connections. Raises as `wait_ready` does."""
        assert self._directory is not None
        assert self._watch is not None
        ready = await wait_ready(self._kit, self._directory, self._watch, timings)
        self._watching.close()
        self.channel = Channel(*ready, self._kit.config.max_hdr_response_size)
        return self.channel

    async def freeze(self) -> None:
        """Raises `trio.TooSlowError`, or the driver's trouble."""
        assert self._cookie is not None
        with trio.fail_after(FREEZE_LIMIT):
            await self._cookie.freeze()

    async def unfreeze(self) -> None:
        """Raises `trio.TooSlowError`, or the driver's trouble."""
        assert self._cookie is not None
        with trio.fail_after(FREEZE_LIMIT):
            await self._cookie.unfreeze()

    async def remove(
        self, *, removed: Callable[[], None], released: Callable[[], Awaitable[None]]
    ) -> None:
        """Remove everything, whatever there is of it. Troubles are logged; raises nothing but
        `trio.Cancelled`, and that after all is done, each step of which has a deadline.

        ``removed`` is called as soon as there is no container any more. ``released`` waits until
        no call uses what is left: the caller may still be taking what the function has sent, for
        as long as the call's time lasts.
        """
        self._watching.close()
        if self._cookie is not None:
            await self._step("remove container", self._cookie.aclose)
        removed()
        try:
            await released()
        finally:
            # Where this is cancelled, the calls were cancelled before.
            with self._kit.removals.step():
                await released()
            await self._clean_up()

    async def _clean_up(self) -> None:
        if self.channel is not None:
            self.channel.close()
        await self._step("close hook", self.task.close)
        if self._directory is not None:
            await self._step("remove socket directory", self._directory.remove)

    async def _step(self, name: str, action: Callable[[], Awaitable[None]]) -> None:
        removals = self._kit.removals
        with removals.step() as scope:
            try:
                await action()
            except Exception:
                # The other steps have to be done all the same.
                log.exception("removal failed", step=name, container_id=self.task.id)
        if scope.cancelled_caught and removals.over:
            removals.left.append(self.task.id)
        elif scope.cancelled_caught:
            log.error("removal takes too long", step=name, container_id=self.task.id)
