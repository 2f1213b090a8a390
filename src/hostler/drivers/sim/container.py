"""A simulated container: image script, one task, an HTTP server on its unix socket."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import attrs
import h11
import structlog
import trio

from ...abc import ContainerTask, RunningContainer, RunResult
from ...errors import ContainerExited, ContainerOutOfMemory
from ...protocol import Headers

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
        """Let nothing pass through its sockets until `unfreeze`. Synchronous and idempotent;
        handlers that run already go on until they next use their connection."""
        if self._thawed is None:
            self._thawed = trio.Event()

    def unfreeze(self) -> None:
        """Wake what waits in `thawed`. Synchronous and idempotent."""
        if self._thawed is not None:
            self._thawed.set()
            self._thawed = None

    def note_request(self) -> None:
        """Record an event ``request``, and count it in the driver's statistics. Synchronous."""
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


Stage = Literal["cookie", "validate", "pull", "create", "start", "freeze", "unfreeze", "remove"]
"""Where a fault can be injected; each is one method of the driver or the cookie."""

Fault = Exception | Callable[[ContainerTask], Awaitable[None]]
"""Raised, or called and awaited, at the end of a stage's delay. A function may hang or raise."""

Listening = Literal["linked", "direct", "never"]
"""How the function offers its socket: as a symlink once it is ready, as function kits should;
by binding ``lsnr.sock`` itself; or not at all."""


class SimExit(Exception):
    """Raised by a handler or a start hook: the container ends, in the middle of everything.

    ``out_of_memory`` makes it look like a kill by the kernel.
    """

    def __init__(self, code: int = 0, *, out_of_memory: bool = False) -> None:
        self.code = code
        self.out_of_memory = out_of_memory
        super().__init__(code)


class SimDisconnect(Exception):
    """Raised by a handler: the function closes this connection at once and goes on."""


@attrs.frozen(kw_only=True)
class SimResponse:
    """What a handler answers.

    ``body`` as bytes goes with a ``Content-Length``, an async iterable chunked, piece by piece;
    it may raise `SimExit` or `SimDisconnect` half-way.
    """

    body: bytes | AsyncIterable[bytes] = b""
    status: int = 200
    headers: Headers = ()


SimHandler = Callable[["SimRequest"], Awaitable[SimResponse]]
"""Runs one request. It may sleep (virtual time), hang, raise `SimExit` or `SimDisconnect`.
Anything else it raises ends the container with exit code 1 and is logged as an error."""

StartHook = Callable[["SimContainer"], Awaitable[None]]
"""Runs in a started container, after ``init_time`` and before its socket is offered."""


@attrs.define(kw_only=True)
class SimImage:
    """An image that the driver knows; all fields may be changed while it is in use.

    Times are seconds of ``trio.current_time``. ``on_machine`` says whether it needs no pull.
    """

    name: str
    handler: SimHandler
    on_machine: bool = True
    volumes: bool = False
    """Validation fails as it does for an image that declares volumes."""
    validate_time: float = 0
    pull_time: float = 0
    create_time: float = 0
    start_time: float = 0
    init_time: float = 0
    freeze_time: float = 0
    unfreeze_time: float = 0
    remove_time: float = 0
    listening: Listening = "linked"
    exit_on_start: int | None = None
    """Exit code of a container that ends after ``init_time``, before it offers its socket."""
    start_hook: StartHook | None = None
    faults: Mapping[Stage, Fault] = attrs.Factory(dict)


async def echo(request: SimRequest) -> SimResponse:
    """Answer with the request's body and content type."""
    content_type = request.header("content-type")
    headers = [("Content-Type", content_type)] if content_type else []
    return SimResponse(body=await request.read(), headers=headers)


_READ_SIZE = 65536


class SimRequest:
    """One request, as a handler sees it. The body is read from the socket only when asked for."""

    def __init__(self, connection: _Connection, head: h11.Request) -> None:
        self._connection = connection
        self._over = False
        self.method = head.method.decode()
        self.target = head.target.decode()
        self.headers: Headers = [(n.decode(), v.decode("latin-1")) for n, v in head.headers]

    @property
    def container(self) -> SimContainer:
        """The container that serves the request, which a handler may end with
        `SimContainer.exit`."""
        return self._connection.container

    def header(self, name: str) -> str:
        """The first value of ``name`` (any case), "" without one."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key == wanted), "")

    async def receive_some(self) -> bytes:
        """The next piece of the body, b"" at its end.

        Raises `SimDisconnect` if the caller goes away, which a handler need not catch.
        """
        if self._over:
            return b""
        event = await self._connection.next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self._over = True
        if not isinstance(event, h11.EndOfMessage):
            raise SimDisconnect
        return b""

    async def read(self) -> bytes:
        """The rest of the body."""
        pieces = []
        while piece := await self.receive_some():
            pieces.append(piece)
        return b"".join(pieces)

    async def send_raw(self, data: bytes) -> None:
        """Put bytes on the connection as they are, for answers that are not HTTP."""
        await self._connection.send_raw(data)


class _Connection:
    """h11 over one accepted stream; nothing passes while the container is frozen."""

    def __init__(self, stream: trio.abc.Stream, container: SimContainer) -> None:
        self.container = container
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER)

    async def next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                assert event is h11.PAUSED or isinstance(event, h11.Event)
                return event
            if self._h11.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            data = await self._stream.receive_some(_READ_SIZE)
            await self.container.thawed()
            self._h11.receive_data(bytes(data))

    async def send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            await self.send_raw(data)

    async def send_raw(self, data: bytes) -> None:
        await self.container.thawed()
        await self._stream.send_all(data)

    async def respond(self, response: SimResponse) -> None:
        headers = [(name.encode(), value.encode("latin-1")) for name, value in response.headers]
        body = response.body
        if isinstance(body, bytes):
            headers.append((b"content-length", b"%d" % len(body)))
        await self.send(h11.Response(status_code=response.status, headers=headers))
        if isinstance(body, bytes):
            await self.send(h11.Data(data=body))
        else:
            await self._stream_body(body)
        await self.send(h11.EndOfMessage())

    async def _stream_body(self, pieces: AsyncIterable[bytes]) -> None:
        iterator = aiter(pieces)
        try:
            async for piece in iterator:
                await self.send(h11.Data(data=piece))
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()

    async def serve(self) -> None:
        """Serve requests one after the other until either side closes."""
        while isinstance(head := await self.next_event(), h11.Request):
            request = SimRequest(self, head)
            self.container.note_request()
            await self.respond(await self.container.image.handler(request))
            while await request.receive_some():
                pass  # what the handler left unread, as Go's server does
            if self._h11.our_state is h11.MUST_CLOSE:
                return
            self._h11.start_next_cycle()


async def serve_stream(stream: trio.abc.Stream, container: SimContainer) -> None:
    """Serve one accepted stream and close it. Raises only what a handler raised."""
    async with stream:
        try:
            await _Connection(stream, container).serve()
        except (SimDisconnect, trio.BrokenResourceError, h11.RemoteProtocolError):
            return
