"""A simulated container: one Trio task that serves a real unix socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
import trio

from hostler.abc import ContainerTask, RunningContainer, RunResult
from hostler.errors import ContainerExited, ContainerOutOfMemory

from ._http import serve_stream
from ._image import SimExit, SimImage

log = structlog.get_logger(__name__)

SOCKET_NAME = "lsnr.sock"
_BOUND_NAME = "sim.sock"
_KILLED = 137


class SimContainer(RunningContainer):
    """One started container, from ``run`` to its end.

    ``env`` is what the function sees. Tests may end it at any time with `exit`.
    """

    def __init__(
        self,
        task: ContainerTask,
        image: SimImage,
        env: dict[str, str],
        note: Callable[[str, str], None],
    ) -> None:
        self.id = task.id
        self.task = task
        self.image = image
        self.env = env
        self.connections = 0
        self._note = note
        self._scope = trio.CancelScope()
        self._thawed: trio.Event | None = None
        self._ended = trio.Event()
        self._exit = SimExit(_KILLED)

    def __repr__(self) -> str:
        return f"<SimContainer {self.id} {self.image.name} {self.state}>"

    @property
    def state(self) -> str:
        """``running``, ``frozen`` or ``ended``."""
        if self._ended.is_set():
            return "ended"
        return "frozen" if self._thawed is not None else "running"

    def output(self, data: bytes, *, stderr: bool = False) -> None:
        """Let the function print ``data``."""
        if self.task.on_output is not None:
            self.task.on_output(data, stderr)

    def exit(self, code: int = 0, *, out_of_memory: bool = False) -> None:
        """End the container now; all its connections break. No effect after its end."""
        self._end(SimExit(code, out_of_memory=out_of_memory))

    def kill(self) -> None:
        """End the container as a forced removal does."""
        self._end(SimExit(_KILLED))

    async def wait(self) -> RunResult:
        await self._ended.wait()
        return _result(self._exit)

    async def thawed(self) -> None:
        """Wait while the container is frozen."""
        while self._thawed is not None:
            await self._thawed.wait()

    def freeze(self) -> None:
        if self._thawed is None:
            self._thawed = trio.Event()

    def unfreeze(self) -> None:
        if self._thawed is not None:
            self._thawed.set()
            self._thawed = None

    def note_request(self) -> None:
        self._note("request", self.id)

    async def main(self) -> None:
        """The container's task. Never raises, except to pass on its driver's cancellation."""
        try:
            with self._scope:
                await self._live()
        finally:
            self.unfreeze()
            self._note("exited", self.id)
            self._ended.set()

    def _end(self, why: SimExit) -> None:
        if not self._scope.cancel_called and not self._ended.is_set():
            self._exit = why
            self._scope.cancel()

    async def _live(self) -> None:
        image = self.image
        with self._exits():
            await trio.sleep(image.init_time)
            if image.start_hook is not None:
                await image.start_hook(self)
            await self.thawed()
            if image.exit_on_start is not None:
                raise SimExit(image.exit_on_start)
            if image.listening == "never":
                await trio.sleep_forever()
            await self._serve()

    async def _serve(self) -> None:
        with _bind(self.task.iofs_agent_path, linked=self.image.listening == "linked") as bound:
            self._note("ready", self.id)
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
            async with trio.open_nursery() as nursery:
                while True:
                    stream = await listener.accept()
                    nursery.start_soon(self._connection, stream)

    async def _connection(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        try:
            with self._exits():
                await self.thawed()
                await serve_stream(stream, self)
        finally:
            self.connections -= 1

    @contextmanager
    def _exits(self) -> Iterator[None]:
        """Turn what the function raises into the end of the container."""
        try:
            yield
        except SimExit as why:
            self._end(why)
        except Exception:
            log.exception("simulated function raised", image=self.image.name, container_id=self.id)
            self._end(SimExit(1))


def _bind(folder: str, *, linked: bool) -> socket.socket:
    """Listen in ``folder``, and only then show ``lsnr.sock``, as function kits should.

    Synchronous on purpose: a worker thread would let the autojump clock run on meanwhile.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        name = _BOUND_NAME if linked else SOCKET_NAME
        path = os.path.join(folder, name)
        listener.bind(path)
        os.chmod(path, 0o666)  # noqa: S103  (the agent may be another user)
        listener.listen(128)
        if linked:
            os.symlink(name, os.path.join(folder, SOCKET_NAME))
    except BaseException:
        listener.close()
        raise
    return listener


def _result(why: SimExit) -> RunResult:
    if why.out_of_memory:
        return RunResult("killed", why.code, ContainerOutOfMemory())
    if why.code:
        return RunResult("error", why.code, ContainerExited(why.code))
    return RunResult("success")
