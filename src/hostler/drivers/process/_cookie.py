"""One function process from its options to its end."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from typing import TYPE_CHECKING

import attrs
import structlog
import trio

from hostler.abc import ContainerTask, Cookie, RunningContainer, RunResult
from hostler.errors import (
    APIError,
    ContainerExited,
    ContainerInitFailed,
    HostlerError,
    ImagePullFailed,
    ServerBusy,
)

from ._output import Output
from ._warden_client import Launch, Ward

if TYPE_CHECKING:
    from ._driver import ProcessDriver

log = structlog.get_logger(__name__)

_OUR_FAULT = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""The machine has no room for another process now; anything else is wrong with the program."""

_KNOWN_RLIMITS = {
    "open_files": resource.RLIMIT_NOFILE,
    "locked_memory": resource.RLIMIT_MEMLOCK,
    "pending_signals": resource.RLIMIT_SIGPENDING,
    "message_queue": resource.RLIMIT_MSGQUEUE,
}
"""Fields of the task that have a counterpart in setrlimit(2). ``pids`` has none: RLIMIT_NPROC
counts all processes of the user, not those of one function."""


@attrs.define(kw_only=True)
class ProcessOptions:
    """What will be executed; change it in place before ``create_container``.

    ``limits`` maps ``resource.RLIMIT_*`` to the soft and hard limit. They are set by hostler's
    user: a value above its own hard limit makes the start fail.
    """

    argv: list[str]
    env: dict[str, str]
    working_directory: str
    limits: dict[int, int] = attrs.Factory(dict)


class ProcessContainer(RunningContainer):
    """A started function process."""

    def __init__(self, ward: Ward) -> None:
        self._ward = ward

    @property
    def pid(self) -> int:
        """Of the root process, which is also the number of its group and session."""
        assert self._ward.pid is not None
        return self._ward.pid

    async def wait(self) -> RunResult:
        await self._ward.ended.wait()
        if self._ward.status is None:
            return RunResult("error", error=APIError())  # nobody knows any more
        code = os.waitstatus_to_exitcode(self._ward.status)
        if code < 0:
            code = 128 - code  # a signal, as shells and container engines report it
        if code == 0:
            return RunResult("success")
        return RunResult("error", code, ContainerExited(code))


class ProcessCookie(Cookie):
    """See `open_process_driver`. "Pulling" an image only checks again whether the program is
    there, and creating a container starts nothing yet."""

    options: ProcessOptions

    def __init__(self, driver: ProcessDriver, task: ContainerTask, trouble: str) -> None:
        self._driver = driver
        self._task = task
        self._trouble = trouble
        self._path: str | None = None
        self._created = False
        self._ward: Ward | None = None
        self._output: Output | None = None
        self._closed = False

    async def validate_image(self) -> bool:
        await trio.lowlevel.checkpoint()
        self._path = self._find()
        return self._path is None

    async def pull_image(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._find() is None:
            trouble = self._trouble or f"no such program: {self.options.argv[0]}"
            raise ImagePullFailed(404, f"Failed to pull image '{self._task.image}': {trouble}")

    async def create_container(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._path is None:
            raise HostlerError(f"image {self._task.image!r} was not validated")
        self._path = self._find()
        if self._path is None:
            raise ServerBusy
        self._created = True

    async def run(self) -> RunningContainer:
        if not self._created or self._path is None or self._ward is not None:
            raise HostlerError(f"container {self._task.id} can't be started in this state")
        launch = Launch(
            path=self._path,
            argv=self.options.argv,
            env=self.options.env,
            working_directory=self.options.working_directory,
            limits=self.options.limits,
        )
        self._ward = self._driver.warden.ward(self._task.id)
        try:
            await self._spawn(self._ward, launch)
        except OSError as error:
            log.warning("program can't be executed", program=self._path, error=str(error))
            if error.errno in _OUR_FAULT:
                raise ServerBusy from error
            reason = f"its program can't be executed: {error.strerror}"
            raise ContainerInitFailed.because(reason) from error
        return ProcessContainer(self._ward)

    async def freeze(self) -> None:
        """Stop every process of the group (SIGSTOP). Processes that have left it go on."""
        await self._running().stop()

    async def unfreeze(self) -> None:
        await self._running().resume()

    async def aclose(self) -> None:
        """Kill the process group and all descendants and reap them."""
        await trio.lowlevel.checkpoint()
        if self._closed:
            return
        if self._ward is not None:
            await self._ward.kill()
        if self._output is not None:
            await self._output.aclose()
        self._closed = True
        self._driver.cookies.discard(self)

    async def _spawn(self, ward: Ward, launch: Launch) -> None:
        if self._task.on_output is None:
            await ward.spawn(launch)
            return
        self._output = Output(self._driver.nursery, self._task.on_output)
        with self._output.write_ends() as descriptors:
            await ward.spawn(launch, descriptors)

    def _running(self) -> Ward:
        if self._ward is None or self._ward.ended.is_set():
            raise HostlerError(f"container {self._task.id} is not running")
        return self._ward

    def _find(self) -> str | None:
        """The program's absolute path, ``None`` if there is no such executable file."""
        if not self.options.argv:
            return None
        program = self.options.argv[0]
        if os.path.dirname(program):
            program = os.path.join(self.options.working_directory, program)
        return shutil.which(program, path=self.options.env.get("PATH", os.defpath))


def limits_of(task: ContainerTask) -> dict[int, int]:
    """The task's limits, none above hostler's own hard limit, which a process can't exceed."""
    limits = {}
    for field, kind in _KNOWN_RLIMITS.items():
        value: int | None = getattr(task, field)
        if value is not None:
            _, hard = resource.getrlimit(kind)
            ceiling = 2**63 - 1 if hard == resource.RLIM_INFINITY else hard
            limits[kind] = min(value, ceiling)
    return limits
