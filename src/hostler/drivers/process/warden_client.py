"""Hostler's side of the warden: start it, send it messages, wait for its answers."""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio

from ...errors import ConfigError, HostlerError

log = structlog.get_logger(__name__)

_SCRIPT = Path(__file__).with_name("warden.py")
_START_LIMIT = 30.0
"""Seconds; it takes some ten milliseconds on an idle machine."""
_END_LIMIT = 5.0
"""Seconds that the warden has for killing everything before it is killed itself."""
_MAX_MESSAGE = 4096


class WardenLost(HostlerError):
    """The warden process has ended: no function process can be started or ended any more."""


@attrs.define(kw_only=True)
class ProcessOptions:
    """What will be executed; change it in place before ``create_container``.

    ``limits`` maps ``resource.RLIMIT_*`` to the soft and hard limit. They are set by hostler's
    user: a value above its own hard limit makes the start fail.
    """

    argv: list[str]
    env: dict[str, str]
    working_directory: str = ""
    limits: dict[int, int] = attrs.Factory(dict)

    def to_memfd(self, path: str) -> int:
        """The options, and the ``path`` of the program, as JSON in memory: too long for a packet,
        and of no name to clean up."""
        document = {
            "path": path,
            "argv": self.argv,
            "env": self.env,
            "cwd": self.working_directory,
            "limits": {str(kind): value for kind, value in self.limits.items()},
        }
        data = json.dumps(document).encode()
        memfd = os.memfd_create("hostler-launch")
        try:
            with open(memfd, "wb", closefd=False) as file:
                file.write(data)
        except OSError:
            os.close(memfd)
            raise
        return memfd


class FunctionProcess:
    """One process group under the warden.

    ``status`` is the root's wait status (see ``os.waitstatus_to_exitcode``), ``None`` before its
    end and after the loss of the warden.
    """

    def __init__(self, warden: WardenClient, name: str) -> None:
        self.pid: int | None = None
        self.status: int | None = None
        self.ended = trio.Event()
        self._warden = warden
        self._name = name
        self._errno: int | None = None
        self._spawned = trio.Event()
        self._answered = trio.Event()
        self._refused = False
        self._gone = trio.Event()

    async def spawn(self, path: str, options: ProcessOptions, output: Sequence[int] = ()) -> None:
        """Start the program at ``path``. ``output`` are two descriptors for stdout and stderr,
        which stay the caller's; without them output is dropped.

        Raises ``OSError`` if it can't be executed. After a cancellation it may or may not run:
        `kill` it.
        """
        memfd = options.to_memfd(path)
        try:
            await self._send("spawn", [memfd, *output])
        finally:
            os.close(memfd)
        await self._spawned.wait()
        self._warden.check()
        if self._errno is not None:
            raise OSError(self._errno, os.strerror(self._errno), path)

    async def stop(self) -> None:
        """Stop the group; returns when the root has stopped. Raises `HostlerError` if it ended."""
        await self._ask("stop")

    async def resume(self) -> None:
        """Let the group go on. Raises `HostlerError` if it ended."""
        await self._ask("continue")

    async def kill(self) -> None:
        """Kill the group and all descendants; returns when nothing is left of them.

        Idempotent. If the warden is lost nothing can be waited for, and this returns at once.
        """
        if not self._warden.lost:
            await self._send("kill")
            await self._gone.wait()
        self._warden.forget(self._name)

    async def _ask(self, op: str) -> None:
        self._answered = trio.Event()
        self._refused = False
        await self._send(op)
        await self._answered.wait()
        self._warden.check()
        if self._refused:
            raise HostlerError(f"process {self.pid} is not running")

    async def _send(self, op: str, fds: Sequence[int] = ()) -> None:
        await self._warden.send({"op": op, "id": self._name}, fds)

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take note of a message of the warden."""
        match message["what"]:
            case "spawned":
                self.pid = message["pid"]
                self._spawned.set()
            case "failed":
                self._errno = message["errno"]
                self._spawned.set()
            case "stopped" | "continued":
                self._answered.set()
            case "refused":
                self._refused = True
                self._answered.set()
            case "exited":
                self.status = message["status"]
                self.ended.set()
            case "gone":
                self._gone.set()

    def lose(self) -> None:
        """The warden is lost: wake everybody."""
        for event in (self._spawned, self._answered, self.ended, self._gone):
            event.set()


class WardenClient:
    """The connection to one warden process."""

    def __init__(self, process: trio.Process, end: trio.socket.SocketType) -> None:
        self.lost = False
        self._process = process
        self._socket = end
        self._sending = trio.Lock()
        self._wards: dict[str, FunctionProcess] = {}
        self._closing = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def wards(self) -> int:
        """Containers that were not killed yet."""
        return len(self._wards)

    def ward(self, name: str) -> FunctionProcess:
        """A handle for one container; nothing is started."""
        self.check()
        if name in self._wards:
            raise HostlerError(f"the container name {name!r} is in use")
        ward = self._wards[name] = FunctionProcess(self, name)
        return ward

    def forget(self, name: str) -> None:
        self._wards.pop(name, None)

    def check(self) -> None:
        if self.lost:
            raise WardenLost("the warden of the process driver has ended")

    async def send(self, message: Mapping[str, str], fds: Sequence[int] = ()) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        async with self._sending:
            self.check()
            try:
                await self._socket.sendmsg([json.dumps(message).encode()], ancillary)
            except OSError as error:
                raise WardenLost("the warden of the process driver has ended") from error

    async def wait_ready(self) -> None:
        """Wait for the first message. Raises `WardenLost`."""
        if json.loads(await self._receive() or b"{}").get("what") != "ready":
            raise WardenLost("the warden of the process driver did not start")

    async def run(self) -> None:
        """Listen until the warden ends or the connection is closed.

        Shielded: whoever is cancelled still has to close containers, and needs the answers.
        `aclose` ends it.
        """
        try:
            with trio.CancelScope(shield=True):
                while data := await self._receive():
                    message = json.loads(data)
                    ward = self._wards.get(message["id"])
                    if ward is not None:
                        ward.hear(message)
        finally:  # also if this fails: nobody would be answered any more
            self._lose()

    async def aclose(self) -> None:
        """End the warden and with it every process. Idempotent; the caller shields.

        After `_END_LIMIT` seconds the warden is killed, which kills the root processes.
        """
        self._closing = True
        self._socket.close()
        with trio.move_on_after(_END_LIMIT):
            await self._process.wait()
            return
        log.warning("warden was killed", pid=self.pid, seconds=_END_LIMIT)
        self._process.kill()
        await self._process.wait()

    async def _receive(self) -> bytes:
        try:
            return await self._socket.recv(_MAX_MESSAGE)
        except (OSError, trio.ClosedResourceError):
            return b""

    def _lose(self) -> None:
        self.lost = True
        if not self._closing:
            log.error("warden has ended", pid=self.pid, containers=len(self._wards))
        for ward in self._wards.values():
            ward.lose()


async def start_warden(nursery: trio.Nursery) -> WardenClient:
    """Start a warden whose messages are read by a task in ``nursery``.

    Raises `WardenLost` if it ends at once and ``trio.TooSlowError`` after `_START_LIMIT`.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        process = await _execute(theirs.fileno())
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    client = WardenClient(process, trio.socket.from_stdlib_socket(ours))
    try:
        with trio.fail_after(_START_LIMIT):
            await client.wait_ready()
    except BaseException:
        # Bounded: the warden is killed after a few seconds.
        with trio.CancelScope(shield=True):
            await client.aclose()
        raise
    nursery.start_soon(client.run)
    return client


async def _execute(fd: int) -> trio.Process:
    if not sys.executable:
        raise ConfigError("the process driver needs a Python interpreter; sys.executable is empty")
    # Its errors go to our stderr: they are bugs.
    return await trio.lowlevel.open_process(
        [sys.executable, "-I", "-S", str(_SCRIPT), str(fd), str(os.getpid())],
        pass_fds=[fd],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={"LC_ALL": "C.UTF-8"},
    )
