"""Process driver, its cookies, containers and output."""

from __future__ import annotations

import errno
import os
import resource
import shlex
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

import attrs
import structlog
import trio

from ..._arguments import check
from ..._concurrency.nurseries import open_background
from ...abc import ContainerTask, Cookie, Driver, RunningContainer, RunResult
from ...errors import (
    APIError,
    ContainerExited,
    ContainerInitFailed,
    HostlerError,
    ImagePullFailed,
    ServerBusy,
)
from .warden_client import FunctionProcess, ProcessOptions, WardenClient, start_warden

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

    def statistics(self) -> ProcessStatistics:
        """What the driver has now. Synchronous."""
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
    check("open_process_driver", optional=True, config=(config, ProcessConfig))
    check("open_process_driver", optional=True, images=(images, Mapping))
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


@attrs.frozen(kw_only=True)
class ProcessConfig:
    """How functions run as local processes."""

    working_directory: str = attrs.Factory(os.getcwd)
    """Of all functions; relative programs are looked up from here."""
    inherited_env: tuple[str, ...] = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
    """Variables that a function gets from hostler's own environment, unless its configuration
    sets them. Nothing else of that environment, which may hold secrets, reaches a function."""
    allow_commands: bool = True
    """Whether an image that is not among the named ones is taken as a command line. Whoever may
    define a function can then run any program as hostler's user."""


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


class ProcessContainer(RunningContainer):
    """A started function process."""

    def __init__(self, ward: FunctionProcess) -> None:
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
        self._ward: FunctionProcess | None = None
        self._output: OutputPipes | None = None
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
        self._ward = self._driver.warden.ward(self._task.id)
        try:
            await self._spawn(self._ward, self._path)
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

    async def _spawn(self, ward: FunctionProcess, path: str) -> None:
        if self._task.on_output is None:
            await ward.spawn(path, self.options)
            return
        self._output = OutputPipes(self._driver.nursery, self._task.on_output)
        with self._output.write_ends() as descriptors:
            await ward.spawn(path, self.options, descriptors)

    def _running(self) -> FunctionProcess:
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


_READ_SIZE = 65536

_LAST_WORDS = 1.0
"""Seconds for reading what a killed function has left in its pipes. They end by themselves,
unless a process that has escaped (it has cleared its environment) still holds them."""


class OutputPipes:
    """Two pipes and the task that reads them, in ``nursery``. Raises ``OSError`` when made
    without free descriptors."""

    def __init__(self, nursery: trio.Nursery, sink: Callable[[bytes, bool], None]) -> None:
        self._sink: Callable[[bytes, bool], None] | None = sink
        self._scope = trio.CancelScope()
        self._over = trio.Event()
        out, out_writer = os.pipe2(os.O_CLOEXEC)
        try:
            err, err_writer = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(out)
            os.close(out_writer)
            raise
        self._writers = [out_writer, err_writer]
        nursery.start_soon(self._read_both, out, err)

    @contextmanager
    def write_ends(self) -> Iterator[list[int]]:
        """The ends for the function; they are closed afterwards."""
        try:
            yield self._writers
        finally:
            while self._writers:
                os.close(self._writers.pop())

    async def aclose(self) -> None:
        """Read what is left, for a moment, and close the pipes."""
        with trio.move_on_after(_LAST_WORDS):
            await self._over.wait()
        self._scope.cancel()
        await self._over.wait()

    async def _read_both(self, out: int, err: int) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read, out, False)
                    nursery.start_soon(self._read, err, True)
        finally:
            self._over.set()

    async def _read(self, descriptor: int, is_stderr: bool) -> None:
        async with trio.lowlevel.FdStream(descriptor) as stream:
            while chunk := await stream.receive_some(_READ_SIZE):
                self._pass_on(bytes(chunk), is_stderr)

    def _pass_on(self, chunk: bytes, is_stderr: bool) -> None:
        """A callback that fails must not stop the function, which would wait for a reader."""
        if self._sink is None:
            return
        try:
            self._sink(chunk, is_stderr)
        except Exception:
            self._sink = None
            log.exception("output callback failed")
