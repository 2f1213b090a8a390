"""The process driver: which program an image stands for, and the lifetime of the warden."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import structlog
import trio

from hostler._concurrency.nurseries import open_background
from hostler.abc import ContainerTask, Driver
from hostler.errors import HostlerError

from ._config import ProcessConfig
from ._cookie import ProcessCookie, ProcessOptions, limits_of
from ._warden_client import WardenClient, start_warden

log = structlog.get_logger(__name__)

SOCKET_NAME = "lsnr.sock"


@attrs.frozen(kw_only=True)
class ProcessStatistics:
    """``cookies`` not closed yet, ``containers`` started and not removed yet."""

    cookies: int
    containers: int


class ProcessDriver(Driver):
    """Runs functions as local processes. See `open_process_driver`."""

    def __init__(
        self,
        warden: WardenClient,
        nursery: trio.Nursery,
        config: ProcessConfig,
        images: Mapping[str, Sequence[str]],
    ) -> None:
        self.warden = warden
        self.nursery = nursery
        self.cookies: set[ProcessCookie] = set()
        self._config = config
        self._images = images
        self._closed = False
        self._inherited = {
            name: os.environ[name] for name in config.inherited_env if name in os.environ
        }

    def __repr__(self) -> str:
        return f"<ProcessDriver warden={self.warden.pid} {self.statistics()}>"

    def statistics(self) -> ProcessStatistics:
        return ProcessStatistics(cookies=len(self.cookies), containers=self.warden.wards)

    async def create_cookie(self, task: ContainerTask) -> ProcessCookie:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise HostlerError("the process driver is closed")
        argv, trouble = self._program_of(task.image)
        cookie = ProcessCookie(self, task, trouble)
        cookie.options = ProcessOptions(
            argv=[*argv, *task.command.split()],
            env=self._env_of(task),
            working_directory=self._config.working_directory,
            limits=limits_of(task),
        )
        self.cookies.add(cookie)
        return cookie

    async def aclose(self) -> None:
        """End the warden and everything that still runs. Idempotent. Takes some seconds at
        most; cancelling it leaves the rest to the end of `open_process_driver`."""
        self._closed = True
        await self.warden.aclose()

    def _program_of(self, image: str) -> tuple[list[str], str]:
        """The image's argument list, or an empty one and why."""
        if image in self._images:
            return list(self._images[image]), ""
        if not self._config.allow_commands:
            return [], "no such image, and commands are not allowed"
        try:
            return shlex.split(image), "" if image.strip() else "it is empty"
        except ValueError as error:
            return [], f"not a command line: {error}"

    def _env_of(self, task: ContainerTask) -> dict[str, str]:
        env = {**self._inherited, "FN_FORMAT": "http-stream", **task.env}
        # The function sees the host's file system, not a mount of the directory.
        if task.iofs_agent_path:
            path = os.path.join(os.path.abspath(task.iofs_agent_path), SOCKET_NAME)
            env["FN_LISTENER"] = f"unix:{path}"
        return env


@asynccontextmanager
async def open_process_driver(
    config: ProcessConfig | None = None, *, images: Mapping[str, Sequence[str]] | None = None
) -> AsyncIterator[ProcessDriver]:
    """Open a driver that runs each function as a process of this machine.

    **It does not isolate.** A function sees the whole file system and network and can do
    whatever hostler's user can. For development, demonstrations and trusted code.

    ``images`` maps image names to argument lists. Any other image is a command line in shell
    syntax (no shell runs it) whose program must exist. A function speaks the same contract as
    in a container, except that ``FN_LISTENER`` names the real socket path.

    Each function leads a session of its own. ``freeze`` stops its process group; closing kills
    the group and every descendant, also daemonised ones, unless one has cleared its environment;
    such a process ends with the driver. If hostler dies in any way, all of them end.

    Enforced: open files, locked memory, and, per user rather than per function, pending signals
    and message queues. Not enforced: memory, CPUs, number of processes, file system and tmpfs
    sizes, network, registry token, syslog.

    Linux only (pidfd, memfd, child subreaper). Raises ``OSError`` or `HostlerError` if the
    helper process can't be started. Leaving the block ends what is left, within seconds.
    """
    async with open_background() as nursery:
        warden = await start_warden(nursery)
        driver = ProcessDriver(warden, nursery, config or ProcessConfig(), dict(images or {}))
        log.warning("process driver does not isolate functions from this machine")
        try:
            yield driver
        finally:
            # Bounded: the warden is killed after a few seconds.
            with trio.CancelScope(shield=True):
                await driver.aclose()
            nursery.cancel_scope.cancel()
